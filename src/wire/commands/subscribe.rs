//! Subscribe, credit, and hand-over between single active consumers.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Request, ResponseCode, fixed_frame, keys};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::cursor::{Cursor, PutExt};
use crate::wire::error::WireError;
use crate::wire::frame::RESPONSE_BIT;

/// Start position in a stream. The broker delivers whole chunks, so the first records can lie
/// before the position: it begins with the chunk that holds the offset, the last chunk, or the
/// first chunk whose timestamp is not before the given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first record that retention has kept.
    First,
    /// The last chunk.
    Last,
    /// The next chunk to be published.
    Next,
    /// This offset. One below the first is moved to the first; one past the end becomes `Next`
    /// without notice.
    Offset(Offset),
    /// The first chunk written at this time or later, by the leader's clock.
    Timestamp(Timestamp),
}

impl OffsetSpec {
    pub(super) fn encode(self, out: &mut BytesMut) {
        match self {
            OffsetSpec::First => out.put_u16(1),
            OffsetSpec::Last => out.put_u16(2),
            OffsetSpec::Next => out.put_u16(3),
            OffsetSpec::Offset(offset) => {
                out.put_u16(4);
                out.put_u64(offset.0);
            }
            OffsetSpec::Timestamp(timestamp) => {
                out.put_u16(5);
                out.put_i64(timestamp.0);
            }
        }
    }
}

/// Subscribes to a stream's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Id of the subscription, chosen by the client.
    pub subscription: u8,
    /// The stream.
    pub stream: StreamName,
    /// Start position.
    pub start: OffsetSpec,
    /// Initial number of chunks that the broker may send. It sends when more than half of the
    /// credit is there, so 1 or 2 mean stop-and-wait.
    pub credits: u16,
    /// `name`, `single-active-consumer`, `super-stream`, `filter.N`, `match-unfiltered`, …
    pub properties: Vec<(String, String)>,
}

impl Request for Subscribe {
    const KEY: u16 = keys::SUBSCRIBE;
    const NAME: &'static str = "Subscribe";
    type Response = ();

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u8(self.subscription);
        out.put_string("stream name", self.stream.as_str())?;
        self.start.encode(out);
        out.put_u16(self.credits);
        put_optional_pairs(out, "subscription property", &self.properties)
    }

    fn decode(_: ResponseCode, _: &mut Cursor<'_>) -> Result<(), WireError> {
        Ok(())
    }
}

/// Properties at the end of a request; an empty list is written as no bytes.
pub(super) fn put_optional_pairs(
    out: &mut BytesMut,
    what: &'static str,
    pairs: &[(String, String)],
) -> Result<(), WireError> {
    if pairs.is_empty() { Ok(()) } else { out.put_string_pairs(what, pairs) }
}

/// Ends a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Id of the subscription.
    pub subscription: u8,
}

impl Request for Unsubscribe {
    const KEY: u16 = keys::UNSUBSCRIBE;
    const NAME: &'static str = "Unsubscribe";
    type Response = ();

    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u8(self.subscription);
        Ok(())
    }

    fn decode(_: ResponseCode, _: &mut Cursor<'_>) -> Result<(), WireError> {
        Ok(())
    }
}

/// Lets the broker send `credits` more chunks. It answers only if something is wrong
/// ([`ServerFrame::CreditError`](super::ServerFrame::CreditError)).
pub fn credit(subscription: u8, credits: u16) -> Bytes {
    let [high, low] = credits.to_be_bytes();
    fixed_frame(keys::CREDIT, &[subscription, high, low])
}

/// The answer to the server's ConsumerUpdate: the position to start from, now that this consumer is
/// active. `None` if it has become inactive, or starts where it subscribed.
pub fn consumer_update_response(
    correlation: u32,
    code: ResponseCode,
    start: Option<OffsetSpec>,
) -> Bytes {
    let mut content = BytesMut::with_capacity(16);
    content.put_u32(correlation);
    content.put_u16(code.value());
    match start {
        Some(start) => start.encode(&mut content),
        None => content.put_u16(0),
    }
    fixed_frame(keys::CONSUMER_UPDATE | RESPONSE_BIT, &content)
}
