//! Brings the running set to another configuration: what differs is drained and replaced, everything else
//! is left alone.
//!
//! All edits are made at once, under the set's lock. One that takes over a reference or a destination starts
//! when the former owner has ended ([`After`](super::desired::After)).

use std::sync::Arc;

use super::desired::{After, Edit};
use super::difference::{Difference, exclude_each_other, named};
use super::plan::{Plan, plan_of};
use super::roll::Roll;
use super::set::{Set, Shared};
use super::super_stream::{Group, SuperPlan};
use super::watches::Watch;
use crate::config::{BrokerConfig, Config, ConsumerConfig};
use crate::telemetry::Heartbeats;
use crate::types::{ConsumerKey, ConsumerName};

/// What a new configuration has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// By consumer.
    pub consumers: Difference,
    /// True if references of other programs are watched that were not, or the reverse.
    pub watches_changed: bool,
    /// The streams that end, start or change.
    pub(super) touched: Vec<ConsumerKey>,
}

impl Applied {
    /// True if nothing that runs has changed.
    pub fn is_empty(&self) -> bool {
        self.consumers.is_empty() && !self.watches_changed
    }
}

/// Changes the desired state from `old` to `new`.
pub(super) fn apply(
    (roll, shared, heartbeats): (&Roll, &Arc<Shared>, &Heartbeats),
    old: &Config,
    new: &Config,
) -> Applied {
    let difference = Difference::between(old, new);
    let starts: Vec<_> =
        new.consumers.iter().filter(|consumer| difference.starts(&consumer.name)).collect();
    let (of_super_streams, of_streams): (Vec<_>, Vec<_>) =
        starts.into_iter().partition(|consumer| consumer.is_super_stream);
    let plans: Vec<_> =
        of_streams.into_iter().map(|consumer| (consumer, plan_of(new, consumer))).collect();
    // From here on they add no partitions, so the keys below are all that there are.
    let ended = roll.end_groups(|group| difference.ends(group.name()));
    let broker = &new.broker;
    let ending = Ending { difference: &difference, old, groups: &ended, broker };
    let (touched, afters) = shared.edit_together(|set| {
        let afters: Vec<After> =
            of_super_streams.iter().map(|consumer| ending.before(set, consumer)).collect();
        (edit(set, &ending, plans), afters)
    });
    for (consumer, after) in of_super_streams.into_iter().zip(afters) {
        roll.add(SuperPlan::of(new, consumer).after(after), shared, heartbeats);
    }
    let stays = old.broker == new.broker;
    let watches_changed = roll.set_watches(&new.watches, shared, stays, |watch| {
        Watch::new(new, watch, shared, heartbeats)
    });
    roll.set_order(order(new));
    Applied { consumers: difference, watches_changed, touched }
}

/// The consumers in the order of the configuration.
pub(super) fn order(config: &Config) -> Vec<ConsumerName> {
    config.consumers.iter().map(|consumer| consumer.name.clone()).collect()
}

/// Puts the consumers of one stream, and removes what is gone. Returns the streams of all of these.
fn edit(
    set: &mut Set,
    ending: &Ending<'_>,
    plans: Vec<(&ConsumerConfig, Plan)>,
) -> Vec<ConsumerKey> {
    let mut touched: Vec<_> =
        ending.names().flat_map(|name| set.streams_of(name.as_str())).collect();
    let puts: Vec<_> = plans
        .into_iter()
        .map(|(consumer, plan)| (plan.spec.key(), plan, ending.before(set, consumer)))
        .collect();
    for key in &touched {
        if !puts.iter().any(|(put, ..)| put == key) {
            // It was listed by the set itself.
            set.edit(Edit::Remove(key.clone())).unwrap_or_default();
        }
    }
    for name in &ending.difference.removed {
        // Another consumer that gets this name later is another one.
        set.edit(Edit::ResumeAll(name.clone())).unwrap_or_default();
    }
    for (key, plan, after) in puts {
        // Adding one always succeeds.
        set.edit(Edit::PutAfter(plan, after)).unwrap_or_default();
        if !touched.contains(&key) {
            touched.push(key);
        }
    }
    touched
}

/// The consumers whose tasks end.
struct Ending<'a> {
    difference: &'a Difference,
    old: &'a Config,
    /// Those of super streams.
    groups: &'a [Arc<Group>],
    /// That of the new configuration.
    broker: &'a BrokerConfig,
}

impl Ending<'_> {
    fn names(&self) -> impl Iterator<Item = &ConsumerName> {
        self.difference.removed.iter().chain(&self.difference.changed)
    }

    /// The tasks that have to end before this consumer starts.
    fn before(&self, set: &Set, consumer: &ConsumerConfig) -> After {
        let excludes = |before: &ConsumerConfig| exclude_each_other(before, consumer, self.broker);
        let is_in_the_way = |name: &&ConsumerName| named(self.old, name).is_some_and(excludes);
        let in_the_way: Vec<_> = self.names().filter(is_in_the_way).collect();
        let keys = in_the_way.iter().flat_map(|name| set.streams_of(name.as_str())).collect();
        // Partitions that were not known yet would have waited, too.
        let groups = self.groups.iter().filter(|group| in_the_way.contains(&group.name()));
        let after = groups.fold(set.after(keys), |after, group| after.and(group.awaits()));
        // What an earlier reload has ended, and still drains.
        after.and(&set.after_leaving(|plan| excludes(&plan.config)))
    }
}
