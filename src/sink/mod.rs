//! Where records go: the [`Sink`] trait, its contract, and one file or folder per sink.
//!
//! The contract, which `tests` hold every sink to:
//! - [`Sink::write`] answers [`Durability::Durable`] only when the batch, and all that was held before
//!   it, would survive a crash of this process (and, where the medium can, of the machine). It
//!   returns `Err` with nothing of the batch visible, or with what is visible removed before the
//!   next write; the same batch is then given again.
//! - A sink whose medium takes large pieces (objects) may answer [`Durability::Held`]: it has taken
//!   the batch, and will make it durable in [`Sink::flush`], which is called at the time that
//!   [`Sink::flush_at`] names and wherever everything has to be durable (commit, drain, halt). What
//!   it holds is memory of its own, within the bound that the configuration states for it.
//! - A sink whose medium takes a batch bit by bit (requests, lines into a pipe) answers
//!   [`Durability::Part`] while it is at it, so that what was taken is settled at once and is not
//!   repeated after a crash. The rest of the batch, or all of it, is then given again. Asked by
//!   [`Sink::wind_up`] it begins nothing more, so that a graceful shutdown repeats nothing.
//! - Batches come in stream order, one at a time, and never overlap.
//! - A sink that keeps its own position commits it atomically with the batch, and finds it again
//!   in [`Sink::position`] after a crash at any instant.
//! - A record that can never be written is reported as [`SinkError::Poison`], all such records of
//!   the batch at once, or the first [`BAD_RECORDS_MAX`] of them; what becomes of them is not the sink's
//!   business.
//! - A sink knows nothing of brokers, retries or metrics.

pub mod columns;
#[doc(hidden)]
pub mod conformance;
pub mod declaration;
pub mod discreet;
pub mod envelope;
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
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod registry;
pub mod sqlite;
pub mod stdout;
pub mod stream;
pub(crate) mod thread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::flow::batch::Batch;
use crate::types::{Checkpoint, Guarantee, Offset};
use crate::wire::amqp::AmqpError;

/// A medium that keeps records.
#[async_trait]
pub trait Sink: Send {
    /// The name of its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// What it promises.
    fn guarantee(&self) -> Guarantee;

    /// The position that the medium holds, for a sink that commits it with the data.
    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError>;

    /// Writes the batch, or takes it to write it with others.
    ///
    /// After an error the sink holds what it held before, and the batch is not part of that.
    ///
    /// Not cancel-safe: a caller that drops the future must close or drop the sink, and find the
    /// position anew.
    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError>;

    /// Ends what [`Sink::write`] has begun of the batch, for a graceful shutdown. A sink that writes in
    /// parts begins nothing more of it, and answers with [`Durability::Part`]: with an offset, it is to be
    /// asked again; with `None`, nothing is under way any more, and no record behind the offsets that it
    /// answered with was taken. Other sinks write the batch.
    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.write(batch).await
    }

    /// When [`Sink::flush`] is due, though nothing new arrives: in the past where it is due at once.
    /// `None` while nothing is held.
    fn flush_at(&self) -> Option<Instant> {
        None
    }

    /// Makes everything durable that is held. After a transient error it is still held, and the call
    /// is repeated; no error names a record, for bad ones were refused by [`Sink::write`].
    async fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// True if several batches that wait may be given to [`Sink::write`] as one, larger than the
    /// configured limits of a batch. For a sink whose writes have a price of their own, such as a
    /// sync, that does not grow with the batch.
    fn joins_batches(&self) -> bool {
        false
    }

    /// The stream's history was replaced, and a policy accepts it: the next batch may start at any
    /// offset. What was written stays, set aside where it would be in the way. Nothing is under way
    /// when this is called.
    async fn restart(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Ends the sink's work in good order. What is still held is given up: it comes again.
    async fn close(&mut self) -> Result<(), SinkError>;
}

/// How far a batch got that a sink took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It and all before it would survive a crash.
    Durable,
    /// It is in the sink's own memory, and will be durable after [`Sink::flush`].
    Held,
    /// What is not above this offset would survive a crash; with `None`, that is what was known
    /// before. The sink is not done: it is given the batch again, or what of it lies above the offset.
    Part(Option<Offset>),
}

/// Writes the batch to its end, for a caller to whom parts of it mean nothing.
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

/// The most batches that are joined into one for a sink that [joins](Sink::joins_batches) them.
pub const JOINED_MAX: usize = 8;

/// So many bad records of a batch are enough to be told of: the others are found when the batch comes
/// again without these.
pub const BAD_RECORDS_MAX: usize = 10_000;

/// Why a sink could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It may work later: try the same batch again.
    #[error("{what}")]
    Transient {
        /// What was tried, on what, and what came back.
        what: String,
        /// How long the medium asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// These records can never be written; without them, the batch can.
    #[error("{} records cannot be written, the first at offset {}: {}", .0.len(), .0.first().map_or(Offset(0), |b| b.offset), .0.first().map_or("", |b| b.detail.as_str()))]
    Poison(Vec<BadRecord>),
    /// It will not work until a person acts.
    #[error("{0}")]
    Fatal(String),
}

/// A record that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Which one.
    pub offset: Offset,
    /// Why, from a closed set: a metric's label.
    pub reason: BadReason,
    /// Why, in words.
    pub detail: String,
}

/// A record whose message cannot be decoded, or only at a price that the limits forbid.
pub(crate) fn undecodable(offset: Offset, error: &AmqpError) -> BadRecord {
    let reason = if error.is_over_limit() { BadReason::OverLimit } else { BadReason::Undecodable };
    BadRecord { offset, reason, detail: error.to_string() }
}

/// The closed set of reasons for which a record is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadReason {
    /// The message is not well-formed AMQP 1.0.
    Undecodable,
    /// The message is well-formed, but nested deeper or larger than the limits allow.
    OverLimit,
    /// A value does not fit the column that it is for, or is missing where one is required.
    Misfit,
    /// The medium does not take this value.
    Refused,
}

impl BadReason {
    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            BadReason::Undecodable => "undecodable",
            BadReason::OverLimit => "over_limit",
            BadReason::Misfit => "misfit",
            BadReason::Refused => "refused",
        }
    }
}
