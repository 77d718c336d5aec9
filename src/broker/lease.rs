//! A slot on a connection that several streams share.

use std::sync::atomic::{AtomicBool, Ordering};

/// Releases the slot; true if it was the last one in use.
type GiveBack = Box<dyn Fn() -> bool + Send + Sync>;

/// A slot on a connection of a pool. Dropping it releases it.
pub(super) struct Lease {
    number: u64,
    has_ended: AtomicBool,
    give_back: GiveBack,
}

impl Lease {
    /// A slot on the connection of this number.
    pub(super) fn new(number: u64, give_back: impl Fn() -> bool + Send + Sync + 'static) -> Lease {
        Lease { number, has_ended: AtomicBool::new(false), give_back: Box::new(give_back) }
    }

    /// Number of the connection in its pool.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Releases the slot; true if nobody else uses the connection.
    pub(super) fn end(&self) -> bool {
        !self.has_ended.swap(true, Ordering::Relaxed) && (self.give_back)()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}
