//! What the sink's thread owns: the connection, and what this process knows of its position.

use std::path::PathBuf;

use rusqlite::{Transaction, TransactionBehavior};

use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::SinkError;
use crate::types::{Checkpoint, Reference, StreamName};

use super::database::{Database, Files};
use super::error::{Tried, transient};
use super::positions::{self, Held, Whose};
use super::row::Rows;
use super::{SqliteOptions, table};

/// Writes one stream's records into one table.
pub(super) struct Writer {
    path: PathBuf,
    table: String,
    whose: Whose,
    rows: Rows,
    /// `None` after a failure: it is opened anew before the next attempt.
    database: Option<Database>,
    /// The files that it was in.
    files: Files,
    /// The number under which this process owns the position.
    owner: i64,
    /// What is known to be durable.
    position: Option<Checkpoint>,
    /// A position that was being committed when something failed: it may have come through.
    in_doubt: Option<Option<Checkpoint>>,
    /// Such a position, that had come through although its batch was reported as failed.
    adopted: Option<Checkpoint>,
}

impl Writer {
    /// Opens the database, has everything there that is needed, and takes the position.
    pub(super) fn open(
        options: SqliteOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Result<Writer, SinkError> {
        let SqliteOptions { path, table, columns, create } = options;
        let rows = Rows::new(stream.clone(), &table, columns);
        let whose = Whose { stream, reference };
        let mut database = Database::open(&path, create)?;
        let transaction = begin(&mut database)?;
        positions::create(&transaction).tried("set up", &path)?;
        prepare_table(&transaction, &path, &table, &rows, create)?;
        let before = positions::look(&transaction, &whose).tried("read the position in", &path)?;
        let held =
            positions::take(&transaction, &whose, &table).tried("take the position in", &path)?;
        transaction.commit().tried("take the position in", &path)?;
        let files = database.files()?;
        report(&path, before.as_ref(), &held);
        Ok(Writer {
            path,
            table,
            whose,
            rows,
            database: Some(database),
            files,
            owner: held.owner,
            position: held.position,
            in_doubt: None,
            adopted: None,
        })
    }

    /// What the database holds, as far as this process knows.
    pub(super) fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.database()?;
        Ok(self.position)
    }

    /// Writes the batch in one transaction, together with its position.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if *batch.stream() != self.whose.stream {
            return Err(SinkError::Fatal(format!(
                "internal error: a batch of the stream {:?} was given to a sink for {:?}; please \
                 report it",
                batch.stream(),
                self.whose.stream
            )));
        }
        self.database()?;
        let reached = Some(batch.checkpoint());
        if self.adopted.take().is_some_and(|adopted| Some(adopted) == reached) {
            return Ok(()); // The commit had come through: only its answer was lost.
        }
        if let Some(at) = self.position.filter(|at| batch.first_offset() <= at.offset) {
            return Err(SinkError::Fatal(format!(
                "internal error: a batch that begins at offset {} was given to {}, which holds \
                 everything up to {}; please report it",
                batch.first_offset(),
                self.path.display(),
                at.offset
            )));
        }
        self.commit(reached, Some(batch))
    }

    /// Forgets the position. The rows stay: nothing forbids that the same offset comes again.
    pub(super) fn restart(&mut self) -> Result<(), SinkError> {
        self.database()?;
        self.commit(None, None)
    }

    /// One transaction: the batch, and the position. After a failure of unknown reach, nothing of
    /// the connection is trusted any more.
    fn commit(&mut self, to: Option<Checkpoint>, batch: Option<&Batch>) -> Result<(), SinkError> {
        let Some(mut database) = self.database.take() else {
            return Err(transient(format!("{} is not open", self.path.display())));
        };
        match self.attempt(&mut database, to, batch) {
            Ok(()) => {
                self.position = to;
                self.in_doubt = None;
                self.database = Some(database);
                Ok(())
            }
            Err(Failed::Before(error)) => {
                self.database = Some(database);
                Err(error)
            }
            Err(Failed::Within(error)) => {
                self.in_doubt = Some(to);
                Err(error)
            }
        }
    }

    fn attempt(
        &self,
        database: &mut Database,
        to: Option<Checkpoint>,
        batch: Option<&Batch>,
    ) -> Result<(), Failed> {
        let (path, whose) = (&self.path, &self.whose);
        database.check(self.files).map_err(Failed::Within)?;
        let within = |error: rusqlite::Error| super::error::failed("write to", path, &error);
        let transaction = begin(database).map_err(Failed::Within)?;
        // First, so that a former owner finds out before it has worked.
        let moved = positions::move_on(&transaction, whose, self.owner, self.position, to);
        if !moved.map_err(within).map_err(Failed::Within)? {
            let held = positions::look(&transaction, whose).map_err(within);
            return Err(Failed::Before(self.lost(held.map_err(Failed::Within)?)));
        }
        if let Some(batch) = batch {
            let bad =
                self.rows.insert(&transaction, batch).map_err(within).map_err(Failed::Within)?;
            if !bad.is_empty() {
                // A trigger may have done it already.
                if !transaction.is_autocommit() {
                    transaction.rollback().map_err(within).map_err(Failed::Within)?;
                }
                return Err(Failed::Before(SinkError::Poison(bad)));
            }
        }
        faults::reach(Point::Written);
        faults::reach(Point::Flushed);
        transaction.commit().map_err(within).map_err(Failed::Within)?;
        database.check(self.files).map_err(Failed::Within)
    }

    /// The database, opened anew where the last attempt failed, and the position found out.
    fn database(&mut self) -> Result<(), SinkError> {
        if self.database.is_some() {
            return Ok(());
        }
        let path = &self.path;
        let mut database = Database::open_again(path, self.files)?;
        let transaction = begin(&mut database)?;
        prepare_table(&transaction, path, &self.table, &self.rows, false)?;
        let held =
            positions::look(&transaction, &self.whose).tried("read the position in", path)?;
        let found = match held {
            Some(held) if held.owner == self.owner => held.position,
            held => return Err(self.lost(held)),
        };
        if found != self.position && Some(found) != self.in_doubt {
            return Err(self.lost(positions::look(&transaction, &self.whose).tried("read", path)?));
        }
        // A commit of our own: it syncs the log, which holds whatever was found here.
        positions::move_on(&transaction, &self.whose, self.owner, found, found)
            .tried("write to", path)?;
        transaction.commit().tried("write to", path)?;
        let came_through = found != self.position;
        if came_through {
            settle(&database)?;
        }
        self.files = database.files()?;
        self.adopted = if came_through { found } else { self.adopted };
        self.position = found;
        self.in_doubt = None;
        self.database = Some(database);
        Ok(())
    }

    /// Why the position is not ours to move.
    fn lost(&self, held: Option<Held>) -> SinkError {
        let (path, whose) = (self.path.display(), &self.whose);
        let Whose { stream, reference } = whose;
        SinkError::Fatal(match held {
            None => format!(
                "{path} no longer has the position of reference {reference:?} on stream {stream:?} \
                 (table {}): its row was removed, or another database put in its place. Nothing more \
                 is written. Start again to go on with what is there now.",
                positions::NAME
            ),
            Some(held) if held.owner != self.owner => format!(
                "another sink took over the position of reference {reference:?} on stream {stream:?} \
                 in {path}: the process with pid {}, at {} UTC. Nothing more is written here. Two \
                 daemons with the same configuration? Stop one of them.",
                held.owner_pid, held.owner_since
            ),
            Some(held) => format!(
                "{path} holds another position than this process left there ({} instead of {}): an \
                 older copy was put in its place, or the table {} was changed. Nothing more is \
                 written. Start again to go on after the position that it holds now.",
                shown(held.position),
                shown(self.position),
                positions::NAME
            ),
        })
    }
}

/// Whether anything may have been committed.
enum Failed {
    /// Surely not, and the connection is as it was.
    Before(SinkError),
    /// That is not known.
    Within(SinkError),
}

/// Begins to write: the lock is had from here on, so that what is read is what is changed.
fn begin(database: &mut Database) -> Result<Transaction<'_>, SinkError> {
    let path = database.path().to_owned();
    let begun = database.connection.transaction_with_behavior(TransactionBehavior::Immediate);
    begun.tried("begin to write to", &path)
}

/// What was found behind a commit that had failed may stand in the kernel's memory only, in pages
/// that a failed sync has marked as clean. Copied into the database they are written anew and
/// synced, and then it is durable.
fn settle(database: &Database) -> Result<(), SinkError> {
    let path = database.path();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy: i64 = database
        .connection
        .query_row(checkpoint, [], |row| row.get(0))
        .tried("write the log back into", path)?;
    if busy == 0 {
        return Ok(());
    }
    Err(transient(format!(
        "could not write the log back into {}: another program has it open in a long transaction. \
         Tried again until that has ended",
        path.display()
    )))
}

fn prepare_table(
    transaction: &Transaction<'_>,
    path: &std::path::Path,
    name: &str,
    rows: &Rows,
    create: bool,
) -> Result<(), SinkError> {
    if !table::exists(transaction, name).tried("read", path)? {
        if !create {
            return Err(SinkError::Fatal(format!(
                "{} has no table {name:?}, and it is not to be created. Create it: {};",
                path.display(),
                table::create_statement(name, rows.names_and_types())
            )));
        }
        let sql = table::create_statement(name, rows.names_and_types());
        return transaction.execute_batch(&sql).tried("create the table in", path);
    }
    let wrong = table::misfits(transaction, name, rows.names_and_types()).tried("read", path)?;
    if wrong.is_empty() {
        return Ok(());
    }
    Err(SinkError::Fatal(format!(
        "the table {name:?} in {} does not fit: {}. Change it, or set another `table`.",
        path.display(),
        wrong.join("; ")
    )))
}

fn report(path: &std::path::Path, before: Option<&Held>, held: &Held) {
    if let Some(before) = before.filter(|before| before.table != held.table) {
        tracing::warn!(
            database = %path.display(), from = before.table, to = held.table,
            "the table is another than before: it begins where the former one ends"
        );
    }
    tracing::debug!(
        database = %path.display(), table = held.table, owner = held.owner,
        position = held.position.map(|at| at.offset.0), "took the position"
    );
}

fn shown(position: Option<Checkpoint>) -> String {
    position.map_or_else(|| "none".to_owned(), |at| format!("offset {}", at.offset))
}

#[cfg(test)]
impl Writer {
    /// Sets SQLite's limit for a row.
    pub(super) fn limit_length(&mut self, bytes: i32) {
        let database = self.database.as_ref().unwrap();
        database.connection.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, bytes).unwrap();
    }

    /// Commits the batch, or only its position by another's hand, and forgets the answer.
    pub(super) fn doubt(&mut self, batch: &Batch, by_us: bool) {
        let known = self.position;
        if by_us {
            self.write(batch).unwrap();
            self.in_doubt = Some(self.position);
        } else {
            let database = self.database.as_ref().unwrap();
            database
                .connection
                .execute_batch("UPDATE rillway_positions SET \"offset\" = 5")
                .unwrap();
        }
        self.position = known;
        self.database = None;
    }
}
