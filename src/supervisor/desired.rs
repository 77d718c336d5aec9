//! Desired state: which consumers there should be, their plans, and whether they should run.
//!
//! Plain data. Every change of the set (start-up, shutdown, a reload, partitions, a pause) is
//! an [`Edit`]; nothing here starts or stops anything. [`reconcile`](super::reconcile) compares it
//! with what runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::pauses::Pauses;
use crate::types::{ConsumerKey, ConsumerName};

/// Version of a consumer's plan. A newer one replaces a running older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Generation(u64);

/// Facts about a plan that the set needs.
pub(super) trait Planned {
    /// Key of the plan's consumer.
    fn key(&self) -> ConsumerKey;

    /// Time limit of a drain while the process goes on; after that the consumer is aborted.
    fn drain_grace(&self) -> Duration;
}

/// Consumers whose tasks have to end before another one starts: it takes over a reference or a
/// destination from them. Only tasks by the plans that they had at that time count, and those have to be told
/// to end.
#[derive(Clone, Debug, Default)]
pub struct After(Vec<Part>);

/// Consumers that were asked about at the same time.
#[derive(Clone, Debug)]
struct Part {
    keys: Arc<[ConsumerKey]>,
    /// The newest of their plans.
    newest: Generation,
}

impl After {
    /// The end of this consumer's task by a plan of this generation, or an older one.
    pub(super) fn task(key: ConsumerKey, newest: Generation) -> After {
        After(vec![Part { keys: Arc::from([key]), newest }])
    }

    /// All of both.
    #[must_use]
    pub(super) fn and(mut self, other: &After) -> After {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// Leaves out what has ended. `runs` says whether a consumer has a task by a plan up to a generation.
    pub(super) fn retain(&mut self, runs: impl Fn(&ConsumerKey, Generation) -> bool) {
        self.0.retain(|part| part.keys.iter().any(|key| runs(key, part.newest)));
    }

    /// Whether one of them has not ended; `runs` as above.
    pub(super) fn is_pending(&self, runs: impl Fn(&ConsumerKey, Generation) -> bool) -> bool {
        self.0.iter().any(|part| part.keys.iter().any(|key| runs(key, part.newest)))
    }
}

/// One change of the desired state.
#[derive(Clone, Debug)]
pub enum Edit<P> {
    /// Adds this consumer, or gives it a new plan. A running one is drained first; a paused one stays
    /// paused. Plans are not compared: pass only one that has changed.
    Put(P),
    /// The same; it starts only when the tasks of those consumers have ended.
    PutAfter(P, After),
    /// Restarts the consumer with the same plan. The only way to restart a halted consumer whose
    /// plan does not change.
    StartAnew(ConsumerKey),
    /// Stops reading, finishes what was read, and stores the offset. The consumer is still shown.
    Pause(ConsumerKey),
    /// Continues after a pause.
    Resume(ConsumerKey),
    /// Pauses every stream of this consumer, also those that are added later.
    PauseAll(ConsumerName),
    /// Continues every stream of this consumer after a pause.
    ResumeAll(ConsumerName),
    /// Has the consumer end its run, and not start again before it is released: its position is moved. No
    /// pause of an operator.
    Hold(ConsumerKey),
    /// Lets the consumer go on.
    Release(ConsumerKey),
    /// Drains the consumer and removes it. If it is added again, it is paused as before.
    Remove(ConsumerKey),
    /// Drains all consumers within the time limit. Nothing is started any more.
    Stop {
        /// Time at which the remaining consumers are aborted.
        by: Instant,
    },
}

/// No consumer has this key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no consumer {:?} that reads stream {:?}", .0.consumer, .0.stream)]
pub struct NoSuchConsumer(pub ConsumerKey);

/// Whether a consumer should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Run,
    /// Not for now; it is still shown.
    Pause,
    /// Not any more: the process ends.
    Stop,
}

/// Desired state of one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) generation: Generation,
    pub(super) want: Want,
    pub(super) drain_grace: Duration,
}

struct Entry<P> {
    plan: P,
    /// Generation in which this plan was added.
    put: Generation,
    generation: Generation,
    after: After,
}

/// The desired consumers, in the order in which they were added.
pub(super) struct Desired<P> {
    entries: IndexMap<ConsumerKey, Entry<P>>,
    pauses: Pauses,
    /// Consumers whose positions are being moved, as often as they are held.
    held: HashMap<ConsumerKey, u32>,
    stop_by: Option<Instant>,
    generations: u64,
}

impl<P: Planned> Desired<P> {
    pub(super) fn new() -> Desired<P> {
        let (entries, pauses, held) = Default::default();
        Desired { entries, pauses, held, stop_by: None, generations: 0 }
    }

    pub(super) fn edit(&mut self, edit: Edit<P>) -> Result<(), NoSuchConsumer> {
        match edit {
            Edit::Put(plan) => self.put(plan, After::default()),
            Edit::PutAfter(plan, after) => self.put(plan, after),
            Edit::StartAnew(key) => {
                let generation = self.next_generation();
                self.entry(key)?.generation = generation;
            }
            Edit::Pause(key) => self.pause(key, true)?,
            Edit::Resume(key) => self.pause(key, false)?,
            Edit::PauseAll(consumer) => self.pauses.set_all(&consumer, true),
            Edit::ResumeAll(consumer) => self.pauses.set_all(&consumer, false),
            Edit::Hold(key) => *self.held.entry(key).or_default() += 1,
            Edit::Release(key) => match self.held.get_mut(&key) {
                Some(times) if *times > 1 => *times -= 1,
                _ => drop(self.held.remove(&key)),
            },
            Edit::Remove(key) => {
                // The others keep their order.
                self.entries.shift_remove(&key).map(drop).ok_or(NoSuchConsumer(key))?;
            }
            Edit::Stop { by } => {
                self.stop_by = Some(self.stop_by.map_or(by, |earlier| earlier.min(by)));
            }
        }
        Ok(())
    }

    fn put(&mut self, plan: P, after: After) {
        let (key, generation) = (plan.key(), self.next_generation());
        // A plan that has not run yet may still wait.
        let after = match self.entries.get(&key) {
            Some(before) => after.and(&before.after),
            None => after,
        };
        self.entries.insert(key, Entry { plan, put: generation, generation, after });
    }

    fn pause(&mut self, key: ConsumerKey, paused: bool) -> Result<(), NoSuchConsumer> {
        match self.entries.contains_key(&key) {
            true => self.pauses.set(&key, paused),
            false => return Err(NoSuchConsumer(key)),
        }
        Ok(())
    }

    /// The end of all tasks that these consumers may have now, and of those that they wait for themselves.
    pub(super) fn after(&self, keys: Vec<ConsumerKey>) -> After {
        let own = keys.iter().filter_map(|key| self.entries.get(key));
        let after = own.fold(After::default(), |after, entry| after.and(&entry.after));
        let newest = Generation(self.generations);
        after.and(&After(vec![Part { keys: keys.into(), newest }]))
    }

    /// Forgets what nobody has to wait for any more.
    pub(super) fn forget_ended(&mut self, runs: impl Fn(&ConsumerKey, Generation) -> bool) {
        self.entries.values_mut().for_each(|entry| entry.after.retain(&runs));
    }

    fn next_generation(&mut self) -> Generation {
        self.generations += 1;
        Generation(self.generations)
    }

    fn entry(&mut self, key: ConsumerKey) -> Result<&mut Entry<P>, NoSuchConsumer> {
        self.entries.get_mut(&key).ok_or(NoSuchConsumer(key))
    }

    /// Desired state of this consumer; `None` if it should not exist.
    pub(super) fn wanted(&self, key: &ConsumerKey) -> Option<Wanted> {
        let entry = self.entries.get(key)?;
        let want = match (self.stop_by, self.pauses.has(key) || self.held.contains_key(key)) {
            (Some(_), _) => Want::Stop,
            (None, true) => Want::Pause,
            (None, false) => Want::Run,
        };
        let drain_grace = entry.plan.drain_grace();
        Some(Wanted { generation: entry.generation, want, drain_grace })
    }

    /// The plan, with the generation in which it was added: a mere restart does not change that.
    pub(super) fn plan(&self, key: &ConsumerKey) -> Option<(&P, Generation)> {
        self.entries.get(key).map(|entry| (&entry.plan, entry.put))
    }

    /// Tasks that have to end before this consumer starts; `None` if there is no such consumer.
    pub(super) fn awaits(&self, key: &ConsumerKey) -> Option<&After> {
        self.entries.get(key).map(|entry| &entry.after)
    }

    /// Whether this consumer is paused.
    pub(super) fn is_paused(&self, key: &ConsumerKey) -> bool {
        self.pauses.has(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.entries.keys()
    }

    /// Time limit of the shutdown; `None` while the process goes on.
    pub(super) fn stop_by(&self) -> Option<Instant> {
        self.stop_by
    }
}
