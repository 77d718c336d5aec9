//! Inflating sub-entry batches, within a limit.
//!
//! A batch states its inflated size. Exactly that much memory is allocated, never more than the limit,
//! and a result that is longer or shorter is an error. So a decompression bomb is cut off at its stated
//! size. The decoders' own windows need additional memory: 64 KiB for snappy, up to 13 MiB for an lz4
//! frame with the largest blocks, a few hundred KiB for the others (zstd inflates directly into the
//! result and needs no window).
//!
//! Formats that clients write: gzip members (all clients); snappy's framed format (the Java and Go
//! clients); the lz4 frame format; zstd frames. Plug-ins of other clients may write raw snappy, which is
//! recognised by its missing stream identifier.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use thiserror::Error;

/// Codec of a sub-entry batch: the three bits after an entry's first bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Uncompressed.
    None,
    /// Gzip.
    Gzip,
    /// Snappy, framed or raw.
    Snappy,
    /// The lz4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// The codec with this number; `None` if there is none.
    pub fn from_number(number: u8) -> Option<Codec> {
        Some(match number {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            _ => return None,
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        })
    }
}

/// Limits on inflation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// Most bytes that all sub-entry batches of one chunk may take together when inflated.
    pub max_bytes: usize,
}

/// Reason why a batch could not be inflated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InflateError {
    /// The stated size is over the limit. Nothing was allocated.
    #[error("{wanted} bytes inflated are over the limit of {limit} bytes")]
    OverLimit {
        /// Inflated size that the batch states, in bytes.
        wanted: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The inflated size differs from the stated one.
    #[error("{stated} bytes stated, but there are {}", if *.longer { "more" } else { "fewer" })]
    WrongLength {
        /// Inflated size that the batch states, in bytes.
        stated: usize,
        /// True if the data is longer than stated, false if shorter.
        longer: bool,
    },
    /// The compressed bytes do not follow the codec's format.
    #[error("damaged data: {detail}")]
    Damaged {
        /// Error of the decoder.
        detail: String,
    },
}

/// Inflates `data` to exactly `stated` bytes, which may be at most `limit`.
///
/// [`Codec::None`] returns the same memory whatever size is stated: parsing its messages checks its
/// length.
pub fn inflate(
    codec: Codec,
    data: &Bytes,
    stated: usize,
    limit: usize,
) -> Result<Bytes, InflateError> {
    if codec == Codec::None {
        return Ok(data.clone());
    }
    if stated == 0 && data.is_empty() {
        return Ok(Bytes::new()); // Some encoders write nothing at all for an empty batch.
    }
    if stated > limit {
        return Err(InflateError::OverLimit { wanted: stated as u64, limit: limit as u64 });
    }
    match codec {
        Codec::None => Ok(data.clone()),
        Codec::Gzip => fill(flate2::bufread::MultiGzDecoder::new(data.as_ref()), stated),
        Codec::Snappy if data.starts_with(SNAPPY_STREAM) => {
            fill(snap::read::FrameDecoder::new(data.as_ref()), stated)
        }
        Codec::Snappy => raw_snappy(data, stated),
        Codec::Lz4 => lz4(data, stated),
        Codec::Zstd => zstd(data, stated),
    }
}

/// Stream identifier at the start of framed snappy.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";

fn damaged(error: impl fmt::Display) -> InflateError {
    InflateError::Damaged { detail: error.to_string() }
}

/// Reads exactly `stated` bytes, and checks that there are no more.
fn fill(mut from: impl Read, stated: usize) -> Result<Bytes, InflateError> {
    let mut out = Filling::new(stated);
    out.drain(&mut from)?;
    out.finish()
}

/// Output buffer of known length.
struct Filling {
    out: Vec<u8>,
    filled: usize,
}

impl Filling {
    fn new(stated: usize) -> Self {
        Self { out: vec![0; stated], filled: 0 }
    }

    /// Reads everything that `from` has. The attempt to read past the stated size also makes the decoder
    /// read and check its trailer.
    fn drain(&mut self, from: &mut impl Read) -> Result<(), InflateError> {
        loop {
            let room = self.out.get_mut(self.filled..).unwrap_or_default();
            if room.is_empty() {
                return match read(from, &mut [0])? {
                    0 => Ok(()),
                    _ => Err(InflateError::WrongLength { stated: self.out.len(), longer: true }),
                };
            }
            match read(from, room)? {
                0 => return Ok(()),
                n => self.filled += n,
            }
        }
    }

    fn finish(self) -> Result<Bytes, InflateError> {
        if self.filled < self.out.len() {
            return Err(InflateError::WrongLength { stated: self.out.len(), longer: false });
        }
        Ok(Bytes::from(self.out))
    }
}

fn read(from: &mut impl Read, room: &mut [u8]) -> Result<usize, InflateError> {
    loop {
        match from.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(damaged),
        }
    }
}

fn raw_snappy(data: &[u8], stated: usize) -> Result<Bytes, InflateError> {
    let length = snap::raw::decompress_len(data).map_err(damaged)?;
    if length != stated {
        return Err(InflateError::WrongLength { stated, longer: length > stated });
    }
    let mut out = vec![0; stated];
    snap::raw::Decoder::new().decompress(data, &mut out).map_err(damaged)?;
    Ok(Bytes::from(out))
}

/// First bytes of an lz4 frame (the legacy format, which takes twice the memory, is not supported).
const LZ4_FRAME: &[u8] = &0x184d_2204_u32.to_le_bytes();

/// Inflates one frame after the other, each with a new decoder. A single decoder for all of them would
/// accept an input that is cut off within a frame, and would fail at a frame with larger blocks.
fn lz4(data: &[u8], stated: usize) -> Result<Bytes, InflateError> {
    let mut source = Source { rest: data, starved: false };
    let mut out = Filling::new(stated);
    loop {
        if !source.rest.starts_with(LZ4_FRAME) {
            return Err(damaged("not an lz4 frame"));
        }
        out.drain(&mut lz4_flex::frame::FrameDecoder::new(&mut source))?;
        if source.starved {
            return Err(damaged("the lz4 frame is cut short"));
        }
        if source.rest.is_empty() {
            return out.finish();
        }
    }
}

/// A slice reader that records whether more bytes were asked for than it had.
struct Source<'a> {
    rest: &'a [u8],
    starved: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.starved |= self.rest.len() < buf.len();
        self.rest.read(buf)
    }
}

fn zstd(data: &[u8], stated: usize) -> Result<Bytes, InflateError> {
    let mut out = Vec::with_capacity(stated);
    let mut decoder = zstd::bulk::Decompressor::new().map_err(damaged)?;
    decoder.decompress_to_buffer(data, &mut out).map_err(|error| damaged(zstd_words(&error)))?;
    if out.len() < stated {
        return Err(InflateError::WrongLength { stated, longer: false });
    }
    Ok(Bytes::from(out))
}

/// zstd reports a result that is too long as "destination buffer too small".
fn zstd_words(error: &io::Error) -> String {
    format!("{error} (for the size that the batch states)")
}

#[cfg(test)]
mod tests;
