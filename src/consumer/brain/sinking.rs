//! The sink: when it is opened and closed, which batches it gets, and what its reports mean.

use std::time::Instant;

use super::leaving::Leaving;
use super::linking::Link;
use super::{Action, Brain, Caller, Moment, NotCommitted, Note, Opened, Outcome, Surroundings};
use crate::consumer::orders::{Order, Report, Stopped, Written};
use crate::consumer::resumption::Own;
use crate::consumer::spec::OnBad;
use crate::flow::batch::Batch;
use crate::flow::beginning::Memory;
use crate::flow::ledger::{LedgerError, Ticket};
use crate::flow::resume::Origin;
use crate::source::{Activation, Prefer};
use crate::telemetry::{SinkErrorReason, State};

/// Whether there is a sink to write to.
#[derive(Clone, Copy, Debug)]
pub(super) enum SinkState {
    Closed,
    Opening,
    Open {
        /// The most batches that may be with it and not reported yet.
        orders_max: usize,
        /// Batches that it has taken and holds back.
        held: usize,
        /// It was told to flush them.
        is_flushing: bool,
    },
    Closing,
    /// It ended by itself, and takes nothing more.
    Ended,
}

impl SinkState {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, SinkState::Open { .. })
    }

    /// Batches that the sink has taken and holds back.
    pub(super) fn held(&self) -> usize {
        match self {
            SinkState::Open { held, .. } => *held,
            SinkState::Closed | SinkState::Opening | SinkState::Closing | SinkState::Ended => 0,
        }
    }
}

/// Whether the consumer begins anew after a loss. Meanwhile nothing is read, and no beginning is stored:
/// the records accepted before must be durable first, or the new beginning would count them as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restarting {
    No,
    /// Waits until everything in flight is settled.
    Settling,
    /// The same; then the sink is told to begin a new incarnation.
    Wanted,
    /// Waits for the sink's answer.
    Told,
}

impl<W: Caller> Brain<W> {
    /// Opens the sink, if this consumer is the active one.
    pub(super) fn start_opening(&mut self) {
        let is_active = match self.activation {
            Activation::AtOnce => true,
            Activation::ByBroker => {
                matches!(self.link, Link::Waiting) || planted!(self, OpensWhilePassive)
            }
        };
        if is_active && self.leaving.is_no() && matches!(self.sink, SinkState::Closed) {
            // The state shown remains: after a failure, its reason counts until the failure is over.
            self.sink = SinkState::Opening;
            self.act(Action::OpenSink);
        }
    }

    pub(super) fn on_opened(&mut self, opened: Result<Opened, Outcome>, now: Moment) {
        let Opened { position, remembered, orders_max } = match opened {
            Ok(opened) => opened,
            Err(outcome) => {
                self.sink = SinkState::Ended;
                return self.end(outcome, now);
            }
        };
        self.note(Note::State(State::Starting, None));
        // A policy accepted a loss, and the sink has written nothing since: its position is from before.
        let began = remembered.and_then(|memory: Memory| memory.beginning());
        let position = position.filter(|at| !began.is_some_and(|began| began.replaces(at)));
        let is_new_history =
            position.is_none() && began.is_some_and(|began| began.is_new_history());
        self.sink = SinkState::Open { orders_max, held: 0, is_flushing: false };
        self.storing.begin_anew(self.spec.commit, position, now.at);
        self.restarting = if is_new_history { Restarting::Wanted } else { Restarting::No };
        self.reading.own = Own {
            position: position.map(|p| (Origin::Sink, p)),
            remembered,
            anew: None,
            prefer: Prefer::Replica,
        };
    }

    /// True if memory is full, and every accepted record is in the open batch or held back by the sink.
    pub(super) fn is_starved(&self, around: Surroundings) -> bool {
        !self.batches.cutter.is_empty()
            && self.storing.ledger().unsettled() == self.sink.held()
            && !around.credit
            && !self.has_chunks(around)
            && !self.link.has_chunk()
    }

    /// Whether the open batch goes to the sink as it is: because of its age, or because the sink is idle
    /// and no chunk can be taken at once.
    pub(super) fn is_batch_due(&self, around: Surroundings, now: Instant) -> bool {
        let Some(since) = self.batches.cutter.since() else { return false };
        let pace = &self.batches.pace;
        pace.by_age(since) <= now
            || (self.is_sink_idle() && pace.while_idle(since) <= now && !self.has_chunks(around))
    }

    /// True if a chunk can be taken without waiting.
    fn has_chunks(&self, around: Surroundings) -> bool {
        matches!(&self.link, Link::Up(up) if up.chunk.is_none()) && around.waiting
    }

    pub(super) fn batch_deadline(&self) -> Option<Instant> {
        let since = self.batches.cutter.since()?;
        Some(match self.is_sink_idle() {
            true => self.batches.pace.while_idle(since),
            false => self.batches.pace.by_age(since),
        })
    }

    fn is_sink_idle(&self) -> bool {
        self.batches.ready.is_empty() && self.storing.ledger().unsettled() == 0
    }

    /// Makes a batch of the accepted records.
    pub(super) fn cut(&mut self, now: Moment) {
        if let Some(batch) = self.batches.cutter.cut() {
            self.line_up(batch, now);
        }
    }

    pub(super) fn line_up(&mut self, batch: Batch, now: Moment) {
        match self.storing.open(batch.checkpoint(), batch.messages(), batch.oldest()) {
            Ok(ticket) => self.batches.ready.push_back(Order { ticket, batch }),
            Err(error) => self.internal_error(&error, now),
        }
    }

    /// Batches that are with the sink's task and not reported yet.
    fn with_sink(&self) -> usize {
        let elsewhere = self.sink.held() + self.batches.ready.len();
        self.storing.ledger().unsettled().saturating_sub(elsewhere)
    }

    /// Gives the sink as many finished batches as it takes.
    pub(super) fn hand_over(&mut self) {
        let SinkState::Open { orders_max, .. } = self.sink else { return };
        while (self.with_sink() < orders_max || planted!(self, OverfillsSink))
            && let Some(order) = self.batches.ready.pop_front()
        {
            self.act(Action::Write(order));
        }
        self.ask_for_flush();
        let is_idle = self.batches.cutter.is_empty()
            && self.storing.ledger().under_way() == 0
            && !self.storing.is_storing()
            || planted!(self, RestartsUnsettled);
        match self.restarting {
            Restarting::Settling if is_idle || planted!(self, BeginsUnsettled) => {
                self.restarting = Restarting::No;
            }
            Restarting::Wanted if is_idle => {
                self.restarting = Restarting::Told;
                self.act(Action::Restart);
            }
            _ => {}
        }
    }

    /// Tells the sink to flush, if everything has to be durable and only batches that it holds back are
    /// not.
    fn ask_for_flush(&mut self) {
        if planted!(self, NeverFlushes) {
            return;
        }
        let wanted = !self.leaving.is_no()
            || self.storing.is_awaited()
            || matches!(self.restarting, Restarting::Settling | Restarting::Wanted);
        let unsettled = self.storing.ledger().unsettled();
        if let SinkState::Open { held, is_flushing, .. } = &mut self.sink
            && wanted
            && !*is_flushing
            && *held > 0
            && *held == unsettled
        {
            *is_flushing = true;
            self.act(Action::Flush);
        }
    }

    pub(super) fn on_report(&mut self, report: Report, now: Moment) {
        match report {
            Report::Settled { tickets, messages, bytes, skipped, took } => {
                self.batches.pace.wrote(took, now.at);
                self.note(Note::SinkWorks { messages, bytes, took: Some(took) });
                if let SinkState::Open { held, is_flushing, .. } = &mut self.sink {
                    (*held, *is_flushing) = (0, false);
                }
                self.note_skipped(skipped);
                tickets.into_iter().for_each(|ticket| self.settle(ticket, now));
            }
            Report::Part {
                written: Written { messages, tickets, part },
                bytes,
                oldest,
                skipped,
            } => {
                self.note(Note::SinkWorks { messages, bytes, took: None });
                self.note_skipped(skipped);
                tickets.into_iter().for_each(|ticket| self.settle(ticket, now));
                if let Some((ticket, checkpoint, messages)) = part {
                    let moved = self.storing.advance(ticket, checkpoint, messages, oldest);
                    self.note_moved(moved, now);
                }
            }
            Report::Held { batches, skipped } => {
                if batches > 0 {
                    self.batches.pace.holds();
                }
                if let SinkState::Open { held, .. } = &mut self.sink {
                    *held += batches;
                }
                self.note(Note::SinkWorks { messages: 0, bytes: 0, took: None });
                self.note_skipped(skipped);
            }
            Report::Retrying { error, wait } => self.note(Note::SinkFailed { error, wait }),
            Report::Restarted => {
                for caller in self.storing.restart() {
                    self.act(Action::Answer(caller, Err(NotCommitted::ReCreated)));
                }
                self.restarting = Restarting::No;
                self.note(Note::Restarted);
            }
            Report::WoundUp => {
                self.sink_ended();
                let batches = self.storing.ledger().under_way();
                self.note(Note::WoundUp { batches });
            }
            Report::Stopped(stopped) => self.on_sink_stopped(stopped, now),
        }
    }

    fn on_sink_stopped(&mut self, stopped: Stopped, now: Moment) {
        let Stopped { written: Written { messages, tickets, part }, bad, reason } = stopped;
        let kind = if bad.is_empty() { SinkErrorReason::Fatal } else { SinkErrorReason::Poison };
        self.note(Note::SinkStopped { reason: kind, messages });
        self.sink_ended();
        tickets.into_iter().for_each(|ticket| self.settle(ticket, now));
        if let Some((ticket, checkpoint, messages)) = part {
            match self.storing.settle_part(ticket, checkpoint, messages) {
                Ok(true) => self.note(Note::Progress(now.wall)),
                Ok(false) => {}
                Err(error) => self.note(Note::Internal(format!("internal error: {error}"))),
            }
        }
        let hint = match bad.iter().map(|bad| bad.offset).min() {
            Some(first) if self.spec.on_bad != OnBad::DeadLetter => format!(
                ". To leave out this one: rillway skip {} --offset {first}. To leave such messages out, set \
                 on_bad_message = \"skip\"; to set them aside, \"dead_letter\"",
                self.spec.name
            ),
            Some(first) => {
                format!(". To leave out this one: rillway skip {} --offset {first}", self.spec.name)
            }
            None => String::new(),
        };
        let by_broker = self.activation == Activation::ByBroker;
        if by_broker && bad.is_empty() {
            // Another active instance may have taken the sink over, and its offset must not be
            // overwritten. Or another instance may be able to write where this one cannot.
            self.storing.give_up();
            return self.end(Outcome::Failed(reason), now);
        }
        self.end(Outcome::Halted(format!("{reason}{hint}")), now);
    }

    pub(super) fn on_sink_gone(&mut self, panicked: bool, now: Moment) {
        self.sink = SinkState::Ended;
        let outcome = match panicked {
            // The panic's own message was logged where it happened.
            true => Outcome::Panicked("the sink panicked".to_owned()),
            false => Outcome::Failed("the sink's task ended unexpectedly".to_owned()),
        };
        self.end(outcome, now);
    }

    /// Marks the sink as ended: it takes nothing more. One that was told to close continues to close.
    fn sink_ended(&mut self) {
        if self.sink.is_open() {
            self.sink = SinkState::Ended;
        }
    }

    fn note_skipped(&mut self, skipped: Vec<crate::sink::BadRecord>) {
        if !skipped.is_empty() {
            self.note(Note::Skipped(skipped));
        }
    }

    /// Settles the ticket: its batch is durable, or a policy left it out.
    pub(super) fn settle(&mut self, ticket: Ticket, now: Moment) {
        let moved = self.storing.settle(ticket);
        self.note_moved(moved, now);
    }

    fn note_moved(&mut self, moved: Result<bool, LedgerError>, now: Moment) {
        match moved {
            Ok(true) => self.note(Note::Progress(now.wall)),
            Ok(false) => {}
            Err(error) => self.internal_error(&error, now),
        }
    }

    pub(super) fn internal_error(&mut self, error: &LedgerError, now: Moment) {
        let what = format!("internal error: {error}");
        match self.leaving {
            Leaving::Ending { .. } => self.note(Note::Internal(what)),
            Leaving::No | Leaving::Yielding { .. } => self.end(Outcome::Failed(what), now),
        }
    }

    /// Starts a forced commit: the accepted records are finished first.
    pub(super) fn commit(&mut self, caller: W, now: Moment) {
        if !self.sink.is_open() {
            return self.act(Action::Answer(caller, Err(NotCommitted::SinkNotOpen)));
        }
        self.cut(now);
        self.storing.wait(caller);
    }

    /// Everything is stored that can be; the next active instance may begin.
    pub(super) fn forget_run(&mut self, now: Moment) {
        for caller in self.storing.take_waiters() {
            self.act(Action::Answer(caller, Err(NotCommitted::TakenOver)));
        }
        drop(self.batches.cutter.cut());
        self.batches.ready.clear();
        self.restarting = Restarting::No;
        self.reading.own = Own::unknown();
        self.storing.begin_anew(self.spec.commit, None, now.at);
    }
}
