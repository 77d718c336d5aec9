//! The closed sets that stand in labels. A value that could come from a message, an error text or
//! a peer has no business in a label: every new value would be a new time series.

/// A closed set of values of one label.
pub trait Label: Copy + Eq + 'static {
    /// Every value, each at the index that [`Label::index`] gives.
    const ALL: &'static [Self];

    /// The text in the label.
    fn label(self) -> &'static str;

    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    (
        $(#[$doc:meta])*
        $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal, )* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
        pub enum $name {
            $( $(#[$variant_doc])* #[serde(rename = $text)] $variant, )*
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

labels! {
    /// Why messages will not reach the sink.
    LostReason {
        /// Retention truncated them before they were read.
        Retention = "retention",
        /// Their chunk's checksum does not match its data.
        Crc = "crc",
        /// Their chunk or message is not well-formed.
        Undecodable = "undecodable",
        /// They are larger or nested deeper than the limits allow.
        OverLimit = "over_limit",
        /// They do not fit the columns that the sink is to fill.
        Misfit = "misfit",
        /// The sink does not take them.
        Refused = "refused",
        /// The stream was re-created or rewritten, and its former messages went with it; or those of the
        /// new one were passed over by `on_offset_lost = "next"`.
        Recreated = "recreated",
    }
}

labels! {
    /// Why messages are among the dead letters.
    DeadReason {
        /// They are not well-formed.
        Undecodable = "undecodable",
        /// They are larger or nested deeper than the limits allow.
        OverLimit = "over_limit",
        /// They do not fit the columns that the sink is to fill.
        Misfit = "misfit",
        /// The sink does not take them.
        Refused = "refused",
    }
}

labels! {
    /// What became of an offset that was sent to be stored.
    StoreResult {
        /// The broker, asked, answered with the same offset.
        Stored = "stored",
        /// It could not be sent, or the broker could not be asked.
        Failed = "failed",
        /// It was sent, and the broker, asked, answered with another one.
        NotConfirmed = "not_confirmed",
    }
}

labels! {
    /// What a consumer is doing.
    State {
        /// Opens its sink and finds its position.
        Starting = "starting",
        /// Looks for a broker that holds its stream, and subscribes.
        Connecting = "connecting",
        /// Reads and writes.
        Running = "running",
        /// Connected, but its sink fails and is retried, or has been silent for too long.
        Degraded = "degraded",
        /// Takes nothing new; writes and stores what it has.
        Draining = "draining",
        /// Failed, and waits to be started again.
        Backoff = "backoff",
        /// Ended, and a person must act before it runs again.
        Halted = "halted",
        /// Ended in good order.
        Stopped = "stopped",
    }
}

labels! {
    /// Why a consumer that was started again had ended.
    RestartReason {
        /// The connection was lost, or none could be had.
        Connection = "connection",
        /// The broker answered with an error.
        Broker = "broker",
        /// The subscription ended: the stream was deleted or re-created, or its member is away.
        Stream = "stream",
        /// Something could not be read, or did not come, and was asked for again.
        Reread = "reread",
        /// The sink failed.
        Sink = "sink",
        /// Another process, or another consumer, holds the lock of its reference.
        Locked = "locked",
        /// It panicked: a fault in this program.
        Panic = "panic",
        /// Anything else, such as a burst of large chunks that did not fit into `memory`.
        Other = "other",
    }
}

labels! {
    /// Why a sample that was made from a message is not on the page.
    DropReason {
        /// The metric has as many label sets as it may.
        MaxSeries = "max_series",
        /// The value of a label is longer than it may be.
        LabelTooLong = "label_too_long",
    }
}

labels! {
    /// What kind of error a sink answered with.
    SinkErrorReason {
        /// It may work later; the same batch is tried again.
        Transient = "transient",
        /// Some records can never be written.
        Poison = "poison",
        /// It will not work until a person acts.
        Fatal = "fatal",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check<L: Label + std::fmt::Debug>(count: usize) {
        let texts: HashSet<_> = L::ALL.iter().map(|l| l.label()).collect();
        assert_eq!((L::ALL.len(), texts.len()), (count, count));
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{label:?}");
            assert!(label.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn every_set_is_closed_and_without_doubles() {
        check::<LostReason>(7);
        check::<StoreResult>(3);
        check::<State>(8);
        check::<RestartReason>(8);
        check::<DropReason>(2);
        check::<SinkErrorReason>(3);
    }

    #[test]
    fn json_and_label_agree() {
        for state in State::ALL {
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.label()));
        }
    }
}
