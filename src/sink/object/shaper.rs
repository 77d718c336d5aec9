//! Collects batches into objects: decides which records belong together, and when an object is
//! full.
//!
//! A whole batch is read first, so that all of its bad records are found before any is accepted.
//! Then each piece, the records of one hour or of one folder, is appended to the object that is open for it. A
//! batch of more than [`KEPT_BYTES`] when decoded, or of too many folders, is read twice, and processed in
//! pieces: a message of a few bytes may be a thousand times as large as a row. If what is open is full within
//! a batch, it is returned, and the rest of the batch is processed afterwards. A commit covers the offsets
//! from the one after the previous commit to its own last one, including offsets without a record,
//! or whose record a policy excluded.
//!
//! Knows nothing of stores.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::commit::Commit;
use super::filling::{Content, Filling, Piece, Rotation, Spare};
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

/// Bytes that a piece of a folder takes at least.
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
    spare: Spare,
    envelope: Envelope,
    /// With folders: that of the record that is being read.
    folder: String,
    read: Read,
}

/// Pieces that were read and not appended yet.
#[derive(Default)]
struct Read {
    pieces: Vec<Piece>,
    /// With folders: the piece of each.
    places: HashMap<String, usize>,
    /// Number of pieces whose folders are not open.
    new_folders: usize,
    bytes: usize,
}

/// Result of accepting a batch.
pub(super) enum Taken {
    /// All of it is accepted; it must be durable at this time.
    Whole(Instant),
    /// Accepted up to the end of these commits, which must be made durable first.
    Part(VecDeque<Commit>),
}

/// Objects to make durable, in order, and then the position.
pub(super) struct Sealed {
    pub(super) commits: VecDeque<Commit>,
    pub(super) taken: Option<Checkpoint>,
}

impl Shaper {
    pub(super) fn new(
        stream: StreamName,
        reference: Reference,
        (layout, folders): (Layout, Option<Folders>),
        rotation: Rotation,
        position: Option<Checkpoint>,
    ) -> Shaper {
        let open_max = folders.as_ref().map(Folders::open_max);
        let whose = (stream.clone(), reference);
        Shaper {
            envelope: Envelope::ndjson(&stream),
            stream,
            filling: Filling::new(whose, layout.clone(), rotation, open_max),
            layout,
            folders,
            taken: position,
            under_way: None,
            spare: Spare::default(),
            folder: String::new(),
            read: Read::default(),
        }
    }

    /// Drops everything held: the next batch starts behind this position, or at any offset.
    pub(super) fn move_to(&mut self, to: Option<Checkpoint>) {
        self.filling.clear();
        self.forget_what_was_read();
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
        let whole = !goes_on && self.look_through(batch)?;
        if whole {
            self.append_what_was_read()?;
        } else if !self.pour(batch, from)? {
            self.under_way = Some(last);
            return Ok(Taken::Part(self.filling.take_sealed()));
        }
        let checkpoint = batch.checkpoint();
        self.taken = Some(checkpoint);
        self.filling.covers(checkpoint);
        Ok(Taken::Whole(self.filling.due()))
    }

    /// Ends what is open, and returns everything to be written.
    pub(super) fn seal(&mut self) -> Result<Sealed, SinkError> {
        self.filling.end()?;
        Ok(Sealed { commits: self.filling.take_sealed(), taken: self.taken })
    }

    /// Reads the whole batch. True if what was read is all of it; else an error with its bad records, if there
    /// are any.
    fn look_through(&mut self, batch: &Batch) -> Result<bool, SinkError> {
        let (mut bad, mut whole) = (Vec::new(), true);
        self.forget_what_was_read();
        for (record, checkpoint) in records(batch, batch.first_offset()) {
            let read = self.find_folder(record).and_then(|()| {
                if self.read.bytes > KEPT_BYTES || self.is_one_folder_too_many() {
                    whole = false;
                    self.forget_what_was_read();
                }
                self.read(record, checkpoint)
            });
            bad.extend(read.err());
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        if !bad.is_empty() || !whole {
            self.forget_what_was_read();
        }
        if bad.is_empty() { Ok(whole) } else { Err(SinkError::Poison(bad)) }
    }

    /// Processes the records from this offset on, piece by piece; returns false if an object is
    /// full, or a commit has enough folders, before the last.
    fn pour(&mut self, batch: &Batch, from: Offset) -> Result<bool, SinkError> {
        self.forget_what_was_read();
        let mut records = records(batch, from).peekable();
        let mut before = None;
        while let Some((record, checkpoint)) = records.next() {
            // It was valid a moment ago.
            let was_good = |bad| SinkError::Poison(vec![bad]);
            self.find_folder(record).map_err(was_good)?;
            if self.is_one_folder_too_many() {
                self.append_what_was_read()?;
                self.taken = before.or(self.taken);
                self.filling.end_for_another_folder()?;
                return Ok(false);
            }
            self.read(record, checkpoint).map_err(was_good)?;
            before = Some(checkpoint);
            if self.read.bytes < PIECE_BYTES && records.peek().is_some() {
                continue;
            }
            self.append_what_was_read()?;
            self.taken = Some(checkpoint);
            if self.filling.is_full() {
                self.filling.end()?;
            }
            if self.filling.any_sealed() && records.peek().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// With folders: finds that of the record.
    fn find_folder(&mut self, record: Record<'_>) -> Result<(), BadRecord> {
        match &self.folders {
            Some(folders) => folders.find(record, &mut self.folder),
            None => Ok(()),
        }
    }

    /// Whether the commit has no room for the folder that was found.
    fn is_one_folder_too_many(&self) -> bool {
        self.folders.is_some()
            && self.filling.has_no_room(self.read.new_folders)
            && !self.read.places.contains_key(&self.folder)
            && !self.filling.has(&self.folder)
    }

    /// Adds the record to the piece of its hour, or of the folder that was found.
    fn read(&mut self, record: Record<'_>, checkpoint: Checkpoint) -> Result<(), BadRecord> {
        let at = match self.folders {
            None => {
                let hour = layout::hour(record.timestamp);
                let is_same = self.read.pieces.last().is_some_and(|piece| piece.hour == hour);
                self.read.pieces.len() - usize::from(is_same)
            }
            Some(_) => {
                let at = self.read.places.get(&self.folder).copied();
                at.unwrap_or(self.read.pieces.len())
            }
        };
        if at == self.read.pieces.len() {
            self.begin_piece(record, checkpoint);
        }
        let Some(piece) = self.read.pieces.get_mut(at) else { return Ok(()) };
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
        self.read.bytes = self.read.bytes.saturating_add(bytes);
        Ok(())
    }

    fn begin_piece(&mut self, record: Record<'_>, checkpoint: Checkpoint) {
        let content = match &self.layout {
            Layout::Parquet(parquet) => Content::Rows(match self.spare.rows.take() {
                Some(mut rows) => {
                    rows.clear();
                    rows
                }
                None => Rows::new(&parquet.columns, self.stream.as_str()),
            }),
            Layout::Ndjson { .. } => Content::Lines(self.spare.lines.take().unwrap_or_default()),
        };
        let folder = match self.folders {
            None => layout::partition(record.timestamp),
            Some(_) => {
                self.read.new_folders += usize::from(!self.filling.has(&self.folder));
                self.read.places.insert(self.folder.clone(), self.read.pieces.len());
                self.read.bytes += FOLDER_BYTES;
                self.folder.clone()
            }
        };
        self.read.pieces.push(Piece {
            folder,
            hour: layout::hour(record.timestamp),
            first_offset: record.offset,
            last_offset: record.offset,
            records: 0,
            checkpoint,
            content,
        });
    }

    /// Appends the pieces that were read to the objects of their folders.
    fn append_what_was_read(&mut self) -> Result<(), SinkError> {
        let read = std::mem::take(&mut self.read);
        // Here, everything up to its position is in what is open.
        if self.folders.is_some() && self.filling.is_full() {
            self.filling.end()?;
        }
        for piece in read.pieces {
            self.filling.append(piece, &mut self.spare)?;
        }
        Ok(())
    }

    /// Drops the pieces, and keeps their memory for reuse.
    fn forget_what_was_read(&mut self) {
        for piece in std::mem::take(&mut self.read).pieces {
            self.spare.keep(piece.content);
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
