//! State of the sink's thread: the connection, and what this process knows of its position.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::exactly_once::{BeforeWrite, PositionTracker};
use crate::sink::{BadReason, BadRecord, SinkError};
use crate::types::upsert::Missing;
use crate::types::{Checkpoint, Reference, StreamName};

use super::database::{Database, Files};
use super::error::{self, Tried};
use super::fit::{self, fits};
use super::options::SqliteOptions;
use super::positions::{self, Held, Whose};
use super::row::Rows;
use super::table;

/// Writes one stream's records into one table.
pub(super) struct Writer {
    path: PathBuf,
    table: String,
    whose: Whose,
    rows: Rows,
    /// `None` after a failure: it is opened again before the next attempt.
    database: Option<Database>,
    /// The files of the last connection.
    files: Files,
    /// The number with which this process owns the position.
    owner: i64,
    /// What is known of the position, and what may be done next.
    tracker: PositionTracker,
    /// SQLite's count of schema changes at the last check of the table.
    schema: i64,
}

impl Writer {
    /// Opens the database, creates what is needed, and takes the position.
    pub(super) fn open(
        options: SqliteOptions,
        stream: StreamName,
        reference: Reference,
    ) -> Result<Writer, SinkError> {
        let SqliteOptions { path, table, columns, create, upsert, missing } = options;
        let rows = Rows::new(stream.clone(), &table, columns, upsert.as_ref());
        let whose = Whose { stream, reference };
        let mut database = Database::open(&path, create)?;
        let transaction = begin(&mut database)?;
        positions::create(&transaction).tried("set up", &path)?;
        if create && !table::exists(&transaction, &table).tried("read", &path)? {
            let sql = table::create_statement(&table, rows.names_and_types(), rows.key());
            transaction.execute_batch(&sql).tried("create the table in", &path)?;
        } else if missing == Missing::Add {
            fit::add_missing(&transaction, &path, &table, &rows)?;
        }
        fits(&transaction, &path, &table, &rows)?.map_err(SinkError::Fatal)?;
        let other = positions::other(&transaction, &whose, &table).tried("read", &path)?;
        if let Some((reference, held)) = other {
            return Err(shared(&path, &table, &whose, &reference, &held));
        }
        let schema = schema_version(&transaction).tried("read", &path)?;
        let before = positions::look(&transaction, &whose).tried("read the position in", &path)?;
        let held =
            positions::take(&transaction, &whose, &table).tried("take the position in", &path)?;
        let is_replay = whose.reference.without_replay() != whose.reference.as_str();
        if held.position.is_none() && !is_replay {
            forget(&transaction, &table, &whose, &rows).tried("write to", &path)?;
        }
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
            tracker: PositionTracker::starting_at(held.position),
            schema,
        })
    }

    /// The position in the database, as far as this process knows.
    pub(super) fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.get_ready()?;
        Ok(self.tracker.committed())
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
        self.get_ready()?;
        match self.tracker.before_write(batch.first_offset(), batch.checkpoint()) {
            BeforeWrite::Write => self.commit(Some(batch.checkpoint()), Some(batch)),
            BeforeWrite::AlreadyCommitted => Ok(()),
            BeforeWrite::ReadRow => Err(self.not_open()),
            BeforeWrite::Overlaps(at) => Err(SinkError::Fatal(format!(
                "internal error: a batch that begins at offset {} was given to {}, which holds \
                 everything up to {}; please report it",
                batch.first_offset(),
                self.path.display(),
                at.offset
            ))),
        }
    }

    /// Moves the position, or forgets it. The rows stay: the table may hold the same offset again. Where rows
    /// are replaced by their key, any message replaces them once the position is forgotten.
    pub(super) fn move_to(&mut self, to: Option<Checkpoint>) -> Result<(), SinkError> {
        self.get_ready()?;
        self.commit(to, None)
    }

    fn not_open(&self) -> SinkError {
        SinkError::transient(format!("{} is not open", self.path.display()))
    }

    /// One transaction: the batch, and the position.
    fn commit(&mut self, to: Option<Checkpoint>, batch: Option<&Batch>) -> Result<(), SinkError> {
        let Some(mut database) = self.database.take() else {
            return Err(self.not_open());
        };
        match self.attempt(&mut database, to, batch) {
            Ok(()) => {
                self.tracker.confirmed();
                self.database = Some(database);
                Ok(())
            }
            Err(Failed::Cleanly(error)) => {
                self.database = Some(database);
                Err(error)
            }
            Err(Failed::Broken(error)) => Err(error),
        }
    }

    fn attempt(
        &mut self,
        database: &mut Database,
        to: Option<Checkpoint>,
        batch: Option<&Batch>,
    ) -> Result<(), Failed> {
        let path = &self.path.clone();
        database.check(self.files).map_err(Failed::Broken)?;
        let within = |error: rusqlite::Error| error::failed("write to", path, &error);
        let transaction = begin(database).map_err(Failed::Broken)?;
        // First, so that a former owner notices it before it does any work.
        let moved =
            positions::move_on(&transaction, &self.whose, self.owner, self.tracker.committed(), to);
        if !moved.map_err(within).map_err(Failed::Broken)? {
            let held = positions::look(&transaction, &self.whose).map_err(within);
            return Err(Failed::Cleanly(self.lost(held.map_err(Failed::Broken)?)));
        }
        if to.is_none() && !self.rows.key().is_empty() {
            self.look_again(&transaction).map_err(Failed::Cleanly)?;
            forget(&transaction, &self.table, &self.whose, &self.rows)
                .map_err(within)
                .map_err(Failed::Broken)?;
        }
        if let Some(batch) = batch {
            self.look_again(&transaction).map_err(Failed::Cleanly)?;
            let bad =
                self.rows.insert(&transaction, batch).map_err(within).map_err(Failed::Broken)?;
            if !bad.is_empty() {
                let bad = with_unmet(&transaction, &self.table, batch, bad);
                let bad = bad.map_err(within).map_err(Failed::Broken)?;
                // A trigger may have rolled back already.
                if !transaction.is_autocommit() {
                    transaction.rollback().map_err(within).map_err(Failed::Broken)?;
                }
                return Err(Failed::Cleanly(SinkError::Poison(bad)));
            }
        }
        faults::reach(Point::Written);
        faults::reach(Point::Flushed);
        self.tracker.committing(to);
        match transaction.execute_batch("COMMIT") {
            Ok(()) => {}
            // A deferred foreign key was violated. The transaction is still open.
            Err(error) if error::is_of_the_row(&error) && !transaction.is_autocommit() => {
                let found = batch.map(|batch| unmet(&transaction, &self.table, batch));
                let bad = found.transpose().map_err(within).map_err(Failed::Broken)?;
                transaction.rollback().map_err(within).map_err(Failed::Broken)?;
                self.tracker.rolled_back();
                let bad = bad.filter(|bad| !bad.is_empty()).map(SinkError::Poison);
                return Err(Failed::Cleanly(bad.unwrap_or_else(|| within(error))));
            }
            Err(error) => return Err(Failed::Broken(within(error))),
        }
        drop(transaction);
        database.check(self.files).map_err(Failed::Broken)
    }

    /// Checks that the table still fits, if the schema has changed since the last check. Within a write
    /// transaction, nobody else can change it.
    fn look_again(&mut self, transaction: &Transaction<'_>) -> Result<(), SinkError> {
        let path = &self.path;
        let schema = schema_version(transaction).tried("read", path)?;
        if schema != self.schema {
            fits(transaction, path, &self.table, &self.rows)?.map_err(|what| {
                SinkError::transient(format!(
                    "{what} The batch is tried again until the table fits"
                ))
            })?;
            self.schema = schema;
        }
        Ok(())
    }

    /// Opens the database again if the last attempt failed, and reads the position's row.
    fn get_ready(&mut self) -> Result<(), SinkError> {
        if self.database.is_some() && !self.tracker.must_read_row() {
            return Ok(());
        }
        self.database = None;
        let path = &self.path;
        let mut database = Database::open_again(path, self.files)?;
        let transaction = begin(&mut database)?;
        let held =
            positions::look(&transaction, &self.whose).tried("read the position in", path)?;
        let found = match held {
            Some(ref held) if held.owner == self.owner => held.position,
            held => return Err(self.lost(held)),
        };
        let Ok(compared) = self.tracker.compare(found) else { return Err(self.lost(held)) };
        // A commit of this connection: it syncs the log, which holds everything that was found here.
        positions::move_on(&transaction, &self.whose, self.owner, found, found)
            .tried("write to", path)?;
        transaction.commit().tried("write to", path)?;
        if compared.has_landed() {
            settle(&database)?;
        }
        self.files = database.files()?;
        self.tracker.resume(compared);
        self.database = Some(database);
        Ok(())
    }

    /// The error for a position that another process took or changed.
    fn lost(&self, held: Option<Held>) -> SinkError {
        let (path, whose) = (self.path.display(), &self.whose);
        let Whose { stream, reference } = whose;
        SinkError::Fatal(match held {
            None => format!(
                "{path} no longer has the position of reference {reference:?} on stream {stream:?} \
                 (table {}): its row was removed, or the file was replaced by another database. Nothing \
                 more is written. Restart to continue with the present database.",
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
                 older copy was restored, or the table {} was changed. Nothing more is written. \
                 Restart to continue after the position that it holds now.",
                shown(held.position),
                shown(self.tracker.committed()),
                positions::NAME
            ),
        })
    }
}

/// State of the connection after a failure.
enum Failed {
    /// The transaction is rolled back, and the connection is as before.
    Cleanly(SinkError),
    /// The connection is not used any more.
    Broken(SinkError),
}

/// `BEGIN IMMEDIATE`: takes the write lock before reading, so that nobody changes the position in
/// between.
fn begin(database: &mut Database) -> Result<Transaction<'_>, SinkError> {
    let path = database.path().to_owned();
    let begun = database.connection.transaction_with_behavior(TransactionBehavior::Immediate);
    begun.tried("begin to write to", &path)
}

/// Makes a commit durable that had failed and is found to count. Its pages may be only in the kernel's
/// memory, where a failed sync has marked them as clean. Copied into the database they are written again
/// and synced.
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
    Err(SinkError::transient(format!(
        "could not write the log back into {}: another program has it open in a long transaction. \
         Tried again until that has ended",
        path.display()
    )))
}

/// SQLite's count of changes to the schema, by any program.
fn schema_version(database: &Connection) -> rusqlite::Result<i64> {
    database.query_row("PRAGMA schema_version", [], |row| row.get(0))
}

/// Where rows are replaced by their key: lets every message replace the rows of the stream, whose offsets
/// begin again.
fn forget(database: &Connection, table: &str, whose: &Whose, rows: &Rows) -> rusqlite::Result<()> {
    if rows.key().is_empty() {
        return Ok(());
    }
    database.execute(&table::forget_statement(table), [whose.stream.as_str()]).map(drop)
}

/// The error if another reference writes the stream into the table.
pub(super) fn shared(
    path: &Path,
    table: &str,
    whose: &Whose,
    former: &Reference,
    held: &Held,
) -> SinkError {
    let Whose { stream, reference } = whose;
    let (path, former, positions) = (path.display(), former.as_str(), positions::NAME);
    let upto = held.position.map(|at| format!("offset {}", at.offset));
    let upto = upto.unwrap_or_else(|| "no offset yet".to_owned());
    SinkError::Fatal(format!(
        "the table {table:?} in {path} already takes the stream {stream:?}, under the reference \
         {former:?} (up to {upto}): under {reference:?} every message would be in it twice. Was this consumer \
         renamed? Then set reference = {former:?}, and it continues where that one ended. Are these two \
         consumers? Give this one a `table` of its own. Were the rows of {former:?} deleted? Then DELETE \
         FROM {positions} WHERE stream = '{stream}' AND reference = '{former}'"
    ))
}

/// The bad records, with those before them that only the commit would refuse: dead letters are written in
/// order. Checked only if the table has such constraints, because it reads the table.
fn with_unmet(
    database: &Connection,
    table: &str,
    batch: &Batch,
    mut bad: Vec<BadRecord>,
) -> rusqlite::Result<Vec<BadRecord>> {
    if database.is_autocommit() || !table::has_deferred_keys(database, table)? {
        return Ok(bad);
    }
    bad.extend(unmet(database, table, batch)?);
    bad.sort_by_key(|bad| bad.offset);
    Ok(bad)
}

/// The records of the batch that violate foreign keys.
fn unmet(database: &Connection, table: &str, batch: &Batch) -> rusqlite::Result<Vec<BadRecord>> {
    let range = batch.first_offset()..=batch.last_offset();
    let mut bad: Vec<BadRecord> = table::unmet_keys(database, table, batch.stream().as_str())?
        .into_iter()
        .filter(|(offset, _)| range.contains(offset))
        .map(|(offset, parent)| BadRecord {
            about: None,
            offset,
            reason: BadReason::Refused,
            detail: format!(
                "SQLite refuses the row: FOREIGN KEY constraint failed (no such row in {parent:?})"
            ),
        })
        .collect();
    bad.sort_by_key(|bad| bad.offset);
    bad.dedup_by_key(|bad| bad.offset);
    Ok(bad)
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

    /// Commits the batch, or only its position (on another connection), and forgets the answer.
    pub(super) fn doubt(&mut self, batch: &Batch, by_us: bool) {
        let known = self.tracker.committed();
        if by_us {
            self.write(batch).unwrap();
            self.tracker = PositionTracker::starting_at(known);
            self.tracker.committing(Some(batch.checkpoint()));
        } else {
            let database = self.database.as_ref().unwrap();
            database
                .connection
                .execute_batch("UPDATE rillway_positions SET \"offset\" = 5")
                .unwrap();
        }
        self.database = None;
    }
}
