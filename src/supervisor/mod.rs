//! Starts, watches, restarts and drains all consumers.
//!
//! Invariants: each reference has its own tasks, its own connections and its own back-off; a panic
//! in one ends that one, which is started anew from its sink's position; a consumer that halted
//! stays halted, with its reason and its lag on show, and the others go on.

mod keeper;
mod overview;
mod plan;
mod sinks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use self::keeper::Kept;
pub use self::plan::{Plan, plan_of, replay_sink, stream_sink_options};
pub use self::sinks::{Look, SinkFactory};
use crate::consumer::observe::{Observers, Watching};
use crate::consumer::{Command, Status};
use crate::sink::stdout;
use crate::telemetry::logging::consumer_span;
use crate::telemetry::{ConsumerMetrics, Heartbeats};
use crate::types::{ConsumerName, Offset};

/// All consumers of one process.
pub struct Supervisor {
    kept: Arc<Vec<Arc<Kept>>>,
    heartbeats: Heartbeats,
    keepers: JoinSet<()>,
    /// Whatever looks at the streams, for lag.
    watching: Vec<Watching>,
    draining_tasks: JoinSet<()>,
    draining: watch::Sender<bool>,
}

/// What is left when all have ended, or the time is up.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    /// Those that had not ended in time.
    pub late: Vec<ConsumerName>,
    /// Those that had halted, with the reason.
    pub halted: Vec<(ConsumerName, String)>,
    /// Those that had failed and were not up again, with the reason.
    pub failed: Vec<(ConsumerName, String)>,
}

impl Supervisor {
    /// Starts these consumers.
    pub fn start(plans: Vec<Plan>) -> Supervisor {
        let heartbeats = Heartbeats::new();
        let draining = watch::Sender::new(false);
        let mut keepers = JoinSet::new();
        let observers = Observers::default();
        let mut watching = Vec::new();
        let mut all = Vec::new();
        for plan in plans {
            let spec = &plan.spec;
            let metrics = ConsumerMetrics::new(&spec.name, &spec.stream, plan.sink_kind);
            if plan.dead_letters.is_some() {
                metrics.show_dead_letters();
            }
            let status = Arc::new(Status::new(metrics));
            let span = consumer_span(&spec.name, &spec.stream);
            watching.push(observers.watch(spec, &status));
            let kept = Arc::new(Kept::new(plan, status));
            let keeping = keeper::run(Arc::clone(&kept), heartbeats.clone(), draining.subscribe());
            keepers.spawn(keeping.instrument(span));
            all.push(kept);
        }
        Supervisor {
            kept: Arc::new(all),
            heartbeats,
            keepers,
            watching,
            draining_tasks: JoinSet::new(),
            draining,
        }
    }

    /// What the admin server shows.
    pub fn overview(&self) -> Arc<dyn crate::admin::Overview> {
        Arc::new(overview::View {
            kept: Arc::clone(&self.kept),
            heartbeats: self.heartbeats.clone(),
        })
    }

    /// The registry of all loops.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// How many consumers halted so far.
    pub fn halted(&self) -> usize {
        self.kept.iter().filter(|k| k.halted().is_some()).count()
    }

    /// Tells every consumer to store what is durable, now; does not wait for it. What comes of it is
    /// logged.
    pub fn commit_all(&self) {
        for kept in self.kept.iter() {
            let span = consumer_span(&kept.plan.spec.name, &kept.plan.spec.stream);
            let (answer, answered) = oneshot::channel();
            if !kept.tell(Command::Commit(answer)) {
                span.in_scope(|| tracing::warn!("is not running: there is no offset to store"));
                continue;
            }
            let answer = async move {
                match answered.await {
                    Ok(Ok(stored)) => {
                        tracing::info!(offset = stored.map(|o| o.0), "the offset is stored");
                    }
                    Ok(Err(error)) => tracing::warn!(error, "the offset is not stored"),
                    Err(_) => tracing::warn!("ended before the offset was stored"),
                }
            };
            tokio::spawn(answer.instrument(span));
        }
    }

    /// Waits until every consumer has halted because whatever read standard output has gone: then
    /// there is nothing left to run for. Never ready otherwise.
    ///
    /// Cancel-safe.
    pub async fn nobody_reads(&mut self) {
        while self.keepers.join_next().await.is_some() {}
        let unread = |kept: &Arc<Kept>| kept.plan.sink_kind == "stdout" && kept.halted().is_some();
        if stdout::reader_is_gone() && !self.kept.is_empty() && self.kept.iter().all(unread) {
            return;
        }
        std::future::pending().await
    }

    /// Drains every consumer: take nothing new, finish, store, end. After `grace`, what is not done
    /// is dropped (and read again next time).
    pub async fn drain(mut self, grace: Duration) -> Drained {
        let until = Instant::now() + grace;
        self.draining.send_replace(true);
        for kept in self.kept.iter() {
            // In a task: a consumer that is choked with commands is told as soon as it takes one.
            self.draining_tasks.spawn(keeper::drain(Arc::clone(kept)));
        }
        let all = async { while self.keepers.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout_at(until.into(), all).await.is_ok();
        let mut drained = Drained { late: Vec::new(), halted: Vec::new(), failed: Vec::new() };
        for kept in self.kept.iter() {
            let name = kept.plan.spec.name.clone();
            if let Some(reason) = kept.failed() {
                drained.failed.push((name.clone(), reason));
            }
            match kept.halted() {
                Some(reason) => drained.halted.push((name, reason)),
                None if !in_time && !kept.has_ended() => drained.late.push(name),
                None => {}
            }
        }
        self.keepers.abort_all();
        self.draining_tasks.abort_all();
        self.watching.clear();
        drained
    }
}

/// The offset stored after a forced commit, or why there is none.
type Committed = Result<Option<Offset>, String>;
