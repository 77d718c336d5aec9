//! How long a position has been in doubt: no chunk arrived for it, and no node has said that it is gone;
//! or a node says so that is not the leader.

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use super::{DOUBT_MAX, DOUBT_OF_ANOTHER_MAX, HEARSAY_MAX, Lost};

/// Time since which a position has continuously been in doubt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doubts {
    since: Option<Instant>,
    /// Time of the last look.
    looked: Option<Instant>,
    /// What another node than the leader says; `None` for a doubt of the leader's. Each has its own time.
    hearsay: Option<Discriminant<Lost>>,
    missing: bool,
}

impl Doubts {
    /// Records one more look without the position. Returns true if the doubt has lasted long
    /// enough.
    pub fn lasted(&mut self, now: Instant) -> bool {
        self.lasted_for(now, None, self.limit())
    }

    /// The same for what another node than the leader says. The time begins anew whenever it says
    /// something else, and whenever the leader was asked.
    pub fn hearsay_lasted(&mut self, now: Instant, lost: &Lost) -> bool {
        self.lasted_for(now, Some(discriminant(lost)), HEARSAY_MAX)
    }

    fn lasted_for(
        &mut self,
        now: Instant,
        hearsay: Option<Discriminant<Lost>>,
        limit: Duration,
    ) -> bool {
        let before = self.looked.replace(now);
        if before.is_some_and(|at| now.saturating_duration_since(at) > DOUBT_MAX) {
            // Of an earlier time: what was not looked for has not stayed away.
            *self = Doubts { looked: Some(now), ..Doubts::default() };
        }
        if self.hearsay != hearsay {
            (self.hearsay, self.since) = (hearsay, None);
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= limit
    }

    /// True after the broker said that there is no such stream: what is there now is another one.
    pub fn is_of_another(&self) -> bool {
        self.missing
    }

    /// For how long the position may be in doubt before it counts as lost.
    pub fn limit(&self) -> Duration {
        if self.missing { DOUBT_OF_ANOTHER_MAX } else { DOUBT_MAX }
    }

    /// Records that the broker could not be asked.
    pub fn interrupted(&mut self) {
        self.since = None;
    }

    /// Records that the broker reported that there is no such stream.
    pub fn missing(&mut self) {
        *self = Doubts { missing: true, ..Doubts::default() };
    }

    /// Records that the position is confirmed, or the question is settled otherwise.
    pub fn clear(&mut self) {
        *self = Doubts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    /// A single-active consumer that stood by has not looked: its old doubt says nothing.
    #[test]
    fn an_old_doubt_does_not_go_on_after_a_long_time_without_a_look() {
        let (t0, hour) = (Instant::now(), Duration::from_secs(3600));
        let mut doubts = Doubts::default();
        assert!(!doubts.lasted(t0));
        assert!(!doubts.lasted(t0 + hour));
        assert!(doubts.lasted(t0 + hour + DOUBT_MAX));
        doubts.missing();
        assert!(!doubts.lasted(t0 + 2 * hour) && doubts.is_of_another());
        assert!(!doubts.lasted(t0 + 3 * hour) && !doubts.is_of_another());
    }

    #[test]
    fn what_others_say_has_a_time_of_its_own() {
        let evicted = Lost::Evicted { wanted: Offset(1), first: Offset(5) };
        let rewritten = Lost::Rewritten { position: Offset(0) };
        let t0 = Instant::now();
        let after = |seconds| t0 + Duration::from_secs(seconds);
        let mut doubts = Doubts::default();
        assert!(!doubts.lasted(t0), "the leader is in doubt");
        assert!(!doubts.hearsay_lasted(after(40), &evicted), "and then out of reach");
        assert!(!doubts.hearsay_lasted(after(60), &rewritten), "that is something else");
        assert!(!doubts.hearsay_lasted(after(89), &rewritten));
        assert!(doubts.hearsay_lasted(after(90), &rewritten));
        doubts.missing();
        assert!(!doubts.hearsay_lasted(after(91), &evicted));
        assert!(!doubts.lasted(after(101)), "the leader's time begins with its answer");
        assert!(doubts.lasted(after(111)) && doubts.is_of_another());
    }
}
