//! Keeps the consumers that run to those that are desired.
//!
//! - [`desired`]: which consumers there should be, as data, and the edits of it;
//! - [`reconcile`]: the rules that compare this with what runs. Pure;
//! - [`set`]: the loop that carries out what they say, and the only thing that acts;
//! - [`keeper`]: one run of one consumer; [`member`]: what is kept and shown of one;
//! - [`plan`], [`connect`] and [`sinks`]: from the configuration to what is run.
//!
//! Invariants: each consumer and stream has its own task, its own connections and its own back-off,
//! and never two tasks at once; a panic in one ends that one, which is started anew from its sink's
//! position; a consumer that halted stays halted, with its reason and its lag on show, and the
//! others go on.

mod connect;
mod desired;
mod keeper;
mod member;
mod overview;
mod plan;
mod reconcile;
mod set;
mod sinks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tracing::Instrument;

use self::desired::Edit as EditOf;
pub use self::desired::NoSuchConsumer;
use self::member::NotStored;
pub use self::plan::{Plan, plan_of, replay_sink, stream_sink_options};
use self::reconcile::{Last, Phase};
use self::set::{Loop, Set, Shared};
pub use crate::sink::factory::{Look, SinkFactory};
use crate::sink::stdout;
use crate::telemetry::Heartbeats;
use crate::telemetry::logging::consumer_span;
use crate::types::ConsumerKey;

/// One change of the desired state.
pub type Edit = EditOf<Plan>;

/// How long the tasks that were aborted at the end may take to be gone.
const ABORT_MAX: Duration = Duration::from_secs(1);

/// All consumers of one process. Dropping it aborts them.
pub struct Supervisor {
    shared: Arc<Shared>,
    heartbeats: Heartbeats,
    reconciling: AbortHandle,
}

/// What is left when all have ended, or the time is up.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    /// Those that had not ended in time.
    pub late: Vec<ConsumerKey>,
    /// Those that had halted, with the reason.
    pub halted: Vec<(ConsumerKey, String)>,
    /// Those that had failed and were not up again, with the reason.
    pub failed: Vec<(ConsumerKey, String)>,
}

impl Supervisor {
    /// Starts these consumers.
    pub fn start(plans: Vec<Plan>) -> Supervisor {
        let heartbeats = Heartbeats::new();
        let shared = Shared::new(&heartbeats);
        for plan in plans {
            // To put one is always possible.
            shared.edit(Edit::Put(plan)).unwrap_or_default();
        }
        let mut reconciling = Loop::new(&shared, heartbeats.clone());
        // At once, so that they are all on show as soon as there is anyone to ask.
        reconciling.turn();
        let reconciling = tokio::spawn(reconciling.run()).abort_handle();
        Supervisor { shared, heartbeats, reconciling }
    }

    /// Changes what is desired. The difference is closed by and by: [`Supervisor::overview`] shows how
    /// far it is.
    ///
    /// # Errors
    /// Where the edit is of a consumer that is not there.
    pub fn edit(&self, edit: Edit) -> Result<(), NoSuchConsumer> {
        self.shared.edit(edit)
    }

    /// What the admin server shows.
    pub fn overview(&self) -> Arc<dyn crate::admin::Overview> {
        Arc::new(overview::View {
            shared: Arc::clone(&self.shared),
            heartbeats: self.heartbeats.clone(),
        })
    }

    /// The registry of all loops.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// How many consumers are halted.
    pub fn halted(&self) -> usize {
        self.shared.set().phases().filter(|(_, phase)| is_halted(phase)).count()
    }

    /// Tells every consumer to store what is durable, now; does not wait for it. What comes of it is
    /// logged.
    pub fn commit_all(&self) {
        for member in self.shared.set().members() {
            let span = consumer_span(&member.plan.spec.name, &member.plan.spec.stream);
            let answer = async move {
                match member.commit().await {
                    Ok(stored) => {
                        tracing::info!(offset = stored.map(|o| o.0), "the offset is stored");
                    }
                    Err(NotStored::NotRunning(_)) => {
                        tracing::warn!("is not running: there is no offset to store");
                    }
                    Err(NotStored::Ended(_)) => {
                        tracing::warn!("ended before the offset was stored");
                    }
                    Err(NotStored::Failed(error)) => {
                        tracing::warn!(error, "the offset is not stored");
                    }
                }
            };
            tokio::spawn(answer.instrument(span));
        }
    }

    /// Waits until whatever read standard output has gone, where no consumer has another sink: then
    /// there is nothing left to run for. Never ready otherwise.
    ///
    /// Cancel-safe.
    pub async fn nobody_reads(&mut self) {
        tokio::select! {
            () = self.shared.until(prints_in_vain) => return,
            () = stdout::reader_goes() => {}
        }
        // Others may leave the set later.
        self.shared.until(prints_in_vain).await;
    }

    /// Drains every consumer: take nothing new, finish, store, end. After `grace`, what is not done
    /// is dropped (and read again next time).
    pub async fn drain(self, grace: Duration) -> Drained {
        let by = Instant::now() + grace;
        let ran = self.shared.stop(by);
        let at_rest = self.shared.until(Set::is_at_rest);
        // Whether in time or not is told by their phases.
        drop(tokio::time::timeout_at((by + ABORT_MAX).into(), at_rest).await);
        let mut drained = Drained { late: Vec::new(), halted: Vec::new(), failed: Vec::new() };
        for (key, phase) in self.shared.set().phases() {
            match phase {
                Phase::Halted { reason } => drained.halted.push((key.clone(), reason.clone())),
                Phase::Backoff { reason, .. } | Phase::Idle(Last::Failed(reason)) => {
                    drained.failed.push((key.clone(), reason.clone()));
                }
                Phase::Idle(Last::Aborted) if !ran.contains(key) => {}
                Phase::Idle(Last::Aborted)
                | Phase::Running
                | Phase::Draining { .. }
                | Phase::Aborting => drained.late.push(key.clone()),
                Phase::Idle(Last::Fresh | Last::Drained) => {}
            }
        }
        drained
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.reconciling.abort();
        self.shared.set().end_watching();
    }
}

fn is_halted(phase: &Phase) -> bool {
    matches!(phase, Phase::Halted { .. })
}

fn prints_in_vain(set: &Set) -> bool {
    let prints = |key: &ConsumerKey| set.member(key).is_some_and(|m| m.plan.sink_kind == "stdout");
    stdout::reader_is_gone()
        && set.phases().next().is_some()
        && set.phases().all(|(key, _)| prints(key))
}
