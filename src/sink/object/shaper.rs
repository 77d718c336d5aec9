//! Collects batches into objects: decides which records belong together, and when an object is
//! full.
//!
//! A whole batch is read first, so that all of its bad records are found before any is accepted.
//! Then it is cut where the hour changes, and each piece is appended to the object of its hour. A
//! batch of more than [`KEPT_BYTES`] when decoded is read twice, and processed in pieces: a message
//! of a few bytes may be a thousand times as large as a row. If an object is full within a batch,
//! it is returned, and the rest of the batch is processed afterwards. An object covers the offsets
//! from the one after the previous object to its own last one, including offsets without a record,
//! or whose record a policy excluded.
//!
//! Knows nothing of stores.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::committer::Object;
use super::layout::{self, Layout};
use super::lines_file::LinesFile;
use super::parquet_file::ParquetFile;
use super::rows::Rows;
use super::store::Digest;
use crate::flow::batch::Batch;
use crate::sink::envelope::Envelope;
use crate::sink::{BAD_RECORDS_MAX, BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};
use crate::wire::block::Record;

/// Most bytes of decoded records of a batch that is decoded only once.
const KEPT_BYTES: usize = 4 << 20;

/// Bytes of other batches that are decoded before they are encoded.
const PIECE_BYTES: usize = 1 << 20;

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

/// Makes objects.
pub(super) struct Shaper {
    stream: StreamName,
    reference: Reference,
    layout: Layout,
    rotation: Rotation,
    open: Option<Open>,
    sealed: VecDeque<Object>,
    /// Position of everything accepted so far.
    taken: Option<Checkpoint>,
    /// Last offset of a batch of which only a part was accepted.
    under_way: Option<Offset>,
    /// Rows of an earlier batch, whose memory is reused.
    spare: Option<Rows>,
    lines: Vec<u8>,
    envelope: Envelope,
}

/// The object that gets the next records of its hour.
struct Open {
    file: Encoder,
    hour: i64,
    since: Instant,
    first_offset: Offset,
    last_offset: Offset,
    records: u64,
    checkpoint: Checkpoint,
}

enum Encoder {
    Parquet(Box<ParquetFile>),
    Lines(LinesFile),
}

/// Records of a batch from one hour.
struct Piece {
    hour: i64,
    first_offset: Offset,
    last_offset: Offset,
    records: u64,
    checkpoint: Checkpoint,
    content: Content,
}

enum Content {
    Rows(Rows),
    Lines(std::ops::Range<usize>),
}

/// Result of accepting a batch.
pub(super) enum Taken {
    /// All of it is accepted; it must be durable at this time.
    Whole(Instant),
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
        layout: Layout,
        rotation: Rotation,
        position: Option<Checkpoint>,
    ) -> Shaper {
        Shaper {
            envelope: Envelope::ndjson(&stream),
            stream,
            reference,
            layout,
            rotation,
            open: None,
            sealed: VecDeque::new(),
            taken: position,
            under_way: None,
            spare: None,
            lines: Vec::new(),
        }
    }

    /// Drops everything held: the next batch starts behind this position, or at any offset.
    pub(super) fn move_to(&mut self, to: Option<Checkpoint>) {
        self.open = None;
        self.sealed.clear();
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
            for piece in pieces {
                self.append(piece)?;
            }
        } else if !self.pour(batch, from)? {
            self.under_way = Some(last);
            return Ok(Taken::Part(std::mem::take(&mut self.sealed)));
        }
        let checkpoint = batch.checkpoint();
        self.taken = Some(checkpoint);
        if let Some(open) = &mut self.open {
            open.checkpoint = checkpoint;
        }
        Ok(Taken::Whole(self.due()))
    }

    /// Ends the open object, and returns everything to be written.
    pub(super) fn seal(&mut self) -> Result<Sealed, SinkError> {
        self.end()?;
        Ok(Sealed { objects: std::mem::take(&mut self.sealed), taken: self.taken })
    }

    fn due(&self) -> Instant {
        let now = Instant::now();
        match &self.open {
            // A move of the position without records is not urgent.
            None if self.sealed.is_empty() => now + self.rotation.age,
            Some(open) if self.sealed.is_empty() && !self.is_full(open) => {
                open.since + self.rotation.age
            }
            _ => now,
        }
    }

    fn is_full(&self, open: &Open) -> bool {
        open.records >= self.rotation.records || open.file.bytes() >= self.rotation.bytes
    }

    /// Reads the whole batch. Returns its pieces by hour, and true if they are all of it; or all of
    /// its bad records.
    fn look_through(&mut self, batch: &Batch) -> Result<(Vec<Piece>, bool), SinkError> {
        let (mut pieces, mut bad, mut whole) = (Vec::new(), Vec::new(), true);
        let mut read_bytes = 0;
        self.lines.clear();
        for (record, checkpoint) in records(batch, batch.first_offset()) {
            if read_bytes > KEPT_BYTES {
                whole = false;
                read_bytes = 0;
                self.give_back(pieces.drain(..));
                self.lines.clear();
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
        self.lines.clear();
        let mut records = records(batch, from).peekable();
        while let Some((record, checkpoint)) = records.next() {
            // It was valid a moment ago.
            let read = self.read(record, checkpoint, &mut pieces);
            read_bytes += read.map_err(|bad| SinkError::Poison(vec![bad]))?;
            if read_bytes < PIECE_BYTES && records.peek().is_some() {
                continue;
            }
            read_bytes = 0;
            for piece in std::mem::take(&mut pieces) {
                self.append(piece)?;
            }
            self.lines.clear();
            self.lines.shrink_to(2 * PIECE_BYTES);
            self.taken = Some(checkpoint);
            if self.open.as_ref().is_some_and(|open| self.is_full(open)) {
                self.end()?;
            }
            if !self.sealed.is_empty() && records.peek().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds the record to the last piece, that of its hour, and returns its bytes.
    fn read(
        &mut self,
        record: Record<'_>,
        checkpoint: Checkpoint,
        pieces: &mut Vec<Piece>,
    ) -> Result<usize, BadRecord> {
        let hour = layout::hour(record.timestamp);
        if pieces.last().is_none_or(|piece| piece.hour != hour) {
            let content = match &self.layout {
                Layout::Parquet(parquet) => Content::Rows(match self.spare.take() {
                    Some(mut rows) => {
                        rows.clear();
                        rows
                    }
                    None => Rows::new(&parquet.columns, self.stream.as_str()),
                }),
                Layout::Ndjson { .. } => Content::Lines(self.lines.len()..self.lines.len()),
            };
            let (first_offset, last_offset) = (record.offset, record.offset);
            pieces.push(Piece { hour, first_offset, last_offset, records: 0, checkpoint, content });
        }
        let Some(piece) = pieces.last_mut() else { return Ok(0) };
        piece.records += 1;
        piece.last_offset = record.offset;
        piece.checkpoint = checkpoint;
        match (&mut piece.content, &self.layout) {
            (Content::Rows(rows), Layout::Parquet(parquet)) => {
                let before = rows.bytes;
                rows.push(parquet, record, &mut Vec::new())?;
                Ok(usize::try_from(rows.bytes - before).unwrap_or(usize::MAX))
            }
            (Content::Lines(lines), _) => {
                let before = self.lines.len();
                self.envelope.append(record, &mut self.lines)?;
                lines.end = self.lines.len();
                Ok(self.lines.len() - before)
            }
            (Content::Rows(_), Layout::Ndjson { .. }) => Ok(0),
        }
    }

    /// Keeps the memory of rows for reuse.
    fn give_back(&mut self, pieces: impl Iterator<Item = Piece>) {
        for piece in pieces {
            if let Content::Rows(mut rows) = piece.content {
                rows.clear();
                self.spare = Some(rows);
            }
        }
    }

    fn append(&mut self, piece: Piece) -> Result<(), SinkError> {
        if self.open.as_ref().is_some_and(|open| open.hour != piece.hour || self.is_full(open)) {
            self.end()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let open = Open {
                    file: Encoder::new(&self.layout)?,
                    hour: piece.hour,
                    since: Instant::now(),
                    first_offset: piece.first_offset,
                    last_offset: piece.last_offset,
                    records: 0,
                    checkpoint: piece.checkpoint,
                };
                self.open.insert(open)
            }
        };
        open.records += piece.records;
        open.last_offset = piece.last_offset;
        open.checkpoint = piece.checkpoint;
        match (&mut open.file, piece.content) {
            (Encoder::Parquet(file), Content::Rows(mut rows)) => {
                file.append(&mut rows).map_err(broken)?;
                self.spare = Some(rows);
            }
            (Encoder::Lines(file), Content::Lines(lines)) => {
                file.append(self.lines.get(lines).unwrap_or_default()).map_err(broken)?;
            }
            _ => return Err(broken("records have another format than the object")),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        let Some(open) = self.open.take() else { return Ok(()) };
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
        self.sealed.push_back(Object {
            folder: layout::partition(open.hour),
            extension: self.layout.extension(),
            digest: Digest::of(&bytes),
            bytes,
            first_offset: open.first_offset,
            last_offset: open.last_offset,
            records: open.records,
            checkpoint: open.checkpoint,
        });
        Ok(())
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
