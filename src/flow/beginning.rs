//! Where a reference began that had no position, as it is remembered until it has one.
//!
//! `next`, `last`, `first` and a time mean another offset whenever they are asked for. So the offset
//! that they meant the first time is kept, in the state file and, as the offset before it, on the
//! broker, before anything is read: whatever stops the consumer before its first commit, it begins
//! there again. A beginning is no position: nothing is durable because of it.

use serde::{Deserialize, Serialize};

use crate::types::{Checkpoint, ChunkId, Offset};

/// The offset with which a reference begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The first offset wanted.
    #[serde(rename = "begins_at")]
    pub at: Offset,
    /// The chunk that holds the offset before it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<ChunkId>,
    /// The position that was lost, and that this replaces by `on_offset_lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Checkpoint>,
}

impl Beginning {
    /// What has to be stored on the broker to say so: the offset before it. An offset before 0 cannot
    /// be stored.
    pub fn mirror(&self) -> Option<Offset> {
        self.at.prev()
    }

    /// The offset before it, as a position that the stream has to bear out.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.at.prev().map(|offset| Checkpoint { offset, chunk: self.behind })
    }

    /// Whether a sink's position is from before this beginning: the one that it replaces, or one
    /// that it leaves behind.
    pub fn replaces(&self, position: &Checkpoint) -> bool {
        let is_it = self.instead_of.is_some_and(|old| {
            let same_chunk = old.chunk.is_none() || position.chunk.is_none();
            old.offset == position.offset && (same_chunk || old.chunk == position.chunk)
        });
        is_it || position.offset < self.at
    }

    /// Whether it begins at or below the position that it replaces: those offsets mean other messages
    /// now.
    pub fn is_new_history(&self) -> bool {
        self.instead_of.is_some_and(|old| old.offset >= self.at)
    }
}

/// What the state file remembers of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Memory {
    /// The last position stored.
    Position(Checkpoint),
    /// Where it began; nothing was stored since.
    Beginning(Beginning),
}

impl Memory {
    /// The position, if it is one.
    pub fn position(&self) -> Option<Checkpoint> {
        match self {
            Memory::Position(checkpoint) => Some(*checkpoint),
            Memory::Beginning(_) => None,
        }
    }

    /// The beginning, if it is one.
    pub fn beginning(&self) -> Option<Beginning> {
        match self {
            Memory::Beginning(beginning) => Some(*beginning),
            Memory::Position(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn chunk(first: u64) -> ChunkId {
        ChunkId { first_offset: Offset(first), epoch: 1, timestamp: Timestamp(7), crc: 9 }
    }

    fn at(offset: u64, chunk: Option<ChunkId>) -> Checkpoint {
        Checkpoint { offset: Offset(offset), chunk }
    }

    fn beginning(at: u64, instead_of: Option<Checkpoint>) -> Beginning {
        Beginning { at: Offset(at), behind: None, instead_of }
    }

    #[test]
    fn a_position_from_before_it_is_replaced_and_progress_is_not() {
        let plain = beginning(50, None);
        assert!(plain.replaces(&at(49, None)));
        assert!(!plain.replaces(&at(50, None)));
        let anew = beginning(0, Some(at(19, Some(chunk(0)))));
        assert!(anew.replaces(&at(19, Some(chunk(0)))) && anew.replaces(&at(19, None)));
        assert!(!anew.replaces(&at(19, Some(chunk(10)))), "as far as before, in the new stream");
        assert!(!anew.replaces(&at(18, None)));
        assert!(anew.is_new_history() && !plain.is_new_history());
        assert!(!beginning(50, Some(at(19, None))).is_new_history());
    }

    #[test]
    fn nothing_can_be_stored_before_offset_0() {
        assert_eq!((beginning(0, None).mirror(), beginning(0, None).checkpoint()), (None, None));
        assert_eq!(beginning(1, None).mirror(), Some(Offset(0)));
    }
}
