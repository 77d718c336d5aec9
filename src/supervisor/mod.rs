//! Makes the running consumers match the desired ones.
//!
//! - [`desired`]: the desired consumers, as data, and edits of it;
//! - [`reconcile`]: the rules that compare it with what runs. Pure;
//! - [`set`]: the loop that carries out the resulting actions, the only part that acts;
//! - [`keeper`]: one run of one consumer; [`member`]: the state kept and shown for one;
//! - [`super_stream`]: a consumer of a super stream, which edits the desired state by what
//!   [`partitions`] makes of the broker's answers;
//! - [`watches`]: references of other programs, of which only the lag is shown;
//! - [`guest`]: a reader that is no consumer, and leaves nothing behind;
//! - [`replay`]: a range of messages through a consumer's sink, beside it;
//! - [`plan`], [`connect`] and [`sinks`]: from the configuration to running consumers.
//!
//! Invariants: each consumer and stream has its own task and its own back-off, and never two tasks
//! at once; consumers share no connection for reading, except the partitions of one super stream; a
//! panic in one ends only that one, which is restarted from its sink's position; a halted consumer
//! stays halted, with its reason and its lag still shown, and the others continue.

mod connect;
mod create;
mod desired;
mod guest;
mod keeper;
mod member;
mod overview;
mod partitions;
mod plan;
mod reconcile;
mod replay;
mod set;
mod sinks;
mod super_stream;
mod watches;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tracing::Instrument;

pub use self::create::{created_with, foresee};
use self::desired::Edit as EditOf;
pub use self::desired::NoSuchConsumer;
pub use self::guest::Guest;
use self::member::NotStored;
pub use self::plan::{Plan, plan_of, replay_sink, stream_sink_options};
use self::reconcile::{Last, Phase};
pub use self::replay::{RangeArgs, RangeReplay, range_replay, replay_source, replaying};
use self::set::{Loop, Set, Shared};
use self::super_stream::Group;
pub use self::super_stream::{SuperPlan, partitions_of};
use self::watches::Watch;
pub use self::watches::{Stored, stored_of};
use crate::config::Config;
pub use crate::sink::factory::{Look, SinkFactory};
use crate::sink::stdout;
use crate::telemetry::Heartbeats;
use crate::telemetry::logging::consumer_span;
use crate::types::{ConsumerKey, ConsumerName};

/// One change of the desired state.
pub type Edit = EditOf<Plan>;

/// Time limit for aborted tasks to end.
const ABORT_MAX: Duration = Duration::from_secs(1);

/// All consumers of one process. Dropping it aborts them.
pub struct Supervisor {
    shared: Arc<Shared>,
    heartbeats: Heartbeats,
    reconciling: AbortHandle,
    groups: Vec<Arc<Group>>,
    /// References of others, of which the lag is shown.
    watches: Vec<Arc<Watch>>,
    /// Tasks that ask for partitions.
    asking: Vec<AbortHandle>,
    /// Consumers in the order of the configuration, for showing them.
    order: Vec<ConsumerName>,
}

/// Result of a drain.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    /// Consumers that had not ended in time.
    pub late: Vec<ConsumerKey>,
    /// Consumers that had halted, with the reason.
    pub halted: Vec<(ConsumerKey, String)>,
    /// Consumers that had failed and were not running again, with the reason.
    pub failed: Vec<(ConsumerKey, String)>,
}

impl Supervisor {
    /// Starts these consumers.
    pub fn start(plans: Vec<Plan>) -> Supervisor {
        let heartbeats = Heartbeats::new();
        let shared = Shared::new(&heartbeats);
        for plan in plans {
            // Adding one always succeeds.
            shared.edit(Edit::Put(plan)).unwrap_or_default();
        }
        let mut reconciling = Loop::new(&shared, heartbeats.clone());
        // At once, so that all are shown from the first request on.
        reconciling.turn();
        let reconciling = tokio::spawn(reconciling.run()).abort_handle();
        let (groups, watches, asking, order) = Default::default();
        Supervisor { shared, heartbeats, reconciling, groups, watches, asking, order }
    }

    /// Starts all consumers of the configuration.
    pub fn start_all(config: &Config) -> Supervisor {
        let (of_super_streams, of_streams): (Vec<_>, Vec<_>) =
            config.consumers.iter().partition(|consumer| consumer.is_super_stream);
        let plans = of_streams.into_iter().map(|consumer| plan_of(config, consumer)).collect();
        let mut supervisor = Supervisor::start(plans);
        supervisor.order = config.consumers.iter().map(|consumer| consumer.name.clone()).collect();
        for consumer in of_super_streams {
            supervisor.add(SuperPlan::of(config, consumer));
        }
        for watch in &config.watches {
            supervisor.watch(Watch::new(config, watch, &supervisor.shared, &supervisor.heartbeats));
        }
        supervisor
    }

    /// Starts a consumer of a super stream.
    pub fn add(&mut self, plan: SuperPlan) {
        let group = Arc::new(Group::new(plan, &self.heartbeats));
        let asking = tokio::spawn(Arc::clone(&group).run(Arc::clone(&self.shared)));
        self.groups.push(group);
        self.asking.push(asking.abort_handle());
    }

    fn watch(&mut self, watch: Watch) {
        let watch = Arc::new(watch);
        if watch.is_of_super_stream() {
            let asking = tokio::spawn(Arc::clone(&watch).run(Arc::clone(&self.shared)));
            self.asking.push(asking.abort_handle());
        }
        self.watches.push(watch);
    }

    /// Changes the desired state. The change takes effect gradually: [`Supervisor::overview`] shows
    /// the progress.
    ///
    /// # Errors
    /// If there is no such consumer.
    pub fn edit(&self, edit: Edit) -> Result<(), NoSuchConsumer> {
        self.shared.edit(edit)
    }

    /// The admin server's view of the consumers.
    pub fn overview(&self) -> Arc<dyn crate::admin::Overview> {
        Arc::new(overview::View {
            shared: Arc::clone(&self.shared),
            heartbeats: self.heartbeats.clone(),
            groups: self.groups.clone(),
            watches: self.watches.clone(),
            order: self.order.clone(),
        })
    }

    /// The registry of all loops.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// Number of halted consumers.
    pub fn halted(&self) -> usize {
        self.shared.set().phases().filter(|(_, phase)| is_halted(phase)).count()
    }

    /// Makes every consumer store its durable offset now. Does not wait; the result is logged.
    pub fn commit_all(&self) {
        for member in self.shared.set().members() {
            let span = consumer_span(&member.plan.spec.name, &member.plan.spec.stream);
            let answer = async move {
                match member.commit().await {
                    Ok(stored) => {
                        tracing::info!(offset = stored.map(|o| o.0), "the offset is stored");
                    }
                    Err(NotStored::NotRunning(_)) => {
                        tracing::warn!("no offset to store: the consumer is not running");
                    }
                    Err(NotStored::Ended(_)) => {
                        tracing::warn!("the consumer ended before its offset was stored");
                    }
                    Err(NotStored::Failed(error)) => {
                        tracing::warn!(%error, "the offset could not be stored");
                    }
                }
            };
            tokio::spawn(answer.instrument(span));
        }
    }

    /// Waits until the reader of standard output has closed it, if no consumer has another sink:
    /// then nothing is left to do. Never ready otherwise.
    ///
    /// Cancel-safe.
    pub async fn nobody_reads(&mut self) {
        if self.groups.iter().any(|group| group.sink_kind() != "stdout") {
            return std::future::pending().await;
        }
        tokio::select! {
            () = self.shared.until(prints_in_vain) => return,
            () = stdout::reader_goes() => {}
        }
        // The set may change later.
        self.shared.until(prints_in_vain).await;
    }

    /// Drains every consumer: it reads nothing new, finishes, stores its offset, and ends. After
    /// `grace` the rest is dropped (and read again at the next start).
    pub async fn drain(self, grace: Duration) -> Drained {
        self.end_asking();
        let by = Instant::now() + grace;
        let ran = self.shared.stop(by);
        let at_rest = self.shared.until(Set::is_at_rest);
        // Their phases show whether they ended in time.
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

impl Supervisor {
    fn end_asking(&self) {
        self.asking.iter().for_each(AbortHandle::abort);
        self.groups.iter().for_each(|group| group.end());
        self.watches.iter().for_each(|watch| watch.end());
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end_asking();
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
