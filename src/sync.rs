//! Locks that stay usable after a panic.
//!
//! Data behind this crate's locks is consistent between any two statements. So a thread that
//! panicked while it held one broke nothing, and the others continue.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, even if another holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
