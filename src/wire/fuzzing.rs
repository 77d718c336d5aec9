//! Entry points of the fuzz targets and the mutation tests. Each function takes any bytes, and
//! panics if a decoder breaks a promise; refusing the bytes is no failure.
//!
//! Not part of the crate's interface.

use bytes::{Bytes, BytesMut};

use super::block::Block;
use super::chunk::{Chunk, ChunkHeader, HEADER_BYTES, Piece};
use super::commands::{self, Request, ServerFrame, decode_response, decode_server_frame};
use super::compression::InflateLimits;
use super::frame::{Frame, FrameLimits, peek, split_frame};

const FRAME_LIMITS: FrameLimits = FrameLimits { frame_max: 1 << 16, deliver_max: 1 << 18 };
const INFLATE_LIMITS: InflateLimits = InflateLimits { max_bytes: 1 << 20 };

/// Treats the bytes as read from a socket: cuts frames and reads each.
pub fn frame(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut taken = 0;
    let mut frames = Vec::new();
    let refused = loop {
        let seen = peek(&whole);
        match split_frame(&mut whole, &FRAME_LIMITS) {
            Ok(Some(frame)) => {
                let bytes = frame.payload.len() as u64 + 8;
                assert_eq!(
                    seen.map(|s| (s.key, s.response, s.frame_bytes)),
                    Some((frame.key, frame.response, bytes))
                );
                taken += frame.payload.len() + 8;
                frames.push(frame);
            }
            Ok(None) => break false,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break true;
            }
        }
    };
    assert_eq!(taken + whole.len(), data.len(), "bytes were lost between frames");
    assert_eq!((frames.clone(), refused), in_small_pieces(data), "it matters how the bytes arrive");
    frames.into_iter().for_each(read_frame);
}

/// Does the same byte by byte: the result must not depend on how the bytes arrive.
fn in_small_pieces(data: &[u8]) -> (Vec<Frame>, bool) {
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for byte in data {
        buf.extend_from_slice(&[*byte]);
        match split_frame(&mut buf, &FRAME_LIMITS) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => {}
            Err(_) => return (frames, true),
        }
    }
    (frames, false)
}

fn read_frame(frame: Frame) {
    match decode_server_frame(frame) {
        Ok(ServerFrame::Deliver(deliver)) => chunk(&deliver.chunk),
        Ok(ServerFrame::Response { payload, .. }) => read_answer(&payload),
        Ok(_) | Err(_) => {}
    }
}

/// Reads the same payload as the answer to every request.
fn read_answer(payload: &[u8]) {
    fn answer<R: Request>(payload: &[u8]) {
        if let Err(error) = decode_response::<R>(payload) {
            assert!(!error.to_string().is_empty());
        }
    }
    answer::<commands::PeerProperties>(payload);
    answer::<commands::SaslHandshake>(payload);
    answer::<commands::SaslAuthenticate>(payload);
    answer::<commands::Open>(payload);
    answer::<commands::ExchangeCommandVersions>(payload);
    answer::<commands::Subscribe>(payload);
    answer::<commands::QueryOffset>(payload);
    answer::<commands::StreamStats>(payload);
    answer::<commands::Metadata>(payload);
    answer::<commands::Partitions>(payload);
    answer::<commands::QueryPublisherSequence>(payload);
}

/// Treats the bytes as a chunk: first unchanged, then with correct lengths and CRC, so that the
/// code after these checks is reached too.
pub fn chunk(data: &[u8]) {
    read_chunk(Bytes::copy_from_slice(data));
    if let Some(mended) = mend(data) {
        read_chunk(mended);
    }
}

/// Treats the bytes as an AMQP 1.0 message, and reads everything that can be read.
pub fn message(data: &[u8]) {
    super::amqp::fuzz_message(data);
}

/// Treats the bytes as read from a socket on which AMQP 0.9.1 is spoken, and converts each message.
pub fn amqp091(data: &[u8]) {
    super::amqp091::fuzzing::frames(data);
}

fn mend(data: &[u8]) -> Option<Bytes> {
    let (head, section) = data.split_at_checked(HEADER_BYTES)?;
    let mut bytes = head.to_vec();
    bytes.get_mut(..2)?.copy_from_slice(&[0x50, 0]);
    bytes.get_mut(32..36)?.copy_from_slice(&crc32fast::hash(section).to_be_bytes());
    let length = u32::try_from(section.len()).ok()?;
    bytes.get_mut(36..40)?.copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(section);
    Some(bytes.into())
}

fn read_chunk(bytes: Bytes) {
    let header = ChunkHeader::parse(&bytes);
    let Ok(chunk) = Chunk::decode(bytes) else { return };
    assert_eq!(header.as_ref(), Ok(chunk.header()));
    let header = *chunk.header();
    if chunk.pieces(&INFLATE_LIMITS).next().is_none() {
        return; // Another kind of chunk, or one without records.
    }
    let mut next = header.first_offset;
    let mut readable = true;
    for piece in chunk.pieces(&INFLATE_LIMITS) {
        let (first, count) = match &piece {
            Piece::Block(block) => {
                check_block(block);
                (block.first_offset(), block.count())
            }
            Piece::Unreadable { first, count, error, .. } => {
                assert!(!error.to_string().is_empty());
                readable = false;
                (*first, *count)
            }
        };
        assert_eq!(first, next, "a gap between pieces");
        next.0 += u64::from(count);
    }
    assert_eq!(next, header.next_offset(), "the pieces do not cover the chunk");
    let over = chunk.inflated_bytes() > INFLATE_LIMITS.max_bytes as u64;
    assert_eq!(chunk.into_blocks(&INFLATE_LIMITS).is_ok(), readable && !over);
}

fn check_block(block: &Block) {
    let mut expected = block.first_offset();
    let mut bytes = 0;
    for record in block.records() {
        assert_eq!(record.offset, expected);
        expected = expected.next();
        bytes += 4 + record.message.len();
    }
    assert_eq!(expected.0 - block.first_offset().0, u64::from(block.count()));
    assert_eq!(bytes, block.bytes().len());
}

#[cfg(test)]
mod tests;
