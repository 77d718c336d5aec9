//! The `object` sink: Parquet or NDJSON in a folder or an object store, exactly once.
//!
//! ```text
//! PREFIX/STREAM/date=2026-11-23/hour=14/00000000000000481516-7.parquet   an object: the table
//! PREFIX/STREAM/region=eu/00000000000000481516-7.parquet                 the same with `partition_by`
//! PREFIX/_rillway/STREAM/checkpoint.json                                 whose it is, and how far it goes
//! PREFIX/_rillway/STREAM/staged/                                         objects of one commit, until they exist
//! ```
//!
//! # Why this is exactly-once
//! A reader of the table reads every object in it, so an object counts as soon as it exists. Therefore
//! its creation has to be the commit, and a claim makes that possible. For each object:
//! 1. *claim*: the checkpoint is replaced, by compare-and-swap, by one with the key, size and
//!    checksum of the object, and the position after it;
//! 2. *create*: the object is created under that key, only if there is none;
//! 3. *settle*: the checkpoint takes over that position, with the next claim or at the end of the
//!    flush.
//!
//! A key contains the number of its claim, so it is claimed only once. A sink that starts and finds an
//! unsettled claim examines the key. If the claimed bytes are there, the object counts, and the position
//! is after it. If nothing is there, the sink creates an object *without records*. Either that succeeds,
//! and nobody can create the claimed object any more; or it fails because the claimed object was created
//! first, and then that one counts. So:
//! - *(a)* the first creation decides a claimed key, finally;
//! - *(b)* no checkpoint moves beyond a claim before its key is decided;
//! - *(c)* so the objects with records are those of successful claims, each begins after the position of
//!   the one before it, and the last position tells where to continue. Every reader sees each record
//!   once, at any time.
//!
//! *Fencing.* A sink that starts replaces the checkpoint by one that names itself as the owner. After
//! that, an old owner (a frozen process, a request that hangs in the network) cannot claim anything. At
//! most one claimed object is left for it to create, and (a) covers that one. The old owner notices at
//! its next step, and ends with a fatal error. So the last one to start wins.
//!
//! [ADR 9](../../../docs/adr/0009-objects-are-claimed-first.md) has the table of crash points and
//! the rejected alternatives; `simulation.rs` searches the interleavings of owners that freeze and
//! die.
//!
//! # Several folders
//! With `partition_by` the records up to a position go into several objects. They are one commit: staged as
//! one, claimed, and created by whoever comes first, from what is staged (`committer/several.rs`). So a
//! claim of several objects is never void, and the position is that of all folders. A sink that starts and finds
//! such a claim continues after it, and creates the objects in its first flush, which is due at once: an opening has
//! no time for that ([ADR 33](../../../docs/adr/0033-folders-of-an-archive.md)).
//!
//! # Lost answers
//! An error does not tell whether the operation took effect. A repeated create finds its own
//! object, and recognises it by its checksum. A repeated swap finds its own state, because no two
//! states are the same.
//!
//! # Memory
//! Held records are encoded and compressed. A whole batch is read before any of it is accepted, because
//! its bad records have to be found first; a batch that is large when decoded is read twice, and
//! processed in pieces. If an object becomes full within a batch, it is made durable before more of the
//! batch is accepted. At the end of an object its columns are concatenated, which briefly doubles its
//! memory. Encoding has its own thread.
//!
//! # Limits of the guarantee
//! A store that violates its conditional writes (this is tested when an archive is begun); an operator
//! who deletes or edits objects under `_rillway`, or moves an object of the table away while a frozen process
//! may still create it.
//!
//! Knows nothing of brokers, retries or metrics.

mod audit;
mod commit;
mod committer;
#[cfg(feature = "object-stores")]
mod connect;
mod declaration;
mod filling;
mod kept;
mod layout;
mod lines_file;
mod local;
mod parquet_file;
mod parquet_read;
mod partition_keys;
mod partitions;
mod place;
#[cfg(feature = "object-stores")]
mod remote;
mod renaming;
mod rows;
mod settings;
mod shaper;
mod state;
mod store;

#[cfg(test)]
mod column_tests;
#[cfg(feature = "object-stores")]
#[cfg(test)]
mod crash_tests;
#[cfg(feature = "object-stores")]
#[cfg(test)]
mod finishing_tests;
#[cfg(test)]
mod local_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod partition_tests;
#[cfg(test)]
mod piece_tests;
#[cfg(feature = "object-stores")]
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
#[cfg(feature = "object-stores")]
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

pub use self::filling::Rotation;
pub use self::layout::{Format, PARTITION_COLUMNS, Packing, ParquetColumns};
pub use self::partition_keys::Part;
pub use self::partitions::Partitioning;
#[doc(hidden)]
pub use self::partitions::fuzz_folders;
pub use self::place::{Options, Place};
#[doc(hidden)]
pub use self::state::fuzz_state;

use self::commit::Commit;
use self::committer::{Committer, Names, Upto};
use self::layout::Layout;
use self::partitions::Folders;
pub use self::settings::ObjectSettings;
use self::shaper::{Sealed, Shaper, Taken};
use self::store::Store;
use crate::files;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::thread::SinkThread;
use crate::sink::{Durability, Sink, SinkError, used_after_close};
use crate::types::{Checkpoint, Guarantee, Reference, StreamName};

/// Folder of the checkpoints.
const CHECKPOINTS: &str = "_rillway";

/// Options of an object sink.
#[derive(Clone, Debug)]
pub struct ObjectOptions {
    /// Destination of the objects.
    pub place: Place,
    /// Format of the objects.
    pub format: Format,
    /// How records are spread over folders; `None`: by date and hour.
    pub partition_by: Option<Partitioning>,
    /// Limits of an object.
    pub rotation: Rotation,
}

/// Writes one stream's records to objects, exactly once.
pub struct ObjectSink {
    committer: Committer,
    /// `None` once closed.
    worker: Option<SinkThread<Shaper>>,
    flush_at: Option<Instant>,
    /// Objects that are complete but not yet created.
    commits: VecDeque<Commit>,
    /// True if these belong to a batch whose rest is still to come.
    amid_batch: bool,
    /// Position after these objects, once a flush has begun.
    reached: Option<Checkpoint>,
}

impl ObjectSink {
    /// Takes over the stream's archive from any earlier owner, and reads the position there.
    ///
    /// # Errors
    /// Fatal if the options are wrong, the store refuses, or the archive belongs to another
    /// reference; transient if a retry may help.
    pub async fn open(
        options: ObjectOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Result<ObjectSink, SinkError> {
        let store = options.place.open().await?;
        ObjectSink::on(store, &options, stream, reference).await
    }

    async fn on(
        store: Arc<dyn Store>,
        options: &ObjectOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Result<ObjectSink, SinkError> {
        let mut layout = Layout::new(&options.format, &stream)?;
        if options.partition_by.is_some() {
            layout = layout.in_folders();
        }
        let names = find_names(&*store, options, &stream, &reference).await?;
        let committer = Committer::take_over(store, names, layout.clone()).await?;
        let folders = options.partition_by.as_ref().map(|by| Folders::new(&stream, by));
        let (rotation, position) = (options.rotation, committer.position());
        let make = move || {
            let laid_out = (layout, folders);
            Ok::<_, SinkError>(Shaper::new(stream, reference, laid_out, rotation, position))
        };
        let worker = SinkThread::start("rillway-encode", make)
            .await
            .map_err(|error| error.during(ENCODING))??;
        Ok(ObjectSink {
            // What is left of an earlier process is finished now, and not before: that may take longer than an
            // opening has time.
            flush_at: committer.has_work_of_others().then(Instant::now),
            committer,
            worker: Some(worker),
            commits: VecDeque::new(),
            amid_batch: false,
            reached: None,
        })
    }

    /// Makes the complete objects durable, in order.
    async fn commit(&mut self) -> Result<(), SinkError> {
        while let Some(commit) = self.commits.front() {
            self.committer.commit(commit).await?;
            self.commits.pop_front();
        }
        Ok(())
    }

    /// Moves the position, and drops everything held.
    async fn shift(&mut self, to: Option<Checkpoint>) -> Result<(), SinkError> {
        self.committer.move_to(to).await?;
        self.commits.clear();
        self.amid_batch = false;
        self.flush_at = None;
        self.run(move |shaper| shaper.move_to(to)).await
    }

    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Shaper) -> R + Send + 'static,
    ) -> Result<R, SinkError> {
        match &self.worker {
            Some(worker) => worker.run(job).await.map_err(|error| error.during(ENCODING)),
            None => Err(used_after_close("the object sink")),
        }
    }
}

/// The position of an archive. Does not take it over, and changes nothing.
///
/// # Errors
/// If the checkpoint cannot be read, is damaged, or belongs to another reference; or if the objects
/// have columns of other types.
pub async fn committed(
    options: &ObjectOptions,
    stream: &StreamName,
    reference: &Reference,
) -> Result<Option<Checkpoint>, SinkError> {
    if let Place::Folder(folder) = &options.place {
        files::could_write_in(folder).map_err(|what| {
            SinkError::Fatal(format!(
                "object sink: {what}. Set another `url`, or allow the user that Rillway runs as to write \
                 there"
            ))
        })?;
    }
    let store = options.place.open().await?;
    let layout = Layout::new(&options.format, stream)?;
    let names = find_names(&*store, options, stream, reference).await?;
    committer::look(&*store, &names, &layout, Upto::Claimed).await
}

/// Names of the archive. An archive that an older version began under a longer name keeps it.
async fn find_names(
    store: &dyn Store,
    options: &ObjectOptions,
    stream: &StreamName,
    reference: &Reference,
) -> Result<Names, SinkError> {
    let place = &options.place;
    let table = layout::table(stream, place.table_bytes_max());
    let former = layout::table(stream, place.former_table_bytes_max());
    let stays = former != table && store.has_folder(CHECKPOINTS, &former).await?;
    let names = names_in(if stays { former } else { table }, stream, reference);
    let Some(partition_by) = &options.partition_by else { return Ok(names) };
    place.check_keys(&names.table, partition_by)?;
    Ok(Names { partition_by: Some(partition_by.names()), ..names })
}

fn names_in(table: String, stream: &StreamName, reference: &Reference) -> Names {
    Names {
        stream: stream.clone(),
        reference: reference.clone(),
        checkpoint: format!("{CHECKPOINTS}/{table}/checkpoint.json"),
        probe: format!("{CHECKPOINTS}/{table}/probe"),
        staged: format!("{CHECKPOINTS}/{table}/staged"),
        partition_by: None,
        table,
    }
}

const ENCODING: &str = "objects cannot be encoded";

#[async_trait]
impl Sink for ObjectSink {
    fn kind(&self) -> &'static str {
        ObjectSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        ObjectSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(self.committer.position())
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let due = loop {
            if self.amid_batch {
                self.commit().await?;
            }
            let batch = Arc::clone(batch);
            self.amid_batch = false;
            match self.run(move |shaper| shaper.take(&batch)).await?? {
                Taken::Whole(due) => break due,
                Taken::Part(commits) => {
                    self.commits.extend(commits);
                    self.amid_batch = true;
                }
            }
        };
        // Objects that an earlier flush has left do not wait for the next one.
        self.flush_at = Some(if self.commits.is_empty() { due } else { Instant::now() });
        Ok(Durability::Held)
    }

    fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        if self.flush_at.is_none() {
            return Ok(());
        }
        // Including objects that were added after a failed flush.
        let Sealed { commits, taken } = self.run(Shaper::seal).await??;
        self.commits.extend(commits);
        self.reached = taken;
        self.commit().await?;
        match (self.reached, self.committer.position()) {
            // Offsets without records, after others or alone.
            (Some(reached), at) if at.is_none_or(|at| at.offset < reached.offset) => {
                self.committer.pass_over(reached).await?;
            }
            _ => self.committer.settle().await?,
        }
        self.flush_at = None;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        tracing::warn!(
            "the stream was re-created: its records are added beside those of the old incarnation"
        );
        self.shift(None).await
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        self.shift(to).await?;
        self.position().await
    }

    /// Drops everything held. Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        if let Some(worker) = self.worker.take() {
            worker.end().await;
        }
        self.commits.clear();
        self.flush_at = None;
        Ok(())
    }
}
