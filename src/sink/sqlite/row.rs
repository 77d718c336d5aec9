//! Binds a record to the parameters of the insert statement. Slices of the message are passed to SQLite
//! without a copy; values that stay the same from row to row are bound once.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use crate::flow::batch::Batch;
use crate::sink::columns::{BodyAs, Change, Changes, Columns, Value};
use crate::sink::{BAD_RECORDS_MAX, BadReason, BadRecord, envelope};
use crate::types::column::{Column, ColumnType, OnMisfit};
use crate::types::upsert::Upsert;
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::amqp::single_data;
use crate::wire::block::Record;

use super::{error, table};

/// Number of columns before those that [`Columns`] reads: stream, offset, timestamp.
const OWN: usize = 3;

/// The columns of a row.
pub(super) struct Rows {
    stream: StreamName,
    columns: Columns,
    /// The columns are those of the envelope: a message with only a body takes a shorter path.
    envelope: bool,
    insert: String,
    /// How rows are replaced by their key; `None`: each record is a row of its own.
    keyed: Option<Keyed>,
}

/// Rows that are replaced by their key.
struct Keyed {
    changes: Changes,
    names: Vec<String>,
    delete: String,
}

impl Rows {
    /// These columns, or by default those of the envelope.
    pub(super) fn new(
        stream: StreamName,
        table: &str,
        columns: Option<Vec<Column>>,
        upsert: Option<&Upsert>,
    ) -> Rows {
        let envelope = columns.is_none();
        let all = match columns {
            None => Columns::envelope(stream.clone(), BodyAs::Either),
            Some(columns) => Columns::typed(stream.clone(), columns),
        };
        let names = all.names_and_types().map(|(name, _)| name);
        let insert = match upsert {
            Some(upsert) => table::upsert_statement(table, names, &upsert.key),
            None => table::insert_statement(table, names),
        };
        let keyed = upsert.map(|upsert| {
            let changes = Changes::new(all.clone(), upsert);
            // In the order of the values.
            let of_key = changes.key().iter().filter_map(|nth| all.columns().get(*nth));
            let names: Vec<String> = of_key.map(|column| column.name.clone()).collect();
            let delete = table::delete_statement(table, &names);
            Keyed { changes, names, delete }
        });
        Rows { stream, columns: all, envelope, insert, keyed }
    }

    /// Has each change become a row of its own, in a table without keys. A delete has only its key, and no
    /// timestamp.
    pub(super) fn with_changes(mut self, table: &str) -> Rows {
        if let Some(keyed) = &mut self.keyed {
            let names = self.columns.names_and_types().map(|(name, _)| name);
            self.insert = table::insert_statement(table, names);
            keyed.delete = table::insert_key_statement(table, &keyed.names);
        }
        self
    }

    /// The columns of the key, or none if each record is a row of its own.
    pub(super) fn key(&self) -> &[String] {
        self.keyed.as_ref().map_or(&[], |keyed| &keyed.names)
    }

    pub(super) fn names_and_types(&self) -> impl Iterator<Item = (&str, ColumnType)> {
        self.columns.names_and_types()
    }

    /// Inserts every record; returns the bad ones.
    pub(super) fn insert(
        &self,
        database: &Connection,
        batch: &Batch,
    ) -> rusqlite::Result<Vec<BadRecord>> {
        let mut insert = Insert {
            rows: self,
            statement: database.prepare(&self.insert)?,
            delete: self.keyed.as_ref().map(|k| database.prepare(&k.delete)).transpose()?,
            stamp: None,
            nothing_but_body: false,
        };
        insert.statement.raw_bind_parameter(1, self.stream.as_str())?;
        if let Some(delete) = &mut insert.delete {
            delete.raw_bind_parameter(1, self.stream.as_str())?;
        }
        let mut values = Vec::with_capacity(self.columns.len());
        let mut bad = Vec::new();
        for record in batch.records() {
            match insert.one(record, &mut values) {
                Ok(()) => {}
                Err(Refused::Record(record)) => bad.push(record),
                Err(Refused::Row(error)) => {
                    let detail = format!("SQLite refuses the row: {}", error::words(&error));
                    bad.push(BadRecord {
                        about: None,
                        offset: record.offset,
                        reason: BadReason::Refused,
                        detail,
                    });
                    // A trigger of the table's owner may end the whole transaction: then no more bad
                    // records can be found in this one.
                    if database.is_autocommit() {
                        break;
                    }
                }
                Err(Refused::Sql(error)) => return Err(error),
            }
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        Ok(bad)
    }
}

enum Refused {
    Record(BadRecord),
    /// SQLite refused it for its content.
    Row(rusqlite::Error),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Refused {
        if error::is_of_the_row(&error) { Refused::Row(error) } else { Refused::Sql(error) }
    }
}

struct Insert<'r, 'c> {
    rows: &'r Rows,
    statement: Statement<'c>,
    /// Where rows are replaced by their key: deletes the row of a key.
    delete: Option<Statement<'c>>,
    /// The timestamp that is bound now.
    stamp: Option<Timestamp>,
    /// Whether all columns between timestamp and body are bound to NULL.
    nothing_but_body: bool,
}

impl<'r> Insert<'r, '_> {
    fn one<'b: 'r>(
        &mut self,
        record: Record<'b>,
        values: &mut Vec<Value<'r>>,
    ) -> Result<(), Refused> {
        let columns = &self.rows.columns;
        let whole = self.rows.envelope && self.rows.keyed.is_none();
        let body = if whole { single_data(record.message) } else { None };
        match body {
            Some(body) => {
                let last = columns.len();
                if !self.nothing_but_body {
                    for nth in OWN + 1..last {
                        self.bind(nth, ValueRef::Null)?;
                    }
                    self.nothing_but_body = true;
                }
                self.bind(last, text_or_bytes(body))?;
            }
            None => {
                // Offset and timestamp are bound below; an offset above 2^63 is no misfit here.
                let small = Offset(record.offset.0.min(i64::MAX.unsigned_abs()));
                let known = Record { offset: small, ..record };
                let read = match &self.rows.keyed {
                    Some(keyed) => keyed.changes.read(known, values),
                    None => columns.read(known, values).map(|()| Change::Put),
                };
                let change = read.map_err(|bad| BadRecord { offset: record.offset, ..bad });
                self.nothing_but_body = false;
                if change.map_err(Refused::Record)? == Change::Delete {
                    return self.delete(values, record.offset);
                }
                for (nth, value) in values.iter().enumerate().skip(OWN) {
                    let column = columns.columns().get(nth);
                    bind(&mut self.statement, nth + 1, column, value, record.offset)?;
                }
            }
        }
        self.bind(2, ValueRef::Integer(record.offset.0.cast_signed()))?;
        if self.stamp != Some(record.timestamp) {
            timestamp(&mut self.statement, 3, record.timestamp.0, 0)?;
            self.stamp = Some(record.timestamp);
        }
        execute(&mut self.statement)
    }

    /// Deletes the row that these values have the key of.
    fn delete(&mut self, values: &[Value<'_>], offset: Offset) -> Result<(), Refused> {
        let (Some(keyed), Some(delete)) = (&self.rows.keyed, &mut self.delete) else {
            return Ok(());
        };
        put(delete, 2, ValueRef::Integer(offset.0.cast_signed()))?;
        for (at, nth) in (3..).zip(keyed.changes.key()) {
            if let Some(value) = values.get(*nth) {
                bind(delete, at, self.rows.columns.columns().get(*nth), value, offset)?;
            }
        }
        execute(delete)
    }

    fn bind(&mut self, at: usize, value: ValueRef<'_>) -> rusqlite::Result<()> {
        put(&mut self.statement, at, value)
    }
}

fn execute(statement: &mut Statement<'_>) -> Result<(), Refused> {
    statement.raw_execute().map_err(|error| {
        // The statement was prepared within this transaction, so the table is unchanged. An error
        // without a more specific number is then the failure of an expression over this row (in an
        // index, a CHECK or a trigger).
        if error::is_unspecific(&error) { Refused::Row(error) } else { error.into() }
    })?;
    Ok(())
}

fn put(statement: &mut Statement<'_>, at: usize, value: ValueRef<'_>) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(at, ToSqlOutput::Borrowed(value))
}

/// Binds the value of a column to a parameter. Parameters count from 1.
fn bind(
    to: &mut Statement<'_>,
    at: usize,
    column: Option<&Column>,
    value: &Value<'_>,
    offset: Offset,
) -> Result<(), Refused> {
    match value {
        Value::Null => put(to, at, ValueRef::Null)?,
        Value::Text(text) | Value::Json(text) => put(to, at, text_or_blob(text))?,
        Value::Integer(number) => put(to, at, ValueRef::Integer(*number))?,
        Value::Float(number) => put(to, at, ValueRef::Real(*number))?,
        Value::Boolean(yes) => put(to, at, ValueRef::Integer((*yes).into()))?,
        Value::Bytes(bytes) => put(to, at, ValueRef::Blob(bytes))?,
        Value::Timestamp(micros) => {
            timestamp(to, at, micros.div_euclid(1000), micros.rem_euclid(1000))?;
        }
        Value::Numeric(digits) => match (number(digits), column) {
            (Some(number), _) => put(to, at, number)?,
            (None, Some(column)) if column.required || column.on_misfit != OnMisfit::Null => {
                let why = format!(
                    "SQLite has no number of so many digits as {digits}; as type = \"text\" they \
                     would all be kept"
                );
                return Err(Refused::Record(BadRecord::about(
                    format!("column {:?}", column.name),
                    offset,
                    BadReason::Misfit,
                    why,
                )));
            }
            (None, _) => put(to, at, ValueRef::Null)?,
        },
    }
    Ok(())
}

fn timestamp(to: &mut Statement<'_>, at: usize, ms: i64, micros: i64) -> rusqlite::Result<()> {
    match point_in_time(ms, micros) {
        Some(text) => put(to, at, ValueRef::Text(text.as_bytes())),
        None => put(to, at, ValueRef::Integer(ms)),
    }
}

/// The time in the form of SQLite's own functions, so that it compares with their results: `2026-01-31
/// 23:59:59.123`, with six digits if there are microseconds. `None` if the year has not four digits.
fn point_in_time(ms: i64, micros: i64) -> Option<String> {
    let text = envelope::rfc3339(ms);
    let mut text = text.strip_suffix('Z')?.replace('T', " ");
    if micros > 0 {
        text.push_str(&format!("{micros:03}"));
    }
    Some(text)
}

/// A NUL ends a text for many of SQLite's functions, and in its shell: such a text is stored as bytes, so
/// that nothing of it is hidden.
fn text_or_blob(text: &str) -> ValueRef<'_> {
    let bytes = text.as_bytes();
    if bytes.contains(&0) { ValueRef::Blob(bytes) } else { ValueRef::Text(bytes) }
}

fn text_or_bytes(bytes: &[u8]) -> ValueRef<'_> {
    std::str::from_utf8(bytes).map_or(ValueRef::Blob(bytes), text_or_blob)
}

/// The decimal number as a number of SQLite, if one has exactly these digits: an integer of 64 bits, or
/// the binary64 whose shortest form they are.
fn number<'a>(digits: &str) -> Option<ValueRef<'a>> {
    if let Ok(whole) = digits.parse() {
        return Some(ValueRef::Integer(whole));
    }
    let float: f64 = digits.parse().ok()?;
    (plain(&float.to_string()) == plain(digits)).then_some(ValueRef::Real(float))
}

/// A value as SQLite stores it.
#[doc(hidden)]
pub fn fuzz_value(value: &Value<'_>) {
    match value {
        Value::Numeric(digits) => drop(number(digits)),
        Value::Timestamp(micros) => {
            drop(point_in_time(micros.div_euclid(1000), micros.rem_euclid(1000)));
        }
        _ => {}
    }
}

/// Without leading and trailing zeros.
fn plain(digits: &str) -> (bool, &str, &str) {
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    (negative, whole.trim_start_matches('0'), fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_to_the_digit_or_not_taken() {
        for (digits, expected) in [
            ("0", Some(ValueRef::Integer(0))),
            ("-9223372036854775808", Some(ValueRef::Integer(i64::MIN))),
            ("12.30", Some(ValueRef::Real(12.3))),
            ("-0.5", Some(ValueRef::Real(-0.5))),
            ("0.30000000000000004", Some(ValueRef::Real(0.1 + 0.2))),
            ("123456789012.345", Some(ValueRef::Real(123456789012.345))),
            ("100000000000000000000", Some(ValueRef::Real(1e20))),
            ("18446744073709551615", None),
            ("9999999999999999.99", None),
            ("0.1234567890123456789", None),
        ] {
            assert_eq!(number(digits), expected, "{digits}");
        }
    }

    #[test]
    fn points_in_time_are_as_sqlite_writes_them() {
        let day = 1_767_225_600_000; // 2026-01-01
        assert_eq!(point_in_time(day, 0).as_deref(), Some("2026-01-01 00:00:00.000"));
        assert_eq!(point_in_time(day + 1, 20).as_deref(), Some("2026-01-01 00:00:00.001020"));
        assert_eq!(point_in_time(-1, 0).as_deref(), Some("1969-12-31 23:59:59.999"));
        assert_eq!(point_in_time(i64::MAX, 0), None);
    }
}
