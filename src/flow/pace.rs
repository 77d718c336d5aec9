//! How long the batch under way waits for more records.
//!
//! While the sink is busy, waiting costs nothing: what comes meanwhile makes one larger batch. While
//! it is idle, waiting buys nothing but fewer writes. So an idle sink gets the batch as soon as it has
//! rested: [`RESTS`] times as long as its last write took, and [`REST_MIN`] at least. That bounds what
//! small batches cost, whatever the medium: a sink is busy for a quarter of the time at the most.
//!
//! A sink that holds batches back makes none durable by taking it sooner. There only the age counts.

use std::time::{Duration, Instant};

/// After a write, a sink rests for so many times as long as the write took, while its batches are
/// not full.
pub const RESTS: u32 = 3;

/// The shortest rest: at most 200 batches a second that are not full.
pub const REST_MIN: Duration = Duration::from_millis(5);

/// When a batch that is not full is due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    max_age: Duration,
    rested: Option<Instant>,
    holds: bool,
}

impl Pace {
    /// Before the first write; no batch waits longer than `max_age` for others.
    pub fn new(max_age: Duration) -> Pace {
        Pace { max_age, rested: None, holds: false }
    }

    /// Notes that the sink has made something durable, which took so long.
    pub fn wrote(&mut self, took: Duration, now: Instant) {
        let rest = took.saturating_mul(RESTS).max(REST_MIN).min(self.max_age);
        self.rested = Some(now + rest);
    }

    /// Notes that the sink holds what it takes until it has enough.
    pub fn holds(&mut self) {
        self.holds = true;
    }

    /// When a batch has to be cut that waits since `since`, whatever else there is to do.
    pub fn by_age(&self, since: Instant) -> Instant {
        since + self.max_age
    }

    /// When it is better cut than left to wait, where the sink is idle.
    pub fn while_idle(&self, since: Instant) -> Instant {
        let by_age = self.by_age(since);
        if self.holds {
            return by_age;
        }
        self.rested.map_or(since, |rested| rested.max(since)).min(by_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_batch_of_an_idle_sink_waits_for_nothing() {
        let now = Instant::now();
        assert_eq!(Pace::new(MAX_AGE).while_idle(now), now);
    }

    #[test]
    fn an_idle_sink_rests_as_its_last_write_tells() {
        let now = Instant::now();
        let mut pace = Pace::new(MAX_AGE);
        pace.wrote(Duration::from_micros(10), now);
        assert_eq!(pace.while_idle(now), now + REST_MIN);
        pace.wrote(Duration::from_millis(20), now);
        assert_eq!(pace.while_idle(now), now + Duration::from_millis(60));
        let later = now + Duration::from_secs(5);
        assert_eq!(pace.while_idle(later), later);
    }

    #[test]
    fn no_rest_is_longer_than_a_batch_may_wait() {
        let now = Instant::now();
        let mut pace = Pace::new(MAX_AGE);
        pace.wrote(Duration::MAX, now);
        assert_eq!(pace.while_idle(now), pace.by_age(now));
        assert_eq!(pace.by_age(now), now + MAX_AGE);
    }

    #[test]
    fn a_sink_that_holds_gets_it_by_age() {
        let now = Instant::now();
        let mut pace = Pace::new(MAX_AGE);
        pace.holds();
        assert_eq!(pace.while_idle(now), now + MAX_AGE);
    }
}
