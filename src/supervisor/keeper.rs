//! Runs one consumer once, and reports how it ended. Whether and when it runs again is decided elsewhere.
//!
//! Invariant: a panic of a sink or of the consumer ends only that run, and is reported as a failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::Instrument;

use super::member::Member;
use super::plan::Plan;
use super::reconcile::Ended;
use crate::consumer::{self, HoldSlot, Outcome, Resources};
use crate::flow::backoff::Backoff;
use crate::source::Activation;
use crate::telemetry::{Heartbeats, RestartReason};

/// State that a consumer keeps from a failed run to the next one.
#[derive(Default)]
pub(super) struct Carried {
    /// The lock of the reference, so that no other process gets it in between.
    hold: HoldSlot,
    backoff: Option<Backoff>,
}

/// End of a run, before it is decided what that means.
enum Run {
    Drained,
    Halted(String),
    Failed(String, RestartReason),
}

/// Runs the consumer until it ends; `draining` turns true when it has to drain.
pub(super) async fn run(
    member: Arc<Member>,
    heartbeats: Heartbeats,
    mut carried: Carried,
    mut draining: watch::Receiver<bool>,
) -> (Ended, Carried) {
    let started = Instant::now();
    let ended = run_once(&member, &heartbeats, &carried, &mut draining).await;
    let told = *draining.borrow();
    let ended = match ended {
        Run::Drained if !told => {
            let reason = "internal error: the consumer ended although it was not told to";
            Run::Failed(reason.to_owned(), RestartReason::Other)
        }
        ended => ended,
    };
    match ended {
        Run::Drained => (Ended::Drained, Carried::default()),
        Run::Halted(reason) => {
            tracing::error!(consumer = %member.plan.spec.name, %reason, "halted: an operator has to act, and then `rillway restart NAME` or an edited configuration and a reload starts it again");
            (Ended::Halted(reason), Carried::default())
        }
        Run::Failed(reason, _) if told => {
            tracing::warn!(%reason, "failed while it was ending; messages after the stored offset are read again");
            (Ended::Failed { reason, wait: Duration::ZERO }, Carried::default())
        }
        Run::Failed(reason, kind) => {
            let wait = carried.fail(&member, &reason, kind, started);
            if member.plan.spec.source.activation() == Activation::ByBroker {
                // Another instance is the active consumer by then, perhaps on this machine.
                carried.hold = HoldSlot::default();
            }
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
        log_failure(reason, kind, wait, member.status.run_failed(reason, Instant::now()));
        member.status.count_restart(kind);
        wait
    }
}

/// Logs a failure: as an error if it is a fault of this program, which an operator has to report. Any
/// other failure is a warning, or only debug if it is the same as before.
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
    carried: &Carried,
    draining: &mut watch::Receiver<bool>,
) -> Run {
    let (commanded, receive) = member.take_commands();
    let (spec, status) = (Arc::clone(&member.plan.spec), Arc::clone(&member.status));
    let resources = resources(&member.plan, carried);
    // In a task of its own, so that a panic ends only that task; it is aborted with this one.
    let mut tasks = tokio::task::JoinSet::new();
    let heartbeats = heartbeats.clone();
    tasks.spawn(
        async move { consumer::run(spec, resources, status, receive, &heartbeats).await }
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
        Some(Ok(Outcome::Locked(reason))) => Run::Failed(reason, RestartReason::Locked),
        Some(Ok(Outcome::Panicked(reason))) => Run::Failed(reason, RestartReason::Panic),
        Some(Err(error)) => panicked(&error),
        None => Run::Failed("internal error: no task".to_owned(), RestartReason::Other),
    }
}

/// Ready when the consumer has to drain, or when the sender is gone.
async fn told(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

/// What the consumer opens when it becomes active.
fn resources(plan: &Plan, carried: &Carried) -> Resources {
    Resources {
        sink: Arc::clone(&plan.sink),
        dead_letters: plan.dead_letters.clone(),
        hold: Some(Arc::clone(&carried.hold)),
        renaming: Some(Arc::clone(&plan.renaming)),
        shares_hold: plan.keeps_position(),
    }
}

fn panicked(error: &tokio::task::JoinError) -> Run {
    Run::Failed(format!("internal error: {error}"), RestartReason::Panic)
}
