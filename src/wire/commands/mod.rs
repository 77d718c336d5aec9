//! The commands of the protocol: requests and their answers, one-way commands, server frames.
//!
//! Each group of commands has a file. A request is a value that implements [`Request`]; commands
//! without an answer are functions that return the finished frame; everything that the server can
//! send is a [`ServerFrame`]. Layouts are those of PROTOCOL.adoc and, where it
//! leaves something open, of `rabbit_stream_core.erl`.
//!
//! This module knows nothing of connections: `broker` matches answers to correlation ids.

pub mod code;
pub mod handshake;
pub mod offsets;
pub mod publish;
pub mod server;
pub mod subscribe;
pub mod topology;

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use super::keys;

pub use code::ResponseCode;
pub use handshake::{
    Close, CommandVersions, ExchangeCommandVersions, Open, PeerProperties, SaslAuthenticate,
    SaslHandshake, SaslOutcome, close_response, heartbeat, tune,
};
pub use offsets::{QueryOffset, StreamStats, StreamStatsResponse, store_offset};
pub use publish::{DeclarePublisher, DeletePublisher, PublishBuilder, QueryPublisherSequence};
pub use server::{Deliver, ServerFrame, decode_server_frame};
pub use subscribe::{OffsetSpec, Subscribe, Unsubscribe, consumer_update_response, credit};
pub use topology::{
    Create, CreateSuperStream, Delete, Metadata, MetadataResponse, Node, Partitions, StreamMetadata,
};

use super::cursor::Cursor;
use super::error::WireError;
use super::frame::write_frame;

/// A command that the server answers, matched by a correlation id.
pub trait Request {
    /// The command's number, without the response bit.
    const KEY: u16;
    /// Name in the protocol's reference.
    const NAME: &'static str;
    /// True if the answer begins with a response code (Metadata's does not).
    const ANSWER_HAS_CODE: bool = true;
    /// Content of a successful answer.
    type Response;

    /// Version in which the command is sent.
    fn version(&self) -> u16 {
        1
    }

    /// Writes the fields after the correlation id.
    fn encode(&self, out: &mut BytesMut) -> Result<(), WireError>;

    /// True if [`Request::decode`] handles an answer with this code; any other code is a refusal.
    fn accepts(code: ResponseCode) -> bool {
        code.is_ok()
    }

    /// Reads the fields after the response code.
    fn decode(code: ResponseCode, body: &mut Cursor<'_>) -> Result<Self::Response, WireError>;
}

/// Reason why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// The broker refused the request.
    #[error("the broker refused {command}: {code}")]
    Refused {
        /// Response code.
        code: ResponseCode,
        /// Name of the refused command.
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

/// The complete frame of a request.
pub fn encode_request<R: Request>(request: &R, correlation: u32) -> Result<Bytes, WireError> {
    let mut out = BytesMut::with_capacity(64);
    write_frame(&mut out, R::KEY, request.version(), |out| {
        out.put_u32(correlation);
        request.encode(out)
    })?;
    Ok(out.freeze())
}

/// Reads the answer to an `R`; `payload` comes from [`ServerFrame::Response`].
pub fn decode_response<R: Request>(payload: &[u8]) -> Result<R::Response, ResponseError> {
    let mut body = Cursor::new(R::NAME, payload);
    let code = match R::ANSWER_HAS_CODE {
        true => ResponseCode::from(body.u16()?),
        false => ResponseCode::Ok,
    };
    if !R::accepts(code) {
        return Err(ResponseError::Refused { code, command: R::NAME });
    }
    // Fields that a later broker appends to an answer are ignored.
    Ok(R::decode(code, &mut body)?)
}

/// A frame whose content has a fixed size, so that encoding cannot fail.
fn fixed_frame(key: u16, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + content.len());
    out.put_u32(4 + content.len() as u32);
    out.put_u16(key);
    out.put_u16(1);
    out.put_slice(content);
    out.freeze()
}
