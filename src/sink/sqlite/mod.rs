//! The `sqlite` sink: rows in a table of a SQLite database, exactly once.
//!
//! ```text
//! PATH               the database: the table, and rillway_positions, one row per stream and reference
//! PATH-wal           the write-ahead log: what was committed and is not yet copied into the database
//! PATH-shm           the log's index, shared by all processes that have the database open
//! ```
//!
//! # Why this is exactly-once
//! A batch and the position behind it are one transaction: after a crash at any point, SQLite shows both
//! or neither. The sink returns `Ok` only after COMMIT, which in WAL mode with `synchronous = FULL`
//! returns when the log is synced. With `NORMAL`, COMMIT syncs nothing: a power loss would take back
//! acknowledged batches that the broker may have dropped since.
//!
//! The position is moved by one UPDATE that requires the stream and reference, the previous position, and
//! the owner's number (`positions.rs`). It changes exactly one row, or the transaction is given up:
//! - *Two processes.* Each process that opens the sink becomes the owner, by a transaction of its own;
//!   the number grows with each. A former owner that still lives, or wakes from a long sleep, finds
//!   another number at its next batch, writes nothing, and halts with the new owner's pid. SQLite
//!   serialises the transactions, so the two can never write at the same time. A lock file would be
//!   weaker: a frozen owner would keep its successor waiting forever, and the lock would not notice a
//!   replaced database. SQLite cannot break the lock of a process that is frozen *within* a transaction:
//!   a successor then waits until that process continues or ends.
//! - *A batch that is repeated* is refused before anything is written.
//! - *An older copy of the database*, restored while the sink runs, has another position, and is refused.
//!
//! # After a failure
//! The connection is closed, and opened again before the next attempt. If COMMIT itself failed, it may
//! still count: [`exactly_once`](super::exactly_once) decides by the position that is found. A commit
//! that counted is durable once the log was copied into the database and that was synced (after a failed
//! sync, the kernel may show data that is not on the disk). Every failure that may end (a full disk, a
//! quota, I/O errors, another program's lock, a file that was removed) is transient; `error.rs` has the
//! table.
//!
//! SQLite does not notice when its file is removed or replaced. So the names are checked before each
//! batch and after its commit (`database.rs`).
//!
//! # A table that is changed meanwhile
//! Each transaction compares SQLite's count of schema changes (`PRAGMA schema_version`) with its value at
//! the last check of the table. If it differs, the table is checked again before anything is written. If
//! the table no longer fits, the sink waits until it does, and no record counts as bad because of it.
//!
//! # Rows that are replaced by their key
//! With a key, a row is the latest message of its key: an INSERT with ON CONFLICT DO UPDATE, or a DELETE, one
//! after the other in the order of the stream. A row keeps the stream and the offset of its message, and no
//! earlier message of the same stream replaces or deletes it: that matters only if messages are written
//! again, by a replay or from a position that somebody moved back. If the stream was re-created, or the
//! consumer begins anew, its rows get the offset -1, which every message may replace.
//!
//! # Rows
//! `table.rs` says how columns are declared and which existing tables are accepted; `row.rs` says how
//! values are converted. A row that a constraint of the table refuses makes its record bad. The whole
//! batch is tried all the same, so that all bad records are found at once, and then rolled back.
//!
//! There is no index: a row is appended to the end of a B-tree, which makes this fast. An index can be
//! created by hand, and costs time with each row.
//!
//! # What it cannot see
//! Disks that report a sync before it is done; network file systems whose locks do not work; somebody who
//! changes rows.
//!
//! Must not know: brokers, retries, metrics.

mod audit;
mod database;
mod declaration;
mod error;
mod fit;
mod options;
mod positions;
mod renaming;
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
#[cfg(test)]
mod upsert_tests;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::options::SqliteOptions;
pub use self::settings::SqliteSettings;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::thread::SinkThread;
use crate::sink::{Durability, Sink, SinkError, used_after_close};
use crate::types::upsert::Missing;
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
    /// Fatal if the table does not fit, or if the file is no database or may not be written; transient if
    /// trying again may help.
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
/// If the database is damaged or cannot be read; or if such a sink could not write, as far as that can be
/// told without writing.
pub fn examine(
    options: &SqliteOptions,
    stream: &StreamName,
    reference: &Reference,
) -> Result<Option<Checkpoint>, SinkError> {
    let SqliteOptions { path, table, columns, create, upsert, missing } = options;
    database::could_write(path, *create)?;
    let Some(database) = Database::look(path)? else { return Ok(None) };
    let whose = Whose { stream: stream.clone(), reference: reference.clone() };
    let rows = Rows::new(stream.clone(), table, columns.clone(), upsert.as_ref());
    if !*create || table::exists(&database, table).tried("read", path)? {
        let fits = fit::fits(&database, path, table, &rows)?;
        if fits.is_err() && *missing == Missing::Add {
            fit::would_fit(&database, path, table, &rows)?;
        } else {
            fits.map_err(SinkError::Fatal)?;
        }
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

    /// One sync per transaction, however many rows.
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
        self.run(|writer| writer.move_to(None)).await?
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        self.run(move |writer| writer.move_to(to)).await??;
        self.position().await
    }

    /// Closes the database after an abandoned write has ended; the caller sets the time limit. Closing
    /// twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        worker.end().await;
        Ok(())
    }
}
