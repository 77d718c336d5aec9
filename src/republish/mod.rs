//! The `stream` sink's publisher: translates the sink's calls to the broker client, and the
//! broker's errors to the sink's.
//!
//! It connects to the stream's leader only. Through another node, messages could be lost between
//! that node and the leader while both connections stay up, and the publishing ids after them would
//! be used.
//!
//! Knows nothing of batches, records or positions.

use std::time::Duration;

use async_trait::async_trait;

use crate::broker::{
    self, BrokerError, ConnectOptions, Connection, Creation, Missing, Prefer, PublishFrame,
};
use crate::sink::stream::{PublishError, Publisher, TargetLimits};
use crate::types::{Offset, Reference, StreamName};
use crate::wire::commands::ResponseCode;

/// Bytes of messages at which a frame is sent, though more would fit.
const FRAME_BYTES: usize = 256 * 1024;

/// Most unconfirmed bytes of messages, not counting one frame.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Time limit for closing the connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Destination stream and publishing options.
#[derive(Clone, Debug)]
pub struct Target {
    /// Connection options of the broker.
    pub connect: ConnectOptions,
    /// The stream.
    pub stream: StreamName,
    /// Creates the stream if it is missing when the sink is opened.
    pub create: bool,
    /// Most unconfirmed messages.
    pub in_flight: usize,
    /// Longest time without a confirmation from the broker.
    pub timeout: Duration,
}

/// Publishes to one stream.
pub struct Republisher {
    target: Target,
    name: String,
    connection: Option<Connection>,
    publisher: Option<broker::StreamPublisher>,
    frame: Option<PublishFrame>,
    /// True once the stream was found: if it is missing later, it was deleted.
    found: bool,
}

impl Republisher {
    /// A publisher that is not connected yet.
    pub fn new(target: Target) -> Republisher {
        let name = format!("stream {:?}", target.stream.as_str());
        Republisher { target, name, connection: None, publisher: None, frame: None, found: false }
    }

    async fn find(&self) -> Result<Connection, BrokerError> {
        let Target { connect, stream, .. } = &self.target;
        let mut connect = connect.clone();
        // A connection has one publisher.
        connect.routing.exclusive = true;
        broker::connect_to_stream(&connect, stream, Prefer::Leader).await
    }

    fn explain(&self, error: BrokerError) -> PublishError {
        let what = format!("publishing to {}: {error}", self.name);
        let hint = match &error {
            BrokerError::StreamMissing(_) if !self.found && !self.target.create => {
                ". With `create = true` in the sink, Rillway creates the stream"
            }
            _ => "",
        };
        match error {
            // The id was refused for its value, or the frame for its size: a retry would be refused
            // too.
            BrokerError::NotPublished { code: ResponseCode::PreconditionFailed, .. }
            | BrokerError::ClosedByBroker { code: ResponseCode::FrameTooLarge, .. } => {
                PublishError::Fatal(what)
            }
            _ => PublishError::Transient(format!("{what}{hint}")),
        }
    }

    fn nothing(&self) -> PublishError {
        PublishError::Transient(format!("publishing to {}: there is no connection", self.name))
    }

    fn publisher(&mut self) -> Result<&mut broker::StreamPublisher, PublishError> {
        match self.publisher {
            Some(ref mut publisher) => Ok(publisher),
            None => Err(self.nothing()),
        }
    }

    /// Sends the current frame, once the window has room for it.
    async fn send_frame(&mut self) -> Result<(), PublishError> {
        let Some(frame) = self.frame.take() else { return Ok(()) };
        let messages = self.target.in_flight.saturating_sub(frame.messages());
        let timeout = self.target.timeout;
        let publisher = self.publisher()?;
        let sent = match publisher.until_below(messages, WINDOW_BYTES, timeout).await {
            Ok(()) => publisher.send(frame).await,
            Err(error) => Err(error),
        };
        sent.map_err(|error| self.explain(error))
    }
}

#[async_trait]
impl Publisher for Republisher {
    fn target(&self) -> &str {
        &self.name
    }

    async fn is_missing(&self) -> bool {
        match self.find().await {
            Ok(connection) => {
                connection.close().await;
                false
            }
            Err(error) => matches!(error, BrokerError::StreamMissing(_)),
        }
    }

    async fn connect(&mut self) -> Result<(), PublishError> {
        self.disconnect().await;
        let mut connected = self.find().await;
        if matches!(connected, Err(BrokerError::StreamMissing(_)))
            && self.target.create
            && !self.found
        {
            let Target { connect, stream, .. } = &self.target;
            let created = broker::create_stream(connect, stream).await;
            let created = created.map_err(|error| self.explain(error))?;
            connected = self.find().await;
            match (created, &connected) {
                (Creation::Created, _) => {
                    tracing::info!(%stream, "created, as the sink's `create` says");
                }
                // A stream of this name exists, so it cannot be created; yet the stream is missing.
                (Creation::NameTaken, Err(BrokerError::StreamMissing(missing))) => {
                    let Missing { stream, vhost } = missing.clone();
                    connected = Err(BrokerError::NotAStream { stream, vhost });
                }
                (Creation::NameTaken, _) => {}
            }
        }
        self.connection = Some(connected.map_err(|error| self.explain(error))?);
        self.found = true;
        Ok(())
    }

    async fn sequence(&mut self, name: &str) -> Result<u64, PublishError> {
        let connection = self.connection.as_ref().ok_or_else(|| self.nothing())?;
        let asked = connection.publisher_sequence(&self.target.stream, name).await;
        asked.map_err(|error| self.explain(error))
    }

    async fn stored(&mut self, reference: &Reference) -> Result<Option<Offset>, PublishError> {
        let connection = self.connection.as_ref().ok_or_else(|| self.nothing())?;
        let asked = connection.query_offset(&self.target.stream, reference).await;
        asked.map_err(|error| self.explain(error))
    }

    async fn store(
        &mut self,
        reference: &Reference,
        offset: Offset,
    ) -> Result<Option<Offset>, PublishError> {
        let connection = self.connection.as_ref().ok_or_else(|| self.nothing())?;
        let stored = connection.store_offset(&self.target.stream, reference, offset).await;
        stored.map_err(|error| self.explain(error))
    }

    async fn declare(&mut self, name: &str) -> Result<(u64, TargetLimits), PublishError> {
        let connection = self.connection.as_ref().ok_or_else(|| self.nothing())?;
        let declared = connection.publisher(&self.target.stream, name).await;
        let publisher = declared.map_err(|error| self.explain(error))?;
        let limits = TargetLimits { message_bytes_max: publisher.message_bytes_max() };
        self.publisher = Some(publisher);
        Ok((self.sequence(name).await?, limits))
    }

    fn is_up(&self) -> bool {
        self.publisher.as_ref().is_some_and(|publisher| !publisher.has_ended())
    }

    fn push(&mut self, id: u64, message: &[u8]) -> Result<bool, PublishError> {
        if self.frame.is_none() {
            self.frame = Some(self.publisher()?.frame());
        }
        let in_flight = self.target.in_flight;
        let Some(frame) = &mut self.frame else { return Err(self.nothing()) };
        // Half of the window, so that the next frame is filled while one is confirmed.
        if frame.bytes() >= FRAME_BYTES || frame.messages() >= in_flight.div_ceil(2) {
            return Ok(false);
        }
        let taken = frame.push(id, message);
        taken.map_err(|error| PublishError::Fatal(format!("internal error: {error}")))
    }

    async fn send(&mut self) -> Result<(), PublishError> {
        self.send_frame().await
    }

    async fn confirmed(&mut self) -> Result<(), PublishError> {
        let timeout = self.target.timeout;
        let confirmed = self.publisher()?.until_below(0, 0, timeout).await;
        confirmed.map_err(|error| self.explain(error))
    }

    async fn disconnect(&mut self) {
        self.frame = None;
        self.publisher = None;
        if let Some(connection) = self.connection.take() {
            // Dropped if it no longer answers.
            drop(tokio::time::timeout(CLOSE_WITHIN, connection.close()).await);
        }
    }
}
