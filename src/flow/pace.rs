//! Decides how long the current batch waits for more records.
//!
//! While the sink is busy, waiting costs nothing: what arrives meanwhile makes one larger batch.
//! While it is idle, waiting only saves writes. So an idle sink gets the batch after a pause of
//! [`RESTS`] times the duration of its last write, and at least [`REST_MIN`]. That bounds the cost
//! of small batches for every sink: it is busy for at most a quarter of the time.
//!
//! A sink that holds batches back makes none durable by taking it sooner. For it only the age
//! counts.

use std::time::{Duration, Instant};

/// Pause after a write, as a multiple of the write's duration, while batches are not full.
pub const RESTS: u32 = 3;

/// Shortest pause: at most 200 batches a second that are not full.
pub const REST_MIN: Duration = Duration::from_millis(5);

/// Timing of a batch that is not full.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    max_age: Duration,
    rested: Option<Instant>,
    holds: bool,
}

impl Pace {
    /// State before the first write; no batch waits longer than `max_age` for more records.
    pub fn new(max_age: Duration) -> Pace {
        Pace { max_age, rested: None, holds: false }
    }

    /// Records that the sink made something durable, which took `took`.
    pub fn wrote(&mut self, took: Duration, now: Instant) {
        let rest = took.saturating_mul(RESTS).max(REST_MIN).min(self.max_age);
        self.rested = Some(now + rest);
    }

    /// Records that the sink holds its input until it has enough.
    pub fn holds(&mut self) {
        self.holds = true;
    }

    /// Latest time at which a batch that waits since `since` is cut, whatever else there is to do.
    pub fn by_age(&self, since: Instant) -> Instant {
        since + self.max_age
    }

    /// Time at which a batch that waits since `since` is cut if the sink is idle.
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
