//! Desired state: which consumers there should be, by which plan, and whether they should run.
//!
//! Plain data. Whatever changes the set (start-up, shutdown, later a reload, partitions, a pause) is
//! an [`Edit`] of it; nothing here starts or stops anything. [`reconcile`](super::reconcile) compares
//! it with what runs.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::types::ConsumerKey;

/// Version of one consumer's plan. A new one replaces what runs by an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Generation(u64);

/// What the set has to know of a plan.
pub(super) trait Planned {
    /// Which consumer it is of.
    fn key(&self) -> ConsumerKey;

    /// How long a drain may take while the process goes on; then the consumer is aborted.
    fn drain_grace(&self) -> Duration;
}

/// One change of the desired state.
#[derive(Clone, Debug)]
pub enum Edit<P> {
    /// This consumer is wanted by this plan. One that has another plan is drained first; one that is
    /// paused stays paused. Nobody compares plans: give only one that has changed.
    Put(P),
    /// What runs is to be started anew, by the same plan. The only way back for a halted consumer
    /// whose plan does not change.
    StartAnew(ConsumerKey),
    /// It is to stop reading, finish what it has taken, and store its offset. It stays on show.
    Pause(ConsumerKey),
    /// It is to go on.
    Resume(ConsumerKey),
    /// It is to be drained and forgotten.
    Remove(ConsumerKey),
    /// All are to be drained, by then. Nothing is started any more.
    Stop {
        /// When what has not ended is aborted.
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
    /// Not for now; it stays on show.
    Pause,
    /// Not any more: the process ends.
    Stop,
}

/// What is wanted of one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) generation: Generation,
    pub(super) want: Want,
    pub(super) drain_grace: Duration,
}

struct Entry<P> {
    plan: P,
    /// The generation with which this plan was put.
    put: Generation,
    generation: Generation,
    paused: bool,
}

/// The consumers that should be, in the order in which they were put.
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

    /// What is wanted of this consumer; `None` where it should not be there.
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

    /// The plan, and the generation with which it came: the same one as long as it only starts anew.
    pub(super) fn plan(&self, key: &ConsumerKey) -> Option<(&P, Generation)> {
        self.entries.get(key).map(|entry| (&entry.plan, entry.put))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.entries.keys()
    }

    /// When everything has to have ended, where the process ends.
    pub(super) fn stop_by(&self) -> Option<Instant> {
        self.stop_by
    }
}
