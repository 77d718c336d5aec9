//! Decides when to store an offset on the broker: every N messages, every T if something changed,
//! and on request (hand-over, drain, operator).
//!
//! A store appends to the stream, so an unchanged offset is never stored. A stored offset never
//! goes backwards: a consumer that replays stores nothing until it has passed it. The exceptions are
//! a re-created stream that a policy accepted, because the offset on the broker then belongs to the old
//! incarnation; and a position that an operator has moved back.
//!
//! A position that the stream does not confirm is not stored: storing is suspended until it does.

use std::time::{Duration, Instant};

use crate::types::Offset;

/// Time after a failed store before it is retried.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Least time between two stores triggered by the message count. A store costs the broker a chunk
/// of its own in the stream and this process a synced state file: at a million messages a second,
/// `every N messages` alone would mean a hundred of them a second, each saving ten milliseconds of
/// replay.
pub const SPACING_MIN: Duration = Duration::from_millis(100);

/// Frequency of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// After this many messages became durable, but not within [`SPACING_MIN`] of the last store.
    pub every_messages: u64,
    /// After this time, if anything became durable.
    pub every: Duration,
}

/// The stored offset, the durable one, and the times that decide when to store.
pub struct Commit {
    policy: Policy,
    stored: Option<Offset>,
    durable: Option<Offset>,
    messages: u64,
    last: Instant,
    /// Earliest time of the next store by count; `None` before the first store.
    spaced: Option<Instant>,
    not_before: Option<Instant>,
    /// The durable offset is not yet confirmed to belong to this stream.
    suspended: bool,
    /// The offset on the broker belongs to an old incarnation of the stream.
    superseded: bool,
}

impl Commit {
    /// Nothing durable yet; `stored` is the offset on the broker.
    pub fn new(policy: Policy, stored: Option<Offset>, now: Instant) -> Commit {
        Commit {
            policy,
            stored,
            durable: None,
            messages: 0,
            last: now,
            spaced: None,
            not_before: None,
            suspended: false,
            superseded: false,
        }
    }

    /// Records that everything up to `offset` is durable, `messages` of it since the last call.
    pub fn durable(&mut self, offset: Offset, messages: u64) {
        self.durable = Some(offset);
        self.messages += messages;
    }

    /// The durable offset, if it is above the stored one: what a store now would write.
    pub fn pending(&self) -> Option<Offset> {
        self.durable.filter(|d| !self.suspended && self.stored.is_none_or(|s| *d > s))
    }

    /// The offset to store now, if any.
    pub fn due(&self, now: Instant) -> Option<Offset> {
        self.pending().filter(|_| self.deadline().is_some_and(|at| at <= now))
    }

    /// Time at which a store is due if nothing else becomes durable; `None` if nothing changed.
    pub fn deadline(&self) -> Option<Instant> {
        self.pending()?;
        let by_time = self.last + self.policy.every;
        let by_count =
            (self.messages >= self.policy.every_messages).then(|| self.spaced.unwrap_or(self.last));
        let due = by_count.map_or(by_time, |at| at.min(by_time));
        Some(self.not_before.map_or(due, |earliest| due.max(earliest)))
    }

    /// The offset that the broker is known to hold.
    pub fn stored(&self) -> Option<Offset> {
        self.stored
    }

    /// Records that the broker holds `offset`.
    pub fn confirmed(&mut self, offset: Offset, now: Instant) {
        self.stored = Some(offset);
        self.superseded = false;
        self.messages = 0;
        self.last = now;
        self.spaced = Some(now + SPACING_MIN);
        self.not_before = None;
    }

    /// Records that a store could not be confirmed: it is retried after [`RETRY_AFTER`].
    pub fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + RETRY_AFTER);
    }

    /// True while a failed store must not be retried yet.
    pub fn is_waiting(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| at > now)
    }

    /// Time at which a failed store may be retried; `None` if the last one succeeded.
    pub fn retry_at(&self) -> Option<Instant> {
        self.not_before
    }

    /// Takes over the offset that the broker reports after a reconnection.
    pub fn observed(&mut self, stored: Option<Offset>) {
        if !self.superseded {
            self.stored = stored;
        }
    }

    /// The offset on the broker does not count, because the position was moved: lower ones may be stored.
    pub fn supersede(&mut self) {
        self.superseded = true;
        self.stored = None;
    }

    /// Stores nothing until the stream confirms the position: it may belong to another incarnation.
    pub fn suspend(&mut self) {
        self.suspended = true;
    }

    /// The stream has confirmed the position.
    pub fn resume(&mut self) {
        self.suspended = false;
    }

    /// True if storing is suspended.
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Forgets the old incarnation of a re-created stream: lower offsets may be stored again,
    /// whatever the broker holds.
    pub fn restart(&mut self) {
        self.suspended = false;
        self.superseded = true;
        self.stored = None;
        self.durable = None;
        self.messages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { every_messages: 100, every: Duration::from_secs(5) };

    fn later(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn by_count_and_never_after_each_one() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, None, t0);
        let mut stores = Vec::new();
        for i in 0..1000 {
            // One message in every 2 ms: the count alone decides.
            let now = t0 + Duration::from_millis(2 * i);
            commit.durable(Offset(i), 1);
            if let Some(offset) = commit.due(now) {
                stores.push(offset.0);
                commit.confirmed(offset, now);
            }
        }
        assert_eq!(stores, [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]);
    }

    #[test]
    fn however_fast_messages_come_stores_keep_their_distance() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, None, t0);
        let mut stores = Vec::new();
        for ms in 0..=1000 {
            let now = t0 + Duration::from_millis(ms);
            commit.durable(Offset(ms), 1000);
            if let Some(offset) = commit.due(now) {
                stores.push(offset.0);
                commit.confirmed(offset, now);
            }
        }
        assert_eq!(stores, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    }

    #[test]
    fn the_spacing_never_delays_what_is_due_by_time() {
        let t0 = Instant::now();
        let policy = Policy { every: SPACING_MIN / 4, ..POLICY };
        let mut commit = Commit::new(policy, None, t0);
        commit.durable(Offset(1), 100);
        commit.confirmed(Offset(1), t0);
        commit.durable(Offset(2), 100);
        assert_eq!(commit.deadline(), Some(t0 + SPACING_MIN / 4));
    }

    #[test]
    fn by_time_only_if_something_moved() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, Some(Offset(7)), t0);
        assert_eq!((commit.due(later(t0, 60)), commit.deadline()), (None, None));
        commit.durable(Offset(8), 1);
        assert_eq!(commit.due(later(t0, 4)), None);
        assert_eq!(commit.due(later(t0, 5)), Some(Offset(8)));
        commit.confirmed(Offset(8), later(t0, 5));
        assert_eq!(commit.due(later(t0, 60)), None, "an unchanged offset is not stored again");
    }

    #[test]
    fn a_replay_stays_silent_until_it_has_passed_what_is_stored() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, Some(Offset(500)), t0);
        commit.durable(Offset(500), 501);
        assert_eq!(commit.due(later(t0, 60)), None);
        assert_eq!(commit.pending(), None);
        commit.durable(Offset(501), 1);
        assert_eq!(commit.due(later(t0, 60)), Some(Offset(501)));
    }

    #[test]
    fn a_failed_store_is_tried_again_but_not_at_once() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, None, t0);
        commit.durable(Offset(200), 201);
        assert_eq!(commit.due(t0), Some(Offset(200)));
        commit.failed(t0);
        assert_eq!(commit.due(t0), None);
        assert_eq!(commit.due(t0 + RETRY_AFTER), Some(Offset(200)));
        assert_eq!(commit.pending(), Some(Offset(200)), "a forced commit does not wait");
    }

    #[test]
    fn offset_zero_is_a_position_like_any_other() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, None, t0);
        commit.durable(Offset(0), 1);
        assert_eq!(commit.pending(), Some(Offset(0)));
        commit.confirmed(Offset(0), t0);
        assert_eq!(commit.pending(), None);
    }

    #[test]
    fn a_new_incarnation_is_stored_below_the_offset_of_the_old_one() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, Some(Offset(500)), t0);
        commit.restart();
        commit.observed(Some(Offset(500)));
        commit.durable(Offset(19), 20);
        assert_eq!(commit.pending(), Some(Offset(19)));
        commit.confirmed(Offset(19), t0);
        assert_eq!(commit.pending(), None);
        // From here on it is this history's again.
        commit.observed(Some(Offset(30)));
        commit.durable(Offset(25), 6);
        assert_eq!(commit.pending(), None);
    }

    #[test]
    fn what_is_suspended_is_kept() {
        let t0 = Instant::now();
        let mut commit = Commit::new(POLICY, None, t0);
        commit.durable(Offset(19), 200);
        commit.suspend();
        assert_eq!((commit.pending(), commit.deadline()), (None, None));
        assert_eq!(commit.due(later(t0, 99)), None);
        commit.resume();
        assert_eq!(commit.due(t0), Some(Offset(19)));
        commit.suspend();
        commit.restart();
        assert_eq!(commit.pending(), None);
        commit.durable(Offset(3), 4);
        assert_eq!(commit.pending(), Some(Offset(3)));
    }

    /// A position that was moved back is stored below the offset that the broker holds, also after a
    /// reconnection; and from then on none goes backwards.
    #[test]
    fn what_was_moved_over_does_not_count() {
        let start = Instant::now();
        let mut commit = Commit::new(POLICY, Some(Offset(900)), start);
        commit.supersede();
        commit.observed(Some(Offset(900)));
        commit.durable(Offset(10), 10);
        assert_eq!(commit.pending(), Some(Offset(10)));
        commit.confirmed(Offset(10), start);
        commit.observed(Some(Offset(20)));
        commit.durable(Offset(15), 5);
        assert_eq!(commit.pending(), None);
    }
}
