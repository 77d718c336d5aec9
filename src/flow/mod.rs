//! Pure rules: durability, when to store an offset, how batches are cut, how much may be in flight,
//! whether an offset is missing, how far behind a consumer is.
//!
//! Nothing here does I/O, waits, logs or reads a clock: events and times come in as arguments and
//! decisions go out as values, so that tables and properties can test every one of them.

pub mod backoff;
pub mod batch;
pub mod beginning;
pub mod commit;
pub mod continuity;
pub mod credit;
pub mod cutter;
pub mod history;
pub mod lag;
pub mod ledger;
pub mod pace;
pub mod resume;
pub mod trouble;
pub mod watched;
