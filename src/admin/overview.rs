//! What the admin side asks of whoever runs the consumers.

use async_trait::async_trait;
use serde::Serialize;

use crate::telemetry::State;
use crate::types::{ConsumerName, Guarantee, Offset, Reference, StreamName};

/// Whoever runs the consumers.
#[async_trait]
pub trait Overview: Send + Sync {
    /// A snapshot of every consumer (of each partition of one), in the order of the configuration.
    /// Answers from memory, at once.
    fn consumers(&self) -> Vec<ConsumerView>;

    /// Brings the gauges of every consumer up to now, for a scrape. From memory, at once.
    fn refresh_gauges(&self);

    /// Stores what is durable in every stream of the consumer of this name, and reads it back.
    ///
    /// Dropped when it takes too long, which must leave nothing half done.
    async fn commit(&self, name: &str) -> Result<CommitAnswer, CommitError>;

    /// `Ok` while every loop makes progress, else which one does not.
    fn live(&self) -> Result<(), String>;
}

/// One consumer at one moment. What is not known (yet) is `None`, and `null` in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerView {
    /// Its name in the configuration.
    pub name: ConsumerName,
    /// The stream that it reads.
    pub stream: StreamName,
    /// Under which its offsets are stored.
    pub reference: Reference,
    /// The kind of its sink.
    pub sink: &'static str,
    /// What that sink promises.
    pub guarantee: Guarantee,
    /// What it is doing.
    pub state: State,
    /// True if it does its work.
    pub ready: bool,
    /// Why it does not, for a person to act on.
    pub reason: Option<String>,
    /// For how long it has been ready, or not ready.
    pub ready_age_seconds: f64,
    /// The last offset received.
    pub received_offset: Option<Offset>,
    /// The last offset that is durable, with all below it.
    pub durable_offset: Option<Offset>,
    /// The offset stored on the broker.
    pub stored_offset: Option<Offset>,
    /// The first offset that the stream holds.
    pub stream_first_offset: Option<Offset>,
    /// The last offset that the stream is known to hold, the broker's own chunks included.
    pub stream_last_offset: Option<Offset>,
    /// How long ago the stream's end was last seen.
    pub stream_seen_age_seconds: Option<f64>,
    /// Offsets from the durable one to the end, at the most.
    pub lag_messages: Option<u64>,
    /// Age of the oldest message that is not durable; 0 when caught up.
    pub lag_seconds: Option<f64>,
    /// Offsets that retention may truncate before data is lost. Negative: so many are lost.
    pub headroom_messages: Option<i64>,
    /// Times that it was started or connected again since the daemon started.
    pub restarts: u64,
    /// The most memory that it may take for messages.
    pub memory_bound_bytes: u64,
    /// What it takes now.
    pub buffered_bytes: u64,
}

/// What a forced commit did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitAnswer {
    /// The consumer's name.
    pub name: ConsumerName,
    /// What the broker holds now, for each stream.
    pub stored: Vec<StoredOffset>,
}

/// The offset that the broker holds for one stream, as read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredOffset {
    /// The stream.
    pub stream: StreamName,
    /// The offset.
    pub offset: Offset,
}

/// Why nothing was committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// No consumer has this name.
    #[error("no consumer is named {0:?}")]
    Unknown(String),
    /// Nothing is durable yet, so there is no offset to store.
    #[error("consumer {0:?} has nothing durable yet, so there is nothing to store")]
    Nothing(String),
    /// The offset could not be stored, or not be read back.
    #[error("{0}")]
    Unavailable(String),
}
