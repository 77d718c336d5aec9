//! Where a reference resumes, and when its position is lost.
//!
//! In this order: the sink's own position; else the broker's stored offset; else, only if this
//! reference never had a position, the configured start. A position is continued at the offset
//! after it, 0 included. A position that the stream does not bear out is *lost*, and a policy
//! decides, never the broker's silent habit of taking another offset:
//!
//! | what is known | what the stream says | outcome |
//! |---|---|---|
//! | a position | the stream starts at or below the next offset | resume after it |
//! | a position | the stream starts above the next offset | lost: evicted |
//! | a position | the stream ends below it | lost: past the end (re-created, or truncated at its end) |
//! | none stored, one remembered | anything | lost: the broker forgot it |
//! | nothing at all | anything | the configured start |
//!
//! A subscription asks for the position's own offset, not the one after it: the chunk that holds it
//! comes once more, its records are dropped, and its identity tells whether this is still the log
//! that was read.

use std::fmt;

use crate::types::{Checkpoint, Offset, Timestamp};

/// Where a subscription begins, in the broker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first chunk that is retained.
    First,
    /// The last chunk.
    Last,
    /// What is published from now on.
    Next,
    /// The chunk that contains this offset; earlier records of it are dropped.
    Offset(Offset),
    /// The first chunk that was written at or after this time.
    Timestamp(Timestamp),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::First => f.write_str("first"),
            Start::Last => f.write_str("last"),
            Start::Next => f.write_str("next"),
            Start::Offset(offset) => write!(f, "offset {offset}"),
            Start::Timestamp(at) => write!(f, "timestamp {at}"),
        }
    }
}

/// What to do when a position is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// Stop, and say so.
    Halt,
    /// Go on with the first record that is retained.
    First,
    /// Go on with what is published from now on.
    Next,
}

impl fmt::Display for OnLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnLost::Halt => "halt",
            OnLost::First => "first",
            OnLost::Next => "next",
        })
    }
}

/// Where a position was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sink keeps it with the data.
    Sink,
    /// The broker stored it.
    Broker,
    /// This process had got so far before the connection broke.
    Session,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Sink => "sink",
            Origin::Broker => "broker",
            Origin::Session => "session",
        })
    }
}

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The position that the sink, or this process, holds.
    pub own: Option<(Origin, Checkpoint)>,
    /// What the broker stored under the reference.
    pub stored: Option<Offset>,
    /// What the state file remembers.
    pub remembered: Option<Checkpoint>,
    /// The first offset of the stream, if it has any record.
    pub stream_first: Option<Offset>,
    /// The stream's last offset, where it is known exactly or this is certainly not below it.
    pub stream_last: Option<Offset>,
}

/// How to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to ask the broker for.
    pub subscribe: Start,
    /// The first offset wanted; what comes before it is dropped.
    pub wanted: Option<Offset>,
    /// The position that the first chunk has to bear out.
    pub verify: Option<Checkpoint>,
    /// Where the position was found; `None` for the configured start.
    pub origin: Option<Origin>,
    /// Whether `wanted` is what `next` or `last` meant when the consumer first asked, rather than an
    /// offset that anybody named.
    pub pinned: bool,
}

impl Plan {
    /// Begins here, without a position.
    pub fn anew(subscribe: Start) -> Plan {
        Plan { subscribe, wanted: None, verify: None, origin: None, pinned: false }
    }
}

/// Why a position is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Retention dropped what comes next.
    #[error("the next offset wanted is {wanted}, but the stream now starts at {first}: up to {} messages were dropped by retention before they were read", .first.0 - .wanted.0)]
    Evicted {
        /// The first offset wanted.
        wanted: Offset,
        /// Where the stream starts.
        first: Offset,
    },
    /// The stream ends below the position.
    #[error("the position is offset {position}, but the stream {}: it was deleted and created again, or its end was lost", match .last { Some(last) => format!("ends at {last}"), None => "is empty".to_owned() })]
    PastEnd {
        /// The position.
        position: Offset,
        /// The last offset of the stream, if it has any record.
        last: Option<Offset>,
    },
    /// The chunk at the position is not the one that was read.
    #[error(
        "the chunk at offset {position} is not the one that was read before: the stream was deleted and created again, or its end was rewritten"
    )]
    Rewritten {
        /// The position.
        position: Offset,
    },
    /// The broker has no offset for a reference that had one.
    #[error(
        "the broker holds no offset for this reference, but the state file remembers {remembered}: retention evicted it with the segment that held it, or the stream was created again"
    )]
    Forgotten {
        /// What is remembered.
        remembered: Offset,
    },
}

impl Lost {
    /// How many messages are gone, where that is known.
    pub fn messages(&self) -> u64 {
        match self {
            Lost::Evicted { wanted, first } => first.0.saturating_sub(wanted.0),
            Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => 0,
        }
    }

    /// Whether the offsets that come next may be lower than those already written.
    pub fn is_new_history(&self) -> bool {
        match self {
            Lost::Evicted { .. } => false,
            Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => true,
        }
    }
}

/// Whether a pinned beginning lies beyond the stream's end: the stream was created again before its
/// first record came, and what is in it now was all published since.
pub fn check_pinned(plan: &Plan, known: &Known) -> Result<(), Lost> {
    let position = match plan.wanted.filter(|_| plan.pinned).and_then(Offset::prev) {
        Some(position) => position,
        None => return Ok(()),
    };
    match (known.stream_first, known.stream_last) {
        (None, _) => Err(Lost::PastEnd { position, last: None }),
        (_, Some(last)) if position > last => Err(Lost::PastEnd { position, last: Some(last) }),
        _ => Ok(()),
    }
}

/// Decides where to resume.
pub fn decide(known: &Known, configured: Start) -> Result<Plan, Lost> {
    let stored = || known.stored.map(|offset| (Origin::Broker, Checkpoint { offset, chunk: None }));
    let position = known.own.or_else(stored).map(|(origin, mut position)| {
        if position.chunk.is_none() {
            // The state file's chunk identity serves where it speaks of the same offset.
            let same = known.remembered.filter(|r| r.offset == position.offset);
            position.chunk = same.and_then(|r| r.chunk);
        }
        (origin, position)
    });
    match position {
        Some((origin, checkpoint)) => {
            check_inside(checkpoint.offset, known)?;
            Ok(Plan {
                subscribe: Start::Offset(checkpoint.offset),
                wanted: Some(checkpoint.offset.next()),
                verify: Some(checkpoint),
                origin: Some(origin),
                pinned: false,
            })
        }
        None => match known.remembered {
            Some(remembered) => Err(Lost::Forgotten { remembered: remembered.offset }),
            None => at_start(known, configured),
        },
    }
}

fn check_inside(position: Offset, known: &Known) -> Result<(), Lost> {
    let wanted = position.next();
    match known.stream_first {
        Some(first) if first > wanted => Err(Lost::Evicted { wanted, first }),
        Some(_) => match known.stream_last {
            Some(last) if position > last => Err(Lost::PastEnd { position, last: Some(last) }),
            _ => Ok(()),
        },
        None => Err(Lost::PastEnd { position, last: None }),
    }
}

fn at_start(known: &Known, configured: Start) -> Result<Plan, Lost> {
    let wanted = match configured {
        Start::Offset(wanted) => {
            if let Some(first) = known.stream_first.filter(|first| *first > wanted) {
                return Err(Lost::Evicted { wanted, first });
            }
            Some(wanted)
        }
        Start::First | Start::Last | Start::Next | Start::Timestamp(_) => None,
    };
    Ok(Plan { wanted, ..Plan::anew(configured) })
}

/// How to go on after a loss; `None` where the policy is to halt.
pub fn after_loss(policy: OnLost) -> Option<Plan> {
    let subscribe = match policy {
        OnLost::Halt => return None,
        OnLost::First => Start::First,
        OnLost::Next => Start::Next,
    };
    Some(Plan::anew(subscribe))
}

/// Whether the first chunk of a subscription bears out the position that it was asked for.
pub fn verify(
    position: Checkpoint,
    chunk: crate::types::ChunkId,
    records: u32,
) -> Result<(), Lost> {
    let end = chunk.first_offset.0.saturating_add(u64::from(records));
    if end <= position.offset.0 {
        // Asked for an offset past its end, the broker sends what is published next.
        let last = end.checked_sub(1).map(Offset);
        return Err(Lost::PastEnd { position: position.offset, last });
    }
    let holds_it = chunk.first_offset <= position.offset;
    match position.chunk {
        Some(known) if holds_it && known != chunk => {
            Err(Lost::Rewritten { position: position.offset })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ChunkId;

    fn chunk(first: u64) -> ChunkId {
        ChunkId { first_offset: Offset(first), epoch: 1, timestamp: Timestamp(7), crc: 9 }
    }

    fn at(offset: u64, first: u64) -> Checkpoint {
        Checkpoint { offset: Offset(offset), chunk: Some(chunk(first)) }
    }

    fn stream(first: u64, last: u64) -> Known {
        Known {
            own: None,
            stored: None,
            remembered: None,
            stream_first: Some(Offset(first)),
            stream_last: Some(Offset(last)),
        }
    }

    #[test]
    fn the_sink_goes_before_the_broker_and_the_broker_before_the_start() {
        let known =
            Known { own: Some((Origin::Sink, at(7, 5))), stored: Some(Offset(3)), ..stream(0, 99) };
        let plan = decide(&known, Start::Next).unwrap();
        assert_eq!((plan.wanted, plan.origin), (Some(Offset(8)), Some(Origin::Sink)));
        assert_eq!(plan.subscribe, Start::Offset(Offset(7)));

        let plan = decide(&Known { own: None, ..known }, Start::Next).unwrap();
        assert_eq!((plan.wanted, plan.origin), (Some(Offset(4)), Some(Origin::Broker)));

        let plan = decide(&stream(0, 99), Start::Next).unwrap();
        assert_eq!((plan.subscribe, plan.wanted, plan.origin), (Start::Next, None, None));
    }

    #[test]
    fn stored_zero_resumes_at_one() {
        let plan = decide(&Known { stored: Some(Offset(0)), ..stream(0, 9) }, Start::First);
        assert_eq!(plan.unwrap().wanted, Some(Offset(1)));
    }

    #[test]
    fn evicted_only_where_the_next_offset_is_gone() {
        let stored = |offset| Known { stored: Some(Offset(offset)), ..stream(100, 200) };
        assert!(decide(&stored(99), Start::First).is_ok());
        assert_eq!(
            decide(&stored(98), Start::First),
            Err(Lost::Evicted { wanted: Offset(99), first: Offset(100) })
        );
    }

    #[test]
    fn forgotten_is_not_new() {
        let known = Known { remembered: Some(at(50, 40)), ..stream(100, 200) };
        assert_eq!(decide(&known, Start::First), Err(Lost::Forgotten { remembered: Offset(50) }));
    }

    #[test]
    fn a_position_in_an_empty_stream_is_past_its_end() {
        let known = Known { stored: Some(Offset(0)), stream_first: None, ..stream(0, 0) };
        assert_eq!(
            decide(&known, Start::First),
            Err(Lost::PastEnd { position: Offset(0), last: None })
        );
    }

    #[test]
    fn a_position_above_the_last_offset_is_past_the_end() {
        let stored = |offset| Known { stored: Some(Offset(offset)), ..stream(0, 99) };
        assert!(decide(&stored(99), Start::First).is_ok());
        assert_eq!(
            decide(&stored(100), Start::First),
            Err(Lost::PastEnd { position: Offset(100), last: Some(Offset(99)) })
        );
        let unknown = Known { stream_last: None, ..stored(100) };
        assert!(decide(&unknown, Start::First).is_ok(), "the first chunk will tell");
    }

    #[test]
    fn a_pinned_beginning_beyond_the_end_is_of_another_history() {
        let pinned = |wanted| Plan {
            wanted: Some(Offset(wanted)),
            pinned: true,
            ..Plan::anew(Start::Offset(Offset(wanted)))
        };
        assert_eq!(check_pinned(&pinned(100), &stream(0, 99)), Ok(()));
        assert!(check_pinned(&pinned(101), &stream(0, 99)).is_err());
        assert!(check_pinned(&pinned(1), &Known { stream_first: None, ..stream(0, 0) }).is_err());
        assert_eq!(check_pinned(&pinned(0), &Known { stream_first: None, ..stream(0, 0) }), Ok(()));
        let named = Plan { pinned: false, ..pinned(101) };
        assert_eq!(check_pinned(&named, &stream(0, 99)), Ok(()), "a named offset is waited for");
    }

    #[test]
    fn an_explicit_offset_is_wanted_exactly() {
        let plan = decide(&stream(0, 99), Start::Offset(Offset(42))).unwrap();
        assert_eq!((plan.subscribe, plan.wanted), (Start::Offset(Offset(42)), Some(Offset(42))));
        assert!(decide(&stream(43, 99), Start::Offset(Offset(42))).is_err());
        assert!(decide(&stream(0, 9), Start::Offset(Offset(42))).is_ok(), "it may come yet");
    }

    #[test]
    fn the_first_chunk_bears_the_position_out_or_not() {
        assert_eq!(verify(at(7, 5), chunk(5), 10), Ok(()));
        assert_eq!(verify(at(7, 5), chunk(8), 10), Ok(()), "the position's own chunk is gone");
        let other = ChunkId { crc: 1, ..chunk(5) };
        assert_eq!(verify(at(7, 5), other, 10), Err(Lost::Rewritten { position: Offset(7) }));
        let unknown = Checkpoint { offset: Offset(7), chunk: None };
        assert_eq!(verify(unknown, other, 10), Ok(()));
        assert_eq!(
            verify(at(70, 65), chunk(5), 10),
            Err(Lost::PastEnd { position: Offset(70), last: Some(Offset(14)) })
        );
    }
}
