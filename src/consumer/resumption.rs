//! A consumer's knowledge of its position, and the results of looking it up in the stream. Plain data.

use super::state_file::StateError;
use crate::flow::beginning::Memory;
use crate::flow::resume::{Doubt, Lost, Origin, Plan, Start};
use crate::source::{Bounds, ErrorKind, Prefer, SourceError};
use crate::types::{Checkpoint, Offset};

/// Most attempts to store a beginning on the broker and read it back, before the connection attempt
/// fails.
pub(super) const STORES_MAX: u32 = 5;

/// The consumer's own knowledge of its position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    /// The sink's position, or the progress of this process.
    pub(super) position: Option<(Origin, Checkpoint)>,
    /// The position in the state file.
    pub(super) remembered: Option<Memory>,
    /// Takes precedence over all others: where to begin after a loss that a policy accepted.
    pub(super) anew: Option<Anew>,
    /// Which node to ask: the leader, if another node's answer would be a loss.
    pub(super) prefer: Prefer,
}

impl Own {
    /// True if anything tells of an earlier position or beginning in the stream.
    pub(super) fn has_begun(&self) -> bool {
        self.position.is_some() || self.remembered.is_some() || self.anew.is_some()
    }
}

/// Where to begin after a loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anew {
    /// As the policy says.
    pub(super) start: Start,
    /// The first offset of the stream when the loss was found: later losses by retention are measured
    /// from it.
    pub(super) from: Option<Offset>,
    /// The position that was lost.
    pub(super) instead_of: Option<Checkpoint>,
    /// The stream is not the one that was read.
    pub(super) is_new_history: bool,
}

impl Anew {
    /// The whole of a re-created stream, of which nothing was read before.
    pub(super) fn first(lost: &Lost) -> Anew {
        let instead_of = lost.position().map(|offset| Checkpoint { offset, chunk: None });
        Anew { start: Start::First, from: None, instead_of, is_new_history: true }
    }
}

/// Whether a beginning that is lost in this way belongs to an old stream: nothing of that one was read,
/// and everything in the new one was published since.
pub(super) fn is_of_a_former_stream(lost: &Lost) -> bool {
    matches!(lost, Lost::PastEnd { .. } | Lost::Rewritten { .. })
}

/// Where a subscription begins, and why.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    pub(super) plan: Plan,
    /// The offset that was stored on the broker at that time.
    pub(super) stored: Option<Offset>,
    /// Where the stream begins and ends, if the source tells.
    pub(super) bounds: Option<Bounds>,
    /// Name of the node, for the log.
    pub(super) node: String,
    /// The broker's version, for the log.
    pub(super) version: String,
    /// The leader was wanted, and this is not it.
    pub(super) is_hearsay: bool,
}

/// Checks the first chunk that a new reader was given for a position, against where the stream begins.
///
/// Retention deletes segments before it moves the stream's first offset (`osiris_retention`), and a new
/// reader goes by the segments that are there. So it may pass over messages while the stream still seems to
/// hold them. A position with the identity of a chunk is that of a record, which the stream has to give
/// as long as it begins at or below it.
///
/// # Errors
/// If the reader has jumped. It does not last: either the first offset moves, and this is a loss, or
/// another reader finds the position.
pub(super) fn check_jump(
    position: Checkpoint,
    given: Offset,
    stream_first: Option<Offset>,
) -> Result<(), SourceError> {
    let is_record = position.chunk.is_some();
    if !is_record || given <= position.offset || stream_first.is_none_or(|f| f > position.offset) {
        return Ok(());
    }
    let what = format!(
        "the stream is said to begin at or below the position (offset {}), but gives messages only from offset {given} on: retention is deleting at this moment. Nothing is read until it is clear what it takes",
        position.offset
    );
    Err(SourceError::new(ErrorKind::Unavailable, what))
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Broker(#[from] SourceError),
    /// The position is lost; `of` is its source.
    #[error("{lost}")]
    Lost { lost: Lost, of: Option<Origin> },
    /// The position may be lost.
    #[error("{doubt}")]
    Doubt { doubt: Doubt, of: Option<Origin> },
    /// It may be, as a node says that is not the leader, which is out of reach.
    #[error("{lost}, says a node that is not the leader: {why}")]
    Hearsay { lost: Lost, of: Option<Origin>, why: String },
    #[error(transparent)]
    State(#[from] StateError),
    /// The beginning could not be stored on the broker.
    #[error(
        "offset {wanted}, before which this reference begins, was stored on the broker {STORES_MAX} times, but it holds {}: nothing is read before that is kept", .held.map_or("none".to_owned(), |held| held.to_string())
    )]
    NotKept { wanted: Offset, held: Option<Offset> },
}
