//! Where a reference resumes, and when its position is lost.
//!
//! In this order: the sink's own position; else the broker's stored offset; else where it began, if
//! that is remembered; else, only if it never had any of these, the configured start. A position is
//! continued at the offset after it, 0 included. A position that the stream does not bear out is
//! *lost*, and a policy decides, never the broker's silent habit of taking another offset:
//!
//! | what is known | what the stream says | outcome |
//! |---|---|---|
//! | a position | it starts above the next offset | lost: evicted |
//! | a position | its counters reach the position, or the chunk at it is the one that was read | resume after it |
//! | a position | asked for the position's chunk, it gives one that ends below | lost: past the end |
//! | a position | no chunk comes for it | doubt; after [`DOUBT_MAX`] lost: past the end |
//! | none stored, a position remembered | anything | lost: the broker forgot it |
//! | nothing at all | anything | the configured start |
//!
//! Counters of a stream's end are a lower bound: a new leader finds its committed offset anew, and
//! may for a while report less than was read before. So they can bear a position out, and never
//! refute it. That is for the chunk at the position, or for its absence over minutes.
//!
//! A subscription asks for the position's own offset, not the one after it: the chunk that holds it
//! comes once more, its records are dropped, and its identity tells whether this is still the log
//! that was read.

use std::fmt;
use std::time::{Duration, Instant};

use super::beginning::{Beginning, Memory};
use crate::types::{Checkpoint, ChunkId, Offset, Timestamp};

/// For how long the chunk at a position may be missing, asked for again and again, before the
/// position counts as lost. A new leader that catches up, or a slow disk, takes less.
pub const DOUBT_MAX: Duration = Duration::from_secs(120);

/// The same where the broker had said that the stream does not exist: what is there now is another one,
/// unless the broker was only starting.
pub const DOUBT_OF_ANOTHER_MAX: Duration = Duration::from_secs(10);

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
            Start::First => f.write_str("the first message"),
            Start::Last => f.write_str("the last chunk"),
            Start::Next => f.write_str("what is published next"),
            Start::Offset(offset) => write!(f, "offset {offset}"),
            Start::Timestamp(at) => write!(f, "the first chunk written at {at} or later"),
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
    /// It is where the reference began; nothing is durable yet.
    Beginning,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Sink => "the sink's position",
            Origin::Broker => "the stored offset",
            Origin::Session => "how far this process had come",
            Origin::Beginning => "where it began",
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
    pub remembered: Option<Memory>,
    /// The first offset of the stream, if it has any record.
    pub stream_first: Option<Offset>,
}

/// What is known of a reference's position, before the stream was asked whether it bears it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on after this position.
    Position(Origin, Checkpoint),
    /// It goes on where it began.
    Beginning(Beginning),
    /// It never had a position, and never began.
    New,
}

impl Standing {
    /// The position that the stream has to bear out, if there is one.
    pub fn position(&self) -> Option<Checkpoint> {
        match self {
            Standing::Position(_, checkpoint) => Some(*checkpoint),
            Standing::Beginning(beginning) => beginning.checkpoint(),
            Standing::New => None,
        }
    }

    /// The first offset wanted, where there is one already.
    pub fn wanted(&self) -> Option<Offset> {
        match self {
            Standing::Position(_, checkpoint) => Some(checkpoint.offset.next()),
            Standing::Beginning(beginning) => Some(beginning.at),
            Standing::New => None,
        }
    }

    /// Where the position was found.
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Standing::Position(origin, _) => Some(*origin),
            Standing::Beginning(_) => Some(Origin::Beginning),
            Standing::New => None,
        }
    }
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
    /// Where the position was found; `None` for a start that is only now to be.
    pub origin: Option<Origin>,
    /// What has to be kept before anything is read.
    pub begins: Option<Beginning>,
    /// Where it begins is not known before the stream holds a chunk of this time, or of any where
    /// there is none: chunks before that are left out, and with the first that is not, everything is
    /// asked again.
    pub awaits: Option<Option<Timestamp>>,
}

impl Plan {
    /// Subscribes here, without a position.
    pub fn at(subscribe: Start) -> Plan {
        let wanted = match subscribe {
            Start::Offset(wanted) => Some(wanted),
            _ => None,
        };
        Plan { subscribe, wanted, verify: None, origin: None, begins: None, awaits: None }
    }

    /// Begins here, once that is kept.
    pub fn begin(beginning: Beginning) -> Plan {
        Plan {
            begins: Some(beginning),
            origin: None,
            ..Plan::resume(Standing::Beginning(beginning))
        }
    }

    /// Goes on where the reference stands.
    pub fn resume(standing: Standing) -> Plan {
        let subscribe = match (standing.position(), standing.wanted()) {
            (Some(position), _) => Start::Offset(position.offset),
            (None, Some(wanted)) => Start::Offset(wanted),
            (None, None) => Start::First,
        };
        Plan {
            wanted: standing.wanted(),
            verify: standing.position(),
            origin: standing.origin(),
            ..Plan::at(subscribe)
        }
    }

    /// Waits for the stream's first chunk, or its first of this time.
    pub fn awaiting(subscribe: Start, not_before: Option<Timestamp>) -> Plan {
        Plan { awaits: Some(not_before), ..Plan::at(subscribe) }
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

impl Lost {
    /// The position that is lost.
    pub fn position(&self) -> Option<Offset> {
        match self {
            Lost::Evicted { wanted, .. } => wanted.prev(),
            Lost::PastEnd { position, .. } | Lost::Rewritten { position } => Some(*position),
            Lost::Forgotten { remembered } => Some(*remembered),
        }
    }
}

/// The stream does not show the position, which proves nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position is offset {position}, but no chunk comes for it, and the stream {}: it may be catching up, after an election or on a slow disk", ends(.last))]
pub struct Doubt {
    /// The position.
    pub position: Offset,
    /// The last offset that the stream shows.
    pub last: Option<Offset>,
}

impl From<Doubt> for Lost {
    fn from(Doubt { position, last }: Doubt) -> Lost {
        Lost::PastEnd { position, last }
    }
}

fn ends(last: &Option<Offset>) -> String {
    last.map_or("is empty".to_owned(), |last| format!("ends at {last}"))
}

/// Since when a position has been in doubt, without a break.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doubts {
    since: Option<Instant>,
    missing: bool,
}

impl Doubts {
    /// Notes one more look that did not show the position; whether there were enough of them.
    pub fn lasted(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.limit()
    }

    /// For how long the position may be in doubt before it counts as lost.
    pub fn limit(&self) -> Duration {
        if self.missing { DOUBT_OF_ANOTHER_MAX } else { DOUBT_MAX }
    }

    /// Notes that nobody could be asked.
    pub fn interrupted(&mut self) {
        self.since = None;
    }

    /// Notes that the broker said that there is no such stream.
    pub fn missing(&mut self) {
        *self = Doubts { since: None, missing: true };
    }

    /// Notes that the position is there, or is settled otherwise.
    pub fn clear(&mut self) {
        *self = Doubts::default();
    }
}

/// Finds out where the reference stands; the stream's end is not looked at.
pub fn stand(known: &Known) -> Result<Standing, Lost> {
    let standing = match (known.own, known.stored, known.remembered) {
        (Some((Origin::Sink, own)), _, Some(Memory::Beginning(began))) if began.replaces(&own) => {
            Standing::Beginning(began)
        }
        (Some((origin, own)), _, remembered) => {
            Standing::Position(origin, identified(own, remembered))
        }
        (None, Some(stored), Some(Memory::Beginning(began))) if is_mirrored(&began, stored) => {
            Standing::Beginning(began)
        }
        (None, Some(offset), remembered) => {
            let stored = Checkpoint { offset, chunk: None };
            Standing::Position(Origin::Broker, identified(stored, remembered))
        }
        (None, None, Some(Memory::Position(remembered))) => {
            return Err(Lost::Forgotten { remembered: remembered.offset });
        }
        (None, None, Some(Memory::Beginning(began))) => {
            // Its mirror was stored before it was remembered. Retention evicts it once it lies below
            // the first offset; else the stream is another one.
            if let (Some(mirror), Some(first)) = (began.mirror(), known.stream_first)
                && first <= mirror
            {
                return Err(Lost::Forgotten { remembered: mirror });
            }
            Standing::Beginning(began)
        }
        (None, None, None) => Standing::New,
    };
    match (standing.wanted(), known.stream_first) {
        (Some(wanted), Some(first)) if first > wanted => Err(Lost::Evicted { wanted, first }),
        _ => Ok(standing),
    }
}

/// Whether what the broker holds says no more than that the reference began there. A position that
/// was lost may still stand there where nothing could be stored in its place.
fn is_mirrored(began: &Beginning, stored: Offset) -> bool {
    let replaced = began.mirror().is_none() && began.instead_of.is_some_and(|c| c.offset == stored);
    began.mirror() == Some(stored) || replaced
}

/// The state file's chunk identity serves where it speaks of the same offset.
fn identified(position: Checkpoint, remembered: Option<Memory>) -> Checkpoint {
    let same = remembered.and_then(|m| m.position()).filter(|r| r.offset == position.offset);
    Checkpoint { chunk: position.chunk.or(same.and_then(|r| r.chunk)), ..position }
}

/// A chunk that was looked at: what tells it from others, and how many records it holds.
pub type Glimpse = (ChunkId, u32);

/// What a look at the stream showed of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The stream's counters reach it.
    Reached,
    /// The chunk that came for the position's own offset.
    Chunk(Glimpse),
    /// None came for it. This is the last one, if any came.
    Nothing(Option<Glimpse>),
}

/// Why a position is not borne out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBorneOut {
    /// It is lost.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Nobody knows yet.
    #[error(transparent)]
    Doubt(#[from] Doubt),
}

/// Whether the stream bears the position out.
pub fn bears_out(position: Checkpoint, sight: Sight) -> Result<(), NotBorneOut> {
    let last = match sight {
        Sight::Reached => return Ok(()),
        Sight::Chunk((chunk, records)) => return Ok(verify(position, chunk, records)?),
        Sight::Nothing(last) => last,
    };
    let offset = last.map(|(chunk, records)| {
        Offset(chunk.first_offset.0.saturating_add(u64::from(records.saturating_sub(1))))
    });
    let doubt = Doubt { position: position.offset, last: offset };
    match (position.chunk, last) {
        (Some(known), Some((last, _))) if is_of_another_history(known, last) => {
            Err(Lost::from(doubt).into())
        }
        _ => Err(doubt.into()),
    }
}

/// Whether a chunk that ends below the position in the known one cannot belong to the same log:
/// chunks do not overlap, epochs never fall along a log, and within an epoch one clock wrote them.
fn is_of_another_history(known: ChunkId, earlier: ChunkId) -> bool {
    earlier.first_offset >= known.first_offset
        || earlier.epoch > known.epoch
        || (earlier.epoch == known.epoch && earlier.timestamp > known.timestamp)
}

/// Where to go on after a loss; `None` where the policy is to halt.
pub fn after_loss(policy: OnLost) -> Option<Start> {
    match policy {
        OnLost::Halt => None,
        OnLost::First => Some(Start::First),
        OnLost::Next => Some(Start::Next),
    }
}

/// Whether the first chunk of a subscription bears out the position that it was asked for.
pub fn verify(position: Checkpoint, chunk: ChunkId, records: u32) -> Result<(), Lost> {
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
mod tests;
