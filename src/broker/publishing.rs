//! Publishing on a connection: unconfirmed messages, and errors of the broker.
//!
//! Invariants:
//! - unconfirmed messages are bounded by the caller, who waits in [`StreamPublisher::until_below`]; the
//!   reader only removes confirmed ones, and never waits;
//! - ids are sent in increasing order. After the first refused one nothing more is sent: later
//!   messages may have been stored, so a gap would look like progress;
//! - the publisher ends with its connection, and with the stream's leader.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::error::BrokerError;
use super::window::{Sent, Window};
use crate::sync::lock;
use crate::types::StreamName;
use crate::wire::commands::{
    Create, DeclarePublisher, PublishBuilder, QueryPublisherSequence, ResponseCode,
};

/// Outcome of a request to create a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The stream is new.
    Created,
    /// A stream or a queue of this name exists.
    NameTaken,
}

/// Id of the only publisher of a connection.
const PUBLISHER: u8 = 1;

/// A publisher of one stream. The broker recognises repeated messages by its name.
pub struct StreamPublisher {
    connection: Connection,
    window: Arc<Window>,
    frame_max: u32,
}

/// Messages for one frame.
pub struct PublishFrame {
    builder: PublishBuilder,
    sent: Vec<(u64, usize)>,
    bytes: usize,
}

impl PublishFrame {
    /// Bytes of the messages in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of messages in it.
    pub fn messages(&self) -> usize {
        self.sent.len()
    }

    /// Adds a message; returns `false` if it does not fit into this frame.
    ///
    /// # Errors
    /// If it does not fit into any frame.
    pub fn push(&mut self, id: u64, message: &[u8]) -> Result<bool, BrokerError> {
        let taken = self.builder.push(id, message)?;
        if taken {
            self.sent.push((id, message.len()));
            self.bytes += message.len();
        }
        Ok(taken)
    }
}

impl Connection {
    /// Creates a stream with the broker's defaults; an existing stream or queue of this name is
    /// left as it is.
    pub async fn create_stream(&self, stream: &StreamName) -> Result<Creation, BrokerError> {
        let request = Create { stream: stream.clone(), arguments: Vec::new() };
        match self.call(&request).await {
            // The second code: one exists with other limits.
            Err(BrokerError::Refused {
                code: ResponseCode::StreamAlreadyExists | ResponseCode::PreconditionFailed,
                ..
            }) => Ok(Creation::NameTaken),
            Ok(()) => Ok(Creation::Created),
            Err(error) => Err(self.about_writing(stream, "configure", error)),
        }
    }

    /// The last publishing id that the stream's leader has accepted under this name; 0 also means
    /// "none". That message may not be replicated yet.
    pub async fn publisher_sequence(
        &self,
        stream: &StreamName,
        name: &str,
    ) -> Result<u64, BrokerError> {
        let request = QueryPublisherSequence { reference: name.to_owned(), stream: stream.clone() };
        self.call(&request).await.map_err(|error| self.about(stream, error))
    }

    /// Declares this connection as a publisher of the stream under this name. Only one per
    /// connection.
    pub async fn publisher(
        &self,
        stream: &StreamName,
        name: &str,
    ) -> Result<StreamPublisher, BrokerError> {
        let window = Arc::new(Window::new(stream));
        // Registered before the request, so that no answer is missed.
        *lock(&self.shared().publisher) = Some(Arc::clone(&window));
        let request = DeclarePublisher {
            publisher: PUBLISHER,
            reference: name.to_owned(),
            stream: stream.clone(),
        };
        let declared = self.call(&request).await;
        declared.map_err(|error| match error {
            // Nothing else in such a request causes this answer.
            BrokerError::Refused { code: ResponseCode::PreconditionFailed, endpoint, .. } => {
                BrokerError::Alarm { endpoint, stream: stream.clone() }
            }
            other => self.about_writing(stream, "write", other),
        })?;
        Ok(StreamPublisher { connection: self.clone(), window, frame_max: self.frame_max() })
    }

    pub(super) fn about_writing(
        &self,
        stream: &StreamName,
        permission: &'static str,
        error: BrokerError,
    ) -> BrokerError {
        match error {
            BrokerError::Refused { code: ResponseCode::AccessRefused, .. } => {
                BrokerError::WriteRefused {
                    stream: stream.clone(),
                    user: self.user().to_owned(),
                    vhost: self.vhost().to_owned(),
                    permission,
                }
            }
            other => self.about(stream, other),
        }
    }
}

impl StreamPublisher {
    /// True if nothing more can be sent.
    pub fn has_ended(&self) -> bool {
        lock(&self.window.state).ended.is_some()
    }

    /// An empty frame.
    pub fn frame(&self) -> PublishFrame {
        let builder = PublishBuilder::new(PUBLISHER, self.frame_max);
        PublishFrame { builder, sent: Vec::new(), bytes: 0 }
    }

    /// Longest message, in bytes, that fits into a frame.
    pub fn message_bytes_max(&self) -> usize {
        PublishBuilder::message_bytes_max(self.frame_max)
    }

    /// Sends the frame; its ids must be above all earlier ones. Waits for the socket at most
    /// `request_timeout`.
    pub async fn send(&mut self, frame: PublishFrame) -> Result<(), BrokerError> {
        {
            let mut state = lock(&self.window.state);
            if let Some(reason) = &state.ended {
                return Err(reason.clone());
            }
            state.unconfirmed += frame.sent.len();
            state.bytes += frame.bytes;
            let sent = frame.sent.iter();
            state.sent.extend(sent.map(|&(id, bytes)| Sent { id, bytes, confirmed: false }));
        }
        match frame.builder.finish() {
            Some(bytes) => self.connection.send(bytes).await,
            None => Ok(()),
        }
    }

    /// Waits until at most `messages` messages of at most `bytes` bytes are unconfirmed. An error
    /// if no confirmation arrives for `timeout`.
    ///
    /// Cancel-safe.
    pub async fn until_below(
        &self,
        messages: usize,
        bytes: usize,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let mut seen = None;
        loop {
            let confirmed = {
                let state = lock(&self.window.state);
                if let Some(reason) = &state.ended {
                    return Err(reason.clone());
                }
                if state.unconfirmed <= messages && state.bytes <= bytes {
                    return Ok(());
                }
                state.confirmed
            };
            let deadline = match seen {
                Some((before, deadline)) if before == confirmed => deadline,
                _ => tokio::time::Instant::now() + timeout,
            };
            seen = Some((confirmed, deadline));
            let changed = tokio::time::timeout_at(deadline, self.window.changed.notified());
            changed.await.map_err(|_| BrokerError::Unconfirmed {
                stream: self.window.stream().clone(),
                messages: lock(&self.window.state).unconfirmed,
                limit: timeout,
            })?;
        }
    }
}
