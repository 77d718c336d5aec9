//! The protocol's commands: requests and their answers, one-way commands, what the server sends.
//!
//! Each group of commands has a file. A request is a value that implements [`Request`]; commands
//! without an answer are functions that return the finished frame; everything that the server can
//! send is a [`ServerFrame`]. Layouts are those of PROTOCOL.adoc and, where it
//! leaves something open, of `rabbit_stream_core.erl`.
//!
//! This module knows nothing of connections: who waits for which correlation id is `broker`'s
//! matter.

pub mod code;
pub mod handshake;
pub mod keys;
pub mod offsets;
pub mod publish;
pub mod server;
pub mod subscribe;
pub mod topology;

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use code::ResponseCode;
pub use handshake::{
    Close, CommandVersions, ExchangeCommandVersions, Open, PeerProperties, SaslAuthenticate,
    SaslHandshake, SaslOutcome, close_response, heartbeat, tune,
};
pub use offsets::{QueryOffset, ResolveOffsetSpec, StreamStats, StreamStatsResponse, store_offset};
pub use publish::{DeclarePublisher, DeletePublisher, PublishBuilder, QueryPublisherSequence};
pub use server::{Deliver, ServerFrame, decode_server_frame};
pub use subscribe::{OffsetSpec, Subscribe, Unsubscribe, consumer_update_response, credit};
pub use topology::{
    Create, CreateSuperStream, Delete, DeleteSuperStream, Metadata, MetadataResponse, Node,
    Partitions, Route, StreamMetadata,
};

use super::cursor::Cursor;
use super::error::WireError;
use super::frame::write_frame;

/// A command that the server answers under a correlation id.
pub trait Request {
    /// The command's number, without the response bit.
    const KEY: u16;
    /// What the protocol's reference calls it.
    const NAME: &'static str;
    /// Whether the answer begins with a response code (Metadata's does not).
    const ANSWER_HAS_CODE: bool = true;
    /// What a good answer says.
    type Response;

    /// The version in which it is sent.
    fn version(&self) -> u16 {
        1
    }

    /// Writes what follows the correlation id.
    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError>;

    /// Whether [`Request::decode`] takes an answer with this code; any other is a refusal.
    fn accepts(code: ResponseCode) -> bool {
        code.is_ok()
    }

    /// Reads what follows the response code.
    fn decode(code: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError>;
}

/// Why a request's answer holds no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// The broker said no.
    #[error("the broker refused {command}: {code}")]
    Refused {
        /// What it said.
        code: ResponseCode,
        /// The command that it refused.
        command: &'static str,
    },
    /// The answer could not be read.
    #[error("the broker's answer could not be read: {0}")]
    Wire(WireError),
}

impl From<WireError> for ResponseError {
    fn from(error: WireError) -> Self {
        ResponseError::Wire(error)
    }
}

/// The whole frame of a request.
pub fn encode_request<R: Request>(request: &R, correlation: u32) -> Result<Bytes, WireError> {
    let mut out = BytesMut::with_capacity(64);
    write_frame(&mut out, R::KEY, request.version(), |out| {
        out.put_u32(correlation);
        request.encode(out)
    })?;
    Ok(out.freeze())
}

/// Reads the answer to an `R`: `payload` is that of [`ServerFrame::Response`].
pub fn decode_response<R: Request>(payload: &[u8]) -> Result<R::Response, ResponseError> {
    let mut body = Cursor::new(R::NAME, payload);
    let code = match R::ANSWER_HAS_CODE {
        true => ResponseCode::from(body.u16()?),
        false => ResponseCode::Ok,
    };
    if !R::accepts(code) {
        return Err(ResponseError::Refused { code, command: R::NAME });
    }
    // What a later broker appends to an answer is let be.
    Ok(R::decode(code, &mut body)?)
}

/// A frame whose content has a fixed size, so that nothing can go wrong in writing it.
fn fixed_frame(key: u16, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + content.len());
    out.put_u32(4 + content.len() as u32);
    out.put_u16(key);
    out.put_u16(1);
    out.put_slice(content);
    out.freeze()
}
