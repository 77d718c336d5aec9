//! Connecting to the broker: when, and what the outcome means.

use std::time::{Duration, Instant};

use super::leaving::Leaving;
use super::passing::Passing;
use super::sinking::{Restarting, SinkState};
use super::{Action, Brain, Caller, Connect, Linked, Moment, Note, Outcome};
use crate::consumer::intake::{Checked, Intake};
use crate::consumer::resumption::{Anew, Resumption, SessionError};
use crate::flow::beginning::Memory;
use crate::flow::resume::{Origin, Start};
use crate::source::{Activation, ErrorKind, Prefer, SourceError};
use crate::telemetry::{RestartReason, State};
use crate::types::Offset;

/// State of the connection.
pub(super) enum Link {
    /// Not connected; the next attempt is at this time.
    Down { until: Instant },
    /// An action is running that ends with [`Event::Linked`](super::Event::Linked). `checks` is set if
    /// that tells whether the stream holds the durable position.
    Linking { checks: bool },
    /// Subscribed; another instance is the active consumer.
    Passive,
    /// Subscribed; the broker waits to be told where to begin.
    Waiting,
    /// The same, while the position is looked up.
    Resuming,
    /// Chunks arrive.
    Up(Box<Up>),
    /// Nothing is read any more. The offset can be stored once the stream has shown that it holds the
    /// durable position.
    Bare { is_checked: bool },
}

pub(super) struct Up {
    pub(super) intake: Intake,
    /// Source of the position.
    pub(super) origin: Option<Origin>,
    /// A chunk that waits for room to be inflated, or for a gap to be explained.
    pub(super) chunk: Option<Checked>,
    /// The broker is being asked about a gap.
    pub(super) is_asking: bool,
    /// What is known of what the broker's filter leaves out.
    pub(super) passing: Passing,
    /// The leader was wanted, and this is another node.
    pub(super) is_hearsay: bool,
}

impl Up {
    pub(super) fn takes_chunks(&self) -> bool {
        self.chunk.is_none() && !self.is_asking
    }
}

impl Link {
    /// Whether an offset can be stored on this connection.
    pub(super) fn can_store(&self) -> bool {
        matches!(self, Link::Up(_) | Link::Bare { is_checked: true })
    }

    /// Whether the broker waits to be told where to begin.
    pub(super) fn is_becoming_active(&self) -> bool {
        matches!(self, Link::Waiting | Link::Resuming)
    }

    /// Whether a chunk was taken and waits to be continued.
    pub(super) fn has_chunk(&self) -> bool {
        matches!(self, Link::Up(up) if up.chunk.is_some())
    }
}

impl<W: Caller> Brain<W> {
    /// Connects, or looks up the position, if that is due.
    pub(super) fn start_linking(&mut self, now: Moment) {
        match self.link {
            Link::Down { until } if until <= now.at && self.may_link() => {}
            Link::Waiting if self.may_read() => {
                self.link = Link::Resuming;
                return self.act(Action::Resume(Box::new(self.reading.own)));
            }
            Link::Bare { is_checked: false } => {
                if let Some(durable) = self.storing.ledger().durable() {
                    self.link = Link::Linking { checks: true };
                    self.act(Action::Verify(durable));
                }
                return;
            }
            _ => return,
        }
        let purpose = match (&self.leaving, self.activation) {
            (Leaving::Ending { .. }, _) => Connect::Store(self.storing.ledger().durable()),
            (_, Activation::AtOnce) => Connect::Read(self.reading.own),
            (_, Activation::ByBroker) => Connect::Wait(Prefer::Leader),
        };
        self.link = Link::Linking { checks: matches!(purpose, Connect::Store(Some(_))) };
        if !matches!(purpose, Connect::Store(_)) {
            self.note(Note::Connecting);
        }
        self.act(Action::Connect(Box::new(purpose)));
    }

    /// Whether a connection would be of any use now.
    pub(super) fn may_link(&self) -> bool {
        match (&self.leaving, self.activation) {
            (Leaving::Ending { .. }, Activation::AtOnce) => {
                self.storing.needs_connection(self.sink.is_open())
            }
            // Another instance may be active by then, whose offset must not be overwritten.
            (Leaving::Ending { .. }, Activation::ByBroker) | (Leaving::Yielding { .. }, _) => false,
            (Leaving::No, Activation::AtOnce) => self.may_read(),
            // A running store must end before another instance can become active.
            (Leaving::No, Activation::ByBroker) => {
                matches!(self.sink, SinkState::Closed) && !self.storing.is_outdated()
            }
        }
    }

    /// Whether the position may be looked up: there is a sink, and nothing of an old incarnation is in
    /// flight.
    fn may_read(&self) -> bool {
        self.leaving.is_no()
            && self.sink.is_open()
            && self.restarting == Restarting::No
            && !self.storing.is_outdated()
    }

    pub(super) fn on_linked(&mut self, linked: Result<Linked, SessionError>, now: Moment) {
        let is_checked = match self.link {
            Link::Linking { checks } => checks,
            Link::Resuming => false,
            _ => return, // The attempt was given up meanwhile.
        };
        let linked = match linked {
            Err(error) if self.leaving.outcome().is_some() => {
                return self.not_linked_while_ending(error, now);
            }
            linked => linked,
        };
        match linked {
            Ok(Linked::Passive) => {
                self.link = Link::Passive;
                self.reading.backoff_away.reset();
                self.stand_by();
            }
            Ok(Linked::Reading(resumption)) => self.on_session(*resumption, now),
            Ok(Linked::Storing { is_confirmed: true }) => {
                self.storing.resume();
                self.link = Link::Bare { is_checked };
            }
            Ok(Linked::Storing { is_confirmed: false }) => {
                self.link = Link::Bare { is_checked };
                self.storing.give_up();
                self.note(Note::Unconfirmed);
            }
            Err(SessionError::Broker(error)) => self.unlink(error, now),
            Err(SessionError::Lost { lost, of }) => self.on_lost(lost, of, now),
            Err(SessionError::Doubt { doubt, of }) => {
                if self.reading.doubts.lasted(now.at) {
                    self.on_lost(doubt.into(), of, now);
                } else {
                    let limit = self.reading.doubts.limit().as_secs();
                    let what = format!(
                        "{doubt}. If that lasts for {limit} s, the position counts as lost"
                    );
                    self.try_again(what, RestartReason::Stream, now);
                }
            }
            Err(SessionError::Hearsay { lost, of, why }) => self.on_hearsay(lost, of, &why, now),
            Err(error @ (SessionError::State(_) | SessionError::NotKept { .. })) => {
                self.reading.doubts.interrupted();
                self.try_again(error.to_string(), RestartReason::Other, now);
            }
        }
    }

    fn not_linked_while_ending(&mut self, error: SessionError, now: Moment) {
        let error = match error {
            SessionError::Broker(error) => error,
            // If the broker had said that there is no such stream, this stream is another one.
            SessionError::Doubt { .. }
                if self.reading.doubts.is_of_another() || self.reading.doubts.lasted(now.at) =>
            {
                self.link = Link::Down { until: now.at };
                self.act(Action::Disconnect);
                self.storing.give_up();
                return self.note(Note::Unconfirmed);
            }
            other => SourceError::given_up(other),
        };
        self.unlink(error, now);
    }

    fn on_session(&mut self, resumption: Resumption, now: Moment) {
        let Resumption { plan, stored, bounds, is_hearsay, .. } = resumption;
        if let (Some(beginning), Some(anew)) = (plan.begins, self.reading.own.anew)
            && beginning.is_new_history()
            && !anew.is_new_history
        {
            // The stream was re-created since the loss was found: the sink has to know.
            return self.begin_anew(Anew { from: None, is_new_history: true, ..anew }, now);
        }
        self.reading.doubts.clear();
        let is_moved_back = plan.origin == Some(Origin::Beginning) && stored >= plan.wanted;
        if stored.is_some() && is_moved_back {
            self.storing.supersede();
        }
        self.storing.observed(stored);
        if plan.verify.is_some() && !planted!(self, TrustsNewConnection) {
            // The chunk that holds the position arrives first, and confirms it.
            self.storing.suspend();
        }
        if let Some(beginning) = plan.begins {
            // The beginning is kept: until one of its records has arrived, it counts for the next
            // connection too.
            self.reading.own.remembered = Some(Memory::Beginning(beginning));
            let first = bounds.and_then(|bounds| bounds.first);
            if let (Some(anew), Some(first)) = (self.reading.own.anew.take(), first)
                && let Some(records) = beginning.at.0.checked_sub(first.0).filter(|n| *n > 0)
                && anew.start == Start::Next
            {
                let is_new_history = anew.is_new_history;
                self.note(Note::PassedOver { records, is_new_history });
            }
        }
        let end = bounds.and_then(|bounds| bounds.tail.at_least()).map(|last| last.next());
        // A beginning that waits for later messages skips all that the stream holds now.
        let base = plan
            .wanted
            .or(end.filter(|_| plan.awaits.is_some()))
            .or(bounds.and_then(|bounds| bounds.first))
            .unwrap_or(Offset(0));
        // A beginning is no data: it makes nothing durable.
        let resumed = matches!(plan.origin, Some(Origin::Sink | Origin::Broker | Origin::Session));
        if self.activation == Activation::ByBroker {
            self.act(Action::AnswerActivation(Some(plan.subscribe)));
            self.note(Note::Active(true));
        }
        self.note(Note::Subscribed { resumption: Box::new(resumption), base, resumed });
        self.note(Note::State(State::Running, None));
        self.reading.backoff.reset();
        self.reading.backoff_away.reset();
        let intake = Intake::new(&plan);
        let passing = Passing::new(plan.verify, now.at);
        let (origin, chunk, is_asking) = (plan.origin, None, false);
        let up = Up { intake, origin, chunk, is_asking, passing, is_hearsay };
        self.link = Link::Up(Box::new(up));
    }

    /// The connection was lost, or could not be made: connect again later.
    pub(super) fn unlink(&mut self, error: SourceError, now: Moment) {
        let why = match error.kind() {
            ErrorKind::Connection | ErrorKind::Overdue => RestartReason::Connection,
            ErrorKind::Full => RestartReason::ConnectionLimit,
            ErrorKind::Refused
            | ErrorKind::TooLarge
            | ErrorKind::Unreadable
            | ErrorKind::Unsupported
            | ErrorKind::Violation => RestartReason::Broker,
            ErrorKind::Missing | ErrorKind::Unavailable => RestartReason::Stream,
            ErrorKind::Overrun => RestartReason::Other,
            ErrorKind::Moved => RestartReason::Moved,
        };
        self.unlink_because(error, why, now);
    }

    /// The same for an error that does not tell why.
    pub(super) fn unlink_because(&mut self, error: SourceError, why: RestartReason, now: Moment) {
        self.act(Action::Disconnect);
        match self.leaving {
            Leaving::No => {}
            Leaving::Yielding { until: Some(_), .. } => {
                self.link = Link::Down { until: now.at };
                // Another instance is active already.
                return self.yield_without_connection(now);
            }
            Leaving::Yielding { until: None, .. } => {
                self.link = Link::Down { until: now.at };
                return self.storing.give_up();
            }
            Leaving::Ending { .. } => return self.unlink_while_ending(&error, now),
        }
        self.link = Link::Down { until: now.at };
        if error.kind() == ErrorKind::Moved {
            self.note(Note::Restart(why));
            return self.lose_activity(now);
        }
        if error.is_fatal() {
            return self.end(Outcome::Halted(error.to_string()), now);
        }
        // Errors that an operator has to fix are retried rarely.
        let mut wait = match error.kind() {
            ErrorKind::Connection
            | ErrorKind::Overdue
            | ErrorKind::Missing
            | ErrorKind::Unavailable => None,
            _ => Some(self.reading.backoff.next(self.random.f64())),
        };
        match error.kind() {
            ErrorKind::Missing => {
                // The next stream of this name is another one.
                self.storing.suspend();
                self.reading.doubts.missing();
            }
            ErrorKind::Overrun => {
                self.cut(now);
                self.reading.doubts.interrupted();
                wait = Some(Duration::ZERO);
            }
            _ => self.reading.doubts.interrupted(),
        }
        if planted!(self, ForgetsToReconnect) {
            wait = Some(Duration::from_secs(1_000_000));
        }
        self.back_off(error.to_string(), why, wait, now);
        self.lose_activity(now);
    }

    /// Without a connection to this consumer, the broker makes another instance active.
    pub(super) fn lose_activity(&mut self, now: Moment) {
        match (self.activation, self.sink) {
            (Activation::ByBroker, SinkState::Open { .. }) => self.yield_without_connection(now),
            (Activation::ByBroker, SinkState::Opening) => {
                self.sink = SinkState::Closed;
                self.act(Action::AbortOpening);
            }
            _ => {}
        }
    }

    fn unlink_while_ending(&mut self, error: &SourceError, now: Moment) {
        let wait = self.reading.backoff_away.next(self.random.f64());
        self.link = Link::Down { until: now.at + wait };
        match (self.activation, error.kind()) {
            // There is nothing whose offset could be stored.
            (Activation::ByBroker, _) | (_, ErrorKind::Missing) => self.storing.give_up(),
            // A consumer that was told to stop tries to store until its time limit. After a fault, which
            // may have broken the connection too, it connects only once more. The next run reads again
            // what was not stored.
            _ => self.storing.connection_lost(),
        }
    }

    /// Gives up the connection; connects again after a back-off.
    pub(super) fn try_again(&mut self, error: String, why: RestartReason, now: Moment) {
        self.act(Action::Disconnect);
        self.back_off(error, why, None, now);
        self.lose_activity(now);
    }

    fn back_off(&mut self, error: String, why: RestartReason, wait: Option<Duration>, now: Moment) {
        let wait = wait.unwrap_or_else(|| self.reading.backoff_away.next(self.random.f64()));
        self.link = Link::Down { until: now.at + wait };
        self.note(Note::NotConnected { error: error.clone(), wait });
        self.note(Note::State(State::Backoff, Some(error)));
        self.note(Note::Restart(why));
    }

    /// Whether the leader itself has said so. If not, asks the leader and returns `false`: another node
    /// may lag behind, or keep less.
    pub(super) fn leader_says(&mut self, what: &str, now: Moment) -> bool {
        let is_hearsay = matches!(&self.link, Link::Up(up) if up.is_hearsay);
        if self.reading.own.prefer == Prefer::Leader && !is_hearsay {
            return true;
        }
        self.reading.own.prefer = Prefer::Leader;
        let asking = SourceError::given_up(format!("{what}; asking the leader"));
        self.unlink_because(asking, RestartReason::Stream, now);
        false
    }
}
