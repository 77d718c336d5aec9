//! What a consumer knows of its position, and what came of looking for it in the stream. Plain data.

use super::state_file::StateError;
use crate::flow::beginning::Memory;
use crate::flow::resume::{Doubt, Lost, Origin, Plan, Start};
use crate::source::{Bounds, Prefer, SourceError};
use crate::types::{Checkpoint, Offset};

/// How often a beginning is stored on the broker, and read back, before the attempt fails.
pub(super) const STORES_MAX: u32 = 5;

/// What the consumer knows by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    /// The sink's position, or how far this process has come.
    pub(super) position: Option<(Origin, Checkpoint)>,
    /// The state file's.
    pub(super) remembered: Option<Memory>,
    /// Goes before everything: where to begin after a loss that a policy accepted.
    pub(super) anew: Option<Anew>,
    /// Which node to ask: the leader, where another node's answer would be a loss.
    pub(super) prefer: Prefer,
}

/// Where to begin after a loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anew {
    /// As the policy says.
    pub(super) start: Start,
    /// The first offset that was left, when the loss was found: from there on, what retention takes
    /// is noticed.
    pub(super) from: Option<Offset>,
    /// The position that was lost.
    pub(super) instead_of: Option<Checkpoint>,
    /// The stream is another one than that which was read.
    pub(super) is_new_history: bool,
}

impl Anew {
    /// All of a stream that was created again, before anything of it was read.
    pub(super) fn first(lost: &Lost) -> Anew {
        let instead_of = lost.position().map(|offset| Checkpoint { offset, chunk: None });
        Anew { start: Start::First, from: None, instead_of, is_new_history: true }
    }
}

/// Whether a beginning that is lost so is of a former stream: nothing of it was read, and all of the
/// new one was published since.
pub(super) fn is_of_a_former_stream(lost: &Lost) -> bool {
    matches!(lost, Lost::PastEnd { .. } | Lost::Rewritten { .. })
}

/// Where a subscription begins, and what that rests on.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    pub(super) plan: Plan,
    /// What the broker had stored when it began.
    pub(super) stored: Option<Offset>,
    /// Where the stream begins and ends, where the source says so.
    pub(super) bounds: Option<Bounds>,
    /// Name of the node, for the log.
    pub(super) node: String,
    /// The broker's version, for the log.
    pub(super) version: String,
    /// The leader was wanted, and this is not it.
    pub(super) is_hearsay: bool,
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Broker(#[from] SourceError),
    /// The position is lost; `of` says where it was found.
    #[error("{lost}")]
    Lost { lost: Lost, of: Option<Origin> },
    /// It may be.
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
