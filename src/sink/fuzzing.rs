//! Fuzz targets: any bytes, as a message's body, as a message, and as the stored state of sinks.
//! Each panics if a promise is broken.
//!
//! Not part of the crate's interface.

use bytes::BytesMut;

use super::columns::{BodyAs, Change, Changes, Columns, Value};
use super::envelope::Envelope;
use super::{BadReason, file, object, postgres, sqlite};
use crate::settings::upsert::DeleteWhen;
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::types::upsert::Upsert;
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::amqp::carrying;
use crate::wire::block::Record;

const KINDS: [ColumnType; 8] = [
    ColumnType::Text,
    ColumnType::Integer,
    ColumnType::Float,
    ColumnType::Numeric,
    ColumnType::Boolean,
    ColumnType::Timestamp,
    ColumnType::Json,
    ColumnType::Bytes,
];

/// Columns of every type, from several sources.
fn typed() -> Vec<Column> {
    let places = ["/a", "/a/0", "", "properties.message_id", "application_properties.a"];
    places
        .iter()
        .filter_map(|place| place.parse::<Source>().ok())
        .flat_map(|from| {
            KINDS.into_iter().map(move |kind| Column {
                name: "c".to_owned(),
                from: from.clone(),
                kind,
                required: false,
                on_misfit: OnMisfit::Null,
            })
        })
        .collect()
}

/// Tables and encoder of one stream.
pub struct Values {
    typed: Columns,
    envelopes: [Columns; 4],
    lines: Envelope,
    out: Vec<u8>,
    copy: BytesMut,
}

impl Default for Values {
    fn default() -> Values {
        let stream = StreamName::from("s");
        let envelope = |body_as| Columns::envelope(stream.clone(), body_as);
        Values {
            typed: Columns::typed(stream.clone(), typed()),
            envelopes: [
                envelope(BodyAs::Either),
                envelope(BodyAs::Either).without_nul(),
                envelope(BodyAs::Text),
                envelope(BodyAs::Bytes),
            ],
            lines: Envelope::ndjson(&stream),
            out: Vec::new(),
            copy: BytesMut::new(),
        }
    }
}

impl Values {
    /// Uses the bytes as a body.
    pub fn body(&mut self, data: &[u8]) {
        self.message(&carrying(&[], data));
    }

    /// Uses the bytes as an AMQP 1.0 message.
    pub fn message(&mut self, encoded: &[u8]) {
        let record = Record { offset: Offset(7), timestamp: Timestamp(1), message: encoded };
        let mut row = Vec::new();
        if self.typed.read(record, &mut row).is_ok() {
            assert_eq!(row.len(), self.typed.len());
            write(&row, &mut self.copy);
        }
        for envelope in &self.envelopes {
            if let Err(bad) = envelope.read(record, &mut row) {
                assert!(bad.reason != BadReason::Misfit, "the default table refused: {bad:?}");
            }
        }
        self.out.clear();
        if self.lines.append(record, &mut self.out).is_ok() {
            assert_eq!(self.out.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert!(std::str::from_utf8(&self.out).is_ok());
        } else {
            assert!(self.out.is_empty());
        }
    }
}

/// Reads the first line as the source of a column, its first byte as the kind of the column, and the
/// rest as the body of a message, and as a message.
pub fn columns(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (place, body) = rest.split_at(end);
    let body = body.strip_prefix(b"\n").unwrap_or_default();
    let Ok(from) = std::str::from_utf8(place).unwrap_or("?").parse::<Source>() else { return };
    assert_eq!(from.to_string().parse(), Ok(from.clone()));
    let column = |nth: usize, required, on_misfit| {
        let kind = KINDS[nth % KINDS.len()];
        Column { name: "c".to_owned(), from: from.clone(), kind, required, on_misfit }
    };
    let nth = usize::from(choice & 7);
    let required = choice & 8 != 0;
    let columns = Columns::typed(
        StreamName::from("s"),
        [column(nth, required, OnMisfit::Null), column(nth + 1, false, OnMisfit::BadMessage)],
    );
    let mut out = BytesMut::new();
    for message in [&carrying(&[], body)[..], body] {
        let record = Record { offset: Offset(7), timestamp: Timestamp(1), message };
        let mut row = Vec::new();
        if columns.read(record, &mut row).is_ok() {
            assert_eq!(row.len(), columns.len());
            assert!(!required || row.get(3) != Some(&Value::Null), "there is no value");
            write(&row, &mut out);
        }
    }
}

/// Reads the first line as the parts of `partition_by`, and the rest as a message.
pub fn folders(data: &[u8]) {
    object::fuzz_folders(data);
}

/// Reads the first line as a condition of `delete_when`, and the rest as the body of a message, and as a
/// message: a change of the row of its key.
pub fn changes(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (condition, body) = data.split_at(end);
    let body = body.strip_prefix(b"\n").unwrap_or_default();
    let delete_if = match serde_json::from_slice(condition) {
        Ok(DeleteWhen::Equals { from, equals }) => Some((from, equals)),
        Ok(DeleteWhen::EmptyBody | DeleteWhen::Never) | Err(_) => None,
    };
    let Ok(from) = "/a".parse::<Source>() else { return };
    let column = |name: &str, kind| Column {
        name: name.to_owned(),
        from: from.clone(),
        kind,
        required: false,
        on_misfit: OnMisfit::Null,
    };
    let columns = [column("id", ColumnType::Text), column("v", ColumnType::Json)];
    let key = vec!["id".to_owned()];
    let upsert = Upsert { key, empty_body_deletes: delete_if.is_none(), delete_if };
    let changes = Changes::new(Columns::typed(StreamName::from("s"), columns), &upsert);
    for message in [&carrying(&[], body)[..], body] {
        let record = Record { offset: Offset(7), timestamp: Timestamp(1), message };
        let mut row = Vec::new();
        if let Ok(change) = changes.read(record, &mut row) {
            assert_eq!(row.len(), 5, "{change:?}");
            assert!(changes.key().iter().all(|nth| row.get(*nth) != Some(&Value::Null)));
            assert!(change == Change::Put || row.last() == Some(&Value::Null));
        }
    }
}

/// Writes the values as the database sinks do.
fn write(row: &[Value<'_>], out: &mut BytesMut) {
    for value in row {
        out.clear();
        postgres::fuzz_field(out, value);
        sqlite::fuzz_value(value);
    }
}

/// Reads the bytes as the stored positions of sinks.
pub fn state(data: &[u8]) {
    file::fuzz_position(data);
    object::fuzz_state(data);
}
