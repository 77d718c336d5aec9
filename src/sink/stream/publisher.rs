//! The sink's interface to a connection to the target.

use std::time::Duration;

use async_trait::async_trait;

use crate::settings::BrokerConfig;
use crate::sink::SinkError;
use crate::types::{Offset, Reference, StreamName};

/// The broker's limit for the name of a publisher, in bytes.
pub(super) const PUBLISHER_BYTES_MAX: usize = 255;

/// Bytes of it reserved for the number of the source stream's incarnation.
pub(super) const GENERATION_BYTES: usize = 11;

/// Bytes of it for the configured name.
pub(super) const NAME_BYTES_MAX: usize = PUBLISHER_BYTES_MAX - GENERATION_BYTES;

/// Destination stream and publishing options.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The broker; `None` for the one that the consumer reads from.
    pub broker: Option<Box<BrokerConfig>>,
    /// The stream.
    pub stream: StreamName,
    /// Creates the stream if it is missing when the sink is opened.
    pub create: bool,
    /// Most unconfirmed messages.
    pub in_flight: usize,
    /// Longest time without a confirmation from the broker.
    pub timeout: Duration,
}

/// A connection to the target stream's leader, opened and closed by the sink.
#[async_trait]
pub trait Publisher: Send {
    /// The target, for errors: `stream "x"`.
    fn target(&self) -> &str;

    /// True if the stream is known to be missing. Creates nothing.
    async fn is_missing(&self) -> bool;

    /// Connects to the stream's leader; messages in flight on an earlier connection are dropped.
    async fn connect(&mut self) -> Result<(), PublishError>;

    /// The highest id that the target holds under this name; 0 for none.
    async fn sequence(&mut self, name: &str) -> Result<u64, PublishError>;

    /// The offset stored in the target under this reference; `None` if there is none.
    async fn stored(&mut self, reference: &Reference) -> Result<Option<Offset>, PublishError>;

    /// Stores an offset in the target under this reference; returns the one that it now holds.
    async fn store(
        &mut self,
        reference: &Reference,
        offset: Offset,
    ) -> Result<Option<Offset>, PublishError>;

    /// Declares the publisher of this name, and *then* reads its sequence. Once per connection.
    async fn declare(&mut self, name: &str) -> Result<(u64, TargetLimits), PublishError>;

    /// True if there is a connection on which nothing has failed yet.
    fn is_up(&self) -> bool;

    /// Adds a message with an id above all before it; returns `false` if the added messages have to
    /// be sent first.
    fn push(&mut self, id: u64, message: &[u8]) -> Result<bool, PublishError>;

    /// Sends the added messages, as soon as few enough messages are unconfirmed.
    async fn send(&mut self) -> Result<(), PublishError>;

    /// Waits until everything that was sent is confirmed.
    async fn confirmed(&mut self) -> Result<(), PublishError>;

    /// Closes the connection.
    async fn disconnect(&mut self);
}

/// Limits of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetLimits {
    /// Longest message in bytes.
    pub message_bytes_max: usize,
}

/// Reason why messages could not be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A retry on another connection may succeed.
    #[error("{0}")]
    Transient(String),
    /// A retry is useless before an operator acts.
    #[error("{0}")]
    Fatal(String),
}

impl From<PublishError> for SinkError {
    fn from(error: PublishError) -> SinkError {
        match error {
            PublishError::Transient(what) => SinkError::transient(what),
            PublishError::Fatal(what) => SinkError::Fatal(what),
        }
    }
}
