//! What the set has besides consumers of one stream: the consumers of super streams, the watches, and the
//! order in which all are shown. It changes when the configuration does.
//!
//! Invariant: once it has ended, nothing is added any more.

use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;

use super::set::Shared;
use super::super_stream::{Group, SuperPlan};
use super::watches::Watch;
use crate::config::WatchConfig;
use crate::sync::lock;
use crate::telemetry::Heartbeats;
use crate::types::ConsumerName;

/// The consumers of super streams, the watches, and the order of all.
#[derive(Default)]
pub(super) struct Roll {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    groups: Vec<Running<Group>>,
    /// In the order of the configuration.
    watches: Vec<Running<Watch>>,
    /// Consumers in the order of the configuration.
    order: Vec<ConsumerName>,
    has_ended: bool,
}

/// One of them, and the task that asks for its partitions.
struct Running<T> {
    it: Arc<T>,
    /// `None` for a watch of a stream.
    asking: Option<AbortHandle>,
}

impl<T> Running<T> {
    fn abort(&self) {
        self.asking.iter().for_each(AbortHandle::abort);
    }
}

impl Roll {
    /// The consumers of super streams.
    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        lock(&self.inner).groups.iter().map(|group| Arc::clone(&group.it)).collect()
    }

    /// The consumer of a super stream that has this name.
    pub(super) fn group(&self, name: &str) -> Option<Arc<Group>> {
        self.groups().into_iter().find(|group| group.name().as_str() == name)
    }

    /// The watches, in the order of the configuration.
    pub(super) fn watches(&self) -> Vec<Arc<Watch>> {
        lock(&self.inner).watches.iter().map(|watch| Arc::clone(&watch.it)).collect()
    }

    /// The place of a consumer among all, for showing them; the last one if it has none.
    pub(super) fn order(&self) -> Vec<ConsumerName> {
        lock(&self.inner).order.clone()
    }

    pub(super) fn set_order(&self, order: Vec<ConsumerName>) {
        lock(&self.inner).order = order;
    }

    /// Starts a consumer of a super stream.
    pub(super) fn add(&self, plan: SuperPlan, shared: &Arc<Shared>, heartbeats: &Heartbeats) {
        let mut inner = lock(&self.inner);
        if inner.has_ended {
            return;
        }
        let group = Arc::new(Group::new(plan, heartbeats));
        let asking = tokio::spawn(Arc::clone(&group).run(Arc::clone(shared)));
        inner.groups.push(Running { it: group, asking: Some(asking.abort_handle()) });
    }

    /// Ends the consumers of super streams for which `is_gone` is true, and returns them. Their partitions stay
    /// as they are, but none is added any more.
    pub(super) fn end_groups(&self, is_gone: impl Fn(&Group) -> bool) -> Vec<Arc<Group>> {
        let mut inner = lock(&self.inner);
        let all = std::mem::take(&mut inner.groups);
        let (gone, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(|group| is_gone(&group.it));
        inner.groups = stay;
        for group in &gone {
            group.abort();
            group.it.end();
            group.it.retire();
        }
        gone.into_iter().map(|group| group.it).collect()
    }

    /// Brings the watches to these: one that is there already, and `stays`, is kept; `make` makes the
    /// others. Returns whether any has changed. Only one caller at a time may do this.
    pub(super) fn set_watches(
        &self,
        wanted: &[WatchConfig],
        shared: &Arc<Shared>,
        stays: bool,
        make: impl Fn(&WatchConfig) -> Watch,
    ) -> bool {
        let known = self.watches();
        let is_kept = |config: &WatchConfig| stays && wanted.contains(config);
        let is_new =
            |config: &&WatchConfig| !stays || !known.iter().any(|watch| watch.config() == *config);
        // Without the lock: making one takes that of the set.
        let mut new: Vec<_> =
            wanted.iter().filter(is_new).map(|config| Arc::new(make(config))).collect();
        let mut changed = !new.is_empty();
        let mut inner = lock(&self.inner);
        if inner.has_ended {
            return false;
        }
        let mut before = std::mem::take(&mut inner.watches);
        before.retain(|watch| {
            let stays = is_kept(watch.it.config());
            if !stays {
                watch.abort();
                watch.it.end();
                changed = true;
            }
            stays
        });
        for config in wanted {
            if let Some(at) = before.iter().position(|watch| watch.it.config() == config) {
                inner.watches.push(before.swap_remove(at));
            } else if let Some(at) = new.iter().position(|watch| watch.config() == config) {
                let it = new.swap_remove(at);
                let asking = it
                    .is_of_super_stream()
                    .then(|| tokio::spawn(Arc::clone(&it).run(Arc::clone(shared))).abort_handle());
                inner.watches.push(Running { it, asking });
            }
        }
        changed
    }

    /// Ends the asking for partitions. The watches and the consumers of super streams are still shown.
    pub(super) fn end(&self) {
        let mut inner = lock(&self.inner);
        inner.has_ended = true;
        for group in &inner.groups {
            group.abort();
            group.it.end();
        }
        for watch in &inner.watches {
            watch.abort();
            watch.it.end();
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.inner).has_ended
    }
}
