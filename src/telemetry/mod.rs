//! What the daemon says of itself: metrics, log lines, and signs of life.
//!
//! - [`names`]: every metric, its help, unit and labels, in one table. Names are an interface.
//! - [`labels`]: the closed sets that may stand in a label.
//! - [`consumer`]: one consumer's metrics as handles, made once, so that the hot path looks nothing up.
//! - [`prometheus`]: the recorder that `/metrics` is rendered from.
//! - [`page`]: all of it as one page, without consumers that are no longer there.
//! - [`process`]: what the process itself takes, as `process_*`.
//! - [`samples`]: metrics that are made from messages, beside the program's own.
//! - [`logging`]: log lines to standard error, as text or JSON.
//! - [`heartbeat`]: which loops still turn. The watchdog and `/livez` both ask it.
//! - [`systemd`]: sd_notify, a no-op where nobody listens.
//!
//! Invariants: a metric is 0 or absent before its first event, never a made-up figure; no label
//! of the program's own metrics takes its value from a message; nothing here ever holds a secret.
//!
//! It must not know what a broker, a sink or a batch is: it is told numbers.

pub mod consumer;
pub mod heartbeat;
pub mod labels;
pub mod logging;
pub mod names;
pub mod page;
pub mod process;
pub mod prometheus;
pub mod samples;
pub mod systemd;

pub use consumer::ConsumerMetrics;
pub use heartbeat::{Heartbeats, Pulse};
pub use labels::{DeadReason, LostReason, RestartReason, SinkErrorReason, State, StoreResult};
pub use page::retire;
pub use prometheus::install;
