//! Destinations of records: the [`Sink`] trait, its contract, and one file or folder per sink.
//!
//! The contract, which `tests` check for every sink:
//! - [`Sink::write`] returns [`Durability::Durable`] only if the batch, and everything held before
//!   it, would survive a crash of this process (and, if the destination can guarantee it, of the
//!   machine). After an `Err`, nothing of the batch is visible, or what is visible is removed
//!   before the next write; the same batch is then given again.
//! - A sink that writes large pieces (objects) may return [`Durability::Held`]: it has accepted the
//!   batch, and makes it durable in [`Sink::flush`]. That is called at the time that
//!   [`Sink::flush_at`] returns, and whenever everything must be durable (commit, drain, halt).
//!   Held batches are in the sink's own memory, within the bound that its declaration states.
//! - A sink that writes a batch bit by bit (requests, lines into a pipe) returns
//!   [`Durability::Part`] in between, so that the written part is settled at once and is not
//!   repeated after a crash. The rest of the batch, or all of it, is then given again. In
//!   [`Sink::wind_up`] it starts nothing new, so that a graceful shutdown repeats nothing.
//! - Batches come in stream order, one at a time, and never overlap.
//! - A sink that keeps its own position commits it atomically with the batch, and returns it from
//!   [`Sink::position`] after a crash at any moment.
//! - Records that can never be written are reported in [`SinkError::Poison`], all those of the
//!   batch at once, or the first [`BAD_RECORDS_MAX`]. The policy, not the sink, decides about them.
//! - A sink knows nothing of brokers, retries or metrics.

pub mod audit;
pub mod columns;
#[doc(hidden)]
pub mod conformance;
pub mod declaration;
pub mod discreet;
pub mod envelope;
mod exactly_once;
pub mod factory;
pub mod file;
pub mod format;
#[cfg(all(feature = "object", feature = "postgres"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "http")]
pub mod http;
pub mod metrics;
pub mod null;
#[cfg(feature = "object")]
pub mod object;
pub mod placeholders;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod registry;
pub mod sqlite;
pub mod stdout;
pub mod stream;
#[cfg(test)]
mod testing;
pub(crate) mod thread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::flow::batch::Batch;
use crate::types::{Checkpoint, Guarantee, Offset};
use crate::wire::amqp::AmqpError;

/// A destination that keeps records.
#[async_trait]
pub trait Sink: Send {
    /// Name of its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Delivery guarantee.
    fn guarantee(&self) -> Guarantee;

    /// The position stored in the destination, for a sink that commits it with the data; else
    /// `None`. Where an earlier process has left something to do, it counts that as done: then
    /// [`Sink::flush_at`] is due, and the caller flushes before it lets the sink go.
    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError>;

    /// Writes the batch, or accepts it to write it together with others.
    ///
    /// After an error the sink holds what it held before, without the batch.
    ///
    /// Not cancel-safe: a caller that drops the future must close or drop the sink, and read the
    /// position again.
    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError>;

    /// Completes what [`Sink::write`] has started of the batch, for a graceful shutdown. A sink
    /// that writes in parts starts nothing more of it, and returns [`Durability::Part`]: with an
    /// offset, it must be called again; with `None`, nothing is in flight any more, and no record
    /// after the returned offsets was written. Other sinks write the batch.
    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.write(batch).await
    }

    /// Time at which [`Sink::flush`] is due even if nothing new arrives; a past time means at once.
    /// `None` while nothing is held, and nothing is left to do of an earlier process.
    fn flush_at(&self) -> Option<Instant> {
        None
    }

    /// Makes everything durable that is held. After a transient error it is still held, and the
    /// call is repeated. No error names a record: bad ones were refused by [`Sink::write`].
    async fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// True if several waiting batches may be given to [`Sink::write`] as one, larger than the
    /// configured limits. For a sink whose writes have a fixed cost, such as a sync.
    fn joins_batches(&self) -> bool {
        false
    }

    /// Continues after the stream was re-created and a policy accepted it: the next batch may start
    /// at any offset. Existing data stays, and is set aside if it is in the way. Nothing is in
    /// flight when this is called.
    async fn restart(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Moves the position on an operator's request: the next batch begins behind `to`, or anywhere for
    /// `None`. Existing data stays, and is set aside if it is in the way: it may be written again. Nothing
    /// is in flight when this is called. A sink whose position follows from its data gives up a higher one,
    /// and keeps a lower one. Returns the position that it then has.
    async fn move_to(&mut self, _to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    /// Closes the sink. Batches that are still held are dropped: they are read again.
    async fn close(&mut self) -> Result<(), SinkError>;
}

/// Durability of a batch that a sink accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The batch and all before it would survive a crash.
    Durable,
    /// It is in the sink's own memory, and will be durable after [`Sink::flush`].
    Held,
    /// Records up to this offset would survive a crash; `None` means no more than before. The sink
    /// is not done: it is given the batch again, or the part of it above the offset.
    Part(Option<Offset>),
}

/// Writes the whole batch, for a caller that does not handle parts.
///
/// # Errors
/// As [`Sink::write`].
pub async fn write_whole(sink: &mut dyn Sink, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
    loop {
        match sink.write(batch).await? {
            Durability::Part(_) => {}
            done => return Ok(done),
        }
    }
}

/// Most batches that are joined into one for a sink that [joins](Sink::joins_batches) them.
pub const JOINED_MAX: usize = 8;

/// Most bad records of a batch that are reported at once. The others are found when the batch is
/// given again without these.
pub const BAD_RECORDS_MAX: usize = 10_000;

/// Reason why a call of a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A retry with the same batch may succeed.
    #[error("{what}")]
    Transient {
        /// What was tried, on what, and the result.
        what: String,
        /// Pause that the destination asked for; `None` if it did not.
        retry_after: Option<Duration>,
    },
    /// These records can never be written; without them, the batch can.
    #[error("{} records cannot be written, the first at offset {}: {}", .0.len(), .0.first().map_or(Offset(0), |b| b.offset), .0.first().map_or("", |b| b.detail.as_str()))]
    Poison(Vec<BadRecord>),
    /// A retry is useless before an operator acts.
    #[error("{0}")]
    Fatal(String),
}

impl SinkError {
    /// A retry may succeed, and the destination did not ask for a pause.
    pub fn transient(what: impl Into<String>) -> SinkError {
        SinkError::Transient { what: what.into(), retry_after: None }
    }
}

/// The error of a call that comes after `close`; `sink` as in "the file sink on /data".
pub(crate) fn used_after_close(sink: &str) -> SinkError {
    SinkError::Fatal(format!(
        "internal error: {sink} was used after it was closed; please report it"
    ))
}

/// A record that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its offset.
    pub offset: Offset,
    /// Reason from a closed set, used as a metric's label.
    pub reason: BadReason,
    /// The column or metric that it is about, as in `column "n"`: the part of `detail` that comes from the
    /// configuration alone, and that is shown where values are not. `None` if it is about none.
    pub about: Option<String>,
    /// Reason as text.
    pub detail: String,
}

impl BadRecord {
    /// A record that is bad for what it has for a column or metric.
    pub(crate) fn about(
        about: String,
        offset: Offset,
        reason: BadReason,
        why: impl std::fmt::Display,
    ) -> BadRecord {
        let detail = format!("{about}: {why}");
        BadRecord { offset, reason, about: Some(about), detail }
    }
}

/// A record whose message cannot be decoded, or only beyond the limits.
pub(crate) fn undecodable(offset: Offset, error: &AmqpError) -> BadRecord {
    let reason = if error.is_over_limit() { BadReason::OverLimit } else { BadReason::Undecodable };
    BadRecord { offset, reason, about: None, detail: error.to_string() }
}

/// The closed set of reasons for a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadReason {
    /// The message is not well-formed AMQP 1.0.
    Undecodable,
    /// The message is well-formed, but nested deeper or larger than the limits allow.
    OverLimit,
    /// A value does not fit its column, or is missing where one is required.
    Misfit,
    /// The destination refuses this value.
    Refused,
    /// The consumer's own program (`where`, `map`) fails on it.
    Program,
}

impl BadReason {
    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            BadReason::Undecodable => "undecodable",
            BadReason::OverLimit => "over_limit",
            BadReason::Misfit => "misfit",
            BadReason::Refused => "refused",
            BadReason::Program => "program",
        }
    }
}
