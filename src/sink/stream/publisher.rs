//! What the sink wants of a connection to the target.

use std::time::Duration;

use async_trait::async_trait;

use crate::settings::BrokerConfig;
use crate::sink::SinkError;
use crate::types::{Offset, Reference, StreamName};

/// What to publish to, and how.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The broker, where it is not the one that the consumer reads from.
    pub broker: Option<Box<BrokerConfig>>,
    /// The stream.
    pub stream: StreamName,
    /// Creates the stream where it is missing when the sink is opened.
    pub create: bool,
    /// The most messages that may lack their confirmation.
    pub in_flight: usize,
    /// How long the broker may confirm nothing.
    pub timeout: Duration,
}

/// A connection to the target stream's leader, made and given up as the sink says.
#[async_trait]
pub trait Publisher: Send {
    /// The target, for errors: `stream "x"`.
    fn target(&self) -> &str;

    /// True if the stream is known to be missing. Creates nothing.
    async fn is_missing(&self) -> bool;

    /// Connects to the stream's leader; what was under way on an earlier connection is given up.
    async fn connect(&mut self) -> Result<(), PublishError>;

    /// The highest id that the target holds under this name; 0 for none.
    async fn sequence(&mut self, name: &str) -> Result<u64, PublishError>;

    /// The offset that the target keeps under this reference.
    async fn stored(&mut self, reference: &Reference) -> Result<Option<Offset>, PublishError>;

    /// Has the target keep an offset under this reference; says what it keeps now.
    async fn store(
        &mut self,
        reference: &Reference,
        offset: Offset,
    ) -> Result<Option<Offset>, PublishError>;

    /// Becomes the publisher of this name, and *then* asks for its sequence. Once a connection.
    async fn declare(&mut self, name: &str) -> Result<(u64, Limits), PublishError>;

    /// True if there is a connection on which nothing has failed yet.
    fn is_up(&self) -> bool;

    /// Takes a message, with an id above all before it; `false` where what was taken has to be sent
    /// first.
    fn push(&mut self, id: u64, message: &[u8]) -> Result<bool, PublishError>;

    /// Sends what was taken, as soon as few enough messages lack their confirmation.
    async fn send(&mut self) -> Result<(), PublishError>;

    /// Waits until everything that was sent is confirmed.
    async fn confirmed(&mut self) -> Result<(), PublishError>;

    /// Gives the connection up.
    async fn disconnect(&mut self);
}

/// What the target takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message.
    pub message_bytes_max: usize,
}

/// Why messages could not be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It may work later, on another connection.
    #[error("{0}")]
    Transient(String),
    /// It will not work until a person acts.
    #[error("{0}")]
    Fatal(String),
}

impl From<PublishError> for SinkError {
    fn from(error: PublishError) -> SinkError {
        match error {
            PublishError::Transient(what) => SinkError::Transient { what, retry_after: None },
            PublishError::Fatal(what) => SinkError::Fatal(what),
        }
    }
}
