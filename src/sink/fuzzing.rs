//! Fuzz targets: any bytes, as a message's body, as a message, and as the stored state of sinks.
//! Each panics if a promise is broken.
//!
//! Not part of the crate's interface.

use bytes::BytesMut;

use super::columns::{BodyAs, Columns};
use super::envelope::Envelope;
use super::{BadReason, file, object, postgres, sqlite};
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::amqp::carrying;
use crate::wire::block::Record;

/// Columns of every type, from several sources.
fn typed() -> Vec<Column> {
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
            for value in &row {
                self.copy.clear();
                postgres::fuzz_field(&mut self.copy, value);
                sqlite::fuzz_value(value);
            }
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

/// Reads the bytes as the stored positions of sinks.
pub fn state(data: &[u8]) {
    file::fuzz_position(data);
    object::fuzz_state(data);
}
