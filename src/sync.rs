//! Locks that a panic does not spoil.
//!
//! What stands behind the locks of this crate is whole between any two statements. So a thread that
//! panicked while it held one broke nothing, and the others go on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, also after a panic of another holder.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
