//! The set of consumers, and the one loop that acts on it.
//!
//! [`Set`] holds the desired state, the phase of each consumer, and the consumers themselves, behind
//! one lock that is never held over a wait. Others edit the desired state and look; the
//! [`Loop`] alone starts, drains, aborts and forgets: it carries out what
//! [`reconcile`](super::reconcile) says, and waits for an edit, for the end of a task, or for the
//! time at which something is due.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::Instrument;

use super::desired::{After, Desired, Edit, Generation, NoSuchConsumer};
use super::keeper::{self, Carried};
use super::member::Member;
use super::plan::Plan;
use super::reconcile::{Action, Actual, Ended, Phase};
use crate::consumer::observe::{Observers, Watching};
use crate::sync::lock;
use crate::telemetry::logging::consumer_span;
use crate::telemetry::{self, Heartbeats, Pulse};
use crate::types::ConsumerKey;

/// Longest sleep of the loop, so that its heartbeat continues.
const TICK: Duration = Duration::from_secs(5);

/// How long the loop may give no heartbeat before the watchdog and `/livez` call it stuck.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// State shared by the loop and those who edit or look.
pub(super) struct Shared {
    set: Mutex<Set>,
    edited: Notify,
    /// Changes after every turn of the loop.
    turned: watch::Sender<u64>,
    pulse: Pulse,
}

/// All consumers, desired and actual.
pub(super) struct Set {
    desired: Desired<Plan>,
    actual: Actual,
    members: IndexMap<ConsumerKey, Kept>,
    /// Observers of the streams, which run whether or not their consumers do.
    observers: Observers,
    /// Consumers whose visible state has changed.
    changed: HashSet<ConsumerKey>,
}

/// A consumer and its plan's generation.
struct Kept {
    member: Arc<Member>,
    /// Generation of its plan.
    put: Generation,
    task: Option<Task>,
    carried: Carried,
    /// `None` once the supervisor is gone.
    watching: Option<Watching>,
}

/// A consumer's task, as the loop holds it.
struct Task {
    drain: watch::Sender<bool>,
    abort: AbortHandle,
}

impl Shared {
    pub(super) fn new(heartbeats: &Heartbeats) -> Arc<Shared> {
        let set = Set {
            desired: Desired::new(),
            actual: Actual::default(),
            members: IndexMap::new(),
            observers: Observers::default(),
            changed: HashSet::new(),
        };
        // Held here, not in the loop: a loop that panicked must not look like one that has ended.
        let pulse = heartbeats.register("supervisor", SILENCE_MAX);
        let (edited, turned) = (Notify::new(), watch::Sender::new(0));
        Arc::new(Shared { set: Mutex::new(set), edited, turned, pulse })
    }

    pub(super) fn set(&self) -> MutexGuard<'_, Set> {
        lock(&self.set)
    }

    /// Changes the desired state; the loop does the rest.
    pub(super) fn edit(&self, edit: Edit<Plan>) -> Result<(), NoSuchConsumer> {
        let edited = self.set().edit(edit);
        self.edited.notify_one();
        edited
    }

    /// Makes several changes at once: the loop sees all of them, or none.
    pub(super) fn edit_together<T>(&self, change: impl FnOnce(&mut Set) -> T) -> T {
        let done = change(&mut self.set());
        self.edited.notify_one();
        done
    }

    /// Drains all consumers within the time limit. Returns those that run: one that ended earlier is not
    /// late.
    pub(super) fn stop(&self, by: Instant) -> HashSet<ConsumerKey> {
        let mut set = self.set();
        // The edit is of no consumer in particular, so none can be missing.
        set.edit(Edit::Stop { by }).unwrap_or_default();
        let running = set.phases().filter(|(_, phase)| phase.has_task());
        let running = running.map(|(key, _)| key.clone()).collect();
        self.edited.notify_one();
        running
    }

    /// Changes after every turn of the loop.
    pub(super) fn turns(&self) -> watch::Receiver<u64> {
        self.turned.subscribe()
    }

    /// Waits until the condition is true of the set.
    ///
    /// Cancel-safe.
    pub(super) async fn until(&self, mut is_so: impl FnMut(&Set) -> bool) {
        let mut turned = self.turns();
        // The sender lives as long as `self`.
        while !is_so(&self.set()) && turned.changed().await.is_ok() {}
    }
}

impl Set {
    /// Changes the desired state. The caller wakes the loop.
    pub(super) fn edit(&mut self, edit: Edit<Plan>) -> Result<(), NoSuchConsumer> {
        match &edit {
            // The effect of these actions shows by itself.
            Edit::Put(_) | Edit::PutAfter(..) | Edit::StartAnew(_) | Edit::Remove(_) => {}
            Edit::Pause(key) => {
                self.changed.insert(key.clone());
                // One that waits to be tried again still has its lock.
                self.let_go(key);
            }
            Edit::Resume(key) | Edit::Hold(key) | Edit::Release(key) => {
                self.changed.insert(key.clone());
            }
            Edit::PauseAll(consumer) | Edit::ResumeAll(consumer) => {
                let keys = self.members.keys().filter(|key| key.consumer == *consumer);
                let keys: Vec<_> = keys.cloned().collect();
                if matches!(edit, Edit::PauseAll(_)) {
                    keys.iter().for_each(|key| self.let_go(key));
                }
                self.changed.extend(keys);
            }
            Edit::Stop { .. } => self.changed.extend(self.members.keys().cloned()),
        }
        self.desired.edit(edit)
    }

    /// The desired streams of a consumer.
    pub(super) fn streams_of(&self, consumer: &str) -> Vec<ConsumerKey> {
        self.desired.keys().filter(|key| key.consumer.as_str() == consumer).cloned().collect()
    }

    /// The end of all tasks that these consumers may have now, and of those that they wait for themselves.
    pub(super) fn after(&self, keys: Vec<ConsumerKey>) -> After {
        self.desired.after(keys)
    }

    /// The end of the tasks that drain already, for what an earlier reload has removed or replaced: of those for which
    /// `is_in_the_way` is true of the plan that they run by.
    pub(super) fn after_leaving(&self, is_in_the_way: impl Fn(&Plan) -> bool) -> After {
        let leaving = self.actual.leaving(&self.desired);
        // A plan is adopted when the task of the one before has ended: the member's is the one that runs.
        let in_the_way = leaving.filter(|(key, _)| {
            self.members.get(*key).is_none_or(|kept| is_in_the_way(&kept.member.plan))
        });
        in_the_way.fold(After::default(), |after, (key, newest)| {
            after.and(&After::task(key.clone(), newest))
        })
    }

    /// The plan that is desired for this consumer.
    pub(super) fn plan(&self, key: &ConsumerKey) -> Option<&Plan> {
        self.desired.plan(key).map(|(plan, _)| plan)
    }

    /// Whether this consumer is as it is desired.
    pub(super) fn is_settled(&self, key: &ConsumerKey) -> bool {
        self.actual.is_settled(key, self.desired.wanted(key))
    }

    /// The phase of this consumer.
    pub(super) fn phase(&self, key: &ConsumerKey) -> Option<&Phase> {
        self.actual.phase(key)
    }

    /// Whether this consumer is paused.
    pub(super) fn is_paused(&self, key: &ConsumerKey) -> bool {
        self.desired.is_paused(key)
    }

    /// Drops what a failed run has kept for the next one, such as the lock of its reference.
    pub(super) fn let_go(&mut self, key: &ConsumerKey) {
        if let Some(kept) = self.members.get_mut(key).filter(|kept| kept.task.is_none()) {
            kept.carried = Carried::default();
        }
    }

    /// Those who look at the streams.
    pub(super) fn observers(&self) -> &Observers {
        &self.observers
    }

    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.members.values().map(|kept| Arc::clone(&kept.member)).collect()
    }

    pub(super) fn phases(&self) -> impl Iterator<Item = (&ConsumerKey, &Phase)> {
        self.actual.phases()
    }

    pub(super) fn member(&self, key: &ConsumerKey) -> Option<&Arc<Member>> {
        self.members.get(key).map(|kept| &kept.member)
    }

    /// Whether nothing runs any more.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.phases().any(|(_, phase)| phase.has_task())
    }

    /// Stops observing the streams; the last observation is still shown.
    pub(super) fn end_watching(&mut self) {
        for kept in self.members.values_mut() {
            kept.watching = None;
        }
    }

    /// Does what is due; returns the time of the next due action.
    fn turn(&mut self, tasks: &mut Tasks, now: Instant) -> Option<Instant> {
        let Set { desired, actual, members, observers, changed } = self;
        desired.forget_ended(|key, newest| actual.runs(key, newest));
        let due = actual.turn(desired, now, |key, action| {
            changed.insert(key.clone());
            match action {
                Action::Adopt(_) => {
                    if let Some((plan, put)) = desired.plan(key) {
                        adopt(members, observers, key, plan, put);
                    }
                }
                Action::Forget => {
                    members.shift_remove(key);
                    telemetry::retire(key);
                }
                Action::Start | Action::Drain | Action::Abort => {
                    if let Some(kept) = members.get_mut(key) {
                        kept.act(key, action, tasks);
                    }
                }
            }
        });
        self.show();
        due
    }

    fn ended(&mut self, key: &ConsumerKey, ended: Ended, carried: Carried, now: Instant) {
        self.actual.ended(key, ended, now);
        self.changed.insert(key.clone());
        if let Some(kept) = self.members.get_mut(key) {
            kept.task = None;
            kept.carried = carried;
        }
    }

    fn show(&mut self) {
        for key in self.changed.drain() {
            if let (Some(kept), Some(phase)) = (self.members.get(&key), self.actual.phase(&key)) {
                kept.member.show(phase, self.desired.wanted(&key));
            }
        }
    }
}

/// Adopts this plan for the next run. A restart with the same plan keeps the consumer's state.
fn adopt(
    members: &mut IndexMap<ConsumerKey, Kept>,
    observers: &Observers,
    key: &ConsumerKey,
    plan: &Plan,
    put: Generation,
) {
    if let Some(kept) = members.get_mut(key).filter(|kept| kept.put == put) {
        kept.carried = Carried::default();
        return;
    }
    let before = members.get(key).map(|kept| &*kept.member);
    let member = Arc::new(Member::new(plan.clone(), before));
    let watching = Some(observers.watch(&plan.spec, &member.status));
    let kept = Kept { member, put, task: None, carried: Carried::default(), watching };
    members.insert(key.clone(), kept);
}

impl Kept {
    fn act(&mut self, key: &ConsumerKey, action: Action, tasks: &mut Tasks) {
        match (action, &self.task) {
            (Action::Start, _) => {
                let carried = std::mem::take(&mut self.carried);
                self.task = Some(tasks.start(key, Arc::clone(&self.member), carried));
            }
            (Action::Drain, Some(task)) => drop(task.drain.send_replace(true)),
            (Action::Abort, Some(task)) => {
                let reference = &self.member.plan.spec.reference;
                let span = consumer_span(&key.consumer, &key.stream, Some(reference));
                span.in_scope(|| {
                    tracing::warn!(
                        "the drain timed out, so it is aborted; messages after the stored offset are read again"
                    );
                });
                task.abort.abort();
            }
            (Action::Drain | Action::Abort | Action::Adopt(_) | Action::Forget, _) => {}
        }
    }
}

/// The running tasks, and their consumers.
struct Tasks {
    running: JoinSet<(Ended, Carried)>,
    keys: HashMap<Id, ConsumerKey>,
    heartbeats: Heartbeats,
}

impl Tasks {
    fn start(&mut self, key: &ConsumerKey, member: Arc<Member>, carried: Carried) -> Task {
        let (drain, draining) = watch::channel(false);
        let reference = Some(&member.plan.spec.reference);
        let span = consumer_span(&key.consumer, &key.stream, reference);
        let run = keeper::run(member, self.heartbeats.clone(), carried, draining);
        let abort = self.running.spawn(run.instrument(span));
        self.keys.insert(abort.id(), key.clone());
        Task { drain, abort }
    }

    /// Waits for a task to end; never ready if none runs.
    ///
    /// Cancel-safe.
    async fn next(&mut self) -> Result<(Id, (Ended, Carried)), JoinError> {
        match self.running.join_next_with_id().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

/// The loop that acts.
pub(super) struct Loop {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Loop {
    pub(super) fn new(shared: &Arc<Shared>, heartbeats: Heartbeats) -> Loop {
        let tasks = Tasks { running: JoinSet::new(), keys: HashMap::new(), heartbeats };
        Loop { shared: Arc::clone(shared), tasks }
    }

    /// One turn, without waiting; returns the latest time of the next one.
    pub(super) fn turn(&mut self) -> Instant {
        let now = Instant::now();
        let due = self.shared.set().turn(&mut self.tasks, now);
        self.shared.pulse.touch();
        self.shared.turned.send_modify(|turns| *turns = turns.wrapping_add(1));
        due.map_or(now + TICK, |due| due.min(now + TICK))
    }

    /// Runs forever. Dropping it aborts every consumer.
    pub(super) async fn run(mut self) {
        loop {
            let due = self.turn();
            tokio::select! {
                ended = self.tasks.next() => self.ended(ended),
                () = self.shared.edited.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, (Ended, Carried)), JoinError>) {
        let (id, ended, carried) = match ended {
            Ok((id, (ended, carried))) => (id, ended, carried),
            Err(error) if error.is_cancelled() => (error.id(), Ended::Aborted, Carried::default()),
            Err(error) => {
                // What may panic runs in tasks of its own, below this one.
                let reason = format!("internal error: {error}");
                let failed = Ended::Failed { reason, wait: TICK };
                (error.id(), failed, Carried::default())
            }
        };
        if let Some(key) = self.tasks.keys.remove(&id) {
            self.shared.set().ended(&key, ended, carried, Instant::now());
        }
    }
}
