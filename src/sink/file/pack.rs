//! Converts encoded records to bytes of a segment, compressed or not.
//!
//! Invariant: every result of [`Packer::pack`] is complete by itself (a zstd frame, a gzip member),
//! so a segment that is cut between two of them is a valid file, and so is one that was never
//! closed. Memory is bounded by the piece, which the caller limits.

use std::io::{self, Write};

use flate2::GzBuilder;
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use super::compression::Compression;

/// Packs one piece after the other, reusing its buffers.
pub(super) enum Packer {
    /// Unchanged.
    None,
    /// One frame per piece.
    Zstd { context: Compressor<'static>, packed: Vec<u8> },
    /// One member per piece.
    Gzip { level: flate2::Compression, packed: Vec<u8> },
}

impl Packer {
    /// A packer for this compression; the level was checked before.
    pub(super) fn new(compression: Compression) -> io::Result<Packer> {
        Ok(match compression {
            Compression::None => Packer::None,
            Compression::Zstd { level } => {
                let mut context = Compressor::new(level)?;
                context.include_checksum(true)?;
                Packer::Zstd { context, packed: Vec::new() }
            }
            Compression::Gzip { level } => {
                Packer::Gzip { level: flate2::Compression::new(level), packed: Vec::new() }
            }
        })
    }

    /// The bytes to append to the segment for `plain`.
    pub(super) fn pack<'a>(&'a mut self, plain: &'a [u8]) -> io::Result<&'a [u8]> {
        match self {
            Packer::None => Ok(plain),
            Packer::Zstd { context, packed } => {
                packed.clear();
                packed.reserve(compress_bound(plain.len()));
                context.compress_to_buffer(plain, packed)?;
                Ok(packed)
            }
            Packer::Gzip { level, packed } => {
                packed.clear();
                // No file name and no time: the same records give the same bytes.
                let mut member = GzBuilder::new().write(std::mem::take(packed), *level);
                member.write_all(plain)?;
                *packed = member.finish()?;
                Ok(packed)
            }
        }
    }

    /// Frees memory that an unusually large piece needed.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        match self {
            Packer::None => {}
            Packer::Zstd { packed, .. } | Packer::Gzip { packed, .. } => {
                packed.clear();
                packed.shrink_to(bytes_max);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unpacked(compression: Compression, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match compression {
            Compression::None => plain.extend_from_slice(packed),
            Compression::Zstd { .. } => plain = zstd::stream::decode_all(packed).unwrap(),
            Compression::Gzip { .. } => {
                flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut plain).unwrap();
            }
        }
        plain
    }

    #[test]
    fn every_prefix_of_pieces_is_a_valid_file() {
        let pieces: Vec<Vec<u8>> =
            (1_usize..20).map(|n| vec![b'a' + n as u8; n * n * 50]).collect();
        for compression in
            [Compression::None, Compression::Zstd { level: 3 }, Compression::Gzip { level: 6 }]
        {
            let mut packer = Packer::new(compression).unwrap();
            let (mut packed, mut plain) = (Vec::new(), Vec::new());
            for piece in &pieces {
                packed.extend_from_slice(packer.pack(piece).unwrap());
                packer.shrink(100);
                plain.extend_from_slice(piece);
                assert_eq!(unpacked(compression, &packed), plain, "{compression:?}");
            }
        }
    }
}
