//! Publishing: only what is needed to pass messages on byte for byte.
//!
//! Messages are sent unchanged, each under a publishing id from the caller. The broker drops an id
//! that is not above the last one of the same publisher reference.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Request, ResponseCode, keys};
use crate::types::StreamName;
use crate::wire::cursor::{Cursor, PutExt};
use crate::wire::error::{WireError, WireProblem};

/// Declares a publisher on this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclarePublisher {
    /// Id of the publisher, chosen by the client.
    pub publisher: u8,
    /// Name under which the broker keeps publishing ids (at most 255 bytes); empty for none.
    pub reference: String,
    /// The stream.
    pub stream: StreamName,
}

impl Request for DeclarePublisher {
    const KEY: u16 = keys::DECLARE_PUBLISHER;
    const NAME: &'static str = "DeclarePublisher";
    type Response = ();

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u8(self.publisher);
        out.put_string("publisher reference", &self.reference)?;
        out.put_string("stream name", self.stream.as_str())
    }

    fn decode(_: ResponseCode, _: &mut Cursor<'_>) -> Result<(), WireError> {
        Ok(())
    }
}

/// Asks for the last publishing id of a reference; 0 also means "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPublisherSequence {
    /// The reference.
    pub reference: String,
    /// The stream.
    pub stream: StreamName,
}

impl Request for QueryPublisherSequence {
    const KEY: u16 = keys::QUERY_PUBLISHER_SEQUENCE;
    const NAME: &'static str = "QueryPublisherSequence";
    type Response = u64;

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_string("publisher reference", &self.reference)?;
        out.put_string("stream name", self.stream.as_str())
    }

    fn decode(_: ResponseCode, body: &mut Cursor<'_>) -> Result<u64, WireError> {
        body.u64()
    }
}

/// Deletes a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletePublisher {
    /// Id of the publisher.
    pub publisher: u8,
}

impl Request for DeletePublisher {
    const KEY: u16 = keys::DELETE_PUBLISHER;
    const NAME: &'static str = "DeletePublisher";
    type Response = ();

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u8(self.publisher);
        Ok(())
    }

    fn decode(_: ResponseCode, _: &mut Cursor<'_>) -> Result<(), WireError> {
        Ok(())
    }
}

/// Collects messages into one Publish frame (version 1) of a bounded size.
#[derive(Debug)]
pub struct PublishBuilder {
    frame: BytesMut,
    count: u32,
    size_max: usize,
}

/// Size, key, version, publisher id.
const COUNT_AT: usize = 4 + 2 + 2 + 1;

fn size_max(frame_max: u32) -> usize {
    if frame_max == 0 { i32::MAX as usize } else { frame_max as usize }
}

impl PublishBuilder {
    /// An empty frame for a publisher. `frame_max` is the frame size agreed in Tune, without the
    /// size field; 0 is no limit.
    pub fn new(publisher: u8, frame_max: u32) -> Self {
        let mut frame = BytesMut::with_capacity(1024);
        frame.put_u32(0);
        frame.put_u16(keys::PUBLISH);
        frame.put_u16(1);
        frame.put_u8(publisher);
        frame.put_u32(0);
        Self { frame, count: 0, size_max: size_max(frame_max) }
    }

    /// Longest message, in bytes, that fits into a frame.
    pub fn message_bytes_max(frame_max: u32) -> usize {
        size_max(frame_max).saturating_sub(COUNT_AT + 8 + 4)
    }

    /// Adds a message. Returns `false` if it does not fit into this frame: finish it and begin
    /// another. Returns an error if it does not fit into any frame.
    pub fn push(&mut self, publishing_id: u64, message: &[u8]) -> Result<bool, WireError> {
        let needed = 8 + 4 + message.len();
        if self.frame.len() - 4 + needed > self.size_max {
            if self.count > 0 {
                return Ok(false);
            }
            let problem = WireProblem::TooLong {
                what: "message",
                length: message.len(),
                limit: self.size_max,
            };
            return Err(WireError::new("Publish", self.frame.len(), problem));
        }
        self.frame.put_u64(publishing_id);
        self.frame.put_blob("message", Some(message))?;
        self.count += 1;
        Ok(true)
    }

    /// Number of messages so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The frame; `None` if no message was added.
    pub fn finish(mut self) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let size = u32::try_from(self.frame.len() - 4).ok()?;
        self.frame.get_mut(..4)?.copy_from_slice(&size.to_be_bytes());
        self.frame.get_mut(COUNT_AT..COUNT_AT + 4)?.copy_from_slice(&self.count.to_be_bytes());
        Some(self.frame.freeze())
    }
}
