//! The objects that are being filled, and when they end.
//!
//! By default one object is open, that of an hour, and a record of another hour ends it. With `partition_by`
//! several are open, one for each folder, and they end together: they become one commit, whose position is
//! that of the last record that was appended to any of them. The limits of an object are then those of all
//! open ones together. A commit has at most `open_max` folders.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::commit::{Commit, Object};
use super::layout::Layout;
use super::lines_file::LinesFile;
use super::parquet_file::ParquetFile;
use super::rows::Rows;
use super::store::Digest;
use crate::sink::SinkError;
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Most bytes of lines that are kept to be reused.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Limits of an object, or of the objects of a commit together: the first one reached counts.
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
    /// Most folders of a commit; `None`: one, that of an hour.
    open_max: Option<usize>,
    /// In the order in which they were opened.
    open: Vec<Open>,
    /// The place of each folder in `open`.
    places: HashMap<String, usize>,
    /// When the first of them was opened.
    since: Option<Instant>,
    /// Position of everything that was appended to them.
    checkpoint: Option<Checkpoint>,
    /// Commits that are complete, in order.
    sealed: VecDeque<Commit>,
    /// True once a commit ended because of its folders.
    has_warned: bool,
}

/// The object that gets the next records of its folder.
struct Open {
    file: Encoder,
    folder: String,
    first_offset: Offset,
    last_offset: Offset,
    records: u64,
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
    /// Position of its last record.
    pub(super) checkpoint: Checkpoint,
    pub(super) content: Content,
}

pub(super) enum Content {
    Rows(Rows),
    Lines(Vec<u8>),
}

/// Content of an earlier piece, whose memory is reused.
#[derive(Default)]
pub(super) struct Spare {
    pub(super) rows: Option<Rows>,
    pub(super) lines: Option<Vec<u8>>,
}

impl Spare {
    pub(super) fn keep(&mut self, content: Content) {
        match content {
            Content::Rows(rows) => self.rows = Some(rows),
            Content::Lines(mut lines) => {
                lines.clear();
                lines.shrink_to(SPARE_BYTES_MAX);
                self.lines = Some(lines);
            }
        }
    }
}

impl Filling {
    pub(super) fn new(
        (stream, reference): (StreamName, Reference),
        layout: Layout,
        rotation: Rotation,
        open_max: Option<usize>,
    ) -> Filling {
        Filling {
            stream,
            reference,
            layout,
            rotation,
            open_max,
            open: Vec::new(),
            places: HashMap::new(),
            since: None,
            checkpoint: None,
            sealed: VecDeque::new(),
            has_warned: false,
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.places.clear();
        self.sealed.clear();
        (self.since, self.checkpoint) = (None, None);
    }

    /// Time at which what is open has to be written.
    pub(super) fn due(&self) -> Instant {
        let now = Instant::now();
        match self.since {
            // A move of the position without records is not urgent.
            None if self.sealed.is_empty() => now + self.rotation.age,
            Some(since) if self.sealed.is_empty() && !self.is_full() => since + self.rotation.age,
            _ => now,
        }
    }

    /// Whether the open objects are full, together.
    pub(super) fn is_full(&self) -> bool {
        let records: u64 = self.open.iter().map(|open| open.records).sum();
        let bytes: u64 = self.open.iter().map(|open| open.file.bytes()).sum();
        !self.open.is_empty() && (records >= self.rotation.records || bytes >= self.rotation.bytes)
    }

    /// Whether a folder that is not open is one too many, beside the open ones and `more` others.
    pub(super) fn has_no_room(&self, more: usize) -> bool {
        self.open_max.is_some_and(|open_max| self.open.len() + more >= open_max.max(1))
    }

    /// Whether an object of this folder is open.
    pub(super) fn has(&self, folder: &str) -> bool {
        self.places.contains_key(folder)
    }

    /// Everything up to here belongs to the open objects, with or without records.
    pub(super) fn covers(&mut self, checkpoint: Checkpoint) {
        if !self.open.is_empty() {
            self.checkpoint = Some(checkpoint);
        }
    }

    /// Appends the records of a piece. With folders, all pieces up to some offset have to be appended before
    /// anything ends.
    pub(super) fn append(&mut self, piece: Piece, spare: &mut Spare) -> Result<(), SinkError> {
        let Piece { folder, first_offset, last_offset, records, checkpoint, mut content, .. } =
            piece;
        if self.open_max.is_none()
            && self.open.first().is_some_and(|open| open.folder != folder || self.is_full())
        {
            self.end()?;
        }
        let at = match self.places.get(&folder) {
            Some(at) => *at,
            None => {
                let file = Encoder::new(&self.layout)?;
                self.places.insert(folder.clone(), self.open.len());
                self.since.get_or_insert_with(Instant::now);
                self.open.push(Open { file, folder, first_offset, last_offset, records: 0 });
                self.open.len() - 1
            }
        };
        let Some(open) = self.open.get_mut(at) else { return Err(broken("an object is gone")) };
        open.records += records;
        open.last_offset = last_offset;
        if self.checkpoint.is_none_or(|at| at.offset < checkpoint.offset) {
            self.checkpoint = Some(checkpoint);
        }
        match (&mut open.file, &mut content) {
            (Encoder::Parquet(file), Content::Rows(rows)) => file.append(rows).map_err(broken)?,
            (Encoder::Lines(file), Content::Lines(lines)) => file.append(lines).map_err(broken)?,
            _ => return Err(broken("records have another format than the object")),
        }
        spare.keep(content);
        Ok(())
    }

    /// Ends the open objects before a record of one folder more.
    pub(super) fn end_for_another_folder(&mut self) -> Result<(), SinkError> {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                stream = %self.stream,
                open_partitions = self.open.len(),
                records = self.open.iter().map(|open| open.records).sum::<u64>(),
                "a commit ends early, because its messages go into more folders than `open_partitions`: its \
                 objects are small. Partition by a value that few messages differ in, or raise `open_partitions` \
                 (this is told once)"
            );
        }
        self.end()
    }

    /// Ends the open objects: they are the next commit.
    pub(super) fn end(&mut self) -> Result<(), SinkError> {
        let (Some(checkpoint), false) = (self.checkpoint.take(), self.open.is_empty()) else {
            return Ok(());
        };
        self.since = None;
        self.places.clear();
        let mut objects = Vec::with_capacity(self.open.len());
        for open in std::mem::take(&mut self.open) {
            objects.push(self.finished(open)?);
        }
        self.sealed.push_back(Commit::new(objects, checkpoint).map_err(broken)?);
        Ok(())
    }

    /// Hands over the complete commits.
    pub(super) fn take_sealed(&mut self) -> VecDeque<Commit> {
        std::mem::take(&mut self.sealed)
    }

    pub(super) fn any_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    fn finished(&self, open: Open) -> Result<Object, SinkError> {
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
        Ok(Object {
            folder: open.folder,
            extension: self.layout.extension().to_owned(),
            digest: Digest::of(&bytes),
            bytes,
            first_offset: open.first_offset,
            last_offset: open.last_offset,
            records: open.records,
        })
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
