//! From batches to objects: what belongs into which, and when one is full.
//!
//! A batch is first read as a whole, so that all of its bad records are found before any is taken;
//! then it is cut where the hour changes, and each piece is appended to the object of its hour. An
//! object covers the offsets from behind the one before it to its own last: also those that have no
//! record, or whose record a policy left out.
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
use crate::sink::{BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// When an object is full, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// By records.
    pub records: u64,
    /// By the size of the object, as far as it is known before its end.
    pub bytes: u64,
    /// By the time since its first record came.
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
    /// Behind everything that was taken.
    taken: Option<Checkpoint>,
    /// Rows of an earlier batch, whose memory is used again.
    spare: Option<Rows>,
    lines: Vec<u8>,
    envelope: Envelope,
}

/// The object that takes the next records of its hour.
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

/// Records of a batch that lie in one hour.
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

/// What is to be made durable, in order: the objects, and then the position.
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
            spare: None,
            lines: Vec::new(),
        }
    }

    /// A new history: the next batch may start at any offset.
    pub(super) fn restart(&mut self) {
        self.open = None;
        self.sealed.clear();
        self.taken = None;
    }

    /// Takes the batch, all of it or nothing, and says when what is held has to be made durable.
    pub(super) fn take(&mut self, batch: &Batch) -> Result<Instant, SinkError> {
        if let Some(taken) = self.taken
            && batch.first_offset() <= taken.offset
        {
            return Err(SinkError::Fatal(format!(
                "internal error: a batch that starts at offset {} came after everything up to {} was \
                 taken; please report it",
                batch.first_offset(),
                taken.offset
            )));
        }
        let pieces = self.read(batch).map_err(SinkError::Poison)?;
        for piece in pieces {
            self.append(piece)?;
        }
        let checkpoint = batch.checkpoint();
        self.taken = Some(checkpoint);
        if let Some(open) = &mut self.open {
            open.checkpoint = checkpoint;
        }
        Ok(self.due())
    }

    /// Ends the open object, and hands everything out that has to be written.
    pub(super) fn seal(&mut self) -> Result<Sealed, SinkError> {
        self.end()?;
        Ok(Sealed { objects: std::mem::take(&mut self.sealed), taken: self.taken })
    }

    fn due(&self) -> Instant {
        let now = Instant::now();
        match &self.open {
            // What has no record but moves the position is not worth a wait, nor a hurry.
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

    /// The batch, cut by hours; or all of its bad records.
    fn read(&mut self, batch: &Batch) -> Result<Vec<Piece>, Vec<BadRecord>> {
        let (mut pieces, mut bad): (Vec<Piece>, Vec<BadRecord>) = (Vec::new(), Vec::new());
        let mut parts = batch.parts().iter();
        let mut part = parts.next();
        let mut row = Vec::new();
        self.lines.clear();
        for record in batch.records() {
            while part.is_some_and(|part| part.block.last_offset() < record.offset) {
                part = parts.next();
            }
            let hour = layout::hour(record.timestamp);
            let chunk = part.map(|part| part.chunk);
            let checkpoint = Checkpoint { offset: record.offset, chunk };
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
                let records = 0;
                pieces.push(Piece {
                    hour,
                    first_offset,
                    last_offset,
                    records,
                    checkpoint,
                    content,
                });
            }
            let Some(piece) = pieces.last_mut() else { continue };
            piece.records += 1;
            piece.last_offset = record.offset;
            piece.checkpoint = checkpoint;
            let pushed = match (&mut piece.content, &self.layout) {
                (Content::Rows(rows), Layout::Parquet(parquet)) => {
                    rows.push(parquet, record, &mut row)
                }
                (Content::Lines(lines), _) => {
                    let appended = self.envelope.append(record, &mut self.lines);
                    lines.end = self.lines.len();
                    appended
                }
                (Content::Rows(_), Layout::Ndjson { .. }) => Ok(()),
            };
            if let Err(error) = pushed {
                bad.push(error);
            }
        }
        if bad.is_empty() { Ok(pieces) } else { Err(bad) }
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
            _ => return Err(broken("records came in another format than the object's")),
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
