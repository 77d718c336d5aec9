//! The closed sets of label values. A value from a message, an error text or a peer must not be a
//! label: every new value would be a new time series.

/// A closed set of values of one label.
pub trait Label: Copy + Eq + 'static {
    /// Every value, each at the index that [`Label::index`] gives.
    const ALL: &'static [Self];

    /// Text of the label.
    fn label(self) -> &'static str;

    /// Index in [`Label::ALL`].
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
    /// Reason why messages will not reach the sink.
    LostReason {
        /// Retention truncated them before they were read.
        Retention = "retention",
        /// Their chunk's checksum does not match its data.
        Crc = "crc",
        /// Their chunk or message is not well-formed.
        Undecodable = "undecodable",
        /// They are larger or nested deeper than the limits allow.
        OverLimit = "over_limit",
        /// They do not fit the sink's columns.
        Misfit = "misfit",
        /// The sink refuses them.
        Refused = "refused",
        /// The consumer's own program (`where`, `map`) fails on them.
        Program = "program",
        /// The stream was re-created or rewritten, and its former messages went with it; or those of the
        /// new one were skipped by `on_offset_lost = "next"`.
        Recreated = "recreated",
    }
}

labels! {
    /// Reason why messages are dead letters.
    DeadReason {
        /// They are not well-formed.
        Undecodable = "undecodable",
        /// They are larger or nested deeper than the limits allow.
        OverLimit = "over_limit",
        /// They do not fit the sink's columns.
        Misfit = "misfit",
        /// The sink refuses them.
        Refused = "refused",
        /// The consumer's own program (`where`, `map`) fails on them.
        Program = "program",
    }
}

labels! {
    /// Result of sending a span to the OpenTelemetry collector.
    SpanResult {
        /// The collector has it.
        Sent = "sent",
        /// The collector refused it.
        Refused = "refused",
        /// The request that held it failed, and was given up.
        Failed = "failed",
        /// There was no room for it, because earlier ones still waited.
        NoRoom = "no_room",
    }
}

labels! {
    /// Result of storing an offset.
    StoreResult {
        /// The broker reports the same offset.
        Stored = "stored",
        /// The offset could not be sent, or read back.
        Failed = "failed",
        /// The broker reports another offset.
        NotConfirmed = "not_confirmed",
    }
}

labels! {
    /// State of a consumer.
    State {
        /// Opens its sink and determines its position.
        Starting = "starting",
        /// Connects to a node that holds its stream, and subscribes.
        Connecting = "connecting",
        /// Subscribed, and another instance is the active consumer.
        Passive = "passive",
        /// Reads and writes.
        Running = "running",
        /// Connected, but its sink fails and is retried, or has not answered for too long.
        Degraded = "degraded",
        /// Accepts no new messages; writes and stores the rest.
        Draining = "draining",
        /// Failed, and waits to be restarted.
        Backoff = "backoff",
        /// Ended; an operator must act before it runs again.
        Halted = "halted",
        /// Not running, because an operator paused it; its offset is stored.
        Paused = "paused",
        /// Ended normally.
        Stopped = "stopped",
    }
}

labels! {
    /// Reason for which a restarted consumer had ended.
    RestartReason {
        /// The connection was lost, or could not be opened.
        Connection = "connection",
        /// The broker lets no more connections in: a limit, of connections or file descriptors, is reached.
        ConnectionLimit = "connection_limit",
        /// It moved from a stream's leader to a replica.
        Moved = "moved",
        /// The broker answered with an error.
        Broker = "broker",
        /// The subscription ended: the stream was deleted or re-created, or its member is away.
        Stream = "stream",
        /// Something could not be read, or did not arrive, and was requested again.
        Reread = "reread",
        /// The sink failed.
        Sink = "sink",
        /// Another process, or another consumer, holds the lock of its reference.
        Locked = "locked",
        /// It panicked: an error in this program.
        Panic = "panic",
        /// Anything else, such as large chunks that did not fit into `memory`.
        Other = "other",
    }
}

labels! {
    /// Reason why a sample from a message is not on the page.
    DropReason {
        /// The metric has reached its limit of label sets.
        MaxSeries = "max_series",
        /// A label value is longer than allowed.
        LabelTooLong = "label_too_long",
    }
}

labels! {
    /// Result of reading certificate files that have changed.
    ReloadResult {
        /// New connections use them.
        Loaded = "loaded",
        /// They cannot be used; new connections use what they held before.
        Failed = "failed",
    }
}

labels! {
    /// Result of an attempt to reload the configuration.
    ConfigResult {
        /// It differs from the one before, and is in use.
        Applied = "applied",
        /// It is the one that is in use.
        Unchanged = "unchanged",
        /// It cannot be used; the one before stays in use.
        Failed = "failed",
    }
}

labels! {
    /// Reason why the admin server refused a request.
    RefusedReason {
        /// It needs a token, and there was none.
        NoToken = "no_token",
        /// It presented another token.
        WrongToken = "wrong_token",
        /// It was a command, for a server without a token that other machines can reach.
        NoneConfigured = "none_configured",
        /// It was a command that a web page of another site had sent.
        OtherSite = "other_site",
        /// It was a command that needs no token, under a name that is not of the loopback interface.
        OtherHost = "other_host",
    }
}

labels! {
    /// Result of an attempt to have a new access token.
    TokenResult {
        /// There is a new one.
        Renewed = "renewed",
        /// There is none.
        Failed = "failed",
        /// The broker refused it.
        Refused = "refused",
    }
}

labels! {
    /// Kind of an error of a sink.
    SinkErrorReason {
        /// A retry may succeed; the same batch is written again.
        Transient = "transient",
        /// Some records can never be written.
        Poison = "poison",
        /// A retry is useless before an operator acts.
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
        check::<LostReason>(8);
        check::<StoreResult>(3);
        check::<State>(10);
        check::<RestartReason>(10);
        check::<DropReason>(2);
        check::<SinkErrorReason>(3);
        check::<ReloadResult>(2);
        check::<ConfigResult>(3);
        check::<RefusedReason>(5);
        check::<TokenResult>(3);
    }

    #[test]
    fn json_and_label_agree() {
        for state in State::ALL {
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.label()));
        }
    }
}
