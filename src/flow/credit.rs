//! How many chunks the broker may send: credit under a budget of bytes.
//!
//! A credit is one chunk of a size that nobody knows beforehand, so the window works with the
//! largest size seen of late: `buffered + outstanding × estimate <= budget`. "Of late" is at least as
//! many chunks as can be outstanding: sizes vary from chunk to chunk, and an estimate that follows the
//! last few would grant too much after every run of small ones. Where a burst of larger chunks than any
//! of late makes it wrong, [`Window::admits`] says so *before* the frame is read, and the
//! connection is dropped and made anew with the better estimate: the bound holds at any chunk size.
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

/// The fewest chunks that the largest of late is taken from.
const RECENT_MIN: u64 = 64;

/// Credit and memory of one consumer.
#[derive(Debug)]
pub struct Window {
    budget: u64,
    buffered: u64,
    estimate: u64,
    recent: Recent,
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
            recent: Recent::default(),
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
        self.estimate = self.estimate.max(cost);
        self.recent.largest = self.recent.largest.max(cost);
    }

    /// A chunk arrived and is held.
    pub fn received(&mut self, cost: u64) {
        self.buffered += cost;
        self.outstanding = self.outstanding.saturating_sub(1);
        let length =
            (2 * self.budget / self.estimate.max(1)).clamp(RECENT_MIN, 2 * OUTSTANDING_MAX);
        let largest = self.recent.note(cost, length);
        // Down in steps, so that the first chunk alone does not decide; never below what came of late.
        self.estimate = match self.estimate.checked_sub(largest) {
            Some(above) => self.estimate - above.div_ceil(8),
            None => largest,
        };
    }

    /// What a chunk held was given back.
    pub fn released(&mut self, cost: u64) {
        self.buffered = self.buffered.saturating_sub(cost);
    }

    /// How much credit to grant now; it counts as granted. Small steps are saved up, so that one
    /// frame serves many chunks.
    pub fn grant(&mut self) -> u16 {
        if !self.open {
            return 0;
        }
        let free = self.budget.saturating_sub(self.buffered);
        let mut wanted = (free / self.estimate.max(1)).min(OUTSTANDING_MAX);
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

    /// Whether so little is held that a connection dropped for a burst may be made anew.
    pub fn relaxed(&self) -> bool {
        self.buffered <= self.budget / 2
    }
}

/// The largest of the last `length` to `2 * length` costs.
#[derive(Debug, Default)]
struct Recent {
    seen: u64,
    largest: u64,
    before: u64,
}

impl Recent {
    fn note(&mut self, cost: u64, length: u64) -> u64 {
        if self.seen >= length {
            self.before = std::mem::take(&mut self.largest);
            self.seen = 0;
        }
        self.seen += 1;
        self.largest = self.largest.max(cost);
        self.largest.max(self.before)
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
        assert_eq!(window.grant() + 1, 16);
    }

    /// A sink slower than the broker, and chunks of mixed sizes: is the connection ever dropped for
    /// what was granted too much?
    #[test]
    fn chunks_of_mixed_sizes_do_not_overrun() {
        let mut window = Window::new(16 * MIB);
        let mut random = fastrand::Rng::with_seed(7);
        let mut held = std::collections::VecDeque::new();
        window.subscribed(1);
        window.grant();
        // Runs of small chunks and runs of large ones; until a large one was seen nobody can know.
        let mut size = |n: u64| match n / 40 % 3 {
            0 => random.u64(9_000..18_000),
            1 => random.u64(300..600),
            _ => random.u64(300..18_000),
        };
        for n in 0..20_000 {
            while window.outstanding() == 0 {
                // The broker is always faster: the sink gives back as little as it can.
                window.released(held.pop_front().unwrap());
                window.grant();
            }
            let cost = Window::cost(size(n));
            assert!(window.admits(cost), "chunk {n} of {cost}: {window:?}");
            window.received(cost);
            held.push_back(cost);
            window.grant();
        }
    }

    #[test]
    fn one_large_chunk_is_forgotten_after_a_while() {
        let mut window = Window::new(16 * MIB);
        window.subscribed(1);
        window.grant();
        let take = |window: &mut Window, cost| {
            window.received(cost);
            window.released(cost);
            window.grant();
        };
        take(&mut window, 8 * MIB);
        for _ in 0..RECENT_MIN / 2 {
            take(&mut window, 1000);
        }
        assert!(window.outstanding() <= 2, "{window:?}");
        for _ in 0..4 * RECENT_MIN {
            take(&mut window, 1000);
        }
        assert!(window.outstanding() > OUTSTANDING_MAX / 2, "{window:?}");
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

    proptest! {
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
                if held.len() > hold { if let Some(cost) = held.pop_front() { window.released(cost); } }
                window.grant();
            }
        }
    }
}
