//! How many chunks the broker may send: credit under a budget of bytes.
//!
//! A credit is one chunk of a size that nobody knows beforehand, so the window works with the
//! largest size seen of late: `buffered + outstanding × estimate <= ¾ budget`. Where a burst of far
//! larger chunks makes that wrong, [`Window::admits`] says so *before* the frame is read, and the
//! connection is dropped and made anew with the better estimate: the bound holds at any chunk size.
//!
//! What was refused once is asked for again, behind the same chunks as before. An estimate that fell
//! with each of the small ones would be as wrong as the first time, for ever. So after a refusal the
//! largest cost seen is a floor under the estimate, until a whole budget's worth was given back by a
//! sink that goes on. Each refusal before that needs a chunk larger than all before it: they end.
//!
//! Bytes outlive a subscription (a batch of it may still be on its way into the sink), credit does
//! not: [`Window::subscribed`] starts the count of outstanding chunks anew and keeps the bytes.

/// What a chunk costs beyond its bytes: its entry in queues, batches and the ledger.
pub const CHUNK_OVERHEAD_BYTES: u64 = 256;

/// The most chunks outstanding, however small they are. It also bounds what is read for nothing
/// when a burst of large chunks makes the connection be dropped.
pub const OUTSTANDING_MAX: u64 = 1024;

/// Before a chunk was seen: this many are asked for at first. The broker needs 10 or so to keep a
/// socket busy.
const OUTSTANDING_FIRST: u64 = 16;

/// So many more may be outstanding for each chunk seen: a few small ones at the beginning say little of
/// what comes.
const OUTSTANDING_PER_CHUNK_SEEN: u64 = 4;

/// Credit and memory of one consumer.
#[derive(Debug)]
pub struct Window {
    budget: u64,
    buffered: u64,
    estimate: u64,
    /// The estimate stays at or above this.
    floor: u64,
    /// The largest cost of this turn, and of the one before: at least of all that is held.
    peaks: [u64; 2],
    /// So many bytes are to be given back before a new turn begins.
    turn_left: u64,
    /// Chunks received in all.
    seen: u64,
    outstanding: u64,
    open: bool,
}

impl Window {
    /// An empty window over `budget` bytes.
    pub fn new(budget: u64) -> Window {
        let estimate = (budget / OUTSTANDING_FIRST).max(1);
        Window {
            budget,
            buffered: 0,
            estimate,
            floor: 0,
            peaks: [0, 0],
            turn_left: budget,
            seen: 0,
            outstanding: 0,
            open: false,
        }
    }

    /// What a chunk of a frame of this size is counted as.
    pub fn cost(frame_bytes: u64) -> u64 {
        frame_bytes + CHUNK_OVERHEAD_BYTES
    }

    /// A new subscription with this much initial credit; nothing of the last one is outstanding.
    pub fn subscribed(&mut self, initial: u16) {
        self.outstanding = u64::from(initial);
        self.open = true;
    }

    /// The subscription ended: no credit is granted until there is a new one.
    pub fn closed(&mut self) {
        self.outstanding = 0;
        self.open = false;
    }

    /// Whether a chunk of this cost may be read into memory now.
    pub fn admits(&self, cost: u64) -> bool {
        self.buffered.saturating_add(cost) <= self.budget
    }

    /// Whether a chunk of this cost could ever be read.
    pub fn could_admit(&self, cost: u64) -> bool {
        cost <= self.budget
    }

    /// Notes a chunk that could not be admitted, so that the next window asks for fewer.
    pub fn refused(&mut self, cost: u64) {
        let [now, before] = self.peaks;
        self.floor = self.floor.max(now).max(before).max(cost);
        self.turn_left = self.budget;
        self.estimate = self.estimate.max(self.floor);
    }

    /// A chunk arrived and is held.
    pub fn received(&mut self, cost: u64) {
        self.buffered += cost;
        self.seen = self.seen.saturating_add(1);
        self.peaks[0] = self.peaks[0].max(cost);
        self.outstanding = self.outstanding.saturating_sub(1);
        // Up at once, down slowly, and not below what came of late: a small chunk says little of the
        // next.
        let fallen = self.estimate - self.estimate.saturating_sub(cost) / 8;
        let [now, before] = self.peaks;
        self.estimate = fallen.max(now).max(before).max(self.floor);
    }

    /// What a chunk held was given back.
    pub fn released(&mut self, cost: u64) {
        self.buffered = self.buffered.saturating_sub(cost);
        // Without a subscription it is mostly given back unread, with the queue: no progress.
        if !self.open {
            return;
        }
        self.turn_left = self.turn_left.saturating_sub(cost);
        if self.turn_left == 0 {
            self.floor = 0;
            self.peaks = [0, self.peaks[0]];
            self.turn_left = self.budget;
        }
    }

    /// How much credit to grant now; it counts as granted. Small steps are saved up, so that one
    /// frame serves many chunks.
    pub fn grant(&mut self) -> u16 {
        if !self.open {
            return 0;
        }
        // A quarter is left for chunks that are larger than the estimate.
        let free = (self.budget - self.budget / 4).saturating_sub(self.buffered);
        let mut wanted = (free / self.estimate.max(1))
            .min(OUTSTANDING_MAX)
            .min(OUTSTANDING_FIRST + self.seen.saturating_mul(OUTSTANDING_PER_CHUNK_SEEN));
        if wanted == 0 && self.buffered == 0 {
            wanted = 1; // One chunk at a time, if they are as large as that.
        }
        let step = wanted.saturating_sub(self.outstanding);
        if step == 0 || (self.outstanding > 0 && step < wanted / 4) {
            return 0;
        }
        self.outstanding += step;
        u16::try_from(step).unwrap_or(u16::MAX)
    }

    /// How many chunks the broker may still send.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Bytes held.
    pub fn buffered(&self) -> u64 {
        self.buffered
    }

    /// Whether so little is held that a connection dropped for a burst may be made anew: what was
    /// refused would fit now.
    pub fn relaxed(&self) -> bool {
        self.buffered <= (self.budget / 2).min(self.budget.saturating_sub(self.floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn at_least_ten_outstanding_before_anything_is_known() {
        let mut window = Window::new(16 * MIB);
        window.subscribed(1);
        assert!(u64::from(window.grant()) + 1 >= 10);
        assert_eq!(window.grant(), 0);
    }

    #[test]
    fn small_chunks_open_the_window_and_large_ones_close_it() {
        let mut window = Window::new(16 * MIB);
        window.subscribed(1);
        window.grant();
        for _ in 0..200 {
            window.received(400);
            window.released(400);
            window.grant();
        }
        assert_eq!(window.outstanding(), OUTSTANDING_MAX.min(window.outstanding()));
        assert!(window.outstanding() > 700, "{window:?}");
        // The burst: every outstanding chunk is 1 MiB. What does not fit is refused.
        let mut taken = 0;
        while window.admits(MIB) {
            window.received(MIB);
            taken += 1;
        }
        assert_eq!(taken, 16);
        window.closed();
        assert_eq!(window.grant(), 0, "nothing is granted on a closed subscription");
        for _ in 0..16 {
            window.released(MIB);
        }
        window.subscribed(1);
        assert_eq!(window.grant() + 1, 12);
    }

    #[test]
    fn a_chunk_as_large_as_the_budget_is_taken_alone() {
        let mut window = Window::new(MIB);
        window.subscribed(1);
        window.refused(MIB);
        assert_eq!(window.grant(), 0);
        window.received(MIB);
        assert_eq!(window.grant(), 0);
        window.released(MIB);
        assert_eq!(window.grant(), 1);
        assert!(!window.could_admit(MIB + 1));
    }

    /// What a broker sends that has credit, to a consumer that takes nothing; false if it ended by a
    /// chunk that was refused.
    fn fills(window: &mut Window, costs: &[u64]) -> bool {
        let mut held = 0;
        window.subscribed(1);
        window.grant();
        for cost in costs {
            if window.outstanding() == 0 {
                break;
            }
            if !window.admits(*cost) {
                window.refused(*cost);
                window.closed();
                window.released(held);
                return false;
            }
            window.received(*cost);
            held += *cost;
            window.grant();
        }
        true
    }

    #[test]
    fn the_same_chunks_are_not_refused_for_ever() {
        // A few large ones among many small, and nothing taken before the budget is full.
        let costs: Vec<u64> =
            (1..20_000).map(|i| if i % 50 == 0 { 54_000 } else { 8_000 }).collect();
        let mut window = Window::new(16 * MIB);
        let refused = (0..10).take_while(|_| !fills(&mut window, &costs)).count();
        assert!(refused <= 1, "refused {refused} times");
    }

    #[test]
    fn what_was_refused_is_forgotten_when_the_sink_goes_on() {
        let mut window = Window::new(16 * MIB);
        window.subscribed(1);
        window.refused(8 * MIB);
        for _ in 0..16 * 1024 {
            window.received(1024);
            window.grant();
            assert!(window.outstanding() <= 2, "{window:?}");
            window.released(1024);
        }
        for _ in 0..200 {
            window.received(1024);
            window.released(1024);
            window.grant();
        }
        assert!(window.outstanding() > 700, "{window:?}");
    }

    #[test]
    fn a_connection_is_made_anew_only_when_what_was_refused_would_fit() {
        let mut window = Window::new(16 * MIB);
        window.received(6 * MIB);
        assert!(window.relaxed());
        window.refused(12 * MIB);
        assert!(!window.relaxed());
        window.released(3 * MIB);
        assert!(window.relaxed());
    }

    proptest! {
        /// However large and in whatever order, each refusal is of a larger chunk than the last one.
        #[test]
        fn refusals_grow_and_so_they_end(costs in proptest::collection::vec(100u64..2_000_000, 1..600)) {
            let mut window = Window::new(2 * MIB);
            let mut last = 0;
            while !fills(&mut window, &costs) {
                prop_assert!(window.floor > last, "{} after {last}", window.floor);
                last = window.floor;
            }
        }

        /// Whatever arrives, what is held never passes the budget, and the window never stalls:
        /// with nothing held and nothing outstanding it grants.
        #[test]
        fn bounded_and_never_stuck(costs in proptest::collection::vec(1u64..3_000_000, 1..300), hold in 1usize..40) {
            let mut window = Window::new(2 * MIB);
            let mut held = std::collections::VecDeque::new();
            window.subscribed(1);
            for cost in costs {
                if window.outstanding() == 0 {
                    while let Some(cost) = held.pop_front() { window.released(cost); }
                    prop_assert!(window.grant() > 0);
                }
                if !window.could_admit(cost) { continue; }
                if !window.admits(cost) {
                    window.refused(cost);
                    window.closed();
                    while let Some(cost) = held.pop_front() { window.released(cost); }
                    window.subscribed(1);
                }
                window.received(cost);
                held.push_back(cost);
                prop_assert!(window.buffered() <= 2 * MIB);
                prop_assert_eq!(window.buffered(), held.iter().sum::<u64>());
                if held.len() > hold && let Some(cost) = held.pop_front() { window.released(cost); }
                window.grant();
            }
        }
    }
}
