//! Subscribing, crediting, and the hand-over between single active consumers.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Request, ResponseCode, fixed_frame, keys};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::cursor::{Cursor, PutExt};
use crate::wire::error::WireError;
use crate::wire::frame::RESPONSE_BIT;

/// Where in a stream to start. The broker delivers whole chunks, so what comes first can lie before
/// the place that was asked for: the chunk that holds the offset, the last chunk, the first chunk
/// with a timestamp not before the one given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first record that retention has left.
    First,
    /// The last chunk.
    Last,
    /// What is published from now on.
    Next,
    /// This offset. One below the first becomes the first; one past the end becomes `Next`, and the
    /// broker does not say so.
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

/// Asks for a stream's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The id, chosen here, under which chunks will come.
    pub subscription: u8,
    /// The stream.
    pub stream: StreamName,
    /// Where to start.
    pub start: OffsetSpec,
    /// How many chunks may come before more is granted. The broker sends once more than half of it
    /// is there, so 1 or 2 mean stop-and-wait.
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

/// Properties at the end of a request, where none at all is written as nothing at all.
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
    /// Its id.
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

/// Lets the broker send `credits` chunks more. It answers only where something is wrong
/// ([`ServerFrame::CreditError`](super::ServerFrame::CreditError)).
pub fn credit(subscription: u8, credits: u16) -> Bytes {
    let [high, low] = credits.to_be_bytes();
    fixed_frame(keys::CREDIT, &[subscription, high, low])
}

/// The answer to the server's ConsumerUpdate: where to start from, now that this consumer is active;
/// `None` where it has become inactive, or is to start where it subscribed.
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
