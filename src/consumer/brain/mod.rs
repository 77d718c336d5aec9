//! The consumer's decisions, without I/O, tokio, clock or logs.
//!
//! [`Brain::apply`] takes an [`Event`] and its time, and returns the [`Action`]s to carry out, in order.
//! The worker around it does the I/O and the waiting. A seeded simulation drives the brain against a
//! simulated broker and sink, with failures at every step.
//!
//! | file | decides |
//! |---|---|
//! | [`storing`] | what is durable, when it is stored on the broker, who waits for that |
//! | [`committing`] | when a store begins, and who is answered |
//! | [`sinking`] | when the sink is opened and closed, which batches it gets, what its reports mean |
//! | [`linking`] | when to connect, and what the outcome means |
//! | [`losing`] | what happens when the position is lost |
//! | [`intaking`], [`damage`] | what a chunk, a gap and a damaged chunk mean |
//! | [`passing`] | what is passed over that the broker's filter leaves out |
//! | [`leaving`] | how the consumer ends, and how it yields to another active one |
//!
//! Invariants:
//! - nothing is stored on a connection before the stream has shown on it that it holds the position;
//! - no batch is written by a sink that is not open, and none is open while the consumer is passive;
//! - a stuck sink delays only writing: the brain connects and reconnects all the same.

/// True if a test has planted this defect.
macro_rules! planted {
    ($of:ident, $defect:ident) => {{
        #[cfg(test)]
        let planted = $of.defect == Some($crate::consumer::brain::defect::Defect::$defect);
        #[cfg(not(test))]
        let planted = false;
        planted
    }};
}

mod committing;
mod damage;
mod event;
mod intaking;
mod leaving;
mod linking;
mod losing;
mod note;
mod passing;
mod sinking;
mod storing;

#[cfg(test)]
mod defect;
#[cfg(test)]
mod simulation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::damage::FailedReads;
pub(super) use self::event::{
    Action, Asked, Connect, Event, Linked, Moment, Opened, Surroundings, TICK, View,
};
pub use self::event::{NotCommitted, Outcome};
use self::leaving::Leaving;
use self::linking::Link;
pub(super) use self::note::Note;
pub(super) use self::passing::{Passed, Question};
use self::sinking::{Restarting, SinkState};
use self::storing::Storing;
pub(super) use self::storing::{Caller, StoreEnd};
use super::intake::Inflated;
use super::resumption::Own;
use super::spec::Spec;
use crate::flow::backoff::Backoff;
use crate::flow::cutter::Cutter;
use crate::flow::pace::Pace;
use crate::flow::resume::Doubts;
use crate::source::{Activation, Prefer};

/// Longest back-off while a broker or a stream is away, and so the longest delay once it is back. An
/// attempt costs little, and few of them reach one node at the same time.
const AWAY_MAX: Duration = Duration::from_secs(5);

/// One consumer's state.
pub(super) struct Brain<W> {
    spec: Arc<Spec>,
    /// The state file's path, for messages.
    state_file: PathBuf,
    activation: Activation,
    random: fastrand::Rng,
    sink: SinkState,
    batches: Batches,
    storing: Storing<W>,
    restarting: Restarting,
    link: Link,
    reading: Reading,
    leaving: Leaving,
    /// When the broker has to be answered that this consumer is active.
    active_by: Option<Instant>,
    actions: Vec<Action<W>>,
    #[cfg(test)]
    defect: Option<defect::Defect>,
}

/// Batches that are not with the sink yet.
struct Batches {
    cutter: Cutter,
    pace: Pace,
    ready: std::collections::VecDeque<super::orders::Order>,
    inflated: Arc<Inflated>,
}

/// State that outlives a connection.
struct Reading {
    own: Own,
    backoff: Backoff,
    /// Back-off for a broker or a stream that is away.
    backoff_away: Backoff,
    /// Whether the stream still holds the position.
    doubts: Doubts,
    /// Failed reads of the chunks at these offsets.
    unreadable: FailedReads,
    /// The same for the chunk that holds the position, keyed by the first offset wanted after it.
    position_unreadable: FailedReads,
}

impl Own {
    fn unknown() -> Own {
        Own { position: None, remembered: None, anew: None, prefer: Prefer::Replica }
    }
}

impl<W: Caller> Brain<W> {
    /// A consumer that has not begun. `inflated` counts the memory of its batches beyond that of their
    /// chunks.
    pub(super) fn new(
        spec: Arc<Spec>,
        state_file: PathBuf,
        inflated: Arc<Inflated>,
        random: fastrand::Rng,
        now: Moment,
    ) -> Brain<W> {
        Brain {
            activation: spec.source.activation(),
            state_file,
            random,
            sink: SinkState::Closed,
            batches: Batches {
                cutter: Cutter::new(spec.stream.clone(), spec.batch),
                pace: Pace::new(spec.batch.max_age),
                ready: std::collections::VecDeque::new(),
                inflated,
            },
            storing: Storing::new(spec.commit, None, now.at),
            restarting: Restarting::No,
            link: Link::Down { until: now.at },
            reading: Reading {
                own: Own::unknown(),
                backoff: Backoff::new(spec.backoff_min, spec.backoff_max),
                backoff_away: Backoff::new(spec.backoff_min, spec.backoff_max.min(AWAY_MAX)),
                doubts: Doubts::default(),
                unreadable: FailedReads::default(),
                position_unreadable: FailedReads::default(),
            },
            leaving: Leaving::No,
            active_by: None,
            actions: Vec::new(),
            #[cfg(test)]
            defect: None,
            spec,
        }
    }

    /// Takes an event, and puts the resulting actions into `actions`, which must be empty.
    pub(super) fn apply(&mut self, event: Event<W>, now: Moment, actions: &mut Vec<Action<W>>) {
        std::mem::swap(&mut self.actions, actions);
        match event {
            Event::Due(around) => self.on_due(around, now),
            Event::Drain => self.end(Outcome::Drained, now),
            Event::Commit(caller) => self.commit(caller, now),
            Event::Opened(opened) => self.on_opened(opened, now),
            Event::Reported(report) => self.on_report(report, now),
            Event::SinkGone { panicked } => self.on_sink_gone(panicked, now),
            Event::SinkClosed => self.on_sink_closed(now),
            Event::Stored(stored) => self.on_stored(stored, now),
            Event::Linked(linked) => self.on_linked(linked, now),
            Event::Delivered(delivery) => self.on_delivered(delivery, now),
            Event::Unavailable(error) | Event::LinkEnded(error) => self.unlink(error, now),
            Event::Activation { active } => self.on_activation(active, now),
            Event::Asked(asked) => self.on_asked(asked, now),
            Event::Passed(passed) => self.on_passed(passed, now),
        }
        debug_assert!(self.keeps_promises(), "an action that breaks a promise");
        std::mem::swap(&mut self.actions, actions);
    }

    /// False if an action breaks a promise that the state alone can judge. The simulation judges all of them, and finds
    /// planted defects itself.
    fn keeps_promises(&self) -> bool {
        #[cfg(test)]
        if self.defect.is_some() {
            return true;
        }
        let durable = self.storing.ledger().durable().map(|checkpoint| checkpoint.offset);
        let is_sink_gone = matches!(self.sink, SinkState::Closed | SinkState::Ended);
        self.actions.iter().all(|action| match action {
            Action::Store(checkpoint) => durable >= Some(checkpoint.offset),
            Action::OpenSink => matches!(self.sink, SinkState::Opening),
            // The broker makes another consumer active next.
            Action::AnswerActivation(None) => self.activation == Activation::AtOnce || is_sink_gone,
            _ => true,
        })
    }

    /// Does whatever is due.
    fn on_due(&mut self, around: Surroundings, now: Moment) {
        self.mind_limits(now);
        if self.is_starved(around) || self.is_batch_due(around, now.at) {
            self.cut(now);
        }
        self.hand_over();
        self.continue_chunk(now);
        self.hand_over();
        self.start_storing(now);
        self.finish_yielding(now);
        self.start_opening();
        self.start_linking(now);
        self.start_looking(around, now);
    }

    /// Latest time of the next [`Event::Due`], if anything has one; it must come within [`TICK`] in any case.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Down { until } if self.may_link() => Some(*until),
            _ => None,
        };
        let storing = self.storing.deadline(self.link.can_store());
        let active_by = self.active_by.filter(|_| self.link.is_becoming_active());
        [self.batch_deadline(), storing, link, active_by, self.leaving.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the next event of the subscription can be taken.
    pub(super) fn takes_events(&self) -> bool {
        match &self.link {
            Link::Up(up) => {
                up.takes_chunks()
                    && self.batches.ready.is_empty()
                    && self.leaving.is_no()
                    && self.restarting == Restarting::No
            }
            Link::Passive | Link::Waiting | Link::Resuming => true,
            Link::Down { .. } | Link::Linking { .. } | Link::Bare { .. } => false,
        }
    }

    /// Outcome, once everything is finished that can be.
    pub(super) fn finished(&self) -> Option<&Outcome> {
        let outcome = self.leaving.outcome()?;
        self.storing.is_finished(self.sink.is_open()).then_some(outcome)
    }

    /// Callers of a forced commit who have no answer yet.
    pub(super) fn take_waiters(&mut self) -> Vec<W> {
        self.storing.take_waiters()
    }

    /// The state that others see.
    pub(super) fn view(&self) -> View {
        let ledger = self.storing.ledger();
        let in_cutter = || self.batches.cutter.oldest().map(|chunk| chunk.timestamp);
        View {
            oldest: ledger.oldest().or_else(in_cutter),
            durable: ledger.durable(),
            is_unstored: self.storing.is_pending() || self.storing.is_unsure(false),
            is_reading: matches!(self.link, Link::Up(_)),
            is_sink_busy: ledger.unsettled() > self.sink.held(),
        }
    }

    fn act(&mut self, action: Action<W>) {
        self.actions.push(action);
    }

    fn note(&mut self, note: Note) {
        self.act(Action::Note(note));
    }
}
