//! The objects that are being filled, and when they end.
//!
//! By default one object is open, that of an hour, and a record of another hour ends it. With `partition_by`
//! several are open, one for each folder. The first offset of each, less one, is as far as everything is in
//! objects once all others are. So an object says how far the position is after it, and `ahead` holds the folders
//! of which objects reach further, each with the offset of its last record.
//!
//! When the open objects together are as large as one may be, the largest is ended; when they are too many, the
//! oldest; when too many folders are ahead, all.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::committer::Object;
use super::layout::Layout;
use super::lines_file::LinesFile;
use super::parquet_file::ParquetFile;
use super::rows::Rows;
use super::store::Digest;
use crate::sink::SinkError;
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Most folders that may be ahead of the position: the checkpoint names them.
const AHEAD_MAX: usize = 256;

/// Limits of an object: the first one reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Number of records.
    pub records: u64,
    /// Size of the object in bytes, as far as it is known before its end.
    pub bytes: u64,
    /// Time since its first record.
    pub age: Duration,
}

/// Fills objects.
pub(super) struct Filling {
    stream: StreamName,
    reference: Reference,
    layout: Layout,
    rotation: Rotation,
    /// Most open objects, one for each folder; `None`: one, that of an hour.
    open_max: Option<usize>,
    /// In the order in which they were opened.
    open: Vec<Open>,
    /// Those that have ended, in order.
    pub(super) sealed: VecDeque<Object>,
    /// The offset of the last record of each folder of which objects reach beyond the position.
    ahead: BTreeMap<String, Offset>,
}

/// The object that gets the next records of its folder.
struct Open {
    file: Encoder,
    folder: String,
    since: Instant,
    /// Position up to which everything is in other objects.
    before: Option<Checkpoint>,
    first_offset: Offset,
    last_offset: Offset,
    records: u64,
    checkpoint: Checkpoint,
}

enum Encoder {
    Parquet(Box<ParquetFile>),
    Lines(LinesFile),
}

/// Records of a batch that go into one folder.
pub(super) struct Piece {
    pub(super) folder: String,
    /// Hour of its first record.
    pub(super) hour: i64,
    pub(super) first_offset: Offset,
    pub(super) last_offset: Offset,
    pub(super) records: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) content: Content,
}

pub(super) enum Content {
    Rows(Rows),
    Lines(Vec<u8>),
}

impl Filling {
    pub(super) fn new(
        (stream, reference): (StreamName, Reference),
        layout: Layout,
        rotation: Rotation,
        open_max: Option<usize>,
        ahead: BTreeMap<String, Offset>,
    ) -> Filling {
        Filling {
            stream,
            reference,
            layout,
            rotation,
            open_max,
            open: Vec::new(),
            sealed: VecDeque::new(),
            ahead,
        }
    }

    /// Drops everything. These folders have objects beyond the position.
    pub(super) fn clear(&mut self, ahead: BTreeMap<String, Offset>) {
        self.open.clear();
        self.sealed.clear();
        self.ahead = ahead;
    }

    /// Whether an object of the folder holds the record, or dealt with it.
    pub(super) fn has(&self, folder: &str, offset: Offset) -> bool {
        self.ahead.get(folder).is_some_and(|last| offset <= *last)
    }

    /// Time at which what is open has to be written.
    pub(super) fn due(&self) -> Instant {
        let now = Instant::now();
        match self.open.first() {
            // A move of the position without records is not urgent.
            None if self.sealed.is_empty() => now + self.rotation.age,
            Some(oldest) if self.sealed.is_empty() && !self.any_is_full() => {
                oldest.since + self.rotation.age
            }
            _ => now,
        }
    }

    /// Whether an open object is full.
    pub(super) fn any_is_full(&self) -> bool {
        self.open.iter().any(|open| self.is_full(open))
    }

    fn is_full(&self, open: &Open) -> bool {
        open.records >= self.rotation.records || open.file.bytes() >= self.rotation.bytes
    }

    /// Without folders: everything up to here belongs to the open object.
    pub(super) fn covers(&mut self, checkpoint: Checkpoint) {
        if self.open_max.is_none()
            && let Some(open) = self.open.last_mut()
        {
            open.checkpoint = checkpoint;
        }
    }

    /// Appends the pieces of all records up to some offset. An object that is ended meanwhile leaves the
    /// position where it was before them.
    pub(super) fn append_all(
        &mut self,
        pieces: Vec<Piece>,
        before: Option<Checkpoint>,
        spare: &mut Option<Rows>,
    ) -> Result<(), SinkError> {
        for piece in pieces {
            let at = match self.open_max {
                None => self.place_by_hour(&piece)?,
                Some(open_max) => self.place_by_folder(&piece, before, open_max)?,
            };
            let at = match at {
                Some(at) => at,
                None => {
                    self.open.push(Open {
                        file: Encoder::new(&self.layout)?,
                        folder: piece.folder,
                        since: Instant::now(),
                        before,
                        first_offset: piece.first_offset,
                        last_offset: piece.last_offset,
                        records: 0,
                        checkpoint: piece.checkpoint,
                    });
                    self.open.len() - 1
                }
            };
            let Some(open) = self.open.get_mut(at) else { return Err(broken("an object is gone")) };
            open.records += piece.records;
            open.last_offset = piece.last_offset;
            open.checkpoint = piece.checkpoint;
            match (&mut open.file, piece.content) {
                (Encoder::Parquet(file), Content::Rows(mut rows)) => {
                    file.append(&mut rows).map_err(broken)?;
                    *spare = Some(rows);
                }
                (Encoder::Lines(file), Content::Lines(lines)) => {
                    file.append(&lines).map_err(broken)?;
                }
                _ => return Err(broken("records have another format than the object")),
            }
        }
        Ok(())
    }

    /// The open object that takes the piece, after the one of another hour or a full one was ended.
    fn place_by_hour(&mut self, piece: &Piece) -> Result<Option<usize>, SinkError> {
        let Some(open) = self.open.first() else { return Ok(None) };
        if open.folder == piece.folder && !self.is_full(open) {
            return Ok(Some(0));
        }
        self.end(0, None)?;
        Ok(None)
    }

    /// The open object that takes the piece. Ends the oldest one if there are `open_max` others.
    fn place_by_folder(
        &mut self,
        piece: &Piece,
        before: Option<Checkpoint>,
        open_max: usize,
    ) -> Result<Option<usize>, SinkError> {
        if let Some(at) = self.open.iter().position(|open| open.folder == piece.folder) {
            return Ok(Some(at));
        }
        if self.open.len() >= open_max {
            self.end(0, before)?;
        }
        Ok(None)
    }

    /// Ends the objects that are full, alone or together. Everything up to `taken` was appended.
    pub(super) fn end_what_is_full(&mut self, taken: Option<Checkpoint>) -> Result<(), SinkError> {
        while let Some(at) = self.open.iter().position(|open| self.is_full(open)) {
            self.end(at, taken)?;
        }
        let bytes = |open: &Open| open.file.bytes();
        while self.open.iter().map(bytes).sum::<u64>() >= self.rotation.bytes {
            let largest = (0..self.open.len()).max_by_key(|at| self.open.get(*at).map(bytes));
            self.end(largest.unwrap_or_default(), taken)?;
        }
        if self.ahead.len() > AHEAD_MAX {
            self.end_all(taken)?;
        }
        Ok(())
    }

    /// Ends all open objects, the oldest first: after the last one, the position is at `taken`.
    pub(super) fn end_all(&mut self, taken: Option<Checkpoint>) -> Result<(), SinkError> {
        while !self.open.is_empty() {
            self.end(0, taken)?;
        }
        Ok(())
    }

    /// Ends an open object. Everything up to `whole` is in this object, in the open ones, or in earlier ones.
    fn end(&mut self, at: usize, whole: Option<Checkpoint>) -> Result<(), SinkError> {
        if at >= self.open.len() {
            return Ok(());
        }
        let open = self.open.remove(at);
        let facts = vec![
            ("rillway.stream", self.stream.to_string()),
            ("rillway.reference", self.reference.to_string()),
            ("rillway.first_offset", open.first_offset.to_string()),
            ("rillway.last_offset", open.last_offset.to_string()),
            ("rillway.records", open.records.to_string()),
        ];
        let bytes = match open.file {
            Encoder::Parquet(file) => file.finish(facts).map_err(broken)?,
            Encoder::Lines(file) => file.finish().map_err(broken)?,
        };
        let checkpoint = match self.open_max {
            None => Some(open.checkpoint),
            Some(_) => {
                let reached = self.reached(whole);
                self.ahead.insert(open.folder.clone(), open.last_offset);
                if let Some(reached) = reached {
                    self.ahead.retain(|_, last| *last > reached.offset);
                }
                reached
            }
        };
        self.sealed.push_back(Object {
            folder: open.folder,
            extension: self.layout.extension(),
            digest: Digest::of(&bytes),
            bytes,
            first_offset: open.first_offset,
            last_offset: open.last_offset,
            records: open.records,
            checkpoint,
        });
        Ok(())
    }

    /// Position up to which everything is in objects that have ended: before the first record of the open ones.
    fn reached(&self, whole: Option<Checkpoint>) -> Option<Checkpoint> {
        let all = self.open.iter().map(|open| open.before).chain([whole]);
        all.min_by_key(|at| at.map(|at| at.offset)).flatten()
    }
}

impl Encoder {
    fn new(layout: &Layout) -> Result<Encoder, SinkError> {
        Ok(match layout {
            Layout::Parquet(layout) => {
                Encoder::Parquet(Box::new(ParquetFile::new(layout).map_err(broken)?))
            }
            Layout::Ndjson { packing, .. } => {
                Encoder::Lines(LinesFile::new(*packing).map_err(broken)?)
            }
        })
    }

    fn bytes(&self) -> u64 {
        match self {
            Encoder::Parquet(file) => file.bytes(),
            Encoder::Lines(file) => file.bytes(),
        }
    }
}

fn broken(error: impl std::fmt::Display) -> SinkError {
    SinkError::Fatal(format!("internal error: an object cannot be encoded: {error}"))
}
