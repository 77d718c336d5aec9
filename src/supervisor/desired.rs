//! Desired state: which consumers there should be, their plans, and whether they should run.
//!
//! Plain data. Every change of the set (start-up, shutdown, later a reload, partitions, a pause) is
//! an [`Edit`]; nothing here starts or stops anything. [`reconcile`](super::reconcile) compares it
//! with what runs.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::types::ConsumerKey;

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

/// One change of the desired state.
#[derive(Clone, Debug)]
pub enum Edit<P> {
    /// Adds this consumer, or gives it a new plan. A running one is drained first; a paused one stays
    /// paused. Plans are not compared: pass only one that has changed.
    Put(P),
    /// Restarts the consumer with the same plan. The only way to restart a halted consumer whose
    /// plan does not change.
    StartAnew(ConsumerKey),
    /// Stops reading, finishes what was read, and stores the offset. The consumer is still shown.
    Pause(ConsumerKey),
    /// Continues after a pause.
    Resume(ConsumerKey),
    /// Drains the consumer and removes it.
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
    paused: bool,
}

/// The desired consumers, in the order in which they were added.
pub(super) struct Desired<P> {
    entries: IndexMap<ConsumerKey, Entry<P>>,
    stop_by: Option<Instant>,
    generations: u64,
}

impl<P: Planned> Desired<P> {
    pub(super) fn new() -> Desired<P> {
        Desired { entries: IndexMap::new(), stop_by: None, generations: 0 }
    }

    pub(super) fn edit(&mut self, edit: Edit<P>) -> Result<(), NoSuchConsumer> {
        match edit {
            Edit::Put(plan) => self.put(plan),
            Edit::StartAnew(key) => {
                let generation = self.next_generation();
                self.entry(key)?.generation = generation;
            }
            Edit::Pause(key) => self.entry(key)?.paused = true,
            Edit::Resume(key) => self.entry(key)?.paused = false,
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

    fn put(&mut self, plan: P) {
        let (key, generation) = (plan.key(), self.next_generation());
        let paused = self.entries.get(&key).is_some_and(|entry| entry.paused);
        self.entries.insert(key, Entry { plan, put: generation, generation, paused });
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
        let want = match (self.stop_by, entry.paused) {
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

    pub(super) fn keys(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.entries.keys()
    }

    /// Time limit of the shutdown; `None` while the process goes on.
    pub(super) fn stop_by(&self) -> Option<Instant> {
        self.stop_by
    }
}
