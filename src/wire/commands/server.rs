//! Frames that the server can send.

use bytes::{Buf, Bytes};

use super::{ResponseCode, keys};
use crate::types::StreamName;
use crate::wire::cursor::Cursor;
use crate::wire::error::{WireError, WireProblem};
use crate::wire::frame::Frame;

/// A chunk for a subscription.
#[derive(Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The subscription.
    pub subscription: u8,
    /// First offset of the last chunk that was committed when this one was sent (version 2).
    pub committed_chunk_id: Option<u64>,
    /// The chunk, sharing the read buffer's memory.
    pub chunk: Bytes,
}

impl std::fmt::Debug for Deliver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliver")
            .field("subscription", &self.subscription)
            .field("committed_chunk_id", &self.committed_chunk_id)
            .field("chunk_bytes", &self.chunk.len())
            .finish()
    }
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFrame {
    /// The answer to a request: hand the payload to
    /// [`decode_response`](super::decode_response) with the type of the request.
    Response {
        /// Number of the answered command.
        key: u16,
        /// Correlation id of the answered request.
        correlation: u32,
        /// The version of the answer.
        version: u16,
        /// Bytes after the correlation id, from the response code on.
        payload: Bytes,
    },
    /// A chunk.
    Deliver(Deliver),
    /// A stream's members changed, or it was deleted; its subscriptions are already gone.
    MetadataUpdate {
        /// Reason; 0x06 is sent for a deletion and also for a member's restart.
        code: ResponseCode,
        /// The stream.
        stream: StreamName,
    },
    /// A single active consumer becomes active or inactive. If the client does not answer within 60
    /// s, the broker closes the connection.
    ConsumerUpdate {
        /// To be copied into the answer.
        correlation: u32,
        /// The subscription.
        subscription: u8,
        /// True if the consumer is active from now on.
        active: bool,
    },
    /// A Credit that was refused; successful ones are not answered.
    CreditError {
        /// Reason.
        code: ResponseCode,
        /// The subscription.
        subscription: u8,
    },
    /// Messages that the broker has stored.
    PublishConfirm {
        /// The publisher.
        publisher: u8,
        /// Their publishing ids.
        ids: Vec<u64>,
    },
    /// Messages that the broker did not store.
    PublishError {
        /// The publisher.
        publisher: u8,
        /// Their publishing ids, each with the reason.
        errors: Vec<(u64, ResponseCode)>,
    },
    /// The server is about to close the connection; answer with
    /// [`close_response`](super::close_response).
    Close {
        /// To be copied into the answer.
        correlation: u32,
        /// Reason.
        code: ResponseCode,
        /// Reason as text.
        reason: String,
    },
    /// Limits that the server proposes; answer with [`tune`](super::tune).
    Tune {
        /// Largest frame in bytes; 0 is no limit.
        frame_max: u32,
        /// Heartbeat interval in seconds; 0 is none.
        heartbeat: u32,
    },
    /// An empty frame that shows that the server is alive.
    Heartbeat,
    /// An unknown command.
    Unknown {
        /// Its number, without the response bit.
        key: u16,
    },
}

/// Reads a frame from the server. Bytes after the known fields are ignored.
pub fn decode_server_frame(frame: Frame) -> Result<ServerFrame, WireError> {
    let Frame { key, response, version, mut payload } = frame;
    // Deliver and Response keep their bytes. They are handled first, because slicing the payload is
    // not possible while a Cursor borrows it.
    match (key, response) {
        (keys::DELIVER, false) => return deliver(version, payload).map(ServerFrame::Deliver),
        (keys::TUNE | keys::CREDIT, true) => {}
        (_, true) => {
            let correlation = Cursor::new(keys::name(key), &payload).u32()?;
            payload.advance(4);
            return Ok(ServerFrame::Response { key, correlation, version, payload });
        }
        _ => {}
    }
    let mut body = Cursor::new(keys::name(key), &payload);
    Ok(match (key, response) {
        (keys::TUNE, _) => ServerFrame::Tune { frame_max: body.u32()?, heartbeat: body.u32()? },
        // The only answer without a correlation id.
        (keys::CREDIT, true) => {
            ServerFrame::CreditError { code: body.u16()?.into(), subscription: body.u8()? }
        }
        (keys::METADATA_UPDATE, false) => ServerFrame::MetadataUpdate {
            code: body.u16()?.into(),
            stream: StreamName::from(body.string()?),
        },
        (keys::CONSUMER_UPDATE, false) => ServerFrame::ConsumerUpdate {
            correlation: body.u32()?,
            subscription: body.u8()?,
            active: match body.u8()? {
                0 => false,
                1 => true,
                other => {
                    let value = u64::from(other);
                    return Err(body.error(WireProblem::Unknown { what: "activity", value }));
                }
            },
        },
        (keys::PUBLISH_CONFIRM, false) => {
            ServerFrame::PublishConfirm { publisher: body.u8()?, ids: body.array(8, Cursor::u64)? }
        }
        (keys::PUBLISH_ERROR, false) => ServerFrame::PublishError {
            publisher: body.u8()?,
            errors: body.array(10, |c| Ok((c.u64()?, c.u16()?.into())))?,
        },
        (keys::CLOSE, false) => ServerFrame::Close {
            correlation: body.u32()?,
            code: body.u16()?.into(),
            reason: body.string_lossy()?,
        },
        (keys::HEARTBEAT, false) => ServerFrame::Heartbeat,
        _ => ServerFrame::Unknown { key },
    })
}

fn deliver(version: u16, mut payload: Bytes) -> Result<Deliver, WireError> {
    let mut body = Cursor::new("Deliver", &payload);
    let subscription = body.u8()?;
    let committed_chunk_id = match version {
        1 => None,
        2 => Some(body.u64()?),
        other => {
            let value = u64::from(other);
            return Err(body.error(WireProblem::Unknown { what: "version of Deliver", value }));
        }
    };
    let read = body.position();
    payload.advance(read);
    Ok(Deliver { subscription, committed_chunk_id, chunk: payload })
}
