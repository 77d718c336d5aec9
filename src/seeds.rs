//! Runs a simulation once for each seed.
//!
//! `RILLWAY_SIMULATIONS` sets how many seeds; `RILLWAY_SEED` runs that one alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Fails with the first seed that fails, and prints how to run it again; `tests` selects the simulation.
pub(crate) fn all_pass(default: u64, tests: &str, simulate: impl Fn(u64)) {
    let seeds = match number("RILLWAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RILLWAY_SIMULATIONS").unwrap_or(default),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
            eprintln!("seed {seed} failed. Again: RILLWAY_SEED={seed} cargo test --lib {tests}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// True if the simulation fails for one of the first `most` seeds; `--nocapture` shows for which.
pub(crate) fn one_fails(most: u64, simulate: impl Fn(u64)) -> bool {
    let found = (0..most).find(|seed| catch_unwind(AssertUnwindSafe(|| simulate(*seed))).is_err());
    eprintln!("the first seed that fails: {found:?}");
    found.is_some()
}
