//! Observes streams without consuming them, for their lag.

use super::stream::has_statistics;
use super::{Bounds, ErrorKind, SourceError};
use crate::broker::{self, ConnectOptions, Connection, chunk_at, stream_bounds};
use crate::flow::resume::Start;
use crate::types::{Offset, Reference, StreamName};
use crate::wire::chunk::ProbedChunk;

/// Observes the ends of many streams over few connections, for their lag.
pub struct StreamLookout(broker::Lookout);

impl StreamLookout {
    /// A lookout that connects on demand.
    pub fn new(options: ConnectOptions) -> StreamLookout {
        StreamLookout(broker::Lookout::new(options))
    }

    /// A view of the stream through a node that has a member of it. The connection is shared.
    ///
    /// # Errors
    /// If the stream cannot be observed.
    pub async fn member(&self, stream: &StreamName) -> Result<StreamView, SourceError> {
        let connection = self.0.member(stream).await?;
        Ok(StreamView { connection, stream: stream.clone() })
    }

    /// Records a failed view of the stream, so that the next one uses another node if that may
    /// help.
    pub fn failed(&self, stream: &StreamName, error: &SourceError) {
        // A missing stream is missing on every node.
        self.0.failed(stream, error.kind() != ErrorKind::Missing);
    }

    /// See [`broker::Lookout::forget`].
    pub fn forget(&self, stream: &StreamName) {
        self.0.forget(stream);
    }
}

/// Observes a stream without consuming it.
#[derive(Clone)]
pub struct StreamView {
    connection: Connection,
    stream: StreamName,
}

impl StreamView {
    /// True if an observation is a single request; otherwise chunks are read for it.
    pub fn is_cheap(&self) -> bool {
        has_statistics(&self.connection)
    }

    /// First offset and end of the stream.
    ///
    /// # Errors
    /// As any request.
    pub async fn bounds(&self) -> Result<Bounds, SourceError> {
        Ok(stream_bounds(&self.connection, &self.stream).await?)
    }

    /// Header of the chunk at `start`, as [`Link::chunk_at`](super::Link::chunk_at).
    ///
    /// # Errors
    /// As any request.
    pub async fn chunk_at(&self, start: Start) -> Result<Option<ProbedChunk>, SourceError> {
        Ok(chunk_at(&self.connection, &self.stream, start).await?)
    }

    /// The offset stored under a reference.
    ///
    /// # Errors
    /// As any request.
    pub async fn stored(&self, reference: &Reference) -> Result<Option<Offset>, SourceError> {
        Ok(self.connection.query_offset(&self.stream, reference).await?)
    }

    /// Waits for the end of the connection and returns the reason. Cancel-safe.
    pub async fn ended(&self) -> SourceError {
        self.connection.ended().await.into()
    }
}
