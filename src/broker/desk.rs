//! Stored offsets of a stream that shares its connection with others.
//!
//! A node passes these requests on to the stream's leader, and does nothing else on the connection until the leader
//! has answered (10 s and longer if the leader's node is frozen). So these requests use another shared connection than
//! the one that the streams are read from. If an answer is slow, the stream gets a connection of its own for them.
//!
//! Invariants:
//! - a leader that does not answer delays nothing but the stored offset of its own stream, and for others at
//!   most [`PATIENCE`];
//! - a shared connection without an answer in time is given to no other stream.

use std::time::Duration;

use tokio::sync::{Mutex, Notify};

use super::connection::Connection;
use super::error::BrokerError;
use super::options::{ConnectOptions, Endpoint};
use super::pool;
use crate::types::{Offset, Reference, StreamName};

/// Time limit for an answer on a shared connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stores and queries the offset of one stream and reference.
pub struct Desk {
    /// The connection that the stream is read from.
    reading: Connection,
    options: ConnectOptions,
    stream: StreamName,
    reference: Reference,
    line: Mutex<Line>,
}

/// The connection for the next request.
enum Line {
    /// None yet.
    Closed,
    Shared(Connection),
    /// The stream's own, until its leader has answered.
    Own(Connection),
}

impl Desk {
    /// The desk of the stream that is read from this connection.
    pub fn new(
        reading: Connection,
        options: &ConnectOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Desk {
        let line = Mutex::new(Line::Closed);
        Desk { reading, options: options.clone(), stream, reference, line }
    }

    /// The stored offset; `None` only if the broker says that there is none.
    pub async fn stored(&self) -> Result<Option<Offset>, BrokerError> {
        self.request(None).await
    }

    /// Stores an offset and reads it back. Returns the offset that the broker then holds.
    pub async fn store(&self, offset: Offset) -> Result<Option<Offset>, BrokerError> {
        self.request(Some(offset)).await
    }

    /// Closes its connection, unless others share it.
    pub async fn close(&self) {
        // A request in flight ends with the link.
        let Ok(mut line) = self.line.try_lock() else { return };
        std::mem::replace(&mut *line, Line::Closed).close().await;
    }

    async fn request(&self, offset: Option<Offset>) -> Result<Option<Offset>, BrokerError> {
        // Only this stream waits for this lock.
        let mut line = self.line.lock().await;
        let Some(offsets) = self.offsets() else { return self.ask(&self.reading, offset).await };
        if !matches!(*line, Line::Own(_)) {
            if !line.is_open() {
                *line = Line::Shared(Connection::open(self.node(), &offsets).await?);
            }
            if let Line::Shared(shared) = &*line {
                // Query first: a store that timed out could still be carried out later, and overwrite newer ones.
                match tokio::time::timeout(PATIENCE, self.ask(shared, None)).await {
                    Ok(answer) if offset.is_none() => return answer,
                    Ok(answer) => {
                        answer?;
                        return self.ask(shared, offset).await;
                    }
                    Err(_) => shared.give_up(),
                }
            }
            tracing::debug!(stream = %self.stream, node = %self.node(), "the stream's leader is slow: its offset is asked for on a connection of its own");
        }
        if !(matches!(*line, Line::Own(_)) && line.is_open()) {
            let alone = ConnectOptions { sharing: None, ..self.options.clone() };
            let own = Connection::open_alone(self.node(), &alone, &Notify::new()).await;
            *line = Line::Own(own?);
        }
        let Line::Own(own) = &*line else { return Err(BrokerError::Closed) };
        let answer = self.ask(own, offset).await?;
        std::mem::replace(&mut *line, Line::Closed).close().await;
        Ok(answer)
    }

    async fn ask(
        &self,
        connection: &Connection,
        offset: Option<Offset>,
    ) -> Result<Option<Offset>, BrokerError> {
        match offset {
            None => connection.query_offset(&self.stream, &self.reference).await,
            Some(offset) => connection.store_offset(&self.stream, &self.reference, offset).await,
        }
    }

    /// Options of the shared connection; `None` if the stream has its connection for itself.
    fn offsets(&self) -> Option<ConnectOptions> {
        self.reading.number()?;
        let pool = self.options.sharing.as_ref().and_then(pool::of)?;
        let sharing = Some(pool.offsets()?.sharing());
        Some(ConnectOptions { sharing, ..self.options.clone() })
    }

    fn node(&self) -> &Endpoint {
        self.reading.endpoint()
    }
}

impl Line {
    /// True if there is a connection that may be used.
    fn is_open(&self) -> bool {
        match self {
            Line::Closed => false,
            Line::Shared(connection) => connection.is_sound(),
            // It exists to wait for a slow leader.
            Line::Own(connection) => !connection.has_ended(),
        }
    }

    async fn close(self) {
        if let Line::Shared(connection) | Line::Own(connection) = self {
            connection.close().await;
        }
    }
}
