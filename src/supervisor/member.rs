//! One consumer of the set, running or not: its plan, what others see of it, and its commands.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use super::desired::{Want, Wanted};
use super::plan::Plan;
use super::reconcile::{Last, Phase};
use crate::consumer::{Command, NotCommitted, Status};
use crate::sync::lock;
use crate::telemetry::{ConsumerMetrics, State};
use crate::types::Offset;

/// Reason that a paused consumer shows.
const PAUSED: &str = "paused by an operator, until it is resumed";
/// Reason of a consumer that may not start yet.
const WAITS: &str =
    "waiting for the end of the consumer that had its reference or its destination before";

/// Most commands that wait for a consumer's loop.
const COMMANDS_MAX: usize = 16;

/// A consumer with one plan.
pub(super) struct Member {
    pub(super) plan: Plan,
    pub(super) status: Arc<Status>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
}

/// Why a consumer's offset was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotStored {
    /// No task can store it: the consumer does not run, or its command queue is full.
    #[error("the consumer cannot store its offset now: {0}")]
    NotRunning(String),
    /// The consumer ended before it had stored the offset.
    #[error("the consumer cannot store its offset now: {0}")]
    Ended(String),
    /// The store failed.
    #[error("{0}")]
    Failed(NotCommitted),
}

impl Member {
    /// A consumer that has not run yet. `before` is what ran under its key by another plan.
    pub(super) fn new(plan: Plan, before: Option<&Member>) -> Member {
        let metrics = ConsumerMetrics::new(&plan.spec.name, &plan.spec.stream, plan.sink_kind);
        if plan.dead_letters.is_some() {
            metrics.show_dead_letters();
        }
        if plan.spec.filter.is_some() {
            metrics.show_filtered();
        }
        if plan.spec.transform.is_some() {
            metrics.show_dropped();
        }
        let status = Status::new(metrics);
        if let Some(before) = before {
            status.follow(&before.status);
        }
        Member { plan, status: Arc::new(status), commands: Mutex::new(None) }
    }

    /// Sets the running consumer's command channel, for as long as the guard lives.
    pub(super) fn take_commands(&self) -> (Commanded<'_>, mpsc::Receiver<Command>) {
        let (commands, receive) = mpsc::channel(COMMANDS_MAX);
        *lock(&self.commands) = Some(commands.clone());
        (Commanded { member: self, commands }, receive)
    }

    /// Sends the running consumer a command; false if none runs, or its queue is full.
    fn tell(&self, command: Command) -> bool {
        lock(&self.commands).as_ref().is_some_and(|to| to.try_send(command).is_ok())
    }

    /// Stores the durable offset now; returns what the broker holds.
    ///
    /// Cancel-safe: the offset is stored whether or not the caller waits for the answer.
    pub(super) async fn commit(&self) -> Result<Option<Offset>, NotStored> {
        let (answer, answered) = oneshot::channel();
        let why_not = || self.status.facts().why_not_ready().unwrap_or_else(|| "busy".to_owned());
        if !self.tell(Command::Commit(answer)) {
            return Err(NotStored::NotRunning(why_not()));
        }
        match answered.await {
            Ok(stored) => stored.map_err(NotStored::Failed),
            Err(_) => Err(NotStored::Ended(why_not())),
        }
    }

    /// Shows others why no task runs. A running task shows its own state.
    pub(super) fn show(&self, phase: &Phase, wanted: Option<Wanted>) {
        let want = wanted.map(|wanted| wanted.want);
        self.status.metrics.paused.set(f64::from(u8::from(want == Some(Want::Pause))));
        let (state, reason) = match phase {
            Phase::Running | Phase::Draining { .. } | Phase::Aborting => return,
            Phase::Backoff { reason, .. } => match want {
                Some(Want::Run) => (State::Backoff, Some(reason.clone())),
                _ => idle(&Last::Failed(reason.clone()), want),
            },
            Phase::Halted { reason } => (State::Halted, Some(reason.clone())),
            // Otherwise it would have been started.
            Phase::Idle(_) if want == Some(Want::Run) => (State::Starting, Some(WAITS.to_owned())),
            Phase::Idle(last) => idle(last, want),
        };
        self.status.update(|facts| {
            facts.unplug();
            if state == State::Backoff {
                facts.sink_trouble = None;
            }
        });
        self.status.set_state(state, reason);
    }
}

/// State of a consumer that has no task and waits for none, with the reason if there is one to show.
fn idle(last: &Last, want: Option<Want>) -> (State, Option<String>) {
    let ended = match last {
        Last::Fresh | Last::Drained => None,
        Last::Failed(reason) => Some(reason.clone()),
        Last::Aborted => {
            Some("the drain timed out; messages after the stored offset are read again".to_owned())
        }
    };
    match (want, ended) {
        (Some(Want::Pause), None) => (State::Paused, Some(PAUSED.to_owned())),
        (Some(Want::Pause), Some(ended)) => {
            (State::Paused, Some(format!("{PAUSED}; before that: {ended}")))
        }
        (_, ended) => (State::Stopped, ended),
    }
}

/// While this lives, the consumer accepts commands.
pub(super) struct Commanded<'m> {
    member: &'m Member,
    commands: mpsc::Sender<Command>,
}

impl Commanded<'_> {
    /// Tells the consumer to drain, as soon as it takes a command.
    pub(super) async fn drain(&self) {
        // A consumer that is gone has ended already.
        self.commands.send(Command::Drain).await.unwrap_or_default();
    }
}

impl Drop for Commanded<'_> {
    fn drop(&mut self) {
        *lock(&self.member.commands) = None;
    }
}
