//! Exponential back-off with full jitter, after "Exponential Backoff And Jitter" (AWS Architecture
//! Blog): peers that failed together do not come back together.

use std::time::Duration;

/// Waiting times between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Begins at about `min`, doubles up to `max`.
    pub fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), failures: 0 }
    }

    /// Time to wait after one more failure. `random` is uniform in [0, 1).
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.min.saturating_mul(1u32 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        // Never below half of `min`, so that a failing peer is not flooded with attempts.
        let floor = self.min / 2;
        floor + ceiling.saturating_sub(floor).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Number of failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Records a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000));
        let waits: Vec<_> = (0..6).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.next(0.0), ms(50));
        backoff.reset();
        assert_eq!(backoff.next(1.0), ms(100));
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= ms(1000));
        }
    }
}
