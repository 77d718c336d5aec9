//! The `file` sink: segments of NDJSON lines or raw bodies, exactly once.
//!
//! ```text
//! DIR/STREAM/00000000000000000000.ndjson      a segment; named after its first offset
//! DIR/STREAM/00000000000000481516.ndjson      the tail: the one that takes the next batch
//! DIR/STREAM/position.rillway                 the committed bytes of the tail, and their last offset
//! DIR/STREAM/rillway.lock                     locked while a process writes here
//! ```
//!
//! # Why this is exactly-once
//! A batch is written in four steps, each of which is complete before the next begins:
//! 1. append its records to the tail, after the committed length;
//! 2. fdatasync the tail;
//! 3. write the position: new committed length *and* new offset, into one of two slots;
//! 4. fdatasync the position.
//!
//! Length and offset are in one slot under one CRC, so they change together or not at all. The
//! start-up cuts the tail to the length and resumes after the offset of the *same* slot. So two
//! properties suffice: (a) some slot is always valid, and (b) a valid slot never counts bytes that
//! are not on disk:
//! - *(a)* A slot is overwritten only while the other is known to be durable: synced by this
//!   process. A slot that was only read at start-up is first written into a new file, which is
//!   synced before it takes over the name. The name is synced before anything else is done.
//! - *(b)* Step 3 begins only after step 2 has returned success, and nothing below the committed
//!   length is ever written or cut again. A sealed segment ends at its committed length: bytes of a
//!   failed batch after it were cut off, and the cut synced, before the next batch.
//!
//! A stop at any point then ends in one of two states:
//!
//! | stopped in | `kill -9` (the page cache survives) | power loss (unsynced data may be kept, lost
//! or torn at any byte) |
//! |---|---|---|
//! | 1, 2 | old slot: the batch is cut off and given again | the same |
//! | 3 | old slot or, if the new one is complete, the new | the same; a torn slot fails its CRC |
//! | 4 | new slot: adopted, synced, its bytes are durable by (b) | old or new slot |
//! | after 4 | new slot | new slot |
//!
//! `Ok` is returned only after step 4. If the new slot is found although the caller got no `Ok`,
//! the caller reads it from [`Sink::position`] and continues after it. A batch at or below the
//! committed offset is always refused.
//!
//! *A new segment* is created empty, and its name synced; then the position commits to it with
//! length 0 and the old offset; only then is it written to. So a file that the position does not
//! know is either empty (and removed) or not ours (and renamed, never deleted); `recover.rs` has
//! the complete table.
//!
//! # After a failure
//! A failed write leaves bytes in an unknown state. After a failed fsync the kernel may have marked
//! pages clean that never reached the disk: a second fsync would succeed and prove nothing. So no
//! open file is trusted after a failure. Before the next attempt the position is opened again and
//! checked against the state that *this process* synced. That state is written to the doubtful slot
//! and synced (which undoes a commit with an unknown result). Then the tail is cut back to the
//! committed length and synced, and the batch is written again from its records, into dirty pages.
//! Bytes below the committed length were synced successfully before, and are not touched.
//!
//! A full disk, an exceeded quota, an I/O error and a missing folder are transient: they are
//! retried until they succeed. A refused permission, a read-only file system and the like are
//! fatal; `error.rs` has the table.
//!
//! # Memory, compression, rotation
//! Records are encoded into a buffer of 512 KiB (or one larger record), which is packed and written
//! whenever it is full; a batch is never held twice. With compression each such piece is a zstd
//! frame or gzip member of its own: the file is valid at every committed length but 0, and `zstd
//! -d`, `zcat` and the like read the pieces as one.
//!
//! A segment that has reached `rotate_bytes` (on disk, after compression) or `rotate_age` accepts
//! no further batch, so it may be larger by one batch. Both are checked when a batch arrives: on an
//! idle stream an old segment stays the tail, which does no harm, because it is always complete and
//! readable.
//!
//! # Limits of the guarantee
//! Disks that report a sync that did not happen; a file system that tears data that was synced
//! before; a program that edits committed bytes without changing the length.
//!
//! Knows nothing of brokers, retries or metrics.

mod audit;
mod compression;
mod declaration;
mod disk;
mod error;
mod log;
mod pack;
mod position;
mod raw;
mod read;
mod recover;
mod renaming;
mod segment;
mod settings;
mod storage;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod move_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::compression::Compression;
pub use self::settings::FileSettings;
use crate::files;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::format::Format;
use crate::sink::thread::SinkThread;
use crate::sink::{Durability, Sink, SinkError, used_after_close};
use crate::types::{Checkpoint, Guarantee, Reference, StreamName, Timestamp};

#[doc(hidden)]
pub use self::position::fuzz_position;
pub use self::read::{Segment, segments};

use self::disk::Disk;
use self::log::{Log, Setup};
use self::pack::Packer;
use self::segment::Rotation;

/// RabbitMQ's limit for the names of streams and references, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Options of a file sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Folder in which each stream gets a folder of its own.
    pub dir: PathBuf,
    /// Format of records.
    pub format: Format,
    /// Compression of segments.
    pub compression: Compression,
    /// Size in bytes on disk from which a segment accepts no further batch; `None` for no limit.
    pub rotate_bytes: Option<u64>,
    /// Age from which a segment accepts no further batch; `None` for no limit.
    pub rotate_age: Option<Duration>,
}

impl FileOptions {
    /// NDJSON, not compressed, one segment without limit.
    pub fn new(dir: impl Into<PathBuf>) -> FileOptions {
        FileOptions {
            dir: dir.into(),
            format: Format::Ndjson,
            compression: Compression::None,
            rotate_bytes: None,
            rotate_age: None,
        }
    }

    /// Checks the options. The error is a text that follows the name of the key.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result<(), String> {
        match self.compression {
            Compression::Zstd { level } if !(1..=22).contains(&level) => {
                Err(format!("level: zstd has the levels 1 to 22, not {level}"))
            }
            Compression::Gzip { level } if level > 9 => {
                Err(format!("level: gzip has the levels 0 to 9, not {level}"))
            }
            _ if self.rotate_bytes == Some(0) => Err("rotate_bytes: must be above 0".to_owned()),
            _ if self.rotate_age == Some(Duration::ZERO) => {
                Err("rotate_age: must be above 0".to_owned())
            }
            _ if self.dir.as_os_str().is_empty() => Err("dir: must not be empty".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Writes one stream's records to files, exactly once.
pub struct FileSink {
    folder: PathBuf,
    /// `None` once closed.
    worker: Option<SinkThread<Log<Disk>>>,
}

impl FileSink {
    /// Locks the stream's folder, reads the position there, and restores the files.
    ///
    /// # Errors
    /// Fatal if the options are wrong, the folder is in use, belongs to another reference, or has
    /// lost committed data; transient if a retry may help (a full disk).
    pub async fn open(
        options: FileOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Result<FileSink, SinkError> {
        options.validate().map_err(|what| SinkError::Fatal(format!("file sink: {what}")))?;
        // The reference of a replay is longer than its consumer's.
        let reference_bytes_max = NAME_BYTES_MAX + Reference::SUFFIX_BYTES_MAX;
        if stream.as_str().len() > NAME_BYTES_MAX || reference.as_str().len() > reference_bytes_max
        {
            return Err(SinkError::Fatal(format!(
                "file sink: the names of stream and reference may have {NAME_BYTES_MAX} bytes each: use a \
                 shorter one"
            )));
        }
        let folder = options.dir.join(segment::folder(&stream));
        let make = move || open_log(options, stream, reference);
        match SinkThread::start("rillway-file", make).await {
            Ok(made) => Ok(FileSink { folder, worker: Some(made?) }),
            Err(error) => Err(error.during(&writing_to(&folder))),
        }
    }

    /// Folder that holds the segments.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Log<Disk>) -> R + Send + 'static,
    ) -> Result<R, SinkError> {
        let Some(worker) = &self.worker else {
            return Err(used_after_close(&format!("the file sink on {}", self.folder.display())));
        };
        worker.run(job).await.map_err(|error| error.during(&writing_to(&self.folder)))
    }
}

/// The position that a sink with these options has committed. Does not lock the folder, and changes
/// nothing.
///
/// # Errors
/// If the position is damaged, cannot be read, or belongs to another reference.
pub fn committed(
    options: &FileOptions,
    stream: &StreamName,
    reference: &Reference,
) -> Result<Option<Checkpoint>, SinkError> {
    let folder = options.dir.join(segment::folder(stream));
    files::could_write_in(&folder).map_err(|what| {
        SinkError::Fatal(format!(
            "file sink: {what}. Set another `dir`, or allow the user that Rillway runs as to write there"
        ))
    })?;
    let Some(state) = position::look(&folder)? else { return Ok(None) };
    recover::check_owner(&state, stream, reference, &folder.join(position::NAME))?;
    Ok(state.checkpoint)
}

fn open_log(
    options: FileOptions,
    stream: StreamName,
    reference: Reference,
) -> Result<Log<Disk>, SinkError> {
    let packer = Packer::new(options.compression).map_err(|error| {
        SinkError::Fatal(format!("file sink: {:?} cannot be set up: {error}", options.compression))
    })?;
    let storage = Disk::open(&options.dir, &segment::folder(&stream))?;
    let rotation = Rotation {
        extension: segment::extension(&options.format, options.compression),
        bytes: options.rotate_bytes,
        age: options.rotate_age,
    };
    let envelope = options.format.envelope(&stream);
    let piece_bytes = log::PIECE_BYTES;
    Log::open(storage, Setup { stream, reference, rotation, envelope, packer, piece_bytes })
}

fn writing_to(folder: &std::path::Path) -> String {
    format!("could not write to {}: the file sink", folder.display())
}

#[async_trait]
impl Sink for FileSink {
    fn kind(&self) -> &'static str {
        FileSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        FileSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.run(|log| log.position()).await
    }

    /// Each write needs two syncs, however large the batch.
    fn joins_batches(&self) -> bool {
        true
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let batch = Arc::clone(batch);
        self.run(move |log| log.write(&batch, Timestamp::now())).await??;
        Ok(Durability::Durable)
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        tracing::warn!(folder = %self.folder.display(), "the stream was re-created: the old segments are renamed");
        self.run(|log| log.move_to(None)).await?
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        self.run(move |log| log.move_to(to)).await??;
        self.position().await
    }

    /// Releases the folder after the current write has ended: the caller sets the time limit.
    /// Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        worker.end().await;
        Ok(())
    }
}
