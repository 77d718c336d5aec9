//! Tells for `rillway verify` which rows of a table with one row per key have the same key.
//!
//! The server decides this by the type and the collation of the columns. This module accepts only types of which
//! equal keys have equal bytes, or bytes that can be made equal.

use bytes::BufMut;

use super::encode::PgType;
use super::reading::{Column, Reader, fields};
use crate::sink::SinkError;
use crate::sink::audit::{AuditError, Keys};
use crate::types::StreamName;

/// Appends the last field of a row, which says that the row should exist: as in a COPY of changes.
pub(super) fn mark_present(content: &mut Vec<u8>) {
    content.put_i32(1);
    content.put_u8(0);
}

/// Begins a transaction that reads everything as of this moment, however long it lasts.
pub(super) async fn begin(reader: &Reader) -> Result<(), SinkError> {
    let sql = "SET idle_in_transaction_session_timeout = 0; \
               BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    reader.session.client.batch_execute(sql).await.map_err(reader.failed())
}

/// True if other streams may hold the key of a row.
pub(super) async fn has_other_streams(
    reader: &Reader,
    stream: &StreamName,
    key: &[String],
) -> Result<bool, SinkError> {
    if key.iter().any(|name| name == "stream") {
        return Ok(false);
    }
    let table = &reader.names.table;
    let sql = format!("SELECT EXISTS (SELECT FROM {table} WHERE stream IS DISTINCT FROM $1::text)");
    let row = reader.session.client.query_one(&sql, &[&stream.as_str()]).await;
    row.and_then(|row| row.try_get(0)).map_err(reader.failed())
}

/// Tells rows apart by their keys. For each column of the key: its place in the row, and whether it is a `numeric`.
pub(super) struct RowKeys(Vec<(usize, bool)>);

impl RowKeys {
    /// The keys of a table.
    ///
    /// # Errors
    /// If different bytes may be the same key.
    pub(super) async fn of(
        reader: &Reader,
        columns: &[Column],
        key: &[String],
    ) -> Result<RowKeys, AuditError> {
        // `collisdeterministic` through JSON, since older servers do not have that column.
        const SQL: &str = "SELECT min(a.attname::text) FROM pg_attribute AS a \
             JOIN pg_collation AS c ON c.oid = a.attcollation \
             WHERE a.attrelid = to_regclass($1::text) AND a.attname::text = ANY ($2::text[]) \
             AND to_jsonb(c) ->> 'collisdeterministic' = 'false'";
        let table = &reader.names.table;
        let row = reader.session.client.query_one(SQL, &[table, &key]).await;
        let loose: Option<String> = row.and_then(|row| row.try_get(0)).map_err(reader.failed())?;
        let mut places = Vec::new();
        for name in key {
            let column = columns.iter().enumerate().find(|(_, column)| column.name == *name);
            let Some((nth, column)) = column else { continue };
            if !is_exact(&column.written) || loose.as_ref() == Some(name) {
                return Err(AuditError::Cannot(format!(
                    "the column {name:?} of the key of {table} is of type {} (or has such a collation), in which \
                     different values may be the same key, as only the server knows: use text, uuid, a whole number or \
                     numeric without a precision where the table is to be verified",
                    column.written
                )));
            }
            places.push((nth, column.kind == PgType::Numeric));
        }
        Ok(RowKeys(places))
    }
}

/// True if values of this type are equal only if their bytes are, or if they are the same number.
fn is_exact(written: &str) -> bool {
    let base = written.split('(').next().unwrap_or_default().trim_end();
    match base {
        "text" | "character varying" | "uuid" | "bytea" | "boolean" => true,
        "smallint" | "integer" | "bigint" => true,
        // With a precision, the server rounds.
        "numeric" | "timestamp with time zone" | "timestamp without time zone" => base == written,
        _ => false,
    }
}

impl Keys for RowKeys {
    fn read(&self, content: &[u8], key: &mut Vec<u8>) -> bool {
        let values = fields(content);
        for (nth, is_numeric) in &self.0 {
            let value = values.get(*nth).copied().flatten().unwrap_or_default();
            let at = key.len();
            key.put_u32(0);
            match is_numeric {
                true => put_number(value, key),
                false => key.put_slice(value),
            }
            let length = u32::try_from(key.len() - at).unwrap_or(u32::MAX);
            if let Some(place) = key.get_mut(at..at + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        values.last().is_some_and(|last| *last == Some(&[1]))
    }
}

/// Appends a `numeric` without the zeros at both ends, and without its display scale, so that equal numbers have equal
/// bytes. The binary form of a `numeric` is: number of digits (base 10,000), weight of the first digit, sign,
/// display scale, digits.
fn put_number(value: &[u8], out: &mut Vec<u8>) {
    let words: Vec<[u8; 2]> =
        value.chunks_exact(2).filter_map(|word| word.first_chunk().copied()).collect();
    let [_, weight, sign, _, digits @ ..] = &words[..] else { return out.put_slice(value) };
    let leading = digits.iter().take_while(|digit| **digit == [0, 0]).count();
    let trailing = digits.iter().rev().take_while(|digit| **digit == [0, 0]).count();
    let Some(digits) =
        digits.get(leading..digits.len().saturating_sub(trailing)).filter(|rest| !rest.is_empty())
    else {
        // Zero, NaN or infinity.
        return out.put_slice(if *sign == [0x40, 0] { &[0, 0] } else { sign });
    };
    let leading = i16::try_from(leading).unwrap_or(i16::MAX);
    out.put_i16(i16::from_be_bytes(*weight).saturating_sub(leading));
    out.put_slice(sign);
    digits.iter().for_each(|digit| out.put_slice(digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of a number and a mark.
    fn row(weight: i16, sign: u16, shown: u16, digits: &[u16], mark: u8) -> Vec<u8> {
        let mut number = Vec::new();
        number.put_u16(u16::try_from(digits.len()).unwrap());
        number.put_i16(weight);
        number.put_u16(sign);
        number.put_u16(shown);
        digits.iter().for_each(|digit| number.put_u16(*digit));
        let mut row = Vec::new();
        row.put_i32(i32::try_from(number.len()).unwrap());
        row.put_slice(&number);
        row.put_i32(1);
        row.put_u8(mark);
        row
    }

    #[test]
    fn equal_numbers_are_the_same_key() {
        let keys = RowKeys(vec![(0, true)]);
        let key = |row: &[u8]| {
            let mut key = Vec::new();
            (keys.read(row, &mut key), key)
        };
        // 1.50, as 1.5, as 1.5000 0000, and with a leading zero.
        let (deletes, plain) = key(&row(0, 0, 1, &[1, 5000], 0));
        assert!(!deletes);
        for same in [
            row(0, 0, 2, &[1, 5000], 1),
            row(0, 0, 8, &[1, 5000, 0], 1),
            row(1, 0, 1, &[0, 1, 5000], 1),
        ] {
            assert_eq!(key(&same), (true, plain.clone()));
        }
        for other in
            [row(0, 0x4000, 1, &[1, 5000], 0), row(1, 0, 1, &[1, 5000], 0), row(0, 0, 0, &[1], 0)]
        {
            assert_ne!(key(&other).1, plain);
        }
        let zero = key(&row(0, 0, 0, &[], 0)).1;
        assert_eq!(key(&row(3, 0x4000, 4, &[0, 0], 0)).1, zero);
        assert_ne!(key(&row(0, 0xc000, 0, &[], 0)).1, zero, "not a number");
    }

    #[test]
    fn types_that_compare_otherwise_are_known() {
        for (written, exact) in [
            ("text", true),
            ("character varying(20)", true),
            ("character(9)", false),
            ("citext", false),
            ("numeric", true),
            ("numeric(12,2)", false),
            ("timestamp(0) with time zone", false),
            ("timestamp with time zone", true),
            ("bigint", true),
            ("my_domain", false),
        ] {
            assert_eq!(is_exact(written), exact, "{written}");
        }
    }
}
