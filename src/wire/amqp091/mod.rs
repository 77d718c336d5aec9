//! AMQP 0.9.1 as far as a consumer of streams needs it: frames, methods, and the conversion of a
//! delivered message into the AMQP 1.0 form in which a stream holds it.
//!
//! Facts from the AMQP 0.9.1 specification and RabbitMQ's errata for field types.
//!
//! Invariants: short strings may hold any bytes, as RabbitMQ stores them unchecked; nothing panics
//! on input; nothing is allocated for a size before the bytes are there, apart from a body's, which
//! the caller admits first; nesting stops at a limit.

mod convert;
mod fields;
pub(super) mod fuzzing;
mod methods;
#[cfg(test)]
mod tests;

pub use convert::{Incoming, Style, begin_message, bound, form, offset_of};
pub use methods::{
    Closed, Delivered, Method, StartAt, ack, call, cancel, consume, open_connection,
    passive_declare, qos, start_ok, tune_ok, update_secret,
};

use super::cursor::Cursor;
use super::error::WireError;

/// The first bytes that a client sends.
pub const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";

/// Code with which a broker closes a connection after an error of its own.
pub const INTERNAL_ERROR: u16 = 541;

/// Bytes of a frame around its payload.
pub const FRAME_OVERHEAD: usize = 8;

/// Bytes of a frame before its payload.
const FRAME_HEAD: usize = 7;

/// Last byte of each frame.
const FRAME_END: u8 = 0xce;

/// A heartbeat.
pub const HEARTBEAT: [u8; FRAME_OVERHEAD] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method.
    Method,
    /// The properties of a message, and the size of its body.
    Header,
    /// A part of a message's body.
    Body,
    /// A sign of life.
    Heartbeat,
}

/// Reason why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Unknown kind.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Larger than agreed.
    #[error("a frame of {bytes} bytes, where at most {max} are agreed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The last byte is wrong.
    #[error("a frame without its end")]
    NoEnd,
}

/// A frame's kind and channel, and its number of bytes in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Kind.
    pub kind: FrameKind,
    /// Channel.
    pub channel: u16,
    /// All bytes of the frame.
    pub bytes: usize,
}

impl FrameHead {
    /// Position of the payload in the frame.
    pub fn payload(&self) -> std::ops::Range<usize> {
        FRAME_HEAD..self.bytes - 1
    }
}

/// The frame at the beginning of the buffer; `None` if it is not complete.
///
/// # Errors
/// If it is no frame, or one larger than `max`.
pub fn frame(buffer: &[u8], max: usize) -> Result<Option<FrameHead>, FrameError> {
    let Some([kind, c0, c1, s0, s1, s2, s3]) = buffer.first_chunk::<FRAME_HEAD>() else {
        return Ok(None);
    };
    let kind = match kind {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 => FrameKind::Heartbeat,
        other => return Err(FrameError::Kind(*other)),
    };
    let bytes = (u32::from_be_bytes([*s0, *s1, *s2, *s3]) as usize).saturating_add(FRAME_OVERHEAD);
    if bytes > max {
        return Err(FrameError::TooLarge { bytes, max });
    }
    match buffer.get(bytes - 1) {
        None => Ok(None),
        Some(&FRAME_END) => {
            Ok(Some(FrameHead { kind, channel: u16::from_be_bytes([*c0, *c1]), bytes }))
        }
        Some(_) => Err(FrameError::NoEnd),
    }
}

/// The head of a message: size of its body, and its encoded properties.
pub fn content_header(payload: &[u8]) -> Result<(u64, &[u8]), WireError> {
    let mut cursor = Cursor::new("content header", payload);
    cursor.take(4)?; // Class and weight.
    Ok((cursor.u64()?, cursor.remaining()))
}

fn short<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], WireError> {
    let length = cursor.u8()?;
    cursor.take(length.into())
}

fn long<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], WireError> {
    let length = cursor.u32()?;
    cursor.take(length as usize)
}
