//! The rules that bring the running consumers to the desired state. Pure: no tasks, no clock, no
//! log.
//!
//! [`Actual`] stores the [`Phase`] of each consumer. [`Actual::turn`] compares it with the
//! [`Desired`] state and returns the necessary [`Action`]s; [`Actual::ended`] records the end of a
//! task. The caller carries out every action, and reports every end.
//!
//! | desired | no task | running | draining |
//! |---|---|---|---|
//! | with its current plan | start, unless it halted or is in back-off | nothing | wait, then start
//! |
//! | with another plan | adopt it, start | drain | wait, then adopt and start |
//! | paused, or shutdown | nothing | drain | wait |
//! | not at all | forget | drain | wait, then forget |
//!
//! Invariants:
//! - there are never two tasks for one key: a task is started only after the previous one has
//!   ended;
//! - a drain is not cancelled. After its time limit the task is aborted, and the set still waits
//!   for its end;
//! - a halted consumer stays halted until its plan has a new generation;
//! - a failed one is not started before its back-off is over, unless it gets another plan;
//! - one that takes over a reference or a destination is not started before the former owner's task has
//!   ended.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::desired::{Desired, Generation, Planned, Want, Wanted};
use crate::types::ConsumerKey;

/// State of a consumer's task, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No task. It starts as soon as it is desired.
    Idle(Last),
    /// No task: it failed, and is not restarted before `until`.
    Backoff { until: Instant, reason: String },
    /// No task, and none before its plan changes or it is restarted on request.
    Halted { reason: String },
    /// A task runs.
    Running,
    /// The task was told to finish.
    Draining { abort_at: Instant },
    /// The task was aborted, and has not ended yet.
    Aborting,
}

/// End of an idle consumer's last task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// There was none since its plan was adopted.
    Fresh,
    Drained,
    /// It failed, and was not desired any more.
    Failed(String),
    /// Its drain timed out.
    Aborted,
}

/// End of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that it read is stored.
    Drained,
    /// An operator has to act.
    Halted(String),
    /// It may be restarted after this wait.
    Failed { reason: String, wait: Duration },
    /// It was aborted.
    Aborted,
}

/// Action for one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Take over this generation of the plan; no task runs.
    Adopt(Generation),
    /// Start a task with the current plan.
    Start,
    /// Tell the task to finish.
    Drain,
    /// Abort the task.
    Abort,
    /// Remove the consumer.
    Forget,
}

struct Slot {
    generation: Generation,
    drain_grace: Duration,
    phase: Phase,
}

/// The existing consumers, in the order in which they were adopted.
#[derive(Default)]
pub(super) struct Actual {
    slots: IndexMap<ConsumerKey, Slot>,
}

impl Phase {
    pub(super) fn has_task(&self) -> bool {
        matches!(self, Phase::Running | Phase::Draining { .. } | Phase::Aborting)
    }
}

impl Actual {
    /// Passes every action that is due to `act`. Returns the time of the next one.
    pub(super) fn turn<P: Planned>(
        &mut self,
        desired: &Desired<P>,
        now: Instant,
        mut act: impl FnMut(&ConsumerKey, Action),
    ) -> Option<Instant> {
        let mut keys: Vec<ConsumerKey> = desired.keys().cloned().collect();
        keys.extend(self.slots.keys().filter(|key| desired.wanted(key).is_none()).cloned());
        let mut next: Option<Instant> = None;
        for key in keys {
            let wanted = desired.wanted(&key);
            // Nothing of another consumer changes in between.
            let must_wait = desired
                .awaits(&key)
                .is_some_and(|after| after.is_pending(|key, newest| self.runs(key, newest)));
            let decide = |slot: Option<&Slot>| decide(wanted, slot, desired.stop_by(), now);
            while let Some(action) = decide(self.slots.get(&key)) {
                if action == Action::Start && must_wait {
                    break;
                }
                self.note(&key, wanted, action, now);
                act(&key, action);
            }
            let slot = self.slots.get(&key);
            let due = slot.and_then(|slot| slot.due(wanted, desired.stop_by()));
            next = next.into_iter().chain(due).min();
        }
        next
    }

    fn note(&mut self, key: &ConsumerKey, wanted: Option<Wanted>, action: Action, now: Instant) {
        if let Action::Adopt(generation) = action {
            let drain_grace = wanted.map_or(Duration::ZERO, |wanted| wanted.drain_grace);
            let slot = Slot { generation, drain_grace, phase: Phase::Idle(Last::Fresh) };
            self.slots.insert(key.clone(), slot);
            return;
        }
        if action == Action::Forget {
            self.slots.shift_remove(key);
            return;
        }
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.phase = match action {
            Action::Start => Phase::Running,
            Action::Drain => Phase::Draining { abort_at: now + slot.drain_grace },
            Action::Abort => Phase::Aborting,
            Action::Adopt(_) | Action::Forget => return,
        };
    }

    /// Whether this consumer has a task by a plan up to this generation.
    pub(super) fn runs(&self, key: &ConsumerKey, newest: Generation) -> bool {
        let runs = |slot: &Slot| slot.phase.has_task() && slot.generation <= newest;
        self.slots.get(key).is_some_and(runs)
    }

    /// The consumers with a task that ends, each with the generation of its plan: another plan is desired, or
    /// none.
    pub(super) fn leaving<P: Planned>(
        &self,
        desired: &Desired<P>,
    ) -> impl Iterator<Item = (&ConsumerKey, Generation)> {
        let leaves = |(key, slot): &(&ConsumerKey, &Slot)| {
            let wanted = desired.wanted(key);
            let stays = wanted.is_some_and(|wanted| wanted.generation == slot.generation);
            slot.phase.has_task() && !stays
        };
        self.slots.iter().filter(leaves).map(|(key, slot)| (key, slot.generation))
    }

    /// Records the end of this consumer's task.
    pub(super) fn ended(&mut self, key: &ConsumerKey, ended: Ended, now: Instant) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let told = slot.phase != Phase::Running;
        slot.phase = match ended {
            Ended::Halted(reason) => Phase::Halted { reason },
            Ended::Failed { reason, .. } if told => Phase::Idle(Last::Failed(reason)),
            Ended::Failed { reason, wait } => Phase::Backoff { until: now + wait, reason },
            Ended::Drained => Phase::Idle(Last::Drained),
            Ended::Aborted => Phase::Idle(Last::Aborted),
        };
    }

    pub(super) fn phases(&self) -> impl Iterator<Item = (&ConsumerKey, &Phase)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.phase))
    }

    pub(super) fn phase(&self, key: &ConsumerKey) -> Option<&Phase> {
        self.slots.get(key).map(|slot| &slot.phase)
    }

    /// Whether this consumer is as it is desired: its current plan is in use, no drain is left, and it has
    /// a task or a reason to have none.
    pub(super) fn is_settled(&self, key: &ConsumerKey, wanted: Option<Wanted>) -> bool {
        let (slot, wanted) = match (self.slots.get(key), wanted) {
            (None, None) => return true,
            (Some(slot), Some(wanted)) => (slot, wanted),
            _ => return false,
        };
        let by_this_plan = slot.generation == wanted.generation;
        by_this_plan
            && match slot.phase {
                Phase::Running => wanted.want == Want::Run,
                Phase::Draining { .. } | Phase::Aborting => false,
                Phase::Idle(_) => wanted.want != Want::Run,
                Phase::Backoff { .. } | Phase::Halted { .. } => true,
            }
    }
}

impl Slot {
    /// Time at which an action becomes due by itself; `None` if there is none.
    fn due(&self, wanted: Option<Wanted>, stop_by: Option<Instant>) -> Option<Instant> {
        let should_run = wanted.is_some_and(|wanted| wanted.want == Want::Run);
        match self.phase {
            Phase::Backoff { until, .. } => should_run.then_some(until),
            Phase::Draining { abort_at } => Some(abort_at.min(stop_by.unwrap_or(abort_at))),
            Phase::Idle(_) | Phase::Halted { .. } | Phase::Running | Phase::Aborting => None,
        }
    }
}

/// The next action for one consumer. Called until there is none.
fn decide(
    wanted: Option<Wanted>,
    slot: Option<&Slot>,
    stop_by: Option<Instant>,
    now: Instant,
) -> Option<Action> {
    let Some(slot) = slot else {
        return wanted.map(|wanted| Action::Adopt(wanted.generation));
    };
    let by_this_plan = |wanted: &Wanted| wanted.generation == slot.generation;
    let is_due = slot.due(wanted, stop_by).is_some_and(|due| due <= now);
    match &slot.phase {
        Phase::Running => {
            let goes_on = |wanted: Wanted| wanted.want == Want::Run && by_this_plan(&wanted);
            (!wanted.is_some_and(goes_on)).then_some(Action::Drain)
        }
        Phase::Draining { .. } => is_due.then_some(Action::Abort),
        Phase::Aborting => None,
        Phase::Idle(_) | Phase::Backoff { .. } | Phase::Halted { .. } => match wanted {
            None => Some(Action::Forget),
            // During a shutdown no new plan is needed, and the last end is still shown.
            Some(wanted) if !by_this_plan(&wanted) && wanted.want != Want::Stop => {
                Some(Action::Adopt(wanted.generation))
            }
            Some(wanted) => match (&slot.phase, wanted.want) {
                (Phase::Idle(_), Want::Run) => Some(Action::Start),
                (Phase::Backoff { .. }, Want::Run) => is_due.then_some(Action::Start),
                // A pause does not shorten the back-off: the rest of it follows the pause.
                _ => None,
            },
        },
    }
}

#[cfg(test)]
mod tests;
