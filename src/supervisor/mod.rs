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
//! - [`roll`]: all of these two, which change with the configuration;
//! - [`difference`] and [`applying`]: from one configuration to another while everything runs;
//!   [`claims`]: which of two consumers cannot run at the same time;
//! - [`sampler`]: rates, and the last hour;
//! - [`verbs`]: what an operator orders; [`seeking`]: a position that is moved; [`pauses`]: what is paused;
//! - [`plan`], [`connect`] and [`sinks`]: from the configuration to running consumers.
//!
//! Invariants: each consumer and stream has its own task and its own back-off, and never two tasks
//! at once; consumers share no connection for reading, except the partitions of one super stream; a
//! panic in one ends only that one, which is restarted from its sink's position; a halted consumer
//! stays halted, with its reason and its lag still shown, and the others continue.

mod applying;
mod claims;
mod connect;
mod create;
mod desired;
mod difference;
mod guest;
mod keeper;
mod member;
mod overview;
mod partitions;
mod pauses;
mod plan;
mod reconcile;
mod replay;
mod roll;
mod sampler;
mod seeking;
mod set;
mod sinks;
mod super_stream;
mod verbs;
mod watches;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tracing::Instrument;

pub use self::applying::Applied;
pub use self::create::{created_with, foresee};
use self::desired::Edit as EditOf;
pub use self::desired::NoSuchConsumer;
pub use self::difference::Difference;
pub use self::guest::Guest;
use self::member::NotStored;
pub use self::plan::{Plan, audit_of, plan_of, replay_sink, stream_sink_options};
use self::reconcile::{Last, Phase};
pub use self::replay::{RangeArgs, RangeReplay, range_replay, replay_source, replaying};
use self::roll::Roll;
use self::set::{Loop, Set, Shared};
pub use self::super_stream::{SuperPlan, partitions_of};
use self::watches::Watch;
pub use self::watches::{Stored, stored_of};
use crate::admin::{Changed, ControlError, Seek, SeekError, SkipOrder, Sought, Target, Verb};
use crate::config::Config;
pub use crate::sink::factory::{Look, SinkFactory};
use crate::sink::stdout;
use crate::telemetry::Heartbeats;
use crate::telemetry::logging::consumer_span;
use crate::types::ConsumerKey;

/// One change of the desired state.
pub type Edit = EditOf<Plan>;

/// Time limit for aborted tasks to end.
const ABORT_MAX: Duration = Duration::from_secs(1);

/// All consumers of one process. Dropping it aborts them.
pub struct Supervisor {
    shared: Arc<Shared>,
    heartbeats: Heartbeats,
    reconciling: AbortHandle,
    sampling: AbortHandle,
    roll: Arc<Roll>,
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
        let sampling = sampler::start(&shared);
        Supervisor { shared, heartbeats, reconciling, sampling, roll: Arc::default() }
    }

    /// Starts all consumers of the configuration.
    pub fn start_all(config: &Config) -> Supervisor {
        let (of_super_streams, of_streams): (Vec<_>, Vec<_>) =
            config.consumers.iter().partition(|consumer| consumer.is_super_stream);
        let plans = of_streams.into_iter().map(|consumer| plan_of(config, consumer)).collect();
        let supervisor = Supervisor::start(plans);
        supervisor.roll.set_order(applying::order(config));
        for consumer in of_super_streams {
            supervisor.add(SuperPlan::of(config, consumer));
        }
        let Supervisor { roll, shared, heartbeats, .. } = &supervisor;
        roll.set_watches(&config.watches, shared, false, |watch| {
            Watch::new(config, watch, shared, heartbeats)
        });
        supervisor
    }

    /// Starts a consumer of a super stream.
    pub fn add(&self, plan: SuperPlan) {
        self.roll.add(plan, &self.shared, &self.heartbeats);
    }

    /// Changes what runs from one configuration to another. What does not differ is left alone. The change
    /// takes effect gradually: [`Supervisor::settled`] waits for it. `None` if it was told to drain: nothing
    /// changes then.
    pub fn apply(&self, old: &Config, new: &Config) -> Option<Applied> {
        if self.roll.has_ended() {
            return None;
        }
        Some(applying::apply((&self.roll, &self.shared, &self.heartbeats), old, new))
    }

    /// Waits until nothing runs by the former configuration any more, and everything that can run does by the
    /// new one, or has a reason why not. A super stream's partitions that are not known yet do not count.
    ///
    /// Cancel-safe.
    pub async fn settled(&self, applied: &Applied) {
        self.shared.until(|set| applied.touched.iter().all(|key| set.is_settled(key))).await;
    }

    /// Leaves out the message at which a consumer has halted, once, and starts it.
    ///
    /// The order is kept in memory until the position has passed the message.
    pub async fn skip(
        &self,
        order: SkipOrder<'_>,
        wait: Duration,
    ) -> Result<Changed, ControlError> {
        verbs::skip(&self.shared, &self.roll, order, wait).await
    }

    /// Carries out an operator's order, and waits for its effect for at most `wait`.
    ///
    /// # Errors
    /// If there is no such consumer, or all drain.
    pub async fn change(
        &self,
        verb: Verb,
        target: Target<'_>,
        wait: Duration,
    ) -> Result<Changed, ControlError> {
        verbs::change(&self.shared, &self.roll, verb, target, wait).await
    }

    /// Moves the positions of a consumer, or of one of its streams, together; or says what that would do.
    ///
    /// # Errors
    /// If there is no such consumer, or it cannot be moved there.
    pub async fn seek(&self, target: Target<'_>, seek: Seek) -> Result<Sought, SeekError> {
        seeking::seek(&self.shared, &self.roll, target, seek).await
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
            roll: Arc::clone(&self.roll),
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
            let spec = &member.plan.spec;
            let span = consumer_span(&spec.name, &spec.stream, Some(&spec.reference));
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
    pub async fn nobody_reads(&self) {
        tokio::select! {
            () = self.prints_in_vain() => return,
            () = stdout::reader_goes() => {}
        }
        // The set may change later.
        self.prints_in_vain().await;
    }

    async fn prints_in_vain(&self) {
        let mut turns = self.shared.turns();
        loop {
            // Consumers of super streams are not in the set before their partitions are known. Looked at one
            // after the other: neither lock is taken while the other one is held.
            let in_vain = prints_in_vain(&self.shared.set());
            if in_vain && self.roll.groups().iter().all(|group| group.sink_kind() == "stdout") {
                return;
            }
            // The sender lives as long as the set.
            turns.changed().await.unwrap_or_default();
        }
    }

    /// Drains every consumer: it reads nothing new, finishes, stores its offset, and ends. After
    /// `grace` the rest is dropped (and read again at the next start).
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.roll.end();
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

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.roll.end();
        self.reconciling.abort();
        self.sampling.abort();
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
