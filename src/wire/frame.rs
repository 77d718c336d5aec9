//! Frames: cutting them out of a read buffer, and writing them.
//!
//! `Frame => Size:u32 Key:u16 Version:u16 …`, big endian; the top bit of the key marks a response
//! (PROTOCOL.adoc, "Frame Structure"). A frame's stated size is checked before memory is reserved
//! for it. The negotiated `frame_max` bounds every frame except Deliver, which the broker sends as
//! large as the chunk is. Deliver therefore has a limit of its own.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::{WireError, WireProblem};
use super::keys;

/// Bytes of a frame's size field; the stated size does not include them.
pub const SIZE_BYTES: usize = 4;
/// Bytes of size, key and version.
const HEAD_BYTES: usize = SIZE_BYTES + 4;
/// The key's top bit: set in a response.
pub(super) const RESPONSE_BIT: u16 = 0x8000;
const FRAME: &str = "frame";

/// One frame, without its size field. The payload shares the read buffer's memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The command, without the response bit.
    pub key: u16,
    /// True if the response bit was set.
    pub response: bool,
    /// The version of the command.
    pub version: u16,
    /// Everything after the version.
    pub payload: Bytes,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("key", &self.key)
            .field("response", &self.response)
            .field("version", &self.version)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// Largest accepted frames, in bytes, without the size field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Limit for every frame but Deliver, agreed in Tune. 0 is the protocol's "no limit".
    pub frame_max: u32,
    /// Limit for Deliver, which the broker does not bound. 0 accepts none.
    pub deliver_max: u32,
}

impl FrameLimits {
    fn of(&self, key: u16) -> u32 {
        match (key, self.frame_max) {
            (keys::DELIVER, _) => self.deliver_max,
            (_, 0) => u32::MAX,
            (_, limit) => limit,
        }
    }

    /// The larger limit, used while the key is not known yet.
    fn loosest(&self) -> u32 {
        self.of(keys::DELIVER).max(self.of(keys::HEARTBEAT))
    }
}

/// First fields of a frame, available before the frame has arrived completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Bytes of the whole frame, including its size field.
    pub frame_bytes: u64,
    /// The command, without the response bit.
    pub key: u16,
    /// True if the response bit is set.
    pub response: bool,
    /// The version of the command.
    pub version: u16,
    /// Subscription of a Deliver, once that byte has arrived; else `None`.
    pub subscription: Option<u8>,
    /// Position in the buffer at which a Deliver's chunk begins, for
    /// [`ChunkHeader::parse`](super::chunk::ChunkHeader::parse) of a discarded chunk; else `None`.
    pub chunk_at: Option<usize>,
}

impl Peek {
    /// True if the frame is a Deliver.
    pub fn is_deliver(&self) -> bool {
        self.key == keys::DELIVER && !self.response
    }
}

/// Reads the first fields of the frame at the start of the buffer. `None` until its size, key and
/// version are there (8 bytes). Checks and consumes nothing.
pub fn peek(buf: &[u8]) -> Option<Peek> {
    let head = Head::read(buf)?;
    let deliver = head.key() == keys::DELIVER && !head.response();
    Some(Peek {
        frame_bytes: u64::from(head.size) + SIZE_BYTES as u64,
        key: head.key(),
        response: head.response(),
        version: head.version,
        subscription: buf.get(HEAD_BYTES).copied().filter(|_| deliver),
        chunk_at: match (deliver, head.version) {
            (true, 1) => Some(HEAD_BYTES + 1),
            (true, 2) => Some(HEAD_BYTES + 1 + 8),
            _ => None,
        },
    })
}

/// Takes one frame off the front of the buffer; `None` if it has not arrived completely.
///
/// The frame shares memory with the buffer: it keeps the whole allocation alive. An error is final:
/// later frames cannot be found any more.
pub fn split_frame(buf: &mut BytesMut, limits: &FrameLimits) -> Result<Option<Frame>, WireError> {
    let Some(head) = Head::read(buf) else {
        if let Some(size) = buf.first_chunk::<SIZE_BYTES>() {
            check_size(u32::from_be_bytes(*size), limits.loosest())?;
        }
        return Ok(None);
    };
    check_size(head.size, limits.of(head.key()))?;
    let length = head.size as usize + SIZE_BYTES;
    if buf.len() < length {
        return Ok(None);
    }
    let mut payload = buf.split_to(length).freeze();
    payload.advance(HEAD_BYTES);
    Ok(Some(Frame { key: head.key(), response: head.response(), version: head.version, payload }))
}

fn check_size(size: u32, limit: u32) -> Result<(), WireError> {
    if (size as usize) < HEAD_BYTES - SIZE_BYTES {
        return Err(WireError::new(FRAME, 0, WireProblem::FrameTooSmall(size)));
    }
    if size > limit {
        return Err(WireError::new(FRAME, 0, WireProblem::FrameTooLarge { size, limit }));
    }
    Ok(())
}

struct Head {
    size: u32,
    raw_key: u16,
    version: u16,
}

impl Head {
    fn read(buf: &[u8]) -> Option<Head> {
        let [a, b, c, d, e, f, g, h] = *buf.first_chunk::<HEAD_BYTES>()?;
        Some(Head {
            size: u32::from_be_bytes([a, b, c, d]),
            raw_key: u16::from_be_bytes([e, f]),
            version: u16::from_be_bytes([g, h]),
        })
    }

    fn key(&self) -> u16 {
        self.raw_key & !RESPONSE_BIT
    }

    fn response(&self) -> bool {
        self.raw_key & RESPONSE_BIT != 0
    }
}

/// Appends a complete frame: size, key, version, and what `content` writes. On an error the buffer
/// is unchanged.
pub fn write_frame(
    out: &mut BytesMut,
    key: u16,
    version: u16,
    content: impl FnOnce(&mut BytesMut) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_u32(0);
    out.put_u16(key);
    out.put_u16(version);
    let written = content(out).and_then(|()| {
        let length = out.len() - start - SIZE_BYTES;
        u32::try_from(length).map_err(|_| {
            let limit = u32::MAX as usize;
            WireError::new(FRAME, 0, WireProblem::TooLong { what: "frame", length, limit })
        })
    });
    match written {
        Ok(size) => {
            if let Some(field) = out.get_mut(start..start + SIZE_BYTES) {
                field.copy_from_slice(&size.to_be_bytes());
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
