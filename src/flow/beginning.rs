//! First offset of a reference that has no position yet, remembered until it has one.
//!
//! `next`, `last`, `first` and a time mean another offset each time they are resolved. So the
//! offset that they meant the first time is stored before anything is read: in the state file and,
//! as the offset before it, on the broker. If the consumer stops before its first commit, it begins
//! there again. A beginning is not a position: it says nothing about durability.

use serde::{Deserialize, Serialize};

use crate::types::{Checkpoint, ChunkId, Offset};

/// The offset with which a reference begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The first offset wanted.
    #[serde(rename = "begins_at")]
    pub at: Offset,
    /// The chunk that holds the offset before it; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<ChunkId>,
    /// The lost position that this beginning replaces, under `on_offset_lost`; `None` if there was
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Checkpoint>,
    /// What an operator's move of the position has not moved yet; `None` for any other beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// What a move has not moved yet, or cannot move. The move counts all the same, from the moment at which this
/// is in the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The offset that the broker held. It counts for nothing for as long as the broker still holds it: a
    /// stored offset cannot be deleted, so nothing can be stored for a beginning at offset 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Offset>,
    /// True until the sink's own position, `instead_of`, was moved too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sink_is_behind: bool,
}

impl Beginning {
    /// The offset to store on the broker for this beginning: the one before it. `None` for offset
    /// 0.
    pub fn mirror(&self) -> Option<Offset> {
        self.at.prev()
    }

    /// The offset before it, as a position to check against the stream.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.at.prev().map(|offset| Checkpoint { offset, chunk: self.behind })
    }

    /// True if the position of a sink is older than this beginning: either the one that it
    /// replaces, or one below it.
    pub fn replaces(&self, position: &Checkpoint) -> bool {
        let is_it = self.instead_of.is_some_and(|old| {
            let same_chunk = old.chunk.is_none() || position.chunk.is_none();
            old.offset == position.offset && (same_chunk || old.chunk == position.chunk)
        });
        is_it || position.offset < self.at
    }

    /// True if it begins at or below the position that it replaces: those offsets mean other
    /// messages now.
    pub fn is_new_history(&self) -> bool {
        self.instead_of.is_some_and(|old| old.offset >= self.at)
    }
}

/// Content of the state file for a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Memory {
    /// The last position stored.
    Position(Checkpoint),
    /// The beginning; nothing was stored since.
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
        Beginning { at: Offset(at), behind: None, instead_of, moved: None }
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
