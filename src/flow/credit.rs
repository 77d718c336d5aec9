//! Decides how many chunks the broker may send: credit under a budget of bytes.
//!
//! A credit is one chunk, whose size is unknown beforehand, so the window works with the largest
//! recent size: `buffered + outstanding × estimate <= ¾ budget`. If far larger chunks follow,
//! [`Window::admits`] refuses *before* the frame is read. The connection is dropped and made again
//! with the better estimate: the bound holds at any chunk size.
//!
//! A refused chunk is requested again, behind the same chunks as before. If small chunks lowered
//! the estimate each time, it would be refused again without end. So after a refusal the largest
//! cost seen is a floor under the estimate, until the sink has given back a whole budget's worth.
//! Each further refusal before that needs a chunk larger than all before it: refusals end.
//!
//! Bytes outlive a subscription (a batch of it may still be in flight to the sink), credit does
//! not: [`Window::subscribed`] resets the count of outstanding chunks and keeps the bytes.

/// Cost of a chunk beyond its bytes: its entry in queues, batches and the ledger.
pub const CHUNK_OVERHEAD_BYTES: u64 = 256;

/// Most chunks outstanding, however small they are. It also bounds how much is read and discarded
/// when large chunks cause the connection to be dropped.
pub const OUTSTANDING_MAX: u64 = 1024;

/// Chunks requested before any was seen. The broker needs about 10 to keep a socket busy.
const OUTSTANDING_FIRST: u64 = 16;

/// Increase of outstanding chunks for each chunk seen: a few small ones at the beginning say little
/// about those that follow.
const OUTSTANDING_PER_CHUNK_SEEN: u64 = 4;

/// Credit and memory of one consumer.
#[derive(Debug)]
pub struct Window {
    budget: u64,
    buffered: u64,
    estimate: u64,
    /// Lower bound of the estimate.
    floor: u64,
    /// Largest cost of this round and of the one before: at least that of all chunks held.
    peaks: [u64; 2],
    /// Bytes to be given back before a new round begins.
    turn_left: u64,
    /// Number of chunks received in all.
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

    /// Bytes that a chunk in a frame of this size counts for.
    pub fn cost(frame_bytes: u64) -> u64 {
        frame_bytes.saturating_add(CHUNK_OVERHEAD_BYTES)
    }

    /// Starts a subscription with this much initial credit; nothing of the last one is outstanding.
    pub fn subscribed(&mut self, initial: u16) {
        self.outstanding = u64::from(initial);
        self.open = true;
    }

    /// Ends the subscription: no credit is granted until the next one.
    pub fn closed(&mut self) {
        self.outstanding = 0;
        self.open = false;
    }

    /// True if a chunk of this cost may be read into memory now.
    pub fn admits(&self, cost: u64) -> bool {
        self.buffered.saturating_add(cost) <= self.budget
    }

    /// True if a chunk of this cost could ever be read.
    pub fn could_admit(&self, cost: u64) -> bool {
        cost <= self.budget
    }

    /// Records a chunk that was refused, so that the next subscription asks for fewer.
    pub fn refused(&mut self, cost: u64) {
        let [now, before] = self.peaks;
        self.floor = self.floor.max(now).max(before).max(cost);
        self.turn_left = self.budget;
        self.estimate = self.estimate.max(self.floor);
    }

    /// Records a chunk that arrived and is held.
    pub fn received(&mut self, cost: u64) {
        self.buffered += cost;
        self.seen = self.seen.saturating_add(1);
        self.peaks[0] = self.peaks[0].max(cost);
        self.outstanding = self.outstanding.saturating_sub(1);
        // Rises at once, falls slowly, and not below recent sizes: a small chunk says little about
        // the next.
        let fallen = self.estimate - self.estimate.saturating_sub(cost) / 8;
        let [now, before] = self.peaks;
        self.estimate = fallen.max(now).max(before).max(self.floor);
    }

    /// Records that a held chunk's memory was given back.
    pub fn released(&mut self, cost: u64) {
        self.buffered = self.buffered.saturating_sub(cost);
        // Without a subscription, chunks are mostly given back unread with the queue: no progress.
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

    /// Credit to grant now, counted as granted. Small amounts are saved up, so that one frame
    /// serves many chunks.
    pub fn grant(&mut self) -> u16 {
        if !self.open {
            return 0;
        }
        // A quarter is reserved for chunks that are larger than the estimate.
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

    /// Number of messages that a source which asks for single ones may have outstanding on its next
    /// subscription, beside what is held, by the largest recent size. 1 or more.
    pub fn affordable(&self) -> u64 {
        let free = (self.budget - self.budget / 4).saturating_sub(self.buffered);
        match self.seen {
            0 => OUTSTANDING_MAX,
            _ => (free / self.estimate.max(1)).clamp(1, OUTSTANDING_MAX),
        }
    }

    /// Records that the broker may send this many more, by a source that does not wait for
    /// [`Window::grant`].
    pub fn returned(&mut self, credits: u64) {
        if self.open {
            self.outstanding += credits;
        }
    }

    /// Number of chunks that the broker may still send.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Bytes held.
    pub fn buffered(&self) -> u64 {
        self.buffered
    }

    /// True if so little is held that a connection dropped for a refused chunk may be made again:
    /// that chunk would fit now.
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
