//! Exports the spans of [operations](crate::telemetry::operations) to an OpenTelemetry collector, by OTLP over
//! HTTP with protobuf ([ADR 34](../../docs/adr/0034-traces.md)).
//!
//! Ended spans wait in a queue of limited length. A task sends them in batches, with retries. Invariants:
//! - whoever ends a span never waits: a span for which the queue has no room is dropped and counted;
//! - a collector that is away, slow or hanging costs at most a queue and a batch of memory, and [`END_MAX`] at
//!   the end of the program;
//! - a failure is logged once, and again only after minutes; each span that is not delivered is counted;
//! - no header leaves here but to the configured address.
//!
//! Without the feature `otel` there are only the [`Options`], and [`IS_BUILT`] is false.

#[cfg(feature = "otel")]
mod encode;
#[cfg(feature = "otel")]
mod export;
mod options;
#[cfg(feature = "otel")]
mod queue;
#[cfg(feature = "otel")]
mod send;
#[cfg(feature = "otel")]
#[cfg(test)]
mod tests;
#[cfg(not(feature = "otel"))]
mod without;
#[cfg(not(feature = "otel"))]
use without as export;

use std::time::Duration;

#[cfg(feature = "otel")]
#[doc(hidden)]
pub use self::encode::fuzz_answer;
pub use self::export::{Exporter, start};
pub use self::options::{Headers, Limits, Options, Sampling};

/// True in a build that can export.
pub const IS_BUILT: bool = cfg!(feature = "otel");

/// Longest time that the end of the program waits for the last spans to be sent.
pub const END_MAX: Duration = Duration::from_secs(2);
