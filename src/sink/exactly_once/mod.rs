//! A sink's knowledge of the position that it commits together with its rows, and what it may do next.
//!
//! The `sqlite` and `postgres` sinks each drive one [`PositionTracker`]. The tracker decides; the sink
//! connects, reads the position's row and runs the transactions.
//!
//! # A commit whose answer is lost
//! It either counts or not, and only the position's row can tell. So the sink reads the row on a new
//! connection, and the tracker compares:
//!
//! | known before | the row holds | verdict |
//! |---|---|---|
//! | nothing yet | any position | the sink begins behind it |
//! | `at` | `at` | the sink continues behind it |
//! | `at`, a commit to `to` in doubt | `at` | the commit did not count: the batch is written again |
//! | `at`, a commit to `to` in doubt | `to` | the commit counted: the batch is durable, and is not written again |
//! | any of the last three | another position, before or behind | [`PositionMoved`]: fatal, nothing is written |
//!
//! # Invariants
//! - A commit is in doubt from before it is sent until its answer has arrived. If the caller drops the
//!   future in between, the doubt remains.
//! - While in doubt, nothing is written before the row is read.
//! - A batch is [`AlreadyCommitted`](BeforeWrite::AlreadyCommitted) only if the row held that batch's own
//!   checkpoint, and only once.
//! - Nothing at or below the known position is written.
//!
//! # What the sink has to ensure
//! - Rows and position are one transaction, which changes nothing unless the row still belongs to this
//!   owner. The database decides that, in the UPDATE itself: a decision outside of the transaction might
//!   no longer be true when it commits. A row of another owner ends the sink in every state.
//! - The row is read only when no former connection of this owner can commit any more. What was read is
//!   durable before [`PositionTracker::resume`] is called.
//!
//! Must not know: SQL, connections, time, logs.

#[cfg(test)]
mod defect;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use crate::types::{Checkpoint, Offset};

/// The position as far as this sink knows it, and whether a commit is in doubt.
#[derive(Debug, Default)]
pub(super) struct PositionTracker {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The row was not read yet.
    #[default]
    Unread,
    /// The row holds `at`.
    Known { at: Option<Checkpoint> },
    /// The row holds `at` or `to`: the answer to a commit has not arrived yet, or was lost.
    InDoubt { at: Option<Checkpoint>, to: Option<Checkpoint> },
    /// The row holds `at`. The batch up to there is durable, though its write was reported as failed.
    Landed { at: Checkpoint },
}

/// What to do with the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeforeWrite {
    /// Read the position's row first.
    ReadRow,
    /// Write it.
    Write,
    /// Report it as durable: its commit counted, and only the answer was lost.
    AlreadyCommitted,
    /// Refuse it: it begins at or below this committed position.
    Overlaps(Checkpoint),
}

/// A position that was compared with the known one, for [`PositionTracker::resume`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Compared {
    state: State,
    landed: bool,
}

impl Compared {
    /// True if a commit counted whose answer was lost.
    #[must_use]
    pub(super) fn has_landed(&self) -> bool {
        self.landed
    }
}

/// The row holds another position than this sink left there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PositionMoved {
    /// The position in the row.
    pub(super) found: Option<Checkpoint>,
    /// The last position that is known to be committed.
    pub(super) committed: Option<Checkpoint>,
}

impl State {
    fn at(self) -> Option<Checkpoint> {
        match self {
            State::Unread => None,
            State::Known { at } | State::InDoubt { at, .. } => at,
            State::Landed { at } => Some(at),
        }
    }
}

impl PositionTracker {
    /// Begins at the position of a row that was just read.
    pub(super) fn starting_at(at: Option<Checkpoint>) -> PositionTracker {
        PositionTracker { state: State::Known { at } }
    }

    /// The last position that is known to be committed; `None` also before the row was read.
    pub(super) fn committed(&self) -> Option<Checkpoint> {
        self.state.at()
    }

    /// Whether the row has to be read before anything else is done.
    pub(super) fn must_read_row(&self) -> bool {
        matches!(self.state, State::Unread | State::InDoubt { .. })
    }

    /// Compares the position in the row, which belongs to this owner, with the known one. Changes
    /// nothing: the sink may have to make the row durable before it resumes.
    ///
    /// # Errors
    /// If the row holds neither the known position nor the one in doubt.
    pub(super) fn compare(&self, found: Option<Checkpoint>) -> Result<Compared, PositionMoved> {
        let known = |state| Ok(Compared { state, landed: false });
        match self.state {
            State::Unread => known(State::Known { at: found }),
            State::Known { at } | State::InDoubt { at, .. } if found == at => {
                known(State::Known { at })
            }
            State::Landed { at } if found == Some(at) => known(State::Landed { at }),
            State::InDoubt { to, .. } if found == to => {
                // A reset answers for no batch.
                let state = to.map_or(State::Known { at: None }, |at| State::Landed { at });
                Ok(Compared { state, landed: true })
            }
            State::Known { .. } | State::InDoubt { .. } | State::Landed { .. } => {
                Err(PositionMoved { found, committed: self.state.at() })
            }
        }
    }

    /// Adopts the result of [`compare`](PositionTracker::compare).
    pub(super) fn resume(&mut self, compared: Compared) {
        self.state = compared.state;
    }

    /// What to do with the batch from offset `first` up to `reached`.
    pub(super) fn before_write(&mut self, first: Offset, reached: Checkpoint) -> BeforeWrite {
        let at = match self.state {
            State::Unread | State::InDoubt { .. } => return BeforeWrite::ReadRow,
            State::Known { at } => at,
            State::Landed { at } => {
                self.state = State::Known { at: Some(at) };
                if at == reached {
                    return BeforeWrite::AlreadyCommitted;
                }
                Some(at)
            }
        };
        match at {
            Some(at) if first <= at.offset => BeforeWrite::Overlaps(at),
            _ => BeforeWrite::Write,
        }
    }

    /// Notes that a commit that moves the position to `to` is about to be sent. It is in doubt from here
    /// on.
    pub(super) fn committing(&mut self, to: Option<Checkpoint>) {
        debug_assert!(!self.must_read_row(), "a commit to {to:?} in {:?}", self.state);
        self.state = State::InDoubt { at: self.state.at(), to };
    }

    /// The commit was confirmed.
    pub(super) fn confirmed(&mut self) {
        if let State::InDoubt { to, .. } = self.state {
            self.state = State::Known { at: to };
        }
    }

    /// The commit was refused, and the transaction is known to be rolled back.
    pub(super) fn rolled_back(&mut self) {
        if let State::InDoubt { at, .. } = self.state {
            self.state = State::Known { at };
        }
    }
}
