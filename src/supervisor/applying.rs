//! Brings the running set to another configuration: what differs is drained and replaced, everything else
//! is left alone.
//!
//! All edits are made at once, under the set's lock. One that takes over a reference or a destination starts
//! when the former owner has ended ([`After`](super::desired::After)).

use std::collections::HashSet;
use std::sync::Arc;

use super::claims::Claims;
use super::desired::{After, Edit};
use super::difference::{Difference, named};
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
    let ending = Ending::of(&difference, old);
    // Each one that starts is compared with each that ends: many pairs, so before the set is locked.
    let starts: Vec<_> = new
        .consumers
        .iter()
        .filter(|consumer| difference.starts(&consumer.name))
        .map(|consumer| ending.met_by(consumer, &new.broker))
        .collect();
    let (of_super_streams, of_streams): (Vec<_>, Vec<_>) =
        starts.into_iter().partition(|start| start.consumer.is_super_stream);
    let plans: Vec<_> =
        of_streams.into_iter().map(|start| (plan_of(new, start.consumer), start)).collect();
    // From here on they add no partitions, so the keys below are all that there are.
    let groups = roll.end_groups(|group| difference.ends(group.name()));
    let (touched, afters) = shared.edit_together(|set| {
        let before = |start: &Starting<'_>| start.before(set, &groups, &new.broker);
        let afters: Vec<After> = of_super_streams.iter().map(before).collect();
        let puts = plans.into_iter().map(|(plan, start)| (before(&start), plan)).collect();
        (edit(set, &difference, puts), afters)
    });
    for (start, after) in of_super_streams.into_iter().zip(afters) {
        roll.add(SuperPlan::of(new, start.consumer).after(after), shared, heartbeats);
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
fn edit(set: &mut Set, difference: &Difference, puts: Vec<(After, Plan)>) -> Vec<ConsumerKey> {
    let mut touched: Vec<_> =
        ended(difference).flat_map(|name| set.streams_of(name.as_str())).collect();
    let is_put: HashSet<ConsumerKey> = puts.iter().map(|(_, plan)| plan.spec.key()).collect();
    for key in touched.iter().filter(|key| !is_put.contains(key)) {
        // It was listed by the set itself.
        set.edit(Edit::Remove(key.clone())).unwrap_or_default();
    }
    for name in &difference.removed {
        // Another consumer that gets this name later is another one.
        set.edit(Edit::ResumeAll(name.clone())).unwrap_or_default();
    }
    let known: HashSet<ConsumerKey> = touched.iter().cloned().collect();
    for (after, plan) in puts {
        let key = plan.spec.key();
        // Adding one always succeeds.
        set.edit(Edit::PutAfter(plan, after)).unwrap_or_default();
        if !known.contains(&key) {
            touched.push(key);
        }
    }
    touched
}

/// The consumers whose tasks end.
fn ended(difference: &Difference) -> impl Iterator<Item = &ConsumerName> {
    difference.removed.iter().chain(&difference.changed)
}

/// The same, with what they use.
struct Ending<'a>(Vec<(&'a ConsumerName, Claims)>);

impl<'a> Ending<'a> {
    fn of(difference: &'a Difference, old: &Config) -> Ending<'a> {
        let with_claims = |name| Some((name, Claims::of(named(old, name)?)));
        Ending(ended(difference).filter_map(with_claims).collect())
    }

    /// Compares them with a consumer that starts.
    fn met_by<'b>(&'b self, consumer: &'b ConsumerConfig, broker: &BrokerConfig) -> Starting<'b> {
        let claims = Claims::of(consumer);
        let is_in_the_way = |ends: &&(_, Claims)| ends.1.exclude(&claims, broker);
        let in_the_way = self.0.iter().filter(is_in_the_way).map(|(name, _)| *name).collect();
        Starting { consumer, claims, in_the_way }
    }
}

/// A consumer that starts.
struct Starting<'a> {
    consumer: &'a ConsumerConfig,
    claims: Claims,
    /// Those that end, and cannot run at the same time.
    in_the_way: Vec<&'a ConsumerName>,
}

impl Starting<'_> {
    /// The tasks that have to end before it starts. `groups` are the super streams that end.
    fn before(&self, set: &Set, groups: &[Arc<Group>], broker: &BrokerConfig) -> After {
        let names = self.in_the_way.iter();
        let keys = names.flat_map(|name| set.streams_of(name.as_str())).collect();
        // Partitions that were not known yet would have waited, too.
        let groups = groups.iter().filter(|group| self.in_the_way.contains(&group.name()));
        let after = groups.fold(set.after(keys), |after, group| after.and(group.awaits()));
        // What an earlier reload has ended, and still drains.
        after.and(&set.after_leaving(|plan| plan.claims.exclude(&self.claims, broker)))
    }
}
