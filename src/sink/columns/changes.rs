//! Reads a message as a change of the row of its key: a new content, or a delete.
//!
//! A delete needs only its key: other columns may be missing in it, also those that are required.

use super::declared::{Columns, POSITION_COLUMNS as OWN, column};
use super::value::Value;
use crate::sink::{BadReason, BadRecord, undecodable};
use crate::types::column::{ColumnType, OnMisfit};
use crate::types::upsert::Upsert;
use crate::wire::amqp::{AmqpError, Body, Message, Value as Amqp, single_data};
use crate::wire::block::Record;

/// A change of the row of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The row gets this content, whether it exists or not.
    Put,
    /// The row is deleted. Of its content only stream, offset, timestamp and the key are set.
    Delete,
}

/// The columns of a table whose rows are replaced by their key.
#[derive(Clone, Debug)]
pub struct Changes {
    /// All columns, and at the end the one that `equals` is compared with.
    all: Columns,
    /// The first three, the key's, and at the end the one that `equals` is compared with.
    least: Columns,
    /// The key's columns, as their places in a row.
    key: Vec<usize>,
    width: usize,
    /// True if every message has all columns, also one without a body.
    takes_all: bool,
    empty_body_deletes: bool,
    equals: Option<String>,
}

impl Changes {
    /// The changes of a table with these columns. Those of the key must have a value in each message.
    pub fn new(mut columns: Columns, upsert: &Upsert) -> Changes {
        let takes_all = columns.is_envelope();
        let width = columns.len();
        let places = columns.columns.iter().enumerate();
        let key: Vec<usize> = places
            .filter(|(_, column)| upsert.key.contains(&column.name))
            .map(|(nth, _)| nth)
            .collect();
        for nth in &key {
            if let Some(column) = columns.columns.get_mut(*nth) {
                (column.required, column.on_misfit) = (true, OnMisfit::BadMessage);
            }
        }
        let (marker, equals) = match &upsert.delete_if {
            Some((from, equals)) => {
                let mut marker = column("delete_when", from.clone(), ColumnType::Text);
                marker.on_misfit = OnMisfit::Null;
                (Some(marker), Some(equals.clone()))
            }
            None => (None, None),
        };
        let named = |nth: &usize| columns.columns.get(*nth).cloned();
        let of_key = key.iter().filter(|nth| **nth >= OWN).filter_map(named);
        let least = Columns::typed(
            columns.stream.clone(),
            of_key.chain(marker.clone()).collect::<Vec<_>>(),
        );
        let all = columns.followed_by(marker);
        let empty_body_deletes = upsert.empty_body_deletes;
        Changes { all, least, key, width, takes_all, empty_body_deletes, equals }
    }

    /// Places of the key's columns in a row.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Replaces the content of `row` with the record's values.
    ///
    /// # Errors
    /// If the message cannot be decoded, has no value for a column of the key, or a value does not fit its
    /// column; `row` is then undefined.
    pub fn read<'a>(
        &'a self,
        record: Record<'a>,
        row: &mut Vec<Value<'a>>,
    ) -> Result<Change, BadRecord> {
        let is_empty = self.empty_body_deletes
            && has_no_body(record.message).map_err(|error| undecodable(record.offset, &error))?;
        if is_empty && !self.takes_all {
            self.least.read(record, row)?;
            self.spread(row);
            return Ok(Change::Delete);
        }
        let change = match self.all.read(record, row) {
            Ok(()) if is_empty || self.is_marked(row) => {
                for (nth, value) in row.iter_mut().enumerate().skip(OWN) {
                    if !self.key.contains(&nth) {
                        *value = Value::Null;
                    }
                }
                Change::Delete
            }
            Ok(()) => Change::Put,
            Err(bad) => {
                if self.equals.is_none()
                    || self.least.read(record, row).is_err()
                    || !self.is_marked(row)
                {
                    return Err(bad);
                }
                self.spread(row);
                Change::Delete
            }
        };
        row.truncate(self.width);
        for nth in &self.key {
            if matches!(row.get(*nth), None | Some(Value::Null)) {
                let name = self.all.columns.get(*nth).map_or("", |column| column.name.as_str());
                return Err(BadRecord::about(
                    format!("column {name:?}"),
                    record.offset,
                    BadReason::Misfit,
                    "there is no value, and the column is in the key",
                ));
            }
        }
        Ok(change)
    }

    /// True if the last value is the one that deletes.
    fn is_marked(&self, row: &[Value<'_>]) -> bool {
        match (&self.equals, row.last()) {
            (Some(equals), Some(Value::Text(found))) => equals == found,
            _ => false,
        }
    }

    /// Puts the values of the least columns into their places of a whole row.
    fn spread(&self, row: &mut Vec<Value<'_>>) {
        let mut found = std::mem::take(row).into_iter();
        row.extend(found.by_ref().take(OWN));
        row.resize(self.width, Value::Null);
        for nth in self.key.iter().filter(|nth| **nth >= OWN) {
            if let (Some(place), Some(value)) = (row.get_mut(*nth), found.next()) {
                *place = value;
            }
        }
    }
}

/// True if the message has no body, or one that stands for none: no bytes, an AMQP null, or JSON's `null`.
fn has_no_body(encoded: &[u8]) -> Result<bool, AmqpError> {
    if let Some(bytes) = single_data(encoded) {
        return Ok(is_nothing(bytes));
    }
    Ok(match Message::parse(encoded)?.body() {
        Body::Absent | Body::Value(Amqp::Null) => true,
        Body::Data(data) => is_nothing(&data.joined()),
        Body::Value(Amqp::String(text)) => is_nothing(text.as_bytes()),
        Body::Value(Amqp::Binary(bytes)) => is_nothing(bytes),
        Body::Value(_) | Body::Sequence(_) => false,
    })
}

fn is_nothing(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii(), b"" | b"null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::columns::BodyAs;
    use crate::sink::conformance::message;
    use crate::types::column::Column;
    use crate::types::{Offset, Timestamp};

    fn upsert(key: &[&str], empty_body_deletes: bool, delete_if: Option<(&str, &str)>) -> Upsert {
        let key = key.iter().map(|name| (*name).to_owned()).collect();
        let delete_if = delete_if.map(|(from, equals)| (from.parse().unwrap(), equals.to_owned()));
        Upsert { key, empty_body_deletes, delete_if }
    }

    fn typed(name: &str, from: &str, required: bool) -> Column {
        let (kind, on_misfit) = (ColumnType::Text, OnMisfit::Null);
        Column { name: name.to_owned(), from: from.parse().unwrap(), kind, required, on_misfit }
    }

    /// A message id, and this body.
    fn with_id(id: &str, body: &[u8]) -> Vec<u8> {
        let length = u8::try_from(id.len()).unwrap();
        let list = [&[0xa1, length][..], id.as_bytes()].concat();
        let size = u8::try_from(list.len() + 1).unwrap();
        [&[0x00, 0x53, 0x73, 0xc0, size, 1][..], &list, body].concat()
    }

    /// The change, and the values behind the first three, with `-` for null; or the reason.
    fn read(changes: &Changes, message: &[u8]) -> String {
        let record = Record { offset: Offset(7), timestamp: Timestamp(1), message };
        let mut row = Vec::new();
        match changes.read(record, &mut row) {
            Ok(change) => {
                let values = row.iter().skip(OWN).map(|value| match value {
                    Value::Null => "-".to_owned(),
                    Value::Text(text) | Value::Json(text) => text.to_string(),
                    other => format!("{other:?}"),
                });
                format!("{change:?} {}", values.collect::<Vec<_>>().join(" "))
            }
            Err(bad) => format!("{:?} {}", bad.reason, bad.detail),
        }
    }

    #[test]
    fn a_message_puts_or_deletes() {
        let columns = [typed("v", "/v", true), typed("id", "/id", false), typed("w", "/w", false)];
        let columns = Columns::typed("s".into(), columns);
        let changes = Changes::new(columns, &upsert(&["id"], false, Some(("/op", "d"))));
        assert_eq!(changes.key(), [4]);
        for (body, expected) in [
            (r#"{"id":"a","v":1,"w":2}"#, "Put 1 a 2"),
            (r#"{"id":"a","v":1,"op":"u"}"#, "Put 1 a -"),
            // Of a delete, only the key counts.
            (r#"{"id":"a","v":1,"w":2,"op":"d"}"#, "Delete - a -"),
            (r#"{"id":"a","op":"d"}"#, "Delete - a -"),
            (r#"{"id":"a","w":3}"#, "Misfit column \"v\": there is no value at \"/v\""),
            (r#"{"v":1}"#, "Misfit column \"id\": there is no value at \"/id\""),
            (r#"{"v":1,"id":null,"op":"d"}"#, "Misfit column \"id\": there is no value"),
            (r#"{"v":1,"id":{}}"#, "Misfit column \"id\": an object is not text"),
            ("", "Misfit column \"v\": the body is not JSON"),
            ("null", "Misfit column \"v\""),
        ] {
            let found = read(&changes, &message(body.as_bytes()));
            assert!(found.starts_with(expected), "{body}: {found}");
        }
    }

    #[test]
    fn without_a_body_the_key_comes_from_elsewhere() {
        let columns = [typed("v", "/v", true), typed("id", "properties.message_id", false)];
        let columns = Columns::typed("s".into(), columns);
        let changes = Changes::new(columns, &upsert(&["id"], true, None));
        let data = |body: &[u8]| message(body);
        for (body, expected) in [
            (data(br#"{"v":1}"#), "Put 1 a"),
            (data(b""), "Delete - a"),
            (data(b" \n"), "Delete - a"),
            (data(b"null"), "Delete - a"),
            // No section; an AMQP null; an empty text; two sections, of which one is empty.
            (Vec::new(), "Delete - a"),
            (vec![0x00, 0x53, 0x77, 0x40], "Delete - a"),
            (vec![0x00, 0x53, 0x77, 0xa1, 0], "Delete - a"),
            ([data(b""), data(br#"{"v":2}"#)].concat(), "Put 2 a"),
            (vec![0x00, 0x53, 0x77, 0x41], "Misfit column \"v\""),
            (data(b"0"), "Misfit column \"v\""),
        ] {
            let found = read(&changes, &with_id("a", &body));
            assert!(found.starts_with(expected), "{body:?}: {found}");
        }
        let found = read(&changes, &message(b""));
        assert!(found.starts_with("Misfit column \"id\": there is no value"), "{found}");
        assert!(read(&changes, &[0x00, 0x53, 0x75, 0xa0, 9]).starts_with("Undecodable"));
    }

    #[test]
    fn the_envelope_has_keys_too() {
        let columns = Columns::envelope("s".into(), BodyAs::Either);
        let changes = Changes::new(columns, &upsert(&["message_id"], true, Some(("/op", "d"))));
        for (body, expected) in [
            (message(b"x"), "Put a - - x"),
            (message(b""), "Delete a - - -"),
            (message(br#"{"op":"d"}"#), "Delete a - - -"),
        ] {
            assert_eq!(read(&changes, &with_id("a", &body)), expected);
        }
        let found = read(&changes, &message(b"x"));
        assert!(found.contains("\"message_id\": there is no value"), "{found}");
    }
}
