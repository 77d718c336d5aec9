//! An NDJSON file in memory: lines, compressed as they are added.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::GzBuilder;
use flate2::write::GzEncoder;

use super::layout::Packing;

/// A file in memory.
pub(super) struct LinesFile {
    packer: Packer,
    /// Bytes of the file when it last grew, and lines added since that wait in the compressor.
    grown_bytes: u64,
    pending_bytes: u64,
}

enum Packer {
    Plain(Vec<u8>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl LinesFile {
    pub(super) fn new(packing: Packing) -> io::Result<LinesFile> {
        let packer = match packing {
            Packing::Plain => Packer::Plain(Vec::new()),
            Packing::Zstd { level } => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                encoder.include_checksum(true)?;
                Packer::Zstd(encoder)
            }
            // No file name and no time: the same records give the same bytes.
            Packing::Gzip { level } => {
                Packer::Gzip(GzBuilder::new().write(Vec::new(), flate2::Compression::new(level)))
            }
        };
        Ok(LinesFile { packer, grown_bytes: 0, pending_bytes: 0 })
    }

    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.packer {
            Packer::Plain(bytes) => bytes.extend_from_slice(lines),
            Packer::Zstd(encoder) => encoder.write_all(lines)?,
            Packer::Gzip(encoder) => encoder.write_all(lines)?,
        }
        let grown = self.packed();
        if grown == self.grown_bytes {
            self.pending_bytes += lines.len() as u64;
        } else {
            (self.grown_bytes, self.pending_bytes) = (grown, 0);
        }
        Ok(())
    }

    /// Approximate size of the file if it ended here.
    pub(super) fn bytes(&self) -> u64 {
        self.grown_bytes + self.pending_bytes
    }

    fn packed(&self) -> u64 {
        let bytes = match &self.packer {
            Packer::Plain(bytes) => bytes,
            Packer::Zstd(encoder) => encoder.get_ref(),
            Packer::Gzip(encoder) => encoder.get_ref(),
        };
        bytes.len() as u64
    }

    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(Bytes::from(match self.packer {
            Packer::Plain(bytes) => bytes,
            Packer::Zstd(encoder) => encoder.finish()?,
            Packer::Gzip(encoder) => encoder.finish()?,
        }))
    }
}
