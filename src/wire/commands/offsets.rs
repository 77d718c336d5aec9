//! Stored offsets, and the first and last offset of a stream.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Request, ResponseCode, keys};
use crate::types::{Offset, Reference, StreamName};
use crate::wire::cursor::{Cursor, PutExt};
use crate::wire::error::{WireError, WireProblem};
use crate::wire::frame::write_frame;

/// Longest reference, in bytes, under which the broker stores an offset. It drops a longer one and
/// only logs that.
pub const REFERENCE_MAX: usize = 255;

/// Stores an offset. The broker never answers: use [`QueryOffset`] to know that it arrived.
pub fn store_offset(
    reference: &Reference,
    stream: &StreamName,
    offset: Offset,
) -> Result<Bytes, WireError> {
    let mut out = BytesMut::with_capacity(64);
    write_frame(&mut out, keys::STORE_OFFSET, 1, |out| {
        put_reference(out, reference)?;
        out.put_string("stream name", stream.as_str())?;
        out.put_u64(offset.0);
        Ok(())
    })?;
    Ok(out.freeze())
}

fn put_reference(out: &mut BytesMut, reference: &Reference) -> Result<(), WireError> {
    let length = reference.as_str().len();
    if length > REFERENCE_MAX {
        let problem = WireProblem::TooLong { what: "reference", length, limit: REFERENCE_MAX };
        return Err(WireError::new("outgoing frame", out.len(), problem));
    }
    out.put_string("reference", reference.as_str())
}

/// Asks for the offset stored under a reference. The answer is `None` only if the broker says that
/// there is none (0x13); every other code is a refusal and never means "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryOffset {
    /// The reference.
    pub reference: Reference,
    /// The stream.
    pub stream: StreamName,
}

impl Request for QueryOffset {
    const KEY: u16 = keys::QUERY_OFFSET;
    const NAME: &'static str = "QueryOffset";
    type Response = Option<Offset>;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        put_reference(out, &self.reference)?;
        out.put_string("stream name", self.stream.as_str())
    }

    fn accepts(code: ResponseCode) -> bool {
        matches!(code, ResponseCode::Ok | ResponseCode::NoOffset)
    }

    fn decode(code: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        match code {
            ResponseCode::NoOffset => Ok(None),
            _ => body.u64().map(|offset| Some(Offset(offset))),
        }
    }
}

/// Asks for the first and last offset of a stream (3.11+).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// The stream.
    pub stream: StreamName,
}

impl Request for StreamStats {
    const KEY: u16 = keys::STREAM_STATS;
    const NAME: &'static str = "StreamStats";
    type Response = StreamStatsResponse;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("stream name", self.stream.as_str())
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError> {
        let values = body.array(10, |c| Ok((c.string_lossy()?, c.i64()?)))?;
        Ok(StreamStatsResponse { values })
    }
}

/// Statistics of a stream, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatsResponse {
    /// Values as the broker sent them; -1 is "none".
    pub values: Vec<(String, i64)>,
}

impl StreamStatsResponse {
    /// One value as the broker sent it.
    pub fn get(&self, name: &str) -> Option<i64> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// First offset that retention has kept; `None` in an empty stream.
    pub fn first_chunk_id(&self) -> Option<Offset> {
        self.offset("first_chunk_id")
    }

    /// First offset of the last committed chunk; `None` in an empty stream.
    pub fn committed_chunk_id(&self) -> Option<Offset> {
        self.offset("committed_chunk_id")
    }

    /// Last committed offset; `None` in an empty stream and on brokers before 4.3, which do not
    /// report it.
    pub fn committed_offset(&self) -> Option<Offset> {
        self.offset("committed_offset")
    }

    fn offset(&self, name: &str) -> Option<Offset> {
        self.get(name).and_then(|value| u64::try_from(value).ok()).map(Offset)
    }
}
