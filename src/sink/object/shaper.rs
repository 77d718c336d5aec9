//! Collects batches into objects: decides which records belong together, and when an object is
//! full.
//!
//! A whole batch is read first, so that all of its bad records are found before any is accepted.
//! Then each piece, the records of one folder, is appended to the object of its folder. A
//! batch of more than [`KEPT_BYTES`] when decoded is read twice, and processed in pieces: a message
//! of a few bytes may be a thousand times as large as a row. If an object is full within a batch,
//! it is returned, and the rest of the batch is processed afterwards. An object covers the offsets
//! from the one after the previous object to its own last one, including offsets without a record,
//! or whose record a policy excluded.
//!
//! # Folders
//! With `partition_by` a batch has a piece for each folder, and several objects are open (`filling.rs`). After a
//! crash the records above the position are read again, and those that are in an object of their folder are left
//! out: before anything else is looked at, so that it does not matter whether they would be good now.
//!
//! Knows nothing of stores.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use super::committer::Object;
use super::filling::{Content, Filling, Piece, Rotation};
use super::layout::{self, Layout};
use super::partitions::Folders;
use super::rows::Rows;
use crate::flow::batch::Batch;
use crate::sink::envelope::Envelope;
use crate::sink::{BAD_RECORDS_MAX, BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};
use crate::wire::block::Record;

/// Most bytes of decoded records of a batch that is decoded only once.
const KEPT_BYTES: usize = 4 << 20;

/// Bytes of other batches that are decoded before they are encoded.
const PIECE_BYTES: usize = 1 << 20;

/// What a piece of a folder takes at least.
const FOLDER_BYTES: usize = 1 << 10;

/// Makes objects.
pub(super) struct Shaper {
    stream: StreamName,
    layout: Layout,
    /// The folders of records; `None`: that of the hour.
    folders: Option<Folders>,
    filling: Filling,
    /// Position of everything accepted so far.
    taken: Option<Checkpoint>,
    /// Last offset of a batch of which only a part was accepted.
    under_way: Option<Offset>,
    /// Rows of an earlier batch, whose memory is reused.
    spare: Option<Rows>,
    envelope: Envelope,
    /// The folder of the record that is being read, and the pieces of those that were.
    folder: String,
    places: HashMap<String, usize>,
}

/// Result of accepting a batch.
pub(super) enum Taken {
    /// All of it is accepted; it must be durable at this time. These objects are to be made durable before
    /// the next batch is given, and leave others open.
    Whole(Instant, VecDeque<Object>),
    /// Accepted up to the end of these objects, which must be made durable first.
    Part(VecDeque<Object>),
}

/// Objects to make durable, in order, and then the position.
pub(super) struct Sealed {
    pub(super) objects: VecDeque<Object>,
    pub(super) taken: Option<Checkpoint>,
}

impl Shaper {
    pub(super) fn new(
        stream: StreamName,
        reference: Reference,
        (layout, folders): (Layout, Option<Folders>),
        rotation: Rotation,
        (position, ahead): (Option<Checkpoint>, BTreeMap<String, Offset>),
    ) -> Shaper {
        let open_max = folders.as_ref().map(Folders::open_max);
        let whose = (stream.clone(), reference);
        Shaper {
            envelope: Envelope::ndjson(&stream),
            stream,
            filling: Filling::new(whose, layout.clone(), rotation, open_max, ahead),
            layout,
            folders,
            taken: position,
            under_way: None,
            spare: None,
            folder: String::new(),
            places: HashMap::new(),
        }
    }

    /// Drops everything held: the next batch starts behind this position, or at any offset.
    pub(super) fn move_to(&mut self, to: Option<Checkpoint>, ahead: BTreeMap<String, Offset>) {
        self.filling.clear(ahead);
        (self.taken, self.under_way) = (to, None);
    }

    /// Accepts the batch, all of it or nothing, and returns the time at which it must be durable.
    /// If objects are full before its end, it returns these: the same batch is given again once
    /// they are durable.
    pub(super) fn take(&mut self, batch: &Batch) -> Result<Taken, SinkError> {
        let last = batch.last_offset();
        let goes_on = self.under_way.take() == Some(last);
        if let Some(taken) = self.taken.filter(|taken| batch.first_offset() <= taken.offset)
            && !goes_on
        {
            return Err(SinkError::Fatal(format!(
                "internal error: a batch that starts at offset {} came after everything up to {} was \
                 taken; please report it",
                batch.first_offset(),
                taken.offset
            )));
        }
        let from = match self.taken.filter(|_| goes_on) {
            Some(taken) => Offset(taken.offset.0.saturating_add(1)),
            None => batch.first_offset(),
        };
        // Small batches are decoded once; for others it is now known that all records are good.
        let (pieces, whole) = if goes_on { (Vec::new(), false) } else { self.look_through(batch)? };
        if whole {
            self.append_all(pieces)?;
        } else if !self.pour(batch, from)? {
            self.under_way = Some(last);
            return Ok(Taken::Part(std::mem::take(&mut self.filling.sealed)));
        }
        let checkpoint = batch.checkpoint();
        self.taken = Some(checkpoint);
        self.filling.covers(checkpoint);
        let mut objects = VecDeque::new();
        if self.folders.is_some() {
            self.filling.end_what_is_full(self.taken)?;
            objects = std::mem::take(&mut self.filling.sealed);
        }
        Ok(Taken::Whole(self.filling.due(), objects))
    }

    /// Ends the open object, and returns everything to be written.
    pub(super) fn seal(&mut self) -> Result<Sealed, SinkError> {
        self.filling.end_all(self.taken)?;
        Ok(Sealed { objects: std::mem::take(&mut self.filling.sealed), taken: self.taken })
    }

    /// Reads the whole batch. Returns its pieces by folder, and true if they are all of it; or all of
    /// its bad records.
    fn look_through(&mut self, batch: &Batch) -> Result<(Vec<Piece>, bool), SinkError> {
        let (mut pieces, mut bad, mut whole) = (Vec::new(), Vec::new(), true);
        let mut read_bytes = 0;
        self.places.clear();
        for (record, checkpoint) in records(batch, batch.first_offset()) {
            if read_bytes > KEPT_BYTES {
                whole = false;
                read_bytes = 0;
                self.give_back(pieces.drain(..));
            }
            match self.read(record, checkpoint, &mut pieces) {
                Ok(bytes) => read_bytes += bytes,
                Err(error) => bad.push(error),
            }
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        if bad.is_empty() && whole {
            return Ok((pieces, true));
        }
        self.give_back(pieces.drain(..));
        if bad.is_empty() { Ok((pieces, false)) } else { Err(SinkError::Poison(bad)) }
    }

    /// Processes the records from this offset on, piece by piece; returns false if an object is
    /// full before the last.
    fn pour(&mut self, batch: &Batch, from: Offset) -> Result<bool, SinkError> {
        let (mut pieces, mut read_bytes) = (Vec::new(), 0);
        self.places.clear();
        let mut records = records(batch, from).peekable();
        while let Some((record, checkpoint)) = records.next() {
            // It was valid a moment ago.
            let read = self.read(record, checkpoint, &mut pieces);
            read_bytes += read.map_err(|bad| SinkError::Poison(vec![bad]))?;
            if read_bytes < PIECE_BYTES && records.peek().is_some() {
                continue;
            }
            read_bytes = 0;
            self.append_all(std::mem::take(&mut pieces))?;
            self.taken = Some(checkpoint);
            // Without folders, the one object is ended here only if it is full itself.
            if self.folders.is_some() || self.filling.any_is_full() {
                self.filling.end_what_is_full(self.taken)?;
            }
            if !self.filling.sealed.is_empty() && records.peek().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds the record to the piece of its folder, and returns its bytes.
    fn read(
        &mut self,
        record: Record<'_>,
        checkpoint: Checkpoint,
        pieces: &mut Vec<Piece>,
    ) -> Result<usize, BadRecord> {
        let mut more = 0;
        let at = match &self.folders {
            None => {
                let hour = layout::hour(record.timestamp);
                match pieces.last() {
                    Some(piece) if piece.hour == hour => pieces.len() - 1,
                    _ => pieces.len(),
                }
            }
            Some(folders) => {
                folders.find(record, &mut self.folder)?;
                // In an object already, of the last process.
                if self.filling.has(&self.folder, record.offset) {
                    return Ok(0);
                }
                self.places.get(&self.folder).copied().unwrap_or(pieces.len())
            }
        };
        if at == pieces.len() {
            let folder = match &self.folders {
                None => layout::partition(record.timestamp),
                Some(_) => {
                    more = FOLDER_BYTES;
                    self.places.insert(self.folder.clone(), at);
                    self.folder.clone()
                }
            };
            let content = match &self.layout {
                Layout::Parquet(parquet) => Content::Rows(match self.spare.take() {
                    Some(mut rows) => {
                        rows.clear();
                        rows
                    }
                    None => Rows::new(&parquet.columns, self.stream.as_str()),
                }),
                Layout::Ndjson { .. } => Content::Lines(Vec::new()),
            };
            pieces.push(Piece {
                folder,
                hour: layout::hour(record.timestamp),
                first_offset: record.offset,
                last_offset: record.offset,
                records: 0,
                checkpoint,
                content,
            });
        }
        let Some(piece) = pieces.get_mut(at) else { return Ok(0) };
        let bytes = match (&mut piece.content, &self.layout) {
            (Content::Rows(rows), Layout::Parquet(parquet)) => {
                let before = rows.bytes;
                rows.push(parquet, record, &mut Vec::new())?;
                usize::try_from(rows.bytes - before).unwrap_or(usize::MAX)
            }
            (Content::Lines(lines), _) => {
                let before = lines.len();
                self.envelope.append(record, lines)?;
                lines.len() - before
            }
            (Content::Rows(_), Layout::Ndjson { .. }) => 0,
        };
        piece.records += 1;
        piece.last_offset = record.offset;
        piece.checkpoint = checkpoint;
        Ok(bytes.saturating_add(more))
    }

    /// Appends the pieces of all records up to some offset.
    fn append_all(&mut self, pieces: Vec<Piece>) -> Result<(), SinkError> {
        self.places.clear();
        self.filling.append_all(pieces, self.taken, &mut self.spare)
    }

    /// Keeps the memory of rows for reuse.
    fn give_back(&mut self, pieces: impl Iterator<Item = Piece>) {
        self.places.clear();
        for piece in pieces {
            if let Content::Rows(mut rows) = piece.content {
                rows.clear();
                self.spare = Some(rows);
            }
        }
    }
}

/// The records from this offset on, each with the position it reaches.
fn records(batch: &Batch, from: Offset) -> impl Iterator<Item = (Record<'_>, Checkpoint)> {
    let mut parts = batch.parts().iter();
    let mut part = parts.next();
    batch.records_from(from).map(move |record| {
        while part.is_some_and(|part| part.block.last_offset() < record.offset) {
            part = parts.next();
        }
        let chunk = part.map(|part| part.chunk);
        (record, Checkpoint { offset: record.offset, chunk })
    })
}
