//! Reads what a file sink has committed, without locking the folder: a daemon may be writing to it.
//!
//! Reads only committed data: the segments that begin at or below the committed offset, and the
//! committed bytes of the tail.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::error::Tried;
use super::{position, segment};
use crate::sink::SinkError;
use crate::types::{Offset, StreamName};

/// A segment, and its number of committed bytes (`None`: all).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    path: PathBuf,
    first: Offset,
    bytes: Option<u64>,
}

/// The committed segments of a stream below `dir`, in order.
///
/// # Errors
/// If the folder cannot be read, or its position is damaged.
pub fn segments(dir: &Path, stream: &StreamName) -> Result<Vec<Segment>, SinkError> {
    let folder = dir.join(segment::folder(stream));
    let Some(state) = position::look(&folder)? else { return Ok(Vec::new()) };
    let Some(checkpoint) = state.checkpoint else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).tried("list", || folder.clone())? {
        let name = entry.tried("list", || folder.clone())?.file_name();
        let Some(name) = name.to_str().map(str::to_owned) else { continue };
        let Some((first, _)) = segment::parse(&name) else { continue };
        if first <= checkpoint.offset {
            names.push((name, first));
        }
    }
    names.sort();
    let segment = |(name, first): (String, Offset)| {
        // None is the tail right after the position was moved.
        let tail = state.tail.as_ref().filter(|tail| tail.segment == name);
        let bytes = tail.map(|tail| tail.bytes);
        Segment { path: folder.join(name), first, bytes }
    };
    Ok(names.into_iter().map(segment).collect())
}

impl Segment {
    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// First offset of the batch with which it begins.
    pub fn first_offset(&self) -> Offset {
        self.first
    }

    /// True if its lines are NDJSON.
    pub fn is_ndjson(&self) -> bool {
        self.path.to_string_lossy().contains(".ndjson")
    }

    /// Its content, decompressed if necessary.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&self) -> Result<Box<dyn BufRead + Send>, SinkError> {
        self.open_file().tried("open", || self.path.clone())
    }

    fn open_file(&self) -> io::Result<Box<dyn BufRead + Send>> {
        let file = File::open(&self.path)?.take(self.bytes.unwrap_or(u64::MAX));
        let extension = self.path.extension().unwrap_or_default();
        Ok(match extension.to_str() {
            Some("zst") => Box::new(BufReader::new(zstd::stream::read::Decoder::new(file)?)),
            Some("gz") => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
            _ => Box::new(BufReader::new(file)),
        })
    }
}
