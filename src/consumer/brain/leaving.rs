//! How a consumer ends, and how it yields to another active instance: it takes nothing new, finishes the
//! batches in flight, and stores the offset.

use std::time::{Duration, Instant};

use super::linking::Link;
use super::sinking::{Restarting, SinkState};
use super::storing::Ending;
use super::{Action, Brain, Caller, Moment, Note, Outcome};
use crate::source::{Activation, SourceError};
use crate::telemetry::{RestartReason, State};

/// Time limit for the batches in flight when another instance is to be active; then the sink is closed
/// with what it has settled. The broker gives up a change of activity that is not answered within 60 s.
pub(super) const YIELD_MAX: Duration = Duration::from_secs(35);

/// Time limit for closing the sink after that; then its task is aborted.
pub(super) const YIELD_CLOSE_MAX: Duration = Duration::from_secs(10);

/// So long may it take to open the sink and to find the position. Then another instance is let in: the
/// broker's time is about to be over, and it would close the connection, for all streams that share it.
pub(super) const ACTIVATE_MAX: Duration = Duration::from_secs(45);

/// Whether the consumer is ending or yielding.
pub(super) enum Leaving {
    No,
    /// Another instance is to be active. At `until`, or sooner, the sink is told to close (`None`: it has
    /// been told). At `answer_by` its task is aborted, if it has not closed.
    Yielding {
        stop_at: Option<Instant>,
        until: Option<Instant>,
        answer_by: Instant,
    },
    /// `stop_at`: time at which the sink begins no other batch. `abort_at`: time at which it is aborted,
    /// because the broker waits for another one to become active.
    Ending {
        outcome: Outcome,
        stop_at: Option<Instant>,
        abort_at: Option<Instant>,
    },
}

impl Leaving {
    pub(super) fn is_no(&self) -> bool {
        matches!(self, Leaving::No)
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        match self {
            Leaving::Ending { outcome, .. } => Some(outcome),
            Leaving::No | Leaving::Yielding { .. } => None,
        }
    }

    fn stop_at(&mut self) -> Option<&mut Option<Instant>> {
        match self {
            Leaving::No => None,
            Leaving::Yielding { stop_at, .. } | Leaving::Ending { stop_at, .. } => Some(stop_at),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Leaving::No => None,
            Leaving::Yielding { stop_at, until, answer_by } => {
                [*stop_at, *until, Some(*answer_by)].into_iter().flatten().min()
            }
            Leaving::Ending { stop_at, abort_at, .. } => {
                [*stop_at, *abort_at].into_iter().flatten().min()
            }
        }
    }
}

impl<W: Caller> Brain<W> {
    /// Takes nothing new from now on. The first reason counts, but a fault counts for more than having
    /// been told to end.
    pub(super) fn end(&mut self, outcome: Outcome, now: Moment) {
        let told = outcome == Outcome::Drained;
        let stop_at = now.at + self.spec.wind_up_after;
        match &mut self.leaving {
            Leaving::No | Leaving::Yielding { .. } => {}
            Leaving::Ending { outcome: Outcome::Drained, .. } if !told => {}
            Leaving::Ending { stop_at: at, .. } => {
                if told {
                    // The outcome remains a fault, but a sink that does not respond gets only a little
                    // more time.
                    at.get_or_insert(stop_at);
                }
                return;
            }
        }
        let before = self.leaving.stop_at().and_then(|at| *at);
        let (ending, reason) = match &outcome {
            Outcome::Drained => (Ending::Drain, "told to stop".to_owned()),
            Outcome::Halted(reason)
            | Outcome::Failed(reason)
            | Outcome::Locked(reason)
            | Outcome::Panicked(reason) => (Ending::Fault, reason.clone()),
        };
        // The broker waits for the end where it waited for the consumer to yield.
        let abort_at = match self.leaving {
            Leaving::No => None,
            Leaving::Yielding { answer_by, .. } => Some(answer_by),
            Leaving::Ending { abort_at, .. } => abort_at,
        };
        let stop_at = match (told, before.filter(|_| abort_at.is_some())) {
            (true, Some(before)) => Some(before.min(stop_at)),
            (true, None) => Some(stop_at),
            (false, _) => before,
        };
        self.leaving = Leaving::Ending { outcome, stop_at, abort_at };
        self.storing.end(ending);
        self.note(Note::State(State::Draining, Some(reason)));
        self.restarting = Restarting::No;
        if matches!(self.sink, SinkState::Opening) {
            self.sink = SinkState::Ended;
            self.act(Action::AbortOpening);
        }
        self.stop_reading(now);
        if planted!(self, DropsLastBatch) {
            drop(self.batches.cutter.cut());
        }
        self.cut(now);
    }

    /// Keeps the connection only for storing the offset.
    fn stop_reading(&mut self, now: Moment) {
        let has_work = !self.batches.cutter.is_empty() || self.storing.ledger().under_way() > 0;
        let is_unsure = self.storing.is_unsure(has_work);
        match self.link {
            Link::Up(_) => {
                self.link = Link::Bare { is_checked: !is_unsure };
                self.act(Action::StopReading);
            }
            Link::Bare { is_checked } => {
                self.link = Link::Bare { is_checked: is_checked && !is_unsure };
            }
            _ => {
                self.link = Link::Down { until: now.at };
                self.act(Action::Disconnect);
            }
        }
        if is_unsure {
            // On this connection and every later one, the position is checked before anything is stored.
            self.storing.resume();
        }
        if self.activation == Activation::ByBroker && matches!(self.link, Link::Down { .. }) {
            // It does not connect again: another instance may be active by then.
            self.storing.give_up();
        }
    }

    /// Ends what has exceeded its time limit.
    pub(super) fn mind_limits(&mut self, now: Moment) {
        if let Some(stop_at) = self.leaving.stop_at()
            && stop_at.is_some_and(|at| at <= now.at)
        {
            *stop_at = None;
            self.act(Action::StopSink);
        }
        match self.leaving {
            Leaving::No => self.mind_activation(now),
            Leaving::Yielding { answer_by, .. } => {
                if answer_by <= now.at && !planted!(self, WaitsForStuckSink) {
                    // What it had not made durable is read by the next active one.
                    self.note(Note::SinkAborted);
                    self.act(Action::AbortSink);
                    self.sink = SinkState::Closing;
                    self.on_sink_closed(now);
                }
            }
            Leaving::Ending { abort_at, .. } => {
                if abort_at.is_some_and(|at| at <= now.at) {
                    self.abort_while_ending(now);
                }
            }
        }
    }

    /// Lets another instance in, where this one could not become active in time.
    fn mind_activation(&mut self, now: Moment) {
        let is_late = self.active_by.is_some_and(|by| by <= now.at);
        if !is_late || !self.link.is_becoming_active() || planted!(self, WaitsForStuckOpening) {
            return;
        }
        let what = match self.sink {
            SinkState::Open { .. } => "the position was not found",
            _ => "the sink was not open",
        };
        let limit = ACTIVATE_MAX.as_secs();
        let what = format!(
            "{what} within {limit} s of becoming the active consumer, and the broker waits for 60: another instance may try"
        );
        self.unlink_because(SourceError::given_up(what), RestartReason::Sink, now);
    }

    /// The broker's time is about to be over: another one becomes active with what is stored.
    fn abort_while_ending(&mut self, now: Moment) {
        if let Leaving::Ending { abort_at, .. } = &mut self.leaving {
            *abort_at = None;
        }
        if matches!(self.sink, SinkState::Open { .. } | SinkState::Closing) {
            self.note(Note::SinkAborted);
            self.act(Action::AbortSink);
            self.sink = SinkState::Ended;
        }
        self.storing.give_up();
        self.link = Link::Down { until: now.at };
        self.act(Action::Disconnect);
    }

    /// The broker's decision about which consumer is active.
    pub(super) fn on_activation(&mut self, active: bool, now: Moment) {
        if self.activation == Activation::AtOnce {
            return self.act(Action::AnswerActivation(None));
        }
        match (active, &self.link) {
            (true, Link::Passive) => {
                self.link = Link::Waiting;
                self.active_by = Some(now.at + ACTIVATE_MAX);
                self.note(Note::State(State::Starting, None));
            }
            (false, Link::Passive) => self.act(Action::AnswerActivation(None)),
            (false, Link::Waiting | Link::Resuming | Link::Up(_)) => self.yield_to_another(now),
            // The end of the subscription answers; a yielding one answers when it is done.
            (_, Link::Bare { .. } | Link::Down { .. } | Link::Linking { .. }) => {
                self.end_in_time(now);
            }
            (true, Link::Waiting | Link::Resuming | Link::Up(_)) => {
                let what = "the broker made this consumer active, although it was active already";
                self.unlink_because(SourceError::given_up(what), RestartReason::Broker, now);
            }
        }
    }

    /// The broker waits for the end: it has the same time as for a change.
    fn end_in_time(&mut self, now: Moment) {
        if let Leaving::Ending { stop_at, abort_at, .. } = &mut self.leaving
            && abort_at.is_none()
        {
            let until = now.at + YIELD_MAX / 2;
            *stop_at = Some(stop_at.map_or(until, |at| at.min(until)));
            *abort_at = Some(now.at + YIELD_MAX + YIELD_CLOSE_MAX);
        }
    }

    /// Finishes and stores the batches in flight, closes the sink, and answers the broker.
    fn yield_to_another(&mut self, now: Moment) {
        let why = "another instance is becoming the active one".to_owned();
        self.note(Note::State(State::Draining, Some(why)));
        if !self.sink.is_open() {
            // Nothing was taken yet.
            if matches!(self.sink, SinkState::Opening) {
                self.act(Action::AbortOpening);
            }
            self.sink = SinkState::Closed;
            self.link = Link::Passive;
            self.act(Action::AnswerActivation(None));
            return self.stand_by();
        }
        self.restarting = Restarting::No;
        let until = now.at + YIELD_MAX;
        self.leaving = Leaving::Yielding {
            stop_at: Some(now.at + YIELD_MAX / 2),
            until: Some(until),
            answer_by: until + YIELD_CLOSE_MAX,
        };
        if self.storing.is_suspended() {
            // No chunk has confirmed the position yet: the next active instance begins where this one
            // did.
            self.storing.give_up();
        }
        self.storing.end(Ending::Drain);
        self.act(Action::StopReading);
        if planted!(self, AnswersBeforeClosing) {
            self.act(Action::AnswerActivation(None));
        }
        self.link = Link::Bare { is_checked: true };
        self.cut(now);
    }

    /// The connection is lost, so this consumer is no longer the active one. The sink finishes what it
    /// has begun, and nothing is stored.
    pub(super) fn yield_without_connection(&mut self, now: Moment) {
        let answer_by = now.at + YIELD_CLOSE_MAX;
        self.leaving = Leaving::Yielding { stop_at: None, until: Some(now.at), answer_by };
        self.storing.give_up();
        self.restarting = Restarting::No;
        self.act(Action::StopSink);
        drop(self.batches.cutter.cut());
        self.batches.ready.clear();
    }

    /// Closes the sink, once nothing is in flight or the time is over.
    pub(super) fn finish_yielding(&mut self, now: Moment) {
        let until = match self.leaving {
            Leaving::Yielding { until: Some(until), .. } => until,
            // The sink closed before the last store had ended.
            Leaving::Yielding { until: None, .. } if matches!(self.sink, SinkState::Closed) => {
                return self.on_sink_closed(now);
            }
            _ => return,
        };
        let is_done = self.storing.is_finished(true) && self.batches.ready.is_empty();
        let closes = match self.sink {
            SinkState::Open { .. } => is_done || until <= now.at,
            SinkState::Ended => self.storing.is_finished(false) || until <= now.at,
            SinkState::Closed | SinkState::Opening | SinkState::Closing => false,
        };
        if closes {
            if let Leaving::Yielding { until, .. } = &mut self.leaving {
                *until = None;
            }
            self.sink = SinkState::Closing;
            self.act(Action::CloseSink);
        }
    }

    pub(super) fn on_sink_closed(&mut self, now: Moment) {
        self.sink = match self.sink {
            SinkState::Closing => SinkState::Closed,
            other => other,
        };
        let Leaving::Yielding { answer_by, .. } = self.leaving else { return };
        if self.storing.is_storing() && now.at < answer_by && matches!(self.link, Link::Bare { .. })
        {
            // The next active instance is to begin behind it.
            return;
        }
        self.leaving = Leaving::No;
        if self.storing.is_storing() {
            // Nobody can tell when that store arrives. Dropping the connection shows the broker that this
            // consumer is gone.
            self.link = Link::Down { until: now.at };
            self.act(Action::Disconnect);
        }
        self.forget_run(now);
        match self.link {
            Link::Bare { .. } => {
                self.link = Link::Passive;
                self.act(Action::AnswerActivation(None));
                self.stand_by();
            }
            // The back-off continues.
            Link::Down { .. } | Link::Linking { .. } | Link::Passive => {
                self.note(Note::Active(false));
            }
            Link::Waiting | Link::Resuming | Link::Up(_) => {}
        }
    }

    /// Another instance is the active consumer.
    pub(super) fn stand_by(&mut self) {
        self.note(Note::Active(false));
        self.note(Note::State(State::Passive, None));
    }
}
