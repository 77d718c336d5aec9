//! Runs one consumer once: takes the lock of its reference, opens its sinks, runs it, and says how it
//! ended. Whether and when it runs again is not decided here.
//!
//! Invariant: a panic of a sink or of the consumer ends only that run, and is told as a failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::Instrument;

use super::member::Member;
use super::plan::Plan;
use super::reconcile::Ended;
use crate::consumer::{self, Hold, HoldError, Outcome};
use crate::flow::backoff::Backoff;
use crate::flow::trouble::Trouble;
use crate::sink::factory::SinkFactory;
use crate::sink::{Sink, SinkError};
use crate::telemetry::{Heartbeats, RestartReason};
use crate::types::Guarantee;

/// What a consumer keeps from a run that failed to the next one.
#[derive(Default)]
pub(super) struct Carried {
    /// So that no other process gets in between.
    hold: Option<Hold>,
    backoff: Option<Backoff>,
    trouble: Trouble,
}

/// How a run ended, before it is decided what that means.
enum Run {
    Drained,
    Halted(String),
    Failed(String, RestartReason),
}

/// Runs the consumer until it ends; `draining` turns true where it is told to.
pub(super) async fn run(
    member: Arc<Member>,
    heartbeats: Heartbeats,
    mut carried: Carried,
    mut draining: watch::Receiver<bool>,
) -> (Ended, Carried) {
    let started = Instant::now();
    let ended = run_once(&member, &heartbeats, &mut carried, &mut draining).await;
    let told = *draining.borrow();
    let ended = match ended {
        Run::Drained if !told => {
            let reason = "internal error: the consumer ended without having been told to";
            Run::Failed(reason.to_owned(), RestartReason::Other)
        }
        ended => ended,
    };
    match ended {
        Run::Drained => (Ended::Drained, Carried::default()),
        Run::Halted(reason) => {
            tracing::error!(consumer = %member.plan.spec.name, %reason, "halted: a person has to act, and then restart rillway");
            (Ended::Halted(reason), Carried::default())
        }
        Run::Failed(reason, _) if told => {
            tracing::warn!(%reason, "failed while it was to end; what it had not stored is read again");
            (Ended::Failed { reason, wait: Duration::ZERO }, Carried::default())
        }
        Run::Failed(reason, kind) => {
            let wait = carried.fail(&member, &reason, kind, started);
            (Ended::Failed { reason, wait }, carried)
        }
    }
}

impl Carried {
    /// Counts and logs a failure; returns how long to wait before the next attempt.
    fn fail(
        &mut self,
        member: &Member,
        reason: &str,
        kind: RestartReason,
        started: Instant,
    ) -> Duration {
        let spec = &member.plan.spec;
        let backoff =
            self.backoff.get_or_insert_with(|| Backoff::new(spec.backoff_min, spec.backoff_max));
        if started.elapsed() > spec.backoff_max {
            backoff.reset();
        }
        let wait = backoff.next(fastrand::f64());
        log_failure(reason, kind, wait, self.trouble.failed(reason, Instant::now()));
        member.status.count_restart(kind);
        wait
    }
}

/// A failure that is dealt with is a warning; a fault of this program is for a person. The same one
/// again is for whoever looks for it.
fn log_failure(reason: &str, kind: RestartReason, wait: Duration, is_news: bool) {
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

async fn run_once(
    member: &Member,
    heartbeats: &Heartbeats,
    carried: &mut Carried,
    draining: &mut watch::Receiver<bool>,
) -> Run {
    let (sink, letters) = tokio::select! {
        opened = open_all(&member.plan, &mut carried.hold) => match opened {
            Ok(sinks) => sinks,
            Err(run) => return run,
        },
        () = told(draining) => return Run::Drained,
    };
    if let Some(past) = carried.trouble.over(Instant::now()) {
        let lasted_ms = past.lasted.as_millis();
        tracing::info!(attempts = past.attempts, lasted_ms, "started again after failures");
    }
    let (commanded, receive) = member.take_commands();
    let (spec, status) = (Arc::clone(&member.plan.spec), Arc::clone(&member.status));
    // A task of its own, so that a panic ends only that; gone with this one.
    let mut tasks = tokio::task::JoinSet::new();
    let heartbeats = heartbeats.clone();
    tasks.spawn(
        async move { consumer::run(spec, sink, letters, status, receive, &heartbeats).await }
            .in_current_span(),
    );
    let drain = async {
        told(draining).await;
        commanded.drain().await;
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = tasks.join_next() => outcome,
        () = drain => None,
    };
    match outcome {
        Some(Ok(Outcome::Drained)) => Run::Drained,
        Some(Ok(Outcome::Halted(reason))) => Run::Halted(reason),
        Some(Ok(Outcome::Failed(reason))) => Run::Failed(reason, RestartReason::Sink),
        Some(Ok(Outcome::Panicked(reason))) => Run::Failed(reason, RestartReason::Panic),
        Some(Err(error)) => panicked(&error),
        None => Run::Failed("internal error: no task".to_owned(), RestartReason::Other),
    }
}

/// Ready once it is to drain, or nobody is left who could say so.
async fn told(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

/// Takes the lock of the reference, and opens the sink, and that of the dead letters where there is
/// one.
async fn open_all(
    plan: &Plan,
    hold: &mut Option<Hold>,
) -> Result<(Box<dyn Sink>, Option<Box<dyn Sink>>), Run> {
    take_hold(plan, hold).await?;
    let mut sink = open(&plan.sink).await?;
    let Some(letters) = &plan.dead_letters else { return Ok((sink, None)) };
    match open(letters).await {
        Ok(letters) => Ok((sink, Some(letters))),
        Err(run) => {
            if let Err(error) = sink.close().await {
                tracing::warn!(%error, "the sink could not be closed in good order");
            }
            Err(match run {
                Run::Failed(what, kind) => Run::Failed(format!("dead letters: {what}"), kind),
                Run::Halted(what) => Run::Halted(format!("dead letters: {what}")),
                Run::Drained => Run::Drained,
            })
        }
    }
}

/// Takes hold of the reference, where the sink does not keep a second process out itself.
async fn take_hold(plan: &Plan, hold: &mut Option<Hold>) -> Result<(), Run> {
    let unguarded = matches!(plan.guarantee, Guarantee::AtLeastOnce | Guarantee::None);
    if hold.is_some() || !unguarded {
        return Ok(());
    }
    let spec = Arc::clone(&plan.spec);
    // A disk that hangs holds up this consumer, and no thread that others need.
    let taken = match tokio::task::spawn_blocking(move || Hold::take(&spec)).await {
        Ok(taken) => taken.map_err(|error: HoldError| error.to_string()),
        Err(error) => Err(format!("locking the reference: {error}")),
    };
    *hold = Some(taken.map_err(|what| Run::Failed(what, RestartReason::Other))?);
    Ok(())
}

/// Opens a sink, in a task of its own: a panic ends only that, and a caller that no longer waits
/// ends it too.
async fn open(factory: &SinkFactory) -> Result<Box<dyn Sink>, Run> {
    let factory = Arc::clone(factory);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { factory().await }.in_current_span());
    match tasks.join_next().await {
        Some(Ok(Ok(sink))) => Ok(sink),
        Some(Ok(Err(error @ (SinkError::Fatal(_) | SinkError::Poison(_))))) => {
            Err(Run::Halted(error.to_string()))
        }
        Some(Ok(Err(error @ SinkError::Transient { .. }))) => {
            Err(Run::Failed(error.to_string(), RestartReason::Sink))
        }
        Some(Err(error)) => Err(panicked(&error)),
        None => Err(Run::Failed("internal error: no task".to_owned(), RestartReason::Other)),
    }
}

fn panicked(error: &tokio::task::JoinError) -> Run {
    Run::Failed(format!("internal error: {error}"), RestartReason::Panic)
}
