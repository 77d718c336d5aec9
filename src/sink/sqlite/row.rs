//! Binds a record to the parameters of the insert statement. Slices of the message are passed to SQLite
//! without a copy; values that stay the same from row to row are bound once.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use crate::flow::batch::Batch;
use crate::sink::columns::{BodyAs, Columns, Value};
use crate::sink::{BAD_RECORDS_MAX, BadReason, BadRecord, envelope};
use crate::types::column::{Column, ColumnType, OnMisfit};
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
}

impl Rows {
    /// These columns, or by default those of the envelope.
    pub(super) fn new(stream: StreamName, table: &str, columns: Option<Vec<Column>>) -> Rows {
        let envelope = columns.is_none();
        let all = match columns {
            None => Columns::envelope(stream.clone(), BodyAs::Either),
            Some(columns) => Columns::typed(stream.clone(), columns),
        };
        let insert = table::insert_statement(table, all.names_and_types().map(|(name, _)| name));
        Rows { stream, columns: all, envelope, insert }
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
            stamp: None,
            nothing_but_body: false,
        };
        insert.statement.raw_bind_parameter(1, self.stream.as_str())?;
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
        let body = if self.rows.envelope { single_data(record.message) } else { None };
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
                let read = columns.read(Record { offset: small, ..record }, values);
                read.map_err(|bad| BadRecord { offset: record.offset, ..bad })
                    .map_err(Refused::Record)?;
                self.nothing_but_body = false;
                for (nth, value) in values.iter().enumerate().skip(OWN) {
                    self.value(nth, value, record.offset)?;
                }
            }
        }
        self.bind(2, ValueRef::Integer(record.offset.0.cast_signed()))?;
        if self.stamp != Some(record.timestamp) {
            self.timestamp(3, record.timestamp.0, 0)?;
            self.stamp = Some(record.timestamp);
        }
        self.statement.raw_execute().map_err(|error| {
            // The statement was prepared within this transaction, so the table is unchanged. An error
            // without a more specific number is then the failure of an expression over this row (in an
            // index, a CHECK or a trigger).
            if error::is_unspecific(&error) { Refused::Row(error) } else { error.into() }
        })?;
        Ok(())
    }

    /// `nth` counts from 0, parameters count from 1.
    fn value(&mut self, nth: usize, value: &Value<'_>, offset: Offset) -> Result<(), Refused> {
        let at = nth + 1;
        match value {
            Value::Null => self.bind(at, ValueRef::Null)?,
            Value::Text(text) | Value::Json(text) => self.bind(at, text_or_blob(text))?,
            Value::Integer(number) => self.bind(at, ValueRef::Integer(*number))?,
            Value::Float(number) => self.bind(at, ValueRef::Real(*number))?,
            Value::Boolean(yes) => self.bind(at, ValueRef::Integer((*yes).into()))?,
            Value::Bytes(bytes) => self.bind(at, ValueRef::Blob(bytes))?,
            Value::Timestamp(micros) => {
                self.timestamp(at, micros.div_euclid(1000), micros.rem_euclid(1000))?;
            }
            Value::Numeric(digits) => {
                match (number(digits), self.rows.columns.columns().get(nth)) {
                    (Some(number), _) => self.bind(at, number)?,
                    (None, Some(column))
                        if column.required || column.on_misfit != OnMisfit::Null =>
                    {
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
                    (None, _) => self.bind(at, ValueRef::Null)?,
                }
            }
        }
        Ok(())
    }

    fn timestamp(&mut self, at: usize, ms: i64, micros: i64) -> Result<(), rusqlite::Error> {
        match point_in_time(ms, micros) {
            Some(text) => self.bind(at, ValueRef::Text(text.as_bytes())),
            None => self.bind(at, ValueRef::Integer(ms)),
        }
    }

    fn bind(&mut self, at: usize, value: ValueRef<'_>) -> rusqlite::Result<()> {
        self.statement.raw_bind_parameter(at, ToSqlOutput::Borrowed(value))
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
