//! The admin server's interface to the supervisor.

use async_trait::async_trait;
use serde::Serialize;

use super::control::Target;
use crate::telemetry::State;
use crate::types::{ConsumerName, Guarantee, Offset, Reference, StreamName};

/// Source of the admin server's answers.
#[async_trait]
pub trait Overview: Send + Sync {
    /// A snapshot of every consumer (of each of its partitions), in the order of the configuration.
    /// Returns at once, from memory.
    fn consumers(&self) -> Vec<ConsumerView>;

    /// A snapshot of every reference of others, in the order of the configuration. Returns at once, from
    /// memory.
    fn watches(&self) -> Vec<WatchView> {
        Vec::new()
    }

    /// The last hour of every consumer (of each of its partitions). Returns at once, from memory.
    fn histories(&self) -> Vec<HistoryView> {
        Vec::new()
    }

    /// Updates the gauges of every consumer for a scrape. Returns at once, from memory.
    fn refresh_gauges(&self);

    /// Stores the durable offset of a consumer, for all of its streams or for one, and reads it back.
    ///
    /// Dropped when it takes too long; a dropped call leaves a consistent state.
    async fn commit_of(&self, target: Target<'_>) -> Result<CommitAnswer, CommitError>;

    /// The same for all of its streams.
    async fn commit(&self, name: &str) -> Result<CommitAnswer, CommitError> {
        self.commit_of(Target { consumer: name, stream: None }).await
    }

    /// `Ok` while every loop makes progress; otherwise the stuck one, as a sentence.
    fn live(&self) -> Result<(), String>;
}

/// A consumer at one point in time. Unknown values are `None`, and `null` in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerView {
    /// Name in the configuration.
    pub name: ConsumerName,
    /// The stream to read.
    pub stream: StreamName,
    /// The super stream that the stream is a partition of.
    pub super_stream: Option<StreamName>,
    /// Name under which its offsets are stored.
    pub reference: Reference,
    /// Kind of its sink.
    pub sink: &'static str,
    /// Guarantee of that sink.
    pub guarantee: Guarantee,
    /// State of the consumer.
    pub state: State,
    /// Time in seconds since it came into that state.
    pub state_age_seconds: f64,
    /// True while it works normally.
    pub ready: bool,
    /// Reason why it does not, with what to do; `None` if it is ready.
    pub reason: Option<String>,
    /// Time in seconds since it became ready, or not ready.
    pub ready_age_seconds: f64,
    /// Offset of the message at which it has halted; `None` if it has not halted, or for another reason.
    pub halted_offset: Option<Offset>,
    /// The last offset received.
    pub received_offset: Option<Offset>,
    /// The last durable offset: all below it is durable too.
    pub durable_offset: Option<Offset>,
    /// The offset stored on the broker.
    pub stored_offset: Option<Offset>,
    /// The first offset that the stream holds.
    pub stream_first_offset: Option<Offset>,
    /// The last offset that the stream is known to hold, the broker's own chunks included.
    pub stream_last_offset: Option<Offset>,
    /// Seconds since the stream's end was last seen.
    pub stream_seen_age_seconds: Option<f64>,
    /// Upper bound on the offsets from the durable one to the end.
    pub lag_messages: Option<u64>,
    /// Age in seconds of the oldest message that is not durable; 0 when caught up.
    pub lag_seconds: Option<f64>,
    /// Messages received per second, over the last 10 s.
    pub received_messages_per_second: Option<f64>,
    /// Bytes received per second, over the last 10 s.
    pub received_bytes_per_second: Option<f64>,
    /// Offsets that retention may drop before messages are lost. Negative: that many are lost.
    pub headroom_messages: Option<i64>,
    /// The last error, whether or not it is over.
    pub last_error: Option<String>,
    /// Time in seconds since the last error.
    pub last_error_age_seconds: Option<f64>,
    /// Number of restarts and reconnections since the daemon started.
    pub restarts: u64,
    /// Upper bound of its memory for messages, in bytes.
    pub memory_bound_bytes: u64,
    /// Bytes of messages in memory now.
    pub buffered_bytes: u64,
}

/// The last hour of a consumer: a point for every half a minute.
#[derive(Clone, Debug)]
pub struct HistoryView {
    /// Name in the configuration.
    pub name: ConsumerName,
    /// The stream.
    pub stream: StreamName,
    /// The points, the oldest first.
    pub points: Vec<PointView>,
}

/// A consumer at a time in the last hour. Unknown values are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct PointView {
    /// Time in seconds since then.
    pub age_seconds: f64,
    /// Messages that were not durable.
    pub lag_messages: Option<f64>,
    /// Age in seconds of the oldest of them.
    pub lag_seconds: Option<f64>,
    /// Messages received per second since the point before.
    pub received_messages_per_second: Option<f64>,
    /// Bytes received per second since the point before.
    pub received_bytes_per_second: Option<f64>,
}

impl HistoryView {
    /// As JSON: a list for each value, so that names are not repeated for each point.
    pub(super) fn json(&self) -> serde_json::Value {
        let list = |value: fn(&PointView) -> Option<f64>| {
            let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
            self.points.iter().map(|point| value(point).map(rounded)).collect::<Vec<_>>()
        };
        serde_json::json!({
            "name": self.name,
            "stream": self.stream,
            "age_seconds": list(|point| Some(point.age_seconds)),
            "lag_messages": list(|point| point.lag_messages),
            "lag_seconds": list(|point| point.lag_seconds),
            "received_messages_per_second": list(|point| point.received_messages_per_second),
            "received_bytes_per_second": list(|point| point.received_bytes_per_second),
        })
    }
}

/// A reference that another program owns, at one point in time. Unknown values are `None`, and `null` in
/// JSON.
#[derive(Clone, Debug, Serialize)]
pub struct WatchView {
    /// The stream, or the super stream while its partitions are not known.
    pub stream: StreamName,
    /// The super stream that the stream is a partition of.
    pub super_stream: Option<StreamName>,
    /// Name under which its owner stores offsets.
    pub reference: Reference,
    /// The last offset stored.
    pub stored_offset: Option<Offset>,
    /// The first offset that the stream holds.
    pub stream_first_offset: Option<Offset>,
    /// The last offset that the stream is known to hold.
    pub stream_last_offset: Option<Offset>,
    /// Seconds since the stream's end was last seen.
    pub stream_seen_age_seconds: Option<f64>,
    /// Upper bound on the offsets from the stored one to the end.
    pub lag_messages: Option<u64>,
    /// Age in seconds of the first message after the stored one; 0 when caught up.
    pub lag_seconds: Option<f64>,
    /// Offsets that retention may drop before the owner loses messages. Negative: that many are lost.
    pub headroom_messages: Option<i64>,
    /// Why there is no lag, or what is worth knowing about it.
    pub problem: Option<String>,
}

impl WatchView {
    /// A reference of which nothing is known.
    pub fn new(stream: &StreamName, reference: &Reference) -> WatchView {
        WatchView {
            stream: stream.clone(),
            super_stream: None,
            reference: reference.clone(),
            stored_offset: None,
            stream_first_offset: None,
            stream_last_offset: None,
            stream_seen_age_seconds: None,
            lag_messages: None,
            lag_seconds: None,
            headroom_messages: None,
            problem: None,
        }
    }
}

/// Result of a forced commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitAnswer {
    /// The consumer's name.
    pub name: ConsumerName,
    /// The offset that the broker now holds, for each stream.
    pub stored: Vec<StoredOffset>,
}

/// The offset that the broker holds for one stream, read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredOffset {
    /// The stream.
    pub stream: StreamName,
    /// The offset.
    pub offset: Offset,
}

/// Reason why nothing was committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// No consumer has this name.
    #[error("no consumer is named {0:?}")]
    Unknown(String),
    /// The consumer does not read this stream.
    #[error("{0}")]
    UnknownStream(String),
    /// Nothing is durable yet, so there is no offset to store.
    #[error("consumer {0:?} has nothing durable yet, so there is nothing to store")]
    Nothing(String),
    /// The offset could not be stored or read back.
    #[error("{0}")]
    Unavailable(String),
}
