//! The daemon's reports about itself: metrics, log lines, and heartbeats.
//!
//! - [`names`]: every metric, its help, unit and labels, in one table. Names are an interface.
//! - [`labels`]: the closed sets of label values.
//! - [`consumer`]: one consumer's metrics as handles, made once, so that the hot path needs no
//!   lookup. [`watch`]: the same for a reference that another program owns.
//! - [`identity`]: metrics of certificates and access tokens. [`access`]: of the admin server's callers.
//!   [`reloads`]: of the configuration.
//! - [`prometheus`]: the recorder from which `/metrics` is rendered.
//! - [`page`]: all metrics as one page, without removed consumers.
//! - [`process`]: CPU, memory and other values of the process, as `process_*`.
//! - [`samples`]: metrics made from messages, beside the program's own.
//! - [`logging`]: log lines to standard error, as text or JSON.
//! - [`exported`]: metrics of the export of traces.
//! - [`operations`]: spans of operations, for traces.
//! - [`heartbeat`]: detects stuck loops, for the watchdog and `/livez`.
//! - [`systemd`]: sd_notify, a no-op without systemd.
//!
//! Invariants: a metric is 0 or absent before its first event, never an invented value; no label of
//! the program's own metrics takes its value from a message; nothing here ever holds a secret.
//!
//! It knows nothing of brokers, sinks or batches: it receives numbers.

pub mod access;
pub mod consumer;
pub mod exported;
pub mod heartbeat;
pub mod identity;
pub mod labels;
pub mod logging;
pub mod names;
pub mod operations;
pub mod page;
pub mod process;
pub mod prometheus;
pub mod reloads;
pub mod samples;
pub mod systemd;
pub mod watch;

pub use consumer::ConsumerMetrics;
pub use heartbeat::{Heartbeats, Pulse};
pub use labels::ConfigResult;
pub use labels::{DeadReason, LostReason, RestartReason, SinkErrorReason, State, StoreResult};
pub use page::retire;
pub use prometheus::install;
pub use watch::WatchMetrics;
