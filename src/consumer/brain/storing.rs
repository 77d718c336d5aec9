//! What is durable, what of it is stored on the broker, and which callers wait for that.
//!
//! Invariants:
//! - an offset is stored only when everything up to it is durable, and the stream confirms it;
//! - at most one store is running, and a stored offset never goes backwards within an incarnation;
//! - a store that began before the stream was re-created says nothing about the new incarnation;
//! - every waiter is answered: when its offset is stored, when the stream is re-created, or at the end.

use std::time::Instant;

#[cfg(test)]
use super::defect::Defect;
use crate::flow::commit::{Commit, Policy};
use crate::flow::ledger::{Ledger, LedgerError, Progress, Ticket};
use crate::types::{Checkpoint, Offset, Timestamp};

/// Why a consumer ends, as far as storing is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Ending {
    /// It was told to stop: it tries to store until its time limit.
    Drain,
    /// A fault, which may have broken the connection too: it connects only once more.
    Fault,
}

/// The answer to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum ReadBack {
    /// The broker holds this afterwards.
    Held(Option<Offset>),
    /// There was no answer.
    Failed,
}

/// The outcome of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum StoreEnd {
    /// The broker holds the offset.
    Stored(Offset),
    /// The broker holds a higher offset than was stored.
    Higher { ours: Offset, theirs: Offset },
    /// The offset did not arrive.
    NotArrived { ours: Offset, held: Option<Offset> },
    /// There was no answer.
    Failed,
    /// The stream was re-created meanwhile: the result does not count.
    Outdated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Idle,
    Running {
        checkpoint: Checkpoint,
        /// A store that began after the end had begun.
        at_the_end: bool,
    },
    /// Running, for the incarnation before a restart.
    Outdated,
}

/// While ending, `connection_lost` says whether the connection was lost, or could not be made, since the
/// end began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining {
        connection_lost: bool,
    },
    Failing {
        connection_lost: bool,
    },
    /// Nothing more is stored: the next run reads again what was not.
    GivenUp,
}

/// The caller of a forced commit.
pub(in crate::consumer) trait Caller {
    /// True if the caller no longer waits for an answer.
    fn is_gone(&self) -> bool;
}

struct Waiter<W> {
    upto: Option<Offset>,
    answer: W,
}

/// The path of every batch from "in flight" to "stored". `W` is how a waiter is answered.
pub(in crate::consumer) struct Storing<W> {
    /// The sink's position when it was opened, until something else is durable.
    began_at: Option<Offset>,
    ledger: Ledger,
    commit: Commit,
    waiters: Vec<Waiter<W>>,
    store: Store,
    phase: Phase,
    #[cfg(test)]
    pub(super) defect: Option<Defect>,
}

impl<W: Caller> Storing<W> {
    /// Starts with everything up to the sink's `position` durable. That is stored on the broker once a
    /// chunk has confirmed it ([`Storing::resume`]).
    pub(in crate::consumer) fn new(
        policy: Policy,
        position: Option<Checkpoint>,
        now: Instant,
    ) -> Storing<W> {
        let mut commit = Commit::new(policy, None, now);
        if let Some(position) = position {
            commit.durable(position.offset, 0);
            commit.suspend();
        }
        Storing {
            began_at: position.map(|checkpoint| checkpoint.offset),
            ledger: Ledger::starting_at(position),
            commit,
            waiters: Vec::new(),
            store: Store::Idle,
            phase: Phase::Running,
            #[cfg(test)]
            defect: None,
        }
    }

    /// Begins a new run at this position. A store of the run before does not count for it.
    pub(in crate::consumer) fn begin_anew(
        &mut self,
        policy: Policy,
        position: Option<Checkpoint>,
        now: Instant,
    ) {
        let store = if self.store == Store::Idle { Store::Idle } else { Store::Outdated };
        #[cfg(test)]
        let defect = self.defect;
        *self = Storing::new(policy, position, now);
        self.store = store;
        #[cfg(test)]
        {
            self.defect = defect;
        }
    }

    /// Batches in flight, and what is durable.
    pub(in crate::consumer) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Opens a ticket for a batch that ends at `checkpoint`.
    pub(in crate::consumer) fn open(
        &mut self,
        checkpoint: Checkpoint,
        messages: u64,
        oldest: Timestamp,
    ) -> Result<Ticket, LedgerError> {
        if planted!(self, StoresBeforeDurable) {
            self.commit.durable(checkpoint.offset, messages);
        }
        self.ledger.open(checkpoint, messages, oldest)
    }

    /// Settles the ticket: its batch is durable, or a policy left it out. True if the durable offset
    /// moved.
    pub(in crate::consumer) fn settle(&mut self, ticket: Ticket) -> Result<bool, LedgerError> {
        if planted!(self, ForgetsTicket) && self.ledger.unsettled() == 3 {
            return Ok(false);
        }
        let progress = self.ledger.settle(ticket)?;
        if planted!(self, SettlesTwice) {
            self.ledger.settle(ticket)?;
        }
        Ok(self.note(progress))
    }

    /// See [`Ledger::settle_part`].
    pub(in crate::consumer) fn settle_part(
        &mut self,
        ticket: Ticket,
        checkpoint: Checkpoint,
        messages: u64,
    ) -> Result<bool, LedgerError> {
        let progress = self.ledger.settle_part(ticket, checkpoint, messages)?;
        Ok(self.note(progress))
    }

    /// See [`Ledger::advance`].
    pub(in crate::consumer) fn advance(
        &mut self,
        ticket: Ticket,
        checkpoint: Checkpoint,
        messages: u64,
        oldest: Timestamp,
    ) -> Result<bool, LedgerError> {
        let progress = self.ledger.advance(ticket, checkpoint, messages, oldest)?;
        Ok(self.note(Some(progress)))
    }

    fn note(&mut self, progress: Option<Progress>) -> bool {
        let Some(Progress { checkpoint, messages }) = progress else { return false };
        self.commit.durable(checkpoint.offset, messages);
        true
    }

    /// Takes over the offset that the broker reports after a reconnection.
    pub(in crate::consumer) fn observed(&mut self, stored: Option<Offset>) {
        self.commit.observed(stored);
    }

    /// The position was moved back: the offset on the broker does not count.
    pub(in crate::consumer) fn supersede(&mut self) {
        self.commit.supersede();
    }

    /// Stores nothing until the stream has confirmed the position.
    pub(in crate::consumer) fn suspend(&mut self) {
        if !planted!(self, StoresWhileSuspended) {
            self.commit.suspend();
        }
    }

    /// The stream has confirmed the position.
    pub(in crate::consumer) fn resume(&mut self) {
        self.commit.resume();
    }

    /// Forgets the old incarnation of the stream, and returns everyone who waited for one of its offsets.
    pub(in crate::consumer) fn restart(&mut self) -> Vec<W> {
        self.began_at = None;
        self.ledger.restart();
        self.commit.restart();
        if self.store != Store::Idle && !planted!(self, BelievesOutdatedStore) {
            self.store = Store::Outdated;
        }
        let mut waiters = self.take_waiters();
        if planted!(self, DropsWaiter) {
            waiters.pop();
        }
        waiters
    }

    /// True while nothing is stored because the stream has not confirmed the position.
    pub(in crate::consumer) fn is_suspended(&self) -> bool {
        self.commit.is_suspended()
    }

    /// True if the stream has not confirmed the position, and there is something new to store, now or
    /// once the batches in flight are durable.
    pub(in crate::consumer) fn is_unsure(&self, has_work: bool) -> bool {
        let durable = self.durable();
        let is_new = durable != self.began_at && durable > self.commit.stored();
        let has_news = has_work || is_new;
        self.commit.is_suspended() && has_news && self.phase != Phase::GivenUp
    }

    /// True while a store is running, of either incarnation.
    pub(in crate::consumer) fn is_storing(&self) -> bool {
        self.store != Store::Idle
    }

    /// Stores nothing more in this run.
    pub(in crate::consumer) fn give_up(&mut self) {
        self.phase = Phase::GivenUp;
    }

    /// Whether a store of the old incarnation is running. There must be no new connection until it has
    /// ended: it could overwrite the new beginning.
    pub(in crate::consumer) fn is_outdated(&self) -> bool {
        self.store == Store::Outdated
    }

    /// Answers `answer` once everything that is in flight now is stored.
    pub(in crate::consumer) fn wait(&mut self, answer: W) {
        self.waiters.push(Waiter { upto: self.ledger.last(), answer });
    }

    /// True while a caller waits for a forced commit.
    pub(in crate::consumer) fn is_awaited(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Drops the waiters that no longer wait for an answer.
    pub(in crate::consumer) fn forget_waiters(&mut self) {
        self.waiters.retain(|waiter| !waiter.answer.is_gone());
    }

    /// Everyone who waits and has no answer yet.
    pub(in crate::consumer) fn take_waiters(&mut self) -> Vec<W> {
        std::mem::take(&mut self.waiters).into_iter().map(|waiter| waiter.answer).collect()
    }

    /// Everyone whose offset is stored by now, and the stored offset to answer with.
    pub(in crate::consumer) fn answerable(&mut self) -> (Vec<W>, Option<Offset>) {
        let stored = self.commit.stored();
        let durable = self.durable();
        let settled = self.commit.pending().is_none() && !self.commit.is_suspended();
        let early = planted!(self, AnswersEarly);
        let done = self
            .waiters
            .extract_if(.., |w| stored >= w.upto || (settled && durable >= w.upto) || early)
            .map(|waiter| waiter.answer)
            .collect();
        (done, stored)
    }

    /// Begins the end. The first reason counts, but a fault counts for more than a drain.
    pub(in crate::consumer) fn end(&mut self, ending: Ending) {
        self.phase = match (self.phase, ending) {
            (Phase::Running, Ending::Drain) => Phase::Draining { connection_lost: false },
            (Phase::Running, Ending::Fault) => Phase::Failing { connection_lost: false },
            (Phase::Draining { connection_lost }, Ending::Fault) => {
                Phase::Failing { connection_lost }
            }
            (phase, _) => phase,
        };
    }

    /// Notes that a connection was lost or could not be made. Counts only while ending.
    pub(in crate::consumer) fn connection_lost(&mut self) {
        self.phase = match self.phase {
            Phase::Running => Phase::Running,
            Phase::Draining { .. } => Phase::Draining { connection_lost: true },
            Phase::Failing { connection_lost: false } => Phase::Failing { connection_lost: true },
            Phase::Failing { connection_lost: true } if planted!(self, NeverGivesUp) => self.phase,
            Phase::Failing { connection_lost: true } | Phase::GivenUp => Phase::GivenUp,
        };
    }

    /// True if a durable offset is not stored yet, and may be.
    pub(in crate::consumer) fn is_pending(&self) -> bool {
        self.commit.pending().is_some()
    }

    /// While ending: whether a connection is needed because there is, or may be, something to store.
    pub(in crate::consumer) fn needs_connection(&self, sink_alive: bool) -> bool {
        let to_settle = sink_alive && self.ledger.under_way() > 0;
        let may_store = self.store == Store::Idle && self.phase != Phase::GivenUp;
        may_store && (to_settle || self.is_pending())
    }

    /// True once everything is finished that can be.
    pub(in crate::consumer) fn is_finished(&self, sink_alive: bool) -> bool {
        let settled =
            self.ledger.under_way() == 0 || !sink_alive || planted!(self, EndsWithBatchInFlight);
        let stored = !self.is_pending() || self.phase == Phase::GivenUp;
        settled && self.store == Store::Idle && stored
    }

    /// Time at which an offset has to be stored, as far as it can be.
    pub(in crate::consumer) fn deadline(&self, connected: bool) -> Option<Instant> {
        if self.store != Store::Idle || !connected || self.phase == Phase::GivenUp {
            return None;
        }
        let retry = self.commit.retry_at();
        if planted!(self, LosesWakeUp) && retry.is_some() {
            return None;
        }
        let forced = retry.filter(|_| self.is_forced() && self.is_pending());
        forced.or_else(|| self.commit.deadline())
    }

    /// The offset to store now, if any. It counts as being stored until [`Storing::stored`].
    pub(in crate::consumer) fn next_store(
        &mut self,
        now: Instant,
        connected: bool,
    ) -> Option<Checkpoint> {
        let is_idle = self.store == Store::Idle || planted!(self, StoresTwice);
        if !connected || !is_idle || self.phase == Phase::GivenUp {
            return None;
        }
        let due = if self.is_forced() && !self.commit.is_waiting(now) {
            self.commit.pending()
        } else {
            self.commit.due(now)
        };
        #[cfg(test)]
        let due = due.or(self.ledger.durable().map(|c| c.offset).filter(|_| {
            planted!(self, StoresBackwards)
                && !self.commit.is_suspended()
                && self.commit.stored() > self.durable()
        }));
        let offset = due?;
        #[cfg(not(test))]
        debug_assert!(self.durable() >= Some(offset), "stored before durable");
        // The ledger knows the chunk; both are for the same offset.
        let chunk = self.ledger.durable().filter(|c| c.offset == offset).and_then(|c| c.chunk);
        let checkpoint = Checkpoint { offset, chunk };
        self.store = Store::Running { checkpoint, at_the_end: self.phase != Phase::Running };
        Some(checkpoint)
    }

    /// Takes the result of the running store.
    pub(in crate::consumer) fn stored(&mut self, read_back: ReadBack, now: Instant) -> StoreEnd {
        let store = std::mem::replace(&mut self.store, Store::Idle);
        let Store::Running { checkpoint: Checkpoint { offset: ours, .. }, at_the_end } = store
        else {
            return StoreEnd::Outdated;
        };
        match read_back {
            ReadBack::Held(Some(held)) if held == ours => {
                self.commit.confirmed(held, now);
                StoreEnd::Stored(held)
            }
            ReadBack::Held(_) if planted!(self, BelievesAnyReadBack) => {
                self.commit.confirmed(ours, now);
                StoreEnd::Stored(ours)
            }
            ReadBack::Held(Some(theirs)) if theirs > ours => {
                self.commit.observed(Some(theirs));
                self.commit.failed(now);
                StoreEnd::Higher { ours, theirs }
            }
            ReadBack::Held(held) => {
                self.store_failed(at_the_end, now);
                StoreEnd::NotArrived { ours, held }
            }
            ReadBack::Failed => {
                self.store_failed(at_the_end, now);
                StoreEnd::Failed
            }
        }
    }

    /// A store that the fault itself cut off is not the one that is tried at the end.
    fn store_failed(&mut self, at_the_end: bool, now: Instant) {
        self.commit.failed(now);
        let was_tried = at_the_end && matches!(self.phase, Phase::Failing { .. });
        if was_tried && !planted!(self, NeverGivesUp) {
            self.phase = Phase::GivenUp;
        }
    }

    fn durable(&self) -> Option<Offset> {
        self.ledger.durable().map(|c| c.offset)
    }

    /// True if an offset has to be stored although neither the count nor the time is reached.
    fn is_forced(&self) -> bool {
        let durable = self.durable();
        self.phase != Phase::Running || self.waiters.iter().any(|w| durable >= w.upto)
    }
}
