//! First and last offset of a stream.
//!
//! From 3.11 on the broker reports them (StreamStats). Before, two short subscriptions at `first`
//! and at `last` read the header of one chunk each.

use std::time::Duration;

use super::connection::Connection;
use super::error::BrokerError;
use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::types::{Offset, StreamName};
use crate::wire::chunk::ProbedChunk;
use crate::wire::commands::{StreamStats, keys};

/// Longest time for an existing chunk to arrive. On brokers before 3.11, an empty stream is
/// recognised only after this time.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// First offset and end of a stream, as one node sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First retained offset; `None` if the stream is empty.
    pub first: Option<Offset>,
    /// The end.
    pub tail: Tail,
}

/// Asks for the first offset and the end of the stream.
pub async fn stream_bounds(
    connection: &Connection,
    stream: &StreamName,
) -> Result<Bounds, BrokerError> {
    if connection.supports(keys::STREAM_STATS, 1) {
        let request = StreamStats { stream: stream.clone() };
        let stats = connection.call(&request).await.map_err(|e| connection.about(stream, e))?;
        let tail = match (stats.committed_offset(), stats.committed_chunk_id()) {
            (Some(offset), _) => Tail::Offset(offset),
            (None, Some(id)) => Tail::Chunk(id),
            (None, None) => Tail::Empty,
        };
        return Ok(Bounds { first: stats.first_chunk_id(), tail });
    }
    let Some(first) = connection.probe(stream, Start::First, PROBE_WAIT).await? else {
        return Ok(Bounds { first: None, tail: Tail::Empty });
    };
    let Some(last) = connection.probe(stream, Start::Last, PROBE_WAIT).await? else {
        // Without an answer the end is unknown.
        return Err(BrokerError::StreamUnavailable {
            stream: stream.clone(),
            detail: format!("its last chunk did not arrive within {PROBE_WAIT:?}"),
        });
    };
    Ok(Bounds { first: Some(first.first_offset()), tail: Tail::Offset(last_offset(&last)) })
}

/// Header of the chunk at `start`, from a short subscription of its own; `None` if none arrived.
pub async fn chunk_at(
    connection: &Connection,
    stream: &StreamName,
    start: Start,
) -> Result<Option<ProbedChunk>, BrokerError> {
    connection.probe(stream, start, PROBE_WAIT).await
}

/// The last offset of a chunk; a lower bound if the chunk is damaged.
fn last_offset(chunk: &ProbedChunk) -> Offset {
    chunk.next_offset().prev().map_or(chunk.first_offset(), |last| last.max(chunk.first_offset()))
}
