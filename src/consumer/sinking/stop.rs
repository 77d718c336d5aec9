//! The word that no batch is to be begun any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says that the time of a graceful shutdown runs short.
#[derive(Clone, Default)]
pub(in crate::consumer) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Says so to every clone.
    pub(in crate::consumer) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
