//! Reads a stream once, from its first record to its current end: for commands, not for consumers.

use std::time::Duration;

use super::budget::Budget;
use super::connection::Connection;
use super::error::BrokerError;
use super::locate::{Prefer, connect_to_stream};
use super::options::ConnectOptions;
use super::slot::Received;
use super::subscription::Subscribed;
use super::tail::{chunk_at, stream_bounds};
use crate::flow::resume::Start;
use crate::types::{Offset, StreamName};
use crate::wire::block::Block;
use crate::wire::chunk::{Chunk, ChunkError, ChunkKind};
use crate::wire::compression::InflateLimits;

/// Bytes for chunks in flight, and largest inflated size of one chunk.
const CHUNK_BYTES: u64 = 64 << 20;

/// Longest time for an existing chunk to arrive.
const CHUNK_WAIT: Duration = Duration::from_secs(30);

/// Reason why a stream could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Error of the broker or the connection.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A chunk that cannot be read.
    #[error("stream {0:?}: {1}")]
    Chunk(StreamName, ChunkError),
    /// No chunk arrived for too long.
    #[error(
        "stream {0:?}: nothing arrived within {CHUNK_WAIT:?}, although the stream ends at offset {1}"
    )]
    Stalled(StreamName, Offset),
}

/// Reads a stream once.
pub struct StreamReader {
    stream: StreamName,
    connection: Connection,
    /// `None` if there is nothing to read.
    subscription: Option<Subscribed>,
    /// Offset after the last one to read.
    end: Offset,
    next: Offset,
}

impl StreamReader {
    /// Determines the stream's current end, and begins at its first record.
    ///
    /// # Errors
    /// If the stream cannot be read.
    pub async fn open(
        options: &ConnectOptions,
        stream: &StreamName,
    ) -> Result<StreamReader, BrokerError> {
        let connection = connect_to_stream(options, stream, Prefer::Leader).await?;
        let bounds = stream_bounds(&connection, stream).await?;
        let last = match bounds.first {
            None => None,
            Some(_) => chunk_at(&connection, stream, Start::Last).await?,
        };
        let mut reader = StreamReader {
            stream: stream.clone(),
            connection,
            subscription: None,
            // One past its first record if the last chunk is damaged: reading it will report that.
            end: last.map_or(Offset(0), |c| c.next_offset().max(c.first_offset().next())),
            next: Offset(0),
        };
        if reader.end > Offset(0) {
            let budget = Budget::new(CHUNK_BYTES);
            let subscribed =
                reader.connection.subscribe(stream, Start::First, &budget, Vec::new()).await?;
            reader.subscription = Some(subscribed);
        }
        Ok(reader)
    }

    /// The records of the next chunk; `None` at the end.
    ///
    /// # Errors
    /// If the stream cannot be read further.
    pub async fn next(&mut self) -> Result<Option<Vec<Block>>, ReadError> {
        while self.next < self.end {
            let Some(subscription) = &mut self.subscription else { break };
            let event = tokio::time::timeout(CHUNK_WAIT, subscription.next()).await;
            let event = event.map_err(|_| ReadError::Stalled(self.stream.clone(), self.end))?;
            let delivery = match event {
                Some(Received::Chunk(delivery)) => delivery,
                Some(Received::Unavailable(_)) => {
                    let detail = "it was deleted, or its leader moved".to_owned();
                    let stream = self.stream.clone();
                    return Err(BrokerError::StreamUnavailable { stream, detail }.into());
                }
                // It does not ask for any.
                Some(Received::Update { .. }) => continue,
                Some(Received::Failed(error)) => return Err(error.into()),
                None => return Err(self.connection.reason().into()),
            };
            let unreadable = |error| ReadError::Chunk(self.stream.clone(), error);
            let chunk = Chunk::decode(delivery.chunk).map_err(unreadable)?;
            self.next = chunk.header().next_offset();
            if chunk.header().kind == ChunkKind::User {
                let max_bytes = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
                let blocks = chunk.into_blocks(&InflateLimits { max_bytes }).map_err(unreadable)?;
                return Ok(Some(blocks));
            }
        }
        Ok(None)
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}
