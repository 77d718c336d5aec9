//! Decides where a reference resumes, and when its position is lost.
//!
//! In this order: the sink's own position; else the broker's stored offset; else the beginning in the
//! state file; else, only if none of these ever existed, the configured start. Reading continues at the
//! offset after the position, 0 included. If the stream does not confirm a position, the position is
//! *lost*, and a policy decides. The broker by itself would silently choose another offset.
//!
//! | what is known | what the stream says | outcome |
//! |---|---|---|
//! | a position | the stream starts above the next offset | lost: evicted |
//! | a position | its statistics reach the position, or the chunk at the position is the one that was read | resume after it |
//! | a position | when asked for the position's chunk, it returns one that ends below | lost: past the end |
//! | a position | no chunk arrives for it | doubt; after [`DOUBT_MAX`] lost: past the end |
//! | none stored, but a position in the state file | anything | lost: the broker dropped it |
//! | nothing at all | anything | the configured start |
//!
//! The broker's statistics of a stream's end are lower bounds: a new leader determines its committed
//! offset again, and for a while it may report less than was read before. So statistics can confirm a
//! position, which avoids reading its chunk twice, but never refute it. Only the chunk at the position
//! can, or its absence for minutes: [`verify`] and [`confirm`].
//!
//! A subscription asks for the position's own offset, not for the one after it. So the chunk that holds
//! the position is delivered again. Its records are dropped, and its identity shows whether this is still
//! the same log.

mod doubts;

use std::fmt;
use std::time::Duration;

pub use self::doubts::Doubts;
use super::beginning::{Beginning, Memory};
use crate::types::{Checkpoint, ChunkId, Offset, Timestamp};

/// How long the chunk at a position may be missing, in repeated requests, before the position counts as
/// lost. A new leader that catches up, or a slow disk, takes less.
pub const DOUBT_MAX: Duration = Duration::from_secs(120);

/// The same after the broker has reported that the stream does not exist: a stream that exists now is
/// another one, unless the broker was only starting.
pub const DOUBT_OF_ANOTHER_MAX: Duration = Duration::from_secs(10);

/// Time for which a node that is not the leader has to say that messages were dropped, in repeated
/// requests, before that is believed. An election takes less, and brings a leader that can be asked.
pub const HEARSAY_MAX: Duration = Duration::from_secs(30);

/// Start of a subscription, in the broker's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first chunk that is retained.
    First,
    /// The last chunk.
    Last,
    /// The next chunk to be published.
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

/// Policy for a lost position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// Stop with an error.
    Halt,
    /// Continue with the first record that is retained.
    First,
    /// Continue with the next record to be published.
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

/// Source of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sink keeps it with the data.
    Sink,
    /// The broker stored it.
    Broker,
    /// This process had reached it before the connection broke.
    Session,
    /// The reference began there; nothing is durable yet.
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

/// All inputs of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The position that the sink, or this process, holds.
    pub own: Option<(Origin, Checkpoint)>,
    /// The offset stored on the broker under the reference.
    pub stored: Option<Offset>,
    /// Content of the state file.
    pub remembered: Option<Memory>,
    /// First offset of the stream; `None` if it has no record.
    pub stream_first: Option<Offset>,
}

/// Position or beginning of a reference, before it is checked against the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Continues after this position.
    Position(Origin, Checkpoint),
    /// Continues at its beginning.
    Beginning(Beginning),
    /// Never had a position or a beginning.
    New,
}

impl Standing {
    /// The position to check against the stream, if there is one.
    pub fn position(&self) -> Option<Checkpoint> {
        match self {
            Standing::Position(_, checkpoint) => Some(*checkpoint),
            Standing::Beginning(beginning) => beginning.checkpoint(),
            Standing::New => None,
        }
    }

    /// The first wanted offset, if it is known.
    pub fn wanted(&self) -> Option<Offset> {
        match self {
            Standing::Position(_, checkpoint) => Some(checkpoint.offset.next()),
            Standing::Beginning(beginning) => Some(beginning.at),
            Standing::New => None,
        }
    }

    /// Source of the position.
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Standing::Position(origin, _) => Some(*origin),
            Standing::Beginning(_) => Some(Origin::Beginning),
            Standing::New => None,
        }
    }
}

/// Instructions for subscribing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Start to ask the broker for.
    pub subscribe: Start,
    /// The first wanted offset; earlier records are dropped.
    pub wanted: Option<Offset>,
    /// The position that the first chunk has to confirm.
    pub verify: Option<Checkpoint>,
    /// Source of the position; `None` for a start that is still to be determined.
    pub origin: Option<Origin>,
    /// The beginning to store before anything is read.
    pub begins: Option<Beginning>,
    /// Set if the first offset is unknown until the stream holds a chunk of this time (or any chunk, if
    /// the inner value is `None`). Earlier chunks are left out. At the first chunk that counts, the plan
    /// is made again.
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

    /// Begins here, after this beginning is stored.
    pub fn begin(beginning: Beginning) -> Plan {
        Plan {
            begins: Some(beginning),
            origin: None,
            ..Plan::resume(Standing::Beginning(beginning))
        }
    }

    /// Continues at the reference's position or beginning.
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

    /// Waits for the stream's first chunk, or its first one of this time.
    pub fn awaiting(subscribe: Start, not_before: Option<Timestamp>) -> Plan {
        Plan { awaits: Some(not_before), ..Plan::at(subscribe) }
    }
}

/// Reason why a position is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Retention dropped the next offset.
    #[error("the next offset wanted is {wanted}, but the stream now starts at {first}: up to {} messages were dropped by retention before they were read", .first.0 - .wanted.0)]
    Evicted {
        /// The first offset wanted.
        wanted: Offset,
        /// First offset of the stream.
        first: Offset,
    },
    /// The stream ends below the position.
    #[error("the position is offset {position}, but the stream {}: it was deleted and created again, or its end was lost", match .last { Some(last) => format!("ends at {last}"), None => "is empty".to_owned() })]
    PastEnd {
        /// The position.
        position: Offset,
        /// The last offset of the stream, if it has any record.
        last: Option<Offset>,
        /// True if a chunk proves that this is another log than the one that was read.
        is_another_log: bool,
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
        /// The remembered offset.
        remembered: Offset,
    },
}

impl Lost {
    /// Upper bound on the messages lost; 0 if unknown.
    pub fn messages(&self) -> u64 {
        match self {
            Lost::Evicted { wanted, first } => first.0.saturating_sub(wanted.0),
            Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => 0,
        }
    }

    /// True if the next offsets may be lower than those already written.
    pub fn is_new_history(&self) -> bool {
        match self {
            Lost::Evicted { .. } => false,
            Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => true,
        }
    }
}

impl Lost {
    /// True if a member of the stream that is behind, or cut off, would not say so: what it has dropped
    /// does not come back; what it holds was committed, so it holds for the whole stream; and which offset
    /// is stored, each node asks the leader's process. `false` for an end that is merely too low: it may
    /// rise, also after the broker said that there is no such stream, as it does while it starts.
    pub fn is_proved_by_any_member(&self) -> bool {
        match self {
            Lost::Evicted { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => true,
            Lost::PastEnd { is_another_log, .. } => *is_another_log,
        }
    }

    /// The position that is lost.
    pub fn position(&self) -> Option<Offset> {
        match self {
            Lost::Evicted { wanted, .. } => wanted.prev(),
            Lost::PastEnd { position, .. } | Lost::Rewritten { position } => Some(*position),
            Lost::Forgotten { remembered } => Some(*remembered),
        }
    }
}

/// The stream does not show the position at the moment, which proves nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position is offset {position}, but no chunk comes for it, and the stream {}: it may be catching up, after an election or on a slow disk", ends(.last))]
pub struct Doubt {
    /// The position.
    pub position: Offset,
    /// The last offset that the stream shows; `None` if there is none.
    pub last: Option<Offset>,
}

impl From<Doubt> for Lost {
    fn from(Doubt { position, last }: Doubt) -> Lost {
        Lost::PastEnd { position, last, is_another_log: false }
    }
}

fn ends(last: &Option<Offset>) -> String {
    last.map_or("is empty".to_owned(), |last| format!("ends at {last}"))
}

/// Determines the reference's position or beginning. Does not use the stream's end.
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
            // The offset on the broker was stored before the state file was written. Retention
            // drops it once it lies below the first offset; otherwise the stream is another one.
            // Of a move, it may not be there yet.
            if began.moved.is_none()
                && let (Some(mirror), Some(first)) = (began.mirror(), known.stream_first)
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

/// True if the offset on the broker only repeats the beginning. It may also be a lost position, if no
/// other offset could be stored since.
fn is_mirrored(began: &Beginning, stored: Offset) -> bool {
    let replaced = began.mirror().is_none() && began.instead_of.is_some_and(|c| c.offset == stored);
    let is_moved_over = began.moved.is_some_and(|moved| moved.over == Some(stored));
    began.mirror() == Some(stored) || replaced || is_moved_over
}

/// Adds the chunk identity from the state file, if it is for the same offset.
fn identified(position: Checkpoint, remembered: Option<Memory>) -> Checkpoint {
    let same = remembered.and_then(|m| m.position()).filter(|r| r.offset == position.offset);
    Checkpoint { chunk: position.chunk.or(same.and_then(|r| r.chunk)), ..position }
}

/// Identity and length of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkExtent {
    /// Its identity, with its first offset.
    pub id: ChunkId,
    /// Number of records in it.
    pub records: u32,
}

impl ChunkExtent {
    /// The offset after its last record.
    fn end(&self) -> Offset {
        Offset(self.id.first_offset.0.saturating_add(self.records.into()))
    }

    /// Its last offset; `None` if it ends at offset 0.
    fn last_offset(&self) -> Option<Offset> {
        self.end().prev()
    }
}

/// Evidence in the stream about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing contradicts it: the statistics reach the position, or are not available. The first chunk
    /// of the subscription is checked in any case.
    Nothing,
    /// The chunk that was delivered for the position's own offset.
    Chunk(ChunkExtent),
    /// No chunk was delivered for it. The last chunk of the stream, if one arrived.
    NoChunk(Option<ChunkExtent>),
}

/// Reason why the stream does not confirm a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// It is lost.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Undecided so far.
    #[error(transparent)]
    Doubt(#[from] Doubt),
}

/// Checks a position against the stream.
pub fn confirm(position: Checkpoint, evidence: Evidence) -> Result<(), Unconfirmed> {
    let last = match evidence {
        Evidence::Nothing => return Ok(()),
        Evidence::Chunk(chunk) => return Ok(verify(position, chunk)?),
        Evidence::NoChunk(last) => last,
    };
    let last_offset = last.and_then(|last| last.last_offset());
    let doubt = Doubt { position: position.offset, last: last_offset };
    match (position.chunk, last) {
        (Some(known), Some(last)) if is_of_another_incarnation(known, last.id) => {
            let Doubt { position, last } = doubt;
            Err(Lost::PastEnd { position, last, is_another_log: true }.into())
        }
        _ => Err(doubt.into()),
    }
}

/// True if a chunk that ends below the position's known chunk cannot belong to the same log: in one log,
/// chunks do not overlap, epochs never decrease, and within an epoch one clock wrote the timestamps.
/// Records that a transport shows without their chunks have none of these.
fn is_of_another_incarnation(known: ChunkId, earlier: ChunkId) -> bool {
    if known.is_of_record() || earlier.is_of_record() {
        return false;
    }
    earlier.first_offset >= known.first_offset
        || earlier.epoch > known.epoch
        || (earlier.epoch == known.epoch && earlier.timestamp > known.timestamp)
}

/// Start after a loss; `None` if the policy is to halt.
pub fn after_loss(policy: OnLost) -> Option<Start> {
    match policy {
        OnLost::Halt => None,
        OnLost::First => Some(Start::First),
        OnLost::Next => Some(Start::Next),
    }
}

/// Checks the chunk that was delivered for the position's own offset.
pub fn verify(position: Checkpoint, chunk: ChunkExtent) -> Result<(), Lost> {
    if chunk.end() <= position.offset {
        // For an offset past its end, the broker sends the next published chunk.
        let is_another_log =
            position.chunk.is_some_and(|known| is_of_another_incarnation(known, chunk.id));
        let last = chunk.last_offset();
        return Err(Lost::PastEnd { position: position.offset, last, is_another_log });
    }
    let holds_it = chunk.id.first_offset <= position.offset;
    match position.chunk {
        Some(known) if holds_it && known.contradicts(&chunk.id) => {
            Err(Lost::Rewritten { position: position.offset })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
