//! Reads the rows of a table back, for `rillway verify`.
//!
//! The rows that should be there are inserted by the sink's own code into a table in memory whose columns
//! are declared as those of the real one. So SQLite itself does to both whatever it does to values.
//!
//! Offsets are read in windows, each in a read transaction of its own: no writer waits for it, and the
//! write-ahead log can be copied back in between. A table without an index on `offset` is read as a whole
//! for each window; their number is limited.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::database::{Database, is_in_use};
use super::error::Tried;
use super::positions::{self, Whose};
use super::row::Rows;
use super::{SqliteOptions, fit, table};
use crate::flow::batch::Batch;
use crate::sink::audit::cells::{self, BYTES, FLOAT, INTEGER, NULL, RowJudge, TEXT};
use crate::sink::audit::{
    AuditError, Auditor, Entry, Found, Maker, Order, Sides, Span, Stop, Turner, times,
    turning_blocking,
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
        Rows::new(self.stream.clone(), table, self.options.columns.clone(), None)
    }
}

#[async_trait]
impl Auditor for SqliteAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let path = &self.options.path;
        let Some(database) = Database::look(path)? else { return Ok(None) };
        let whose = Whose { stream: self.stream.clone(), reference: self.reference.clone() };
        let held = positions::look(&database, &whose).tried("read the position in", path)?;
        Ok(held.and_then(|held| held.position))
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        let SqliteOptions { path, table, .. } = &self.options;
        let sql = format!("SELECT min(\"offset\") FROM {} WHERE stream = ?1", table::quoted(table));
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
        drop(database);
        let scratch = Connection::open_in_memory().tried("open a copy in memory of", path)?;
        scratch.execute_batch(&create).tried("make a copy in memory of", path)?;
        let maker = RowMaker {
            select: table::select_statement(SCRATCH, &names, "ORDER BY rowid"),
            rows: self.rows(SCRATCH),
            width: names.len(),
            scratch,
        };
        let within =
            "WHERE stream = ?1 AND \"offset\" >= ?2 AND \"offset\" <= ?3 ORDER BY \"offset\"";
        let reading = Reading {
            options: self.options.clone(),
            stream: self.stream.clone(),
            select: table::select_statement(table, &names, within),
            width: names.len(),
        };
        let kept = turning_blocking(move |to| reading.run(span, to));
        let judge = Box::new(RowJudge(names.into()));
        let times = times(self.options.columns.as_deref());
        Ok(Sides {
            kept,
            maker: Box::new(maker),
            judge,
            order: Order::ByOffset,
            times,
            notes: Vec::new(),
        })
    }
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
        let mut statement = database.prepare(&self.select).tried("read", path)?;
        let key = params![self.stream.as_str(), from.cast_signed(), last.cast_signed()];
        let mut rows = statement.query(key).tried("read", path)?;
        while let Some(row) = rows.next().tried("read", path)? {
            to.push(Found::Record(entry(row, self.width).tried("read", path)?))?;
        }
        // A database that nobody uses is read without its log, which may exist by now.
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
fn entry(row: &Row<'_>, width: usize) -> rusqlite::Result<Entry> {
    let mut content = Vec::with_capacity(128);
    let mut offset = 0;
    for nth in 0..width {
        let value = row.get_ref(nth)?;
        if let (1, ValueRef::Integer(number)) = (nth, value) {
            offset = number.cast_unsigned();
        }
        put(value, &mut content);
    }
    Ok(Entry { offset: Offset(offset), content })
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
}

impl RowMaker {
    fn run(
        &self,
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
        let mut statement = self.scratch.prepare(&self.select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            into.push(entry(row, self.width)?);
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
