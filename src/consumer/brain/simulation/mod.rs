//! Seeded interleavings of everything that can happen to a consumer, against a model that knows what must
//! hold.
//!
//! Run more of them with `RILLWAY_SIMULATIONS=1000000 cargo test --lib simulation`. A failure prints
//! its seed; `RILLWAY_SEED=SEED` runs that one alone.

mod storing;

use super::Caller;

impl Caller for u32 {
    fn is_gone(&self) -> bool {
        false
    }
}
