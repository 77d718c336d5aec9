//! Reads the rows of a table back, for `rillway verify`.
//!
//! The rows that should be there are inserted by the sink's own code into a table in memory whose columns
//! are declared as those of the real one. So SQLite itself does to both whatever it does to values.
//!
//! Offsets are read in windows, each in a read transaction of its own: no writer waits for it, and the
//! write-ahead log can be copied back in between. A table without an index on `offset` is read as a whole
//! for each window; their number is limited.
//!
//! Where rows are replaced by their key, all of them are read in one transaction, in which the position is read
//! too: what they should be is known for one moment only. The log cannot be copied back meanwhile.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, Row, params};

use super::database::{Database, is_in_use};
use super::error::Tried;
use super::positions::{self, Whose};
use super::row::Rows;
use super::{SqliteOptions, fit, table};
use crate::flow::batch::Batch;
use crate::sink::audit::cells::{self, BYTES, FLOAT, INTEGER, NULL, RowJudge, TEXT};
use crate::sink::audit::{
    AuditError, Auditor, Contents, Entry, Found, Keys, Maker, Order, SHARED_TABLE, Sides, Span,
    Stop, Turner, times, turning_blocking,
};
use crate::sink::{BAD_RECORDS_MAX, BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Fewest offsets of a window, and most windows.
const WINDOW_MIN: u64 = 1 << 18;
const WINDOWS_MAX: u64 = 16;

/// The table in memory.
const SCRATCH: &str = "rows";

/// Reads what a sink with these options has committed.
pub(super) struct SqliteAuditor {
    pub(super) options: SqliteOptions,
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
}

impl SqliteAuditor {
    /// The database, read-only; an error if it is missing.
    fn open(&self) -> Result<Connection, SinkError> {
        let path = &self.options.path;
        Database::look(path)?
            .ok_or_else(|| SinkError::transient(format!("there is no database {}", path.display())))
    }

    fn rows(&self, table: &str) -> Rows {
        let SqliteOptions { columns, upsert, .. } = &self.options;
        Rows::new(self.stream.clone(), table, columns.clone(), upsert.as_ref())
    }

    fn whose(&self) -> Whose {
        Whose { stream: self.stream.clone(), reference: self.reference.clone() }
    }

    /// The database as it is now, and the position in it.
    fn now(&self) -> Result<(Snapshot, Offset), AuditError> {
        let path = &self.options.path;
        let was_in_use = is_in_use(path);
        let database = self.open()?;
        database.execute_batch("BEGIN").tried("read", path)?;
        let held = positions::look(&database, &self.whose()).tried("read the position in", path)?;
        let Some(position) = held.and_then(|held| held.position) else {
            return Err(
                SinkError::transient(format!("{} has lost its position", path.display())).into()
            );
        };
        Ok((Snapshot { database, was_in_use }, position.offset))
    }
}

/// An open read transaction.
struct Snapshot {
    database: Connection,
    was_in_use: bool,
}

#[async_trait]
impl Auditor for SqliteAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let path = &self.options.path;
        let Some(database) = Database::look(path)? else { return Ok(None) };
        let held = positions::look(&database, &self.whose()).tried("read the position in", path)?;
        Ok(held.and_then(|held| held.position))
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        let SqliteOptions { path, table, .. } = &self.options;
        let sql = format!(
            "SELECT min(\"offset\") FROM {} WHERE stream = ?1 AND \"offset\" >= 0",
            table::quoted(table)
        );
        let first = self
            .open()?
            .query_row(&sql, [self.stream.as_str()], |row| row.get::<_, Option<i64>>(0));
        Ok(first.tried("read", path)?.map(|first| Offset(first.cast_unsigned())))
    }

    async fn open(&self, span: Span) -> Result<Sides, AuditError> {
        let SqliteOptions { path, table, .. } = &self.options;
        let database = self.open()?;
        let rows = self.rows(table);
        fit::fits(&database, path, table, &rows)?.map_err(AuditError::Cannot)?;
        let names: Vec<String> = rows.names_and_types().map(|(name, _)| name.to_owned()).collect();
        let create = table::create_like(&database, table, &names, SCRATCH).tried("read", path)?;
        let mut notes = Vec::new();
        let scratch = Connection::open_in_memory().tried("open a copy in memory of", path)?;
        scratch.execute_batch(&create).tried("make a copy in memory of", path)?;
        let maker = RowMaker {
            select: table::select_statement(SCRATCH, &names, "ORDER BY rowid"),
            rows: self.rows(SCRATCH).with_changes(SCRATCH),
            width: names.len(),
            contents: Contents::default(),
            scratch,
        };
        let within = match self.options.upsert {
            None => {
                "WHERE stream = ?1 AND \"offset\" >= ?2 AND \"offset\" <= ?3 ORDER BY \"offset\""
            }
            Some(_) => "WHERE stream = ?1 ORDER BY \"offset\"",
        };
        let reading = Reading {
            options: self.options.clone(),
            stream: self.stream.clone(),
            select: table::select_statement(table, &names, within),
            width: names.len(),
        };
        let (kept, order) = match rows.key() {
            [] => (turning_blocking(move |to| reading.run(span, to)), Order::ByOffset),
            key => {
                if !key.iter().any(|name| name == "stream") {
                    let others = format!(
                        "SELECT EXISTS (SELECT 1 FROM {} WHERE stream IS NOT ?1)",
                        table::quoted(table)
                    );
                    let others = database
                        .query_row(&others, [self.stream.as_str()], |row| row.get::<_, bool>(0));
                    notes.extend(others.tried("read", path)?.then(|| SHARED_TABLE.to_owned()));
                }
                let (now, upto) = self.now()?;
                let keys = Box::new(RowKeys::new(&names, key));
                (turning_blocking(move |to| reading.latest(&now, to)), Order::Latest { keys, upto })
            }
        };
        let judge = Box::new(RowJudge(names.into()));
        let times = times(self.options.columns.as_deref());
        Ok(Sides { kept, maker: Box::new(maker), judge, order, times, notes })
    }
}

/// Tells rows apart by their keys.
struct RowKeys(Vec<usize>);

impl RowKeys {
    fn new(names: &[String], key: &[String]) -> RowKeys {
        let place = |of_key: &String| names.iter().position(|name| name == of_key);
        RowKeys(key.iter().filter_map(place).collect())
    }
}

impl Keys for RowKeys {
    fn read(&self, content: &[u8], key: &mut Vec<u8>) -> bool {
        let values: Vec<(u8, &[u8])> = cells::values(content).collect();
        for (kind, value) in self.0.iter().filter_map(|nth| values.get(*nth)) {
            match whole(*kind, value) {
                // SQLite compares both kinds of numbers by what they are worth.
                Some(number) => cells::put(INTEGER, &number.to_le_bytes(), key),
                None => cells::put(*kind, value, key),
            }
        }
        values.get(TIMESTAMP).is_none_or(|(kind, _)| *kind == NULL)
    }
}

/// Place of the column that every message has, and a delete does not.
const TIMESTAMP: usize = 2;

/// The integer that is equal to this float.
fn whole(kind: u8, value: &[u8]) -> Option<i64> {
    let float = f64::from_le_bytes(*value.first_chunk().filter(|_| kind == FLOAT)?);
    let number = float as i64;
    (number as f64 == float && number != i64::MAX).then_some(number)
}

/// The rows of the table.
struct Reading {
    options: SqliteOptions,
    stream: StreamName,
    select: String,
    width: usize,
}

impl Reading {
    fn run(&self, span: Span, to: &mut Turner) -> Result<(), Stop> {
        let width = ((span.to.0 - span.from.0) / WINDOWS_MAX).max(WINDOW_MIN);
        let mut from = span.from.0;
        loop {
            let last = from.saturating_add(width).min(span.to.0);
            self.window(from, last, to)?;
            if last >= span.to.0 {
                return Ok(());
            }
            from = last + 1;
        }
    }

    fn window(&self, from: u64, last: u64, to: &mut Turner) -> Result<(), Stop> {
        let path: &Path = &self.options.path;
        let was_in_use = is_in_use(path);
        let Some(database) = Database::look(path)? else {
            return Err(SinkError::transient(format!("{} is gone", path.display())).into());
        };
        let key = params![self.stream.as_str(), from.cast_signed(), last.cast_signed()];
        self.rows(&database, key, to)?;
        self.check(was_in_use)
    }

    /// All rows of the stream, in the order of their offsets.
    fn latest(&self, now: &Snapshot, to: &mut Turner) -> Result<(), Stop> {
        self.rows(&now.database, params![self.stream.as_str()], to)?;
        self.check(now.was_in_use)
    }

    fn rows(&self, database: &Connection, of: impl Params, to: &mut Turner) -> Result<(), Stop> {
        let path: &Path = &self.options.path;
        let mut statement = database.prepare(&self.select).tried("read", path)?;
        let mut rows = statement.query(of).tried("read", path)?;
        let mut contents = Contents::default();
        while let Some(row) = rows.next().tried("read", path)? {
            let entry = entry(row, self.width, &mut contents).tried("read", path)?;
            to.push(Found::Record(entry))?;
        }
        Ok(())
    }

    /// A database that nobody uses is read without its log, which may exist by now.
    fn check(&self, was_in_use: bool) -> Result<(), Stop> {
        let path: &Path = &self.options.path;
        if !was_in_use && is_in_use(path) {
            return Err(SinkError::transient(format!(
                "a daemon began to write to {} while it was read: verify again",
                path.display()
            ))
            .into());
        }
        Ok(())
    }
}

/// The row in the form in which two are compared. Its second column is the offset.
fn entry(row: &Row<'_>, width: usize, contents: &mut Contents) -> rusqlite::Result<Entry> {
    let content = contents.begin();
    let mut offset = 0;
    for nth in 0..width {
        let value = row.get_ref(nth)?;
        if let (1, ValueRef::Integer(number)) = (nth, value) {
            offset = number.cast_unsigned();
        }
        put(value, content);
    }
    Ok(Entry { offset: Offset(offset), content: contents.end() })
}

fn put(value: ValueRef<'_>, out: &mut Vec<u8>) {
    match value {
        ValueRef::Null => cells::put(NULL, &[], out),
        ValueRef::Integer(number) => cells::put(INTEGER, &number.to_le_bytes(), out),
        ValueRef::Real(number) => cells::put(FLOAT, &number.to_le_bytes(), out),
        ValueRef::Text(text) => cells::put(TEXT, text, out),
        ValueRef::Blob(bytes) => cells::put(BYTES, bytes, out),
    }
}

/// Makes rows by inserting them into the table in memory.
struct RowMaker {
    scratch: Connection,
    rows: Rows,
    select: String,
    width: usize,
    contents: Contents,
}

impl RowMaker {
    fn run(
        &mut self,
        batch: &Batch,
        into: &mut Vec<Entry>,
        refused: &mut Vec<BadRecord>,
    ) -> rusqlite::Result<()> {
        let mut rest = batch.clone();
        loop {
            self.scratch.execute_batch("BEGIN; DELETE FROM rows")?;
            let mut bad = self.rows.insert(&self.scratch, &rest)?;
            self.scratch.execute_batch("COMMIT")?;
            let is_complete = bad.len() < BAD_RECORDS_MAX;
            if !is_complete {
                rest = rest.without(bad.iter().map(|bad| bad.offset).collect());
            }
            refused.append(&mut bad);
            if is_complete {
                break;
            }
        }
        let RowMaker { scratch, select, width, contents, .. } = self;
        let mut statement = scratch.prepare(select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            into.push(entry(row, *width, contents)?);
        }
        Ok(())
    }
}

impl Maker for RowMaker {
    fn make(
        &mut self,
        batch: &Batch,
        into: &mut Vec<Entry>,
        refused: &mut Vec<BadRecord>,
    ) -> Result<(), SinkError> {
        self.run(batch, into, refused)
            .map_err(|error| SinkError::Fatal(format!("rows cannot be made in memory: {error}")))
    }
}
