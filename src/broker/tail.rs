//! Where a stream begins and ends.
//!
//! From 3.11 on the broker says so (StreamStats). Before, a short subscription at `first` and one at
//! `last`, a chunk each, are read for their headers.

use std::time::Duration;

use super::connection::Connection;
use super::error::BrokerError;
use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::types::{Offset, StreamName};
use crate::wire::chunk::Sighting;
use crate::wire::commands::{StreamStats, keys};

/// How long a chunk that exists may take to come. A stream without one takes as long to be seen as
/// empty, on brokers before 3.11 only.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// Where a stream begins and ends, as the node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset retained; `None` where the stream holds nothing.
    pub first: Option<Offset>,
    /// Its end.
    pub tail: Tail,
}

/// Asks where the stream begins and ends.
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
        // An answer that does not come is none: the stream may end anywhere.
        return Err(BrokerError::StreamUnavailable {
            stream: stream.clone(),
            detail: format!("its last chunk did not come within {PROBE_WAIT:?}"),
        });
    };
    Ok(Bounds { first: Some(first.first_offset()), tail: Tail::Offset(last_offset(&last)) })
}

/// The chunk at `start`, looked at by a short subscription of its own; `None` where nothing came.
pub async fn chunk_at(
    connection: &Connection,
    stream: &StreamName,
    start: Start,
) -> Result<Option<Sighting>, BrokerError> {
    connection.probe(stream, start, PROBE_WAIT).await
}

/// The last offset of a chunk, or a lower bound of it.
fn last_offset(chunk: &Sighting) -> Offset {
    chunk.next_offset().prev().map_or(chunk.first_offset(), |last| last.max(chunk.first_offset()))
}
