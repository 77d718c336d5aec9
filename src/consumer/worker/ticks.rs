//! The turns of a consumer that has nothing to do.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::consumer::brain::TICK;

/// Idle consumers take their turns at multiples of this time, so that a thread that wakes up finds many of
/// them due: to wake up costs more than a turn.
const STEP: Duration = Duration::from_millis(100);

/// Where all consumers count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When the next turn of an idle consumer is due: at most [`TICK`] from now.
pub(super) fn next(now: Instant) -> Instant {
    let latest = now + TICK;
    let since_start = latest.saturating_duration_since(*START);
    latest - Duration::from_nanos((since_start.as_nanos() % STEP.as_nanos()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_turns_fall_together_and_are_never_late() {
        let begin = Instant::now();
        let turns = (0..1_000).map(|n| {
            let now = begin + Duration::from_micros(n * 97);
            let turn = next(now);
            assert!(turn <= now + TICK && turn > now + TICK - STEP, "after {:?}", turn - now);
            turn
        });
        let turns: std::collections::BTreeSet<_> = turns.collect();
        assert!(turns.len() <= 2, "{turns:?}");
    }
}
