//! Acknowledgements: which deliveries are finished, and up to which one the broker may be told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::broker::{Budget, Held};
use crate::sync::lock;

/// Deliveries of one channel, numbered from 1. An acknowledgement covers all deliveries up to a number.
pub(super) struct Acks {
    state: Mutex<State>,
    budget: Arc<Budget>,
    wake: Arc<Notify>,
}

struct State {
    /// First number that is not finished.
    next: u64,
    /// Finished ranges above it: last numbers by first ones.
    done: BTreeMap<u64, u64>,
    /// Last number that was acknowledged.
    told: u64,
    is_open: bool,
}

impl Acks {
    pub(super) fn new(budget: &Arc<Budget>, wake: &Arc<Notify>) -> Arc<Acks> {
        let state = State { next: 1, done: BTreeMap::new(), told: 0, is_open: true };
        let (budget, wake) = (Arc::clone(budget), Arc::clone(wake));
        Arc::new(Acks { state: Mutex::new(state), budget, wake })
    }

    /// The number up to which to acknowledge now; returned only once.
    pub(super) fn take(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        let last = state.next - 1;
        let is_due = state.is_open && last > state.told;
        is_due.then(|| {
            state.told = last;
            last
        })
    }

    /// Stops all acknowledgements; later deliveries belong to another channel.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.is_open, false) {
            self.budget.close();
        }
    }

    fn done(&self, first: u64, last: u64) {
        let mut state = lock(&self.state);
        if !state.is_open {
            return;
        }
        state.done.insert(first, last);
        let before = state.next;
        let mut next = before;
        while let Some(last) = state.done.remove(&next) {
            next = last + 1;
        }
        state.next = next;
        let credits = state.next - before;
        if credits > 0 {
            self.budget.returned(credits);
            drop(state);
            self.wake.notify_one();
        }
    }
}

/// Memory and credit of the deliveries in one chunk.
pub(super) struct Permit {
    pub(super) held: Option<Held>,
    pub(super) acks: Arc<Acks>,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The memory first: the deliveries that the credit allows need it.
        drop(self.held.take());
        self.acks.done(self.first, self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_done_without_a_gap_is_acknowledged() {
        let budget = Budget::new(1 << 20);
        budget.open(10);
        let acks = Acks::new(&budget, &Arc::new(Notify::new()));
        acks.done(3, 4);
        assert_eq!(acks.take(), None);
        acks.done(1, 2);
        assert_eq!(acks.take(), Some(4));
        assert_eq!(acks.take(), None);
        acks.done(5, 5);
        acks.close();
        assert_eq!(acks.take(), None, "nothing on a channel that is gone");
    }
}
