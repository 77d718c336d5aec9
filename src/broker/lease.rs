//! A place on a connection that several streams share.

use std::sync::atomic::{AtomicBool, Ordering};

/// Gives the place back; true if it was the last one in use.
type GiveBack = Box<dyn Fn() -> bool + Send + Sync>;

/// A place on a connection of a pool. Dropping it gives it back.
pub(super) struct Lease {
    number: u64,
    has_ended: AtomicBool,
    give_back: GiveBack,
}

impl Lease {
    /// A place on the connection of this number.
    pub(super) fn new(number: u64, give_back: impl Fn() -> bool + Send + Sync + 'static) -> Lease {
        Lease { number, has_ended: AtomicBool::new(false), give_back: Box::new(give_back) }
    }

    /// Number of the connection in its pool.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Gives the place back; true if nobody else uses the connection.
    pub(super) fn end(&self) -> bool {
        !self.has_ended.swap(true, Ordering::Relaxed) && (self.give_back)()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}
