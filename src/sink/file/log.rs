//! The log: writes and commits batches. [`super`] explains why it is exactly-once.
//!
//! Blocking, and generic over [`Storage`]; time is an argument. Knows nothing of threads.
//!
//! Invariants:
//! - After any failure the open files are dropped, and the next write begins with [`recover`].
//! - The committed state in memory was always synced by this process.

use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::envelope::Envelope;
use crate::sink::{BAD_RECORDS_MAX, BadRecord, SinkError};
use crate::types::{Checkpoint, Reference, StreamName, Timestamp};

use super::error::Tried;
use super::pack::Packer;
use super::position::{Durable, Position, Tail};
use super::recover;
use super::segment::{self, Rotation};
use super::storage::Storage;

/// Bytes of encoded records after which they are packed and written. Large enough that a system
/// call costs little, small enough for the processor's cache.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// Largest buffer that is kept after an unusually large record.
const BUFFER_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// Settings of a log.
pub(super) struct Setup {
    /// The stream that its records come from.
    pub(super) stream: StreamName,
    /// The reference that reads it.
    pub(super) reference: Reference,
    /// Rule for the end of a segment.
    pub(super) rotation: Rotation,
    /// Encoder of records.
    pub(super) envelope: Envelope,
    /// Compressor.
    pub(super) packer: Packer,
    /// [`PIECE_BYTES`], except in tests.
    pub(super) piece_bytes: usize,
}

/// The log of one stream.
pub(super) struct Log<S: Storage> {
    storage: S,
    rotation: Rotation,
    envelope: Envelope,
    packer: Packer,
    piece_bytes: usize,
    /// Encoded records that are not written yet.
    plain: Vec<u8>,
    durable: Durable,
    /// `None` after a failure.
    open: Option<Open<S::File>>,
}

/// The open files.
struct Open<F> {
    position: Position<F>,
    /// File of the tail; `None` before the first batch.
    segment: Option<F>,
}

impl<S: Storage> Log<S> {
    /// Opens the log: reads the position or creates a new one, and restores the files.
    pub(super) fn open(mut storage: S, setup: Setup) -> Result<Log<S>, SinkError> {
        let Setup { stream, reference, rotation, envelope, packer, piece_bytes } = setup;
        let position = recover::start(&mut storage, stream, reference)?;
        let durable = position.durable().clone();
        let segment = recover::settle(&mut storage, durable.state())?;
        let open = Some(Open { position, segment });
        let plain = Vec::new();
        Ok(Log { storage, rotation, envelope, packer, piece_bytes, plain, durable, open })
    }

    /// The committed position; `None` before the first batch.
    pub(super) fn position(&self) -> Option<Checkpoint> {
        self.durable.state().checkpoint
    }

    /// Writes the batch and commits it.
    pub(super) fn write(&mut self, batch: &Batch, now: Timestamp) -> Result<(), SinkError> {
        self.refuse_strangers(batch)?;
        if self.open.is_none() {
            self.restore()?;
        }
        let before = self.durable.state().tail.clone();
        let written = self.append(batch, now);
        if let Some(open) = &self.open {
            self.durable = open.position.durable().clone();
        }
        match &written {
            Ok(()) => {}
            Err(SinkError::Poison(_)) if before == self.durable.state().tail && self.is_clean() => {
            }
            Err(SinkError::Poison(_)) => {
                self.open = None;
                // Removes the written part now rather than at the next write, if possible.
                if let Err(error) = self.restore() {
                    tracing::debug!(%error, "the partly written batch is removed at the next write");
                }
            }
            Err(_) => self.open = None,
        }
        self.plain.clear();
        self.plain.shrink_to(BUFFER_BYTES_MAX);
        self.packer.shrink(BUFFER_BYTES_MAX);
        written
    }

    /// Moves the position. The next batch begins a new segment; those that begin behind the position are
    /// renamed. After a crash in between, the next start renames them. With `None`, nothing is committed:
    /// a new incarnation of the stream, or its first message again.
    pub(super) fn move_to(&mut self, to: Option<Checkpoint>) -> Result<(), SinkError> {
        if self.open.is_none() {
            self.restore()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut state = open.position.durable().state().clone();
        (state.checkpoint, state.tail) = (to, None);
        let committed = open.position.commit(&mut self.storage, state);
        self.durable = open.position.durable().clone();
        let settled =
            committed.and_then(|()| recover::settle(&mut self.storage, self.durable.state()));
        match settled {
            Ok(segment) => open.segment = segment,
            Err(error) => {
                self.open = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// A batch of another stream, or one already committed, is a bug of the caller and would break
    /// the guarantee.
    fn refuse_strangers(&self, batch: &Batch) -> Result<(), SinkError> {
        let state = self.durable.state();
        if *batch.stream() != state.stream {
            return Err(SinkError::Fatal(format!(
                "internal error: a batch of stream {:?} was given to the file sink of stream {:?}; \
                 please report it",
                batch.stream(),
                state.stream,
            )));
        }
        match state.checkpoint {
            Some(committed) if batch.first_offset() <= committed.offset => {
                Err(SinkError::Fatal(format!(
                    "internal error: a batch that begins at offset {} was given to {}, which has \
                     committed offset {}: writing it would repeat records; please report it",
                    batch.first_offset(),
                    self.storage.path("").display(),
                    committed.offset,
                )))
            }
            _ => Ok(()),
        }
    }

    /// Restores the files to the committed state.
    fn restore(&mut self) -> Result<(), SinkError> {
        self.storage.hold_again()?;
        let position = Position::reinstate(&mut self.storage, self.durable.clone())?;
        self.durable = position.durable().clone();
        let segment = recover::settle(&mut self.storage, self.durable.state())?;
        self.open = Some(Open { position, segment });
        Ok(())
    }

    /// True if the segment ends at the committed length.
    fn is_clean(&mut self) -> bool {
        let Some(open) = &self.open else { return false };
        match (&open.segment, &self.durable.state().tail) {
            (Some(file), Some(tail)) => {
                self.storage.stat(file).is_ok_and(|stat| stat.linked && stat.bytes == tail.bytes)
            }
            (None, None) => true,
            _ => false,
        }
    }

    fn append(&mut self, batch: &Batch, now: Timestamp) -> Result<(), SinkError> {
        let path = |storage: &S| storage.path("");
        self.storage.check_held().tried("keep the lock on", || path(&self.storage))?;
        if batch.messages() > 0 && self.rotation_is_due(batch, now) {
            self.rotate(batch, now)?;
        }
        let Some(open) = &mut self.open else {
            return Err(SinkError::Fatal("internal error: the log is not open".to_owned()));
        };
        let mut state = open.position.durable().state().clone();
        if let (Some(tail), Some(file)) = (&mut state.tail, &open.segment) {
            let path = self.storage.path(&tail.segment);
            let stat = self.storage.stat(file).tried("look at", || path.clone())?;
            if !stat.linked || stat.bytes != tail.bytes {
                return Err(SinkError::transient(format!(
                    "{} was changed by another program: it has {} bytes, {} bytes are committed{}",
                    path.display(),
                    stat.bytes,
                    tail.bytes,
                    if stat.linked { "" } else { ", and it was deleted or renamed" },
                )));
            }
            let mut piece = Piece {
                storage: &mut self.storage,
                file,
                path: &path,
                packer: &mut self.packer,
                at: tail.bytes,
                bytes: self.piece_bytes,
            };
            encode(batch, &mut self.envelope, &mut self.plain, &mut piece)?;
            let end = piece.at;
            faults::reach(Point::Written);
            if end > tail.bytes {
                self.storage.sync(file).tried("sync", || path.clone())?;
                faults::reach(Point::Flushed);
                tail.bytes = end;
            }
        }
        state.checkpoint = Some(batch.checkpoint());
        open.position.commit(&mut self.storage, state)
    }

    fn rotation_is_due(&self, batch: &Batch, now: Timestamp) -> bool {
        match &self.durable.state().tail {
            None => true,
            Some(tail) => self.rotation.is_due(tail, batch.first_offset(), now),
        }
    }

    /// Begins a new, empty segment and commits to it before anything is written there. So a segment
    /// with content that the position does not know was not written by this log, and is never
    /// deleted.
    fn rotate(&mut self, batch: &Batch, now: Timestamp) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let name = segment::file_name(batch.first_offset(), &self.rotation.extension);
        let path = self.storage.path(&name);
        let file = self.storage.create(&name).tried("create", || path.clone())?;
        self.storage.sync_dir().tried("sync", || self.storage.path(""))?;
        let mut state = open.position.durable().state().clone();
        let left = state.tail.replace(Tail { segment: name, bytes: 0, started: now });
        open.position.commit(&mut self.storage, state)?;
        open.segment = Some(file);
        self.durable = open.position.durable().clone();
        match left {
            Some(left) if left.bytes == 0 => {
                let path = self.storage.path(&left.segment);
                self.storage.remove(&left.segment).tried("remove", || path)
            }
            _ => Ok(()),
        }
    }
}

/// Destination of pieces of encoded records.
struct Piece<'a, S: Storage> {
    storage: &'a mut S,
    file: &'a S::File,
    path: &'a std::path::Path,
    packer: &'a mut Packer,
    /// Position of the next piece.
    at: u64,
    /// Bytes before packing from which a piece is written.
    bytes: usize,
}

impl<S: Storage> Piece<'_, S> {
    fn write(&mut self, plain: &mut Vec<u8>) -> Result<(), SinkError> {
        if plain.is_empty() {
            return Ok(());
        }
        let path = || self.path.to_owned();
        let packed = self.packer.pack(plain).tried("compress for", path)?;
        self.storage.write_at(self.file, self.at, packed).tried("append to", path)?;
        self.at += packed.len() as u64;
        plain.clear();
        Ok(())
    }
}

/// Encodes the batch piece by piece. After the first bad record nothing more is written, but the
/// search for bad records continues.
fn encode<S: Storage>(
    batch: &Batch,
    envelope: &mut Envelope,
    plain: &mut Vec<u8>,
    piece: &mut Piece<'_, S>,
) -> Result<(), SinkError> {
    let mut bad: Vec<BadRecord> = Vec::new();
    plain.clear();
    for record in batch.records() {
        if let Err(record) = envelope.append(record, plain) {
            bad.push(record);
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        if plain.len() >= piece.bytes {
            if bad.is_empty() {
                piece.write(plain)?;
            }
            plain.clear();
        }
    }
    if bad.is_empty() { piece.write(plain) } else { Err(SinkError::Poison(bad)) }
}
