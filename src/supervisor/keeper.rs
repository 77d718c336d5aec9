//! Keeps one consumer running: opens its sink, runs it, and does so again after a failure.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use super::plan::Plan;
use crate::consumer::{self, Command, Facts, Hold, Outcome, Status};
use crate::flow::backoff::Backoff;
use crate::flow::trouble::Trouble;
use crate::sink::factory::SinkFactory;
use crate::sink::{Sink, SinkError};
use crate::telemetry::{Heartbeats, RestartReason, State};
use crate::types::Guarantee;

/// Commands that wait for a consumer's loop.
const COMMANDS_MAX: usize = 16;

/// A consumer, running or not.
pub(super) struct Kept {
    pub(super) plan: Plan,
    pub(super) status: Arc<Status>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    ended: Mutex<Option<Ended>>,
}

/// How it ended for good.
#[derive(Clone)]
enum Ended {
    Drained,
    Halted(String),
    /// It had failed, and was told to stop before it could be started again.
    Failed(String),
}

impl Kept {
    pub(super) fn new(plan: Plan, status: Arc<Status>) -> Kept {
        Kept { plan, status, commands: Mutex::new(None), ended: Mutex::new(None) }
    }

    /// Gives the running consumer a command; false where none runs, or it is choked with commands.
    pub(super) fn tell(&self, command: Command) -> bool {
        lock(&self.commands).as_ref().is_some_and(|to| to.try_send(command).is_ok())
    }

    pub(super) fn has_ended(&self) -> bool {
        lock(&self.ended).is_some()
    }

    pub(super) fn halted(&self) -> Option<String> {
        match lock(&self.ended).clone() {
            Some(Ended::Halted(reason)) => Some(reason),
            Some(Ended::Drained | Ended::Failed(_)) | None => None,
        }
    }

    pub(super) fn failed(&self) -> Option<String> {
        match lock(&self.ended).clone() {
            Some(Ended::Failed(reason)) => Some(reason),
            Some(Ended::Drained | Ended::Halted(_)) | None => None,
        }
    }

    fn end(&self, ended: Ended) {
        match &ended {
            Ended::Drained => self.status.set_state(State::Stopped, None),
            Ended::Failed(reason) => self.status.set_state(State::Stopped, Some(reason.clone())),
            Ended::Halted(reason) => {
                tracing::error!(consumer = %self.plan.spec.name, %reason, "halted: a person has to act, and then restart rillway");
                self.status.set_state(State::Halted, Some(reason.clone()));
            }
        }
        self.status.update(Facts::unplug);
        *lock(&self.ended) = Some(ended);
    }
}

/// Tells the running consumer, if there is one, to drain.
pub(super) async fn drain(kept: Arc<Kept>) {
    let commands = lock(&kept.commands).clone();
    if let Some(commands) = commands {
        // One that is gone has ended already.
        commands.send(Command::Drain).await.unwrap_or_default();
    }
}

/// Runs until the consumer is drained or halts.
pub(super) async fn run(
    kept: Arc<Kept>,
    heartbeats: Heartbeats,
    mut draining: watch::Receiver<bool>,
) {
    let spec = Arc::clone(&kept.plan.spec);
    let mut backoff = Backoff::new(spec.backoff_min, spec.backoff_max);
    let mut last = None;
    // Kept over restarts, so that no other process gets in between.
    let mut hold = None;
    let mut trouble = Trouble::default();
    while !*draining.borrow() {
        let started = std::time::Instant::now();
        let once = match take_hold(&kept.plan, &mut hold).await {
            Ok(()) => run_once(&kept, &heartbeats, &mut draining, &mut trouble).await,
            Err(held) => Once::Failed(held, RestartReason::Other),
        };
        let (reason, kind) = match once {
            Once::Ended(ended) => return kept.end(ended),
            Once::Failed(reason, kind) => (reason, kind),
        };
        if started.elapsed() > spec.backoff_max {
            backoff.reset();
        }
        let wait = backoff.next(fastrand::f64());
        log_failure(&reason, kind, wait, trouble.failed(&reason, std::time::Instant::now()));
        kept.status.count_restart(kind);
        kept.status.update(|facts| {
            facts.unplug();
            facts.sink_trouble = None;
        });
        kept.status.set_state(State::Backoff, Some(reason.clone()));
        last = Some(reason);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Only ever set to true.
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
    // Told to stop while it was down: what it had not stored is read again next time.
    kept.end(last.map_or(Ended::Drained, Ended::Failed));
}

/// Takes hold of the reference, where the sink does not keep a second process out itself.
async fn take_hold(plan: &Plan, hold: &mut Option<Hold>) -> Result<(), String> {
    let unguarded = matches!(plan.guarantee, Guarantee::AtLeastOnce | Guarantee::None);
    if hold.is_some() || !unguarded {
        return Ok(());
    }
    let spec = Arc::clone(&plan.spec);
    // A disk that hangs holds up this consumer, and no thread that others need.
    let taken = tokio::task::spawn_blocking(move || Hold::take(&spec)).await;
    *hold = Some(taken.map_err(|error| format!("locking the reference: {error}"))??);
    Ok(())
}

/// A failure that is dealt with is a warning; a fault of this program is for a person. The same one
/// again is for whoever looks for it.
fn log_failure(reason: &str, kind: RestartReason, wait: std::time::Duration, is_news: bool) {
    let wait_ms = wait.as_millis();
    match (kind, is_news) {
        (RestartReason::Panic | RestartReason::Other, _) => {
            tracing::error!(reason, wait_ms, "the consumer failed; starting it again");
        }
        (_, true) => tracing::warn!(reason, wait_ms, "the consumer failed; starting it again"),
        (_, false) => {
            tracing::debug!(reason, wait_ms, "the consumer failed as before; starting it again");
        }
    }
}

enum Once {
    Ended(Ended),
    Failed(String, RestartReason),
}

async fn run_once(
    kept: &Arc<Kept>,
    heartbeats: &Heartbeats,
    draining: &mut watch::Receiver<bool>,
    trouble: &mut Trouble,
) -> Once {
    let (sink, letters) = tokio::select! {
        opened = open_all(&kept.plan) => match opened {
            Ok(sinks) => sinks,
            Err(once) => return once,
        },
        _ = draining.wait_for(|draining| *draining) => return Once::Ended(Ended::Drained),
    };
    if let Some(past) = trouble.over(std::time::Instant::now()) {
        let lasted_ms = past.lasted.as_millis();
        tracing::info!(attempts = past.attempts, lasted_ms, "started again after failures");
    }
    let (commands, receive) = mpsc::channel(COMMANDS_MAX);
    *lock(&kept.commands) = Some(commands.clone());
    if *draining.borrow() {
        // The command may have been given before there was anyone to take it.
        drop(commands.try_send(Command::Drain));
    }
    let spec = Arc::clone(&kept.plan.spec);
    let status = Arc::clone(&kept.status);
    // A task of its own, so that a panic ends only that; gone with this one.
    let mut tasks = tokio::task::JoinSet::new();
    let heartbeats = heartbeats.clone();
    tasks.spawn(
        async move { consumer::run(spec, sink, letters, status, receive, &heartbeats).await }
            .in_current_span(),
    );
    let outcome = tasks.join_next().await;
    *lock(&kept.commands) = None;
    match outcome {
        Some(Ok(Outcome::Drained)) => Once::Ended(Ended::Drained),
        Some(Ok(Outcome::Halted(reason))) => Once::Ended(Ended::Halted(reason)),
        Some(Ok(Outcome::Failed(reason))) => Once::Failed(reason, RestartReason::Sink),
        Some(Ok(Outcome::Panicked(reason))) => Once::Failed(reason, RestartReason::Panic),
        Some(Err(error)) => panicked(&error),
        None => Once::Failed("internal error: no task".to_owned(), RestartReason::Other),
    }
}

/// Opens the sink, and that of the dead letters where there is one.
async fn open_all(plan: &Plan) -> Result<(Box<dyn Sink>, Option<Box<dyn Sink>>), Once> {
    let mut sink = open(&plan.sink).await?;
    let Some(letters) = &plan.dead_letters else { return Ok((sink, None)) };
    match open(letters).await {
        Ok(letters) => Ok((sink, Some(letters))),
        Err(once) => {
            if let Err(error) = sink.close().await {
                tracing::warn!(%error, "the sink could not be closed in good order");
            }
            Err(match once {
                Once::Failed(what, kind) => Once::Failed(format!("dead letters: {what}"), kind),
                Once::Ended(Ended::Halted(what)) => {
                    Once::Ended(Ended::Halted(format!("dead letters: {what}")))
                }
                Once::Ended(ended) => Once::Ended(ended),
            })
        }
    }
}

/// Opens a sink, in a task of its own: a panic ends only that, and a caller that no longer waits
/// ends it too.
async fn open(factory: &SinkFactory) -> Result<Box<dyn Sink>, Once> {
    let factory = Arc::clone(factory);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { factory().await }.in_current_span());
    match tasks.join_next().await {
        Some(Ok(Ok(sink))) => Ok(sink),
        Some(Ok(Err(error @ (SinkError::Fatal(_) | SinkError::Poison(_))))) => {
            Err(Once::Ended(Ended::Halted(error.to_string())))
        }
        Some(Ok(Err(error @ SinkError::Transient { .. }))) => {
            Err(Once::Failed(error.to_string(), RestartReason::Sink))
        }
        Some(Err(error)) => Err(panicked(&error)),
        None => Err(Once::Failed("internal error: no task".to_owned(), RestartReason::Other)),
    }
}

fn panicked(error: &tokio::task::JoinError) -> Once {
    Once::Failed(format!("internal error: {error}"), RestartReason::Panic)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
