//! A tracker in which one defect is planted, to show that the simulation finds such.

use super::{BeforeWrite, Compared, PositionMoved, PositionTracker, State};
use crate::types::{Checkpoint, Offset};

/// One planted defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// A commit counts as soon as it is sent.
    BelievesLostAnswer,
    /// A commit whose answer was lost counts as rolled back.
    ForgetsDoubt,
    /// A commit that was found to count is written again.
    WritesLandedAgain,
    /// The first batch after a landed commit counts as durable, whichever it is.
    AnswersForAnyBatch,
    /// A batch that landed still counts after the position was reset.
    KeepsLandingOverReset,
    /// An earlier position than the committed one is built upon.
    AcceptsEarlierPosition,
    /// A later position than the committed one is built upon.
    AcceptsLaterPosition,
    /// The connection is used on although a commit is in doubt.
    WritesInDoubt,
    /// A batch below the committed position is written.
    WritesRepeats,
    /// A commit that was refused counts.
    TakesRollbackForCommit,
    /// The doubt stays although the row was read.
    DoubtsForEver,
    /// A new sink begins at nothing, whatever the row holds.
    ForgetsRow,
}

impl Defect {
    pub(super) const ALL: [Defect; 12] = [
        Defect::BelievesLostAnswer,
        Defect::ForgetsDoubt,
        Defect::WritesLandedAgain,
        Defect::AnswersForAnyBatch,
        Defect::KeepsLandingOverReset,
        Defect::AcceptsEarlierPosition,
        Defect::AcceptsLaterPosition,
        Defect::WritesInDoubt,
        Defect::WritesRepeats,
        Defect::TakesRollbackForCommit,
        Defect::DoubtsForEver,
        Defect::ForgetsRow,
    ];
}

/// A [`PositionTracker`] with or without a defect.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    real: PositionTracker,
    defect: Option<Defect>,
    /// What a defect remembers: where a commit goes that is not in doubt, or the batch that landed.
    to: Option<Option<Checkpoint>>,
    landed: Option<Checkpoint>,
}

impl Tracker {
    pub(super) fn new(defect: Option<Defect>) -> Tracker {
        Tracker { defect, ..Tracker::default() }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub(super) fn committed(&self) -> Option<Checkpoint> {
        self.real.committed()
    }

    pub(super) fn must_read_row(&mut self) -> bool {
        if self.has(Defect::WritesInDoubt) {
            self.real.rolled_back();
        }
        self.real.must_read_row()
    }

    pub(super) fn compare(&self, found: Option<Checkpoint>) -> Result<Compared, PositionMoved> {
        let compared = self.real.compare(found);
        let offset = |at: Option<Checkpoint>| at.map(|at| at.offset);
        let accepts = match &compared {
            Err(moved) if offset(moved.found) < offset(moved.committed) => {
                self.has(Defect::AcceptsEarlierPosition)
            }
            Err(_) => self.has(Defect::AcceptsLaterPosition),
            Ok(_) => false,
        };
        match accepts {
            true => Ok(Compared { state: State::Known { at: found }, landed: false }),
            false => compared,
        }
    }

    pub(super) fn resume(&mut self, compared: Compared) {
        let before = self.real.state;
        self.real.resume(compared);
        let state = self.real.state;
        match (self.defect, before, state) {
            (Some(Defect::WritesLandedAgain), State::InDoubt { at, .. }, State::Landed { .. }) => {
                self.real.state = State::Known { at };
            }
            (Some(Defect::DoubtsForEver), State::InDoubt { .. }, _) => self.real.state = before,
            (Some(Defect::ForgetsRow), State::Unread, _) => {
                self.real.state = State::Known { at: None };
            }
            _ => {}
        }
    }

    pub(super) fn before_write(&mut self, first: Offset, reached: Checkpoint) -> BeforeWrite {
        if self.has(Defect::AnswersForAnyBatch)
            && let State::Landed { at } = self.real.state
        {
            self.real.state = State::Known { at: Some(at) };
            return BeforeWrite::AlreadyCommitted;
        }
        match self.real.before_write(first, reached) {
            BeforeWrite::Overlaps(_) if self.has(Defect::WritesRepeats) => BeforeWrite::Write,
            decided => decided,
        }
    }

    pub(super) fn committing(&mut self, to: Option<Checkpoint>) {
        match (self.defect, self.real.state) {
            (Some(Defect::BelievesLostAnswer), _) => self.real.state = State::Known { at: to },
            (Some(Defect::ForgetsDoubt), _) => self.to = Some(to),
            (Some(Defect::KeepsLandingOverReset), State::Landed { at }) => {
                self.landed = Some(at);
                self.real.committing(to);
            }
            _ => self.real.committing(to),
        }
    }

    pub(super) fn confirmed(&mut self) {
        self.real.confirmed();
        if let Some(at) = self.to.take() {
            self.real.state = State::Known { at };
        }
        if let Some(at) = self.landed.take() {
            self.real.state = State::Landed { at };
        }
    }

    pub(super) fn rolled_back(&mut self) {
        match self.defect {
            Some(Defect::TakesRollbackForCommit) => self.real.confirmed(),
            _ => self.real.rolled_back(),
        }
        self.to = None;
    }
}
