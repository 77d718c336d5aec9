//! The `sqlite` sink: rows in a table of a SQLite database, exactly once.
//!
//! ```text
//! PATH               the database: the table, and rillway_positions, one row per stream and reference
//! PATH-wal           the write-ahead log: what was committed and is not yet copied into the database
//! PATH-shm           the log's index, shared by all processes that have the database open
//! ```
//!
//! # Why this is exactly-once
//! A batch and the position behind it are one transaction: SQLite makes both visible, or neither, at
//! a crash at any point. The caller is told `Ok` only after COMMIT, which in WAL mode with
//! `synchronous = FULL` returns when the log is synced. With `NORMAL`, COMMIT syncs nothing: a power
//! loss would take back batches that were acknowledged, and that the broker may have dropped since.
//!
//! The position is moved by one UPDATE that names whose it is, where it stood, and the owner's number
//! (`positions.rs`). It changes one row, or the transaction is given up:
//! - *Two processes.* Whoever opens the sink becomes the owner, by a transaction of its own; the
//!   number grows with each. A former owner that still lives, or wakes from a long sleep, finds
//!   another number at its next batch, writes nothing, and halts with the new owner's pid. SQLite
//!   serialises the transactions, so there is no moment at which both could write. A lock file would
//!   be weaker: it would keep a frozen owner's successor waiting for ever, and says nothing of a
//!   database that was put in the place of another. What SQLite cannot do is to break the lock of a
//!   process that is frozen *within* a transaction: a successor then waits until it wakes or ends.
//! - *A batch that comes again* is refused before anything is written.
//! - *An older copy of the database*, put in its place while we work, stands elsewhere, and is
//!   refused.
//!
//! # After a failure
//! The connection is closed, and opened anew before the next attempt. Where COMMIT itself failed, it may
//! count all the same: [`exactly_once`](super::exactly_once) decides by the position that is found. One
//! that counted is durable once the log was copied into the database and that was synced (after a failed
//! sync, what the kernel shows may not be on the medium). Whatever may pass (a full disk, a quota, I/O errors, another
//! program's lock, a file that was removed) is transient; `error.rs` has the table.
//!
//! SQLite does not notice when its file is removed or replaced. So the names are looked at before
//! each batch and after its commit (`database.rs`).
//!
//! # A table that is changed meanwhile
//! Each transaction compares SQLite's count of changes to the schema (`PRAGMA schema_version`) with the
//! last one that was looked at. Where it is another, the table is looked at again, before anything is
//! written: one that no longer fits is waited for, and no record is called bad for it.
//!
//! # Rows
//! `table.rs` says how columns are declared and which existing tables are taken; `row.rs` what
//! becomes of a value. A row that a constraint of the table refuses makes the record bad; the whole
//! batch is tried all the same, so that all of them are found at once, and then rolled back.
//!
//! There is no index: a row is appended to the end of a B-tree, which is what makes this fast. Who
//! wants one creates it, and pays for it with each row.
//!
//! # What it cannot see
//! Media that lie about having synced; file systems of networks whose locks do not work; someone who
//! changes rows.
//!
//! Must not know: brokers, retries, metrics.

mod database;
mod declaration;
mod error;
mod options;
mod positions;
mod row;
mod settings;
mod table;
mod writer;

#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::options::SqliteOptions;
pub use self::settings::SqliteSettings;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::thread::SinkThread;
use crate::sink::{Durability, Sink, SinkError, used_after_close};
use crate::types::{Checkpoint, Guarantee, Reference, StreamName};

use self::database::Database;
use self::error::Tried;
use self::positions::Whose;
use self::row::Rows;
use self::writer::Writer;

#[doc(hidden)]
pub use self::row::fuzz_value;

/// Writes one stream's records to a table, exactly once.
pub struct SqliteSink {
    path: PathBuf,
    /// `None` once closed.
    worker: Option<SinkThread<Writer>>,
}

impl SqliteSink {
    /// Opens the database, creates what is missing, and takes the position.
    ///
    /// # Errors
    /// Fatal where the table does not fit, or the file is no database, or not ours to write;
    /// transient where trying again may help.
    pub async fn open(
        options: SqliteOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Result<SqliteSink, SinkError> {
        let path = options.path.clone();
        let make = move || Writer::open(options, stream, reference);
        match SinkThread::start("rillway-sqlite", make).await {
            Ok(made) => Ok(SqliteSink { path, worker: Some(made?) }),
            Err(error) => Err(error.during(&writing_to(&path))),
        }
    }

    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> R + Send + 'static,
    ) -> Result<R, SinkError> {
        let Some(worker) = &self.worker else {
            return Err(used_after_close(&format!("the sqlite sink on {}", self.path.display())));
        };
        worker.run(job).await.map_err(|error| error.during(&writing_to(&self.path)))
    }
}

/// The position that a sink with these options has committed, without taking it or changing anything.
///
/// # Errors
/// Where the database is damaged or cannot be read; and where such a sink could not write, as far as
/// that can be told without writing.
pub fn examine(
    options: &SqliteOptions,
    stream: &StreamName,
    reference: &Reference,
) -> Result<Option<Checkpoint>, SinkError> {
    let SqliteOptions { path, table, columns, create } = options;
    database::could_write(path, *create)?;
    let Some(database) = Database::look(path)? else { return Ok(None) };
    let whose = Whose { stream: stream.clone(), reference: reference.clone() };
    let rows = Rows::new(stream.clone(), table, columns.clone());
    if !*create || table::exists(&database, table).tried("read", path)? {
        writer::fits(&database, path, table, &rows)?.map_err(SinkError::Fatal)?;
    }
    if let Some((other, held)) = positions::other(&database, &whose, table).tried("read", path)? {
        return Err(writer::shared(path, table, &whose, &other, &held));
    }
    let held = positions::look(&database, &whose).tried("read the position in", path)?;
    Ok(held.and_then(|held| held.position))
}

fn writing_to(path: &std::path::Path) -> String {
    format!("could not write to {}: the sqlite sink", path.display())
}

#[async_trait]
impl Sink for SqliteSink {
    fn kind(&self) -> &'static str {
        SqliteSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        SqliteSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.run(Writer::position).await?
    }

    /// One sync a transaction, however many rows.
    fn joins_batches(&self) -> bool {
        true
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let batch = Arc::clone(batch);
        self.run(move |writer| writer.write(&batch)).await??;
        Ok(Durability::Durable)
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        tracing::warn!(database = %self.path.display(), "the stream was re-created: the rows so far stay, and offsets may come again");
        self.run(Writer::restart).await?
    }

    /// Closes the database, once a write that was abandoned is through: the caller sets the time
    /// limit. Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        worker.end().await;
        Ok(())
    }
}
