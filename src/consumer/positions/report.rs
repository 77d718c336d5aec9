//! What a move does, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Next, Planned};
use crate::types::{ConsumerName, Offset, StreamName};

/// A move that was made, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The stream.
    pub stream: StreamName,
    /// The offset at which it would have gone on; `None` if it is not known.
    pub from_offset: Option<Offset>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The offset at which it goes on: the next message has this one, or the first one above it.
    pub to_offset: Offset,
    /// What is read again.
    pub read_again: Option<Range>,
    /// What is skipped.
    pub skipped: Option<Range>,
    /// What becomes of what is read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what_is_read_again: Option<String>,
    /// True once it is moved.
    pub moved: bool,
}

/// Offsets of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Number of messages; an upper bound if they were not counted.
    pub messages: u64,
    /// False if they were too many to count: then it is the number of offsets, of which the broker's own entries
    /// take some too.
    pub is_exact: bool,
    /// The first offset.
    pub first_offset: Offset,
    /// The last offset.
    pub last_offset: Offset,
}

impl Range {
    /// From the first offset up to before the second.
    fn between((from, to): (Offset, Offset), counted: Option<u64>) -> Option<Range> {
        let offsets = to.0.checked_sub(from.0)?;
        Some(Range {
            messages: counted.unwrap_or(offsets),
            is_exact: counted.is_some(),
            first_offset: from,
            last_offset: to.prev()?,
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { messages, is_exact, first_offset, last_offset } = self;
        if !is_exact {
            f.write_str("up to ")?;
        }
        match messages {
            1 if first_offset == last_offset => write!(f, "1 message (offset {first_offset}) is"),
            1 => write!(f, "1 message (offsets {first_offset} to {last_offset}) is"),
            _ => write!(f, "{messages} messages (offsets {first_offset} to {last_offset}) are"),
        }
    }
}

impl Report {
    /// The report of this move. `read_again` says what becomes of messages that the sink is given again.
    pub fn of(
        key: (&ConsumerName, &StreamName),
        planned: &Planned,
        read_again: &str,
        moved: bool,
    ) -> Report {
        let again = planned.again().and_then(|range| Range::between(range, planned.messages));
        Report {
            consumer: key.0.clone(),
            stream: key.1.clone(),
            from_offset: planned.seen.next_offset(),
            from: match &planned.seen.next {
                Next::At(..) => None,
                Next::From(why) => Some(why.clone()),
                Next::Halt(why) => Some(format!("it would halt: {why}")),
            },
            to_offset: planned.to.at,
            read_again: again,
            skipped: planned.skipped().and_then(|range| Range::between(range, planned.messages)),
            what_is_read_again: again.map(|_| format!("they {read_again}")),
            moved,
        }
    }

    /// True if messages are skipped, or may be.
    pub fn may_skip(&self) -> bool {
        let skips = self.skipped.is_some_and(|range| range.messages > 0);
        skips || self.from_offset.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.moved { "moved" } else { "would be moved" };
        write!(
            f,
            "consumer {:?}, stream {:?}: {verb} to offset {}",
            self.consumer, self.stream, self.to_offset
        )?;
        match (self.from_offset, &self.from) {
            (Some(from), _) if from == self.to_offset => {
                return writeln!(f, ", where it goes on already");
            }
            (Some(from), _) => writeln!(f, ", from {from}")?,
            (None, from) => {
                let why = from.as_deref().unwrap_or("nothing is known of it");
                writeln!(f, "; how much is read again or skipped is not known ({why})")?;
            }
        }
        if let Some(range) = &self.read_again {
            let again = self.what_is_read_again.as_deref().unwrap_or_default();
            writeln!(f, "  {range} read again: {again}")?;
        }
        if let Some(range) = &self.skipped {
            writeln!(f, "  {range} skipped, and never reach the sink")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;
    use crate::flow::beginning::Beginning;

    fn report(from: Next, to: u64, messages: Option<u64>) -> Report {
        let seen = Seen {
            stored: None,
            stores_offsets: true,
            memory: None,
            keeps_position: false,
            sink: None,
            first: Some(Offset(0)),
            last: Some(Offset(999)),
            next: from,
        };
        let to = Beginning { at: Offset(to), behind: None, instead_of: None, moved: None };
        let planned = Planned { seen, to, messages };
        Report::of((&"c".into(), &"s".into()), &planned, "are printed again", false)
    }

    #[test]
    fn what_is_read_again_and_skipped_is_counted() {
        let at = |offset| Next::At(Offset(offset), None);
        for (from, to, counted, says, may_skip) in [
            (
                at(600),
                100,
                Some(500),
                "500 messages (offsets 100 to 599) are read again: they are",
                false,
            ),
            (at(1), 0, Some(1), "1 message (offset 0) is read again", false),
            (at(600), 1000, Some(390), "  390 messages (offsets 600 to 999) are skipped", true),
            (at(600), 1000, None, "up to 400 messages (offsets 600 to 999) are skipped", true),
            // The broker's own entries: no message.
            (at(600), 601, Some(0), "0 messages (offsets 600 to 600) are skipped", false),
            (at(600), 600, Some(0), "where it goes on already", false),
            (Next::Halt("gone".to_owned()), 600, None, "it would halt: gone", true),
        ] {
            let report = report(from, to, counted);
            let text = report.to_string();
            assert!(text.contains(says) && report.may_skip() == may_skip, "{text}");
        }
    }
}
