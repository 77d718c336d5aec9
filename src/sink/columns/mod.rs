//! Typed columns: converts a message to a row of values, for every sink that has columns.
//!
//! A value is looked up at the column's source (`lookup.rs`; all pointers into a JSON body in one
//! walk over it, `json.rs`), and converted to the column's type (`convert.rs`). If that fails, the
//! message is bad:
//!
//! | column | accepts |
//! |---|---|
//! | text | text; numbers and booleans as text |
//! | integer | whole numbers, also `3.0`, and texts of one |
//! | float | numbers, and texts of one; not beyond the largest |
//! | numeric | numbers, all digits kept, and texts of one; up to [`convert::DIGITS_MAX`] digits |
//! | boolean | true, false, and texts of these |
//! | timestamp | RFC 3339; whole numbers of milliseconds since 1970, and texts of one; AMQP
//! timestamps |
//! | json | anything |
//! | bytes | bytes; texts as UTF-8; AMQP strings that are not UTF-8 |
//!
//! A missing value, and a JSON or AMQP null, is null, unless the column is required. If an object
//! repeats a key, the last value counts.
//!
//! A JSON string that is not valid Unicode, because it holds half of a surrogate pair (`"\ud83d"`),
//! fits only `json`, where it is kept unchanged. An AMQP string that is not UTF-8 fits `bytes`, and
//! `json` as `{"base64": …}`.
//!
//! The columns of the envelope accept everything: a value that is not text is written as the text
//! of its JSON, as in `envelope/mapping.rs`, and bytes as the text `{"base64":"…"}`.
//!
//! Further limits of a destination (lengths, NUL in text) are checked by its sink. Knows nothing of
//! any destination.

mod convert;
mod json;
mod lookup;

#[cfg(test)]
mod odd_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::sink::envelope::Nul;
use crate::sink::{BadReason, BadRecord, undecodable};
use crate::types::column::{Column, ColumnType, OnMisfit, Property, Source};
use crate::types::{Offset, StreamName};
use crate::wire::amqp::AmqpError;
use crate::wire::block::Record;

use json::Tree;

/// A value of a row. Borrowed from the message if possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// Text.
    Text(Cow<'a, str>),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// A decimal number: an optional minus, digits, and perhaps a point and more digits.
    Numeric(Cow<'a, str>),
    /// A boolean.
    Boolean(bool),
    /// Microseconds since 1970, UTC.
    Timestamp(i64),
    /// A JSON document.
    Json(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
}

/// The columns of one stream's rows.
#[derive(Clone, Debug)]
pub struct Columns {
    stream: StreamName,
    columns: Vec<Column>,
    /// Pointers of the JSON columns, with their columns.
    tree: Tree,
    /// True if the columns after the timestamp are those of the envelope, which accept everything.
    envelope: bool,
    body_as: BodyAs,
    nul: Nul,
}

/// Type of the envelope's column `body`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyAs {
    /// Text if the body is UTF-8, else bytes. The column's declared type is text.
    Either,
    /// Text; bytes that are not UTF-8 become `{"base64":"…"}`.
    Text,
    /// Bytes.
    Bytes,
}

impl Columns {
    /// The configured columns, after `stream`, `offset` and `timestamp`.
    pub fn typed(stream: StreamName, columns: impl IntoIterator<Item = Column>) -> Columns {
        Columns::new(stream, position().into_iter().chain(columns).collect())
    }

    /// The default columns: `stream`, `offset`, `timestamp`, `message_id`, `subject`,
    /// `application_properties` (JSON) and `body`.
    pub fn envelope(stream: StreamName, body_as: BodyAs) -> Columns {
        let body = match body_as {
            BodyAs::Either | BodyAs::Text => ColumnType::Text,
            BodyAs::Bytes => ColumnType::Bytes,
        };
        let mut columns = Vec::from(position());
        columns.extend([
            column("message_id", Source::Property(Property::MessageId), ColumnType::Text),
            column("subject", Source::Property(Property::Subject), ColumnType::Text),
            column("application_properties", Source::ApplicationProperties, ColumnType::Json),
            column("body", Source::Body, body),
        ]);
        Columns { envelope: true, body_as, ..Columns::new(stream, columns) }
    }

    /// For a destination whose text and JSON cannot hold a NUL: in the envelope's columns, texts
    /// with a NUL become `{"base64": …}`. The body is unchanged.
    pub fn without_nul(self) -> Columns {
        Columns { nul: Nul::Marked, ..self }
    }

    /// Only these columns, for anything but a table.
    pub fn only(stream: StreamName, columns: Vec<Column>) -> Columns {
        Columns::new(stream, columns)
    }

    fn new(stream: StreamName, columns: Vec<Column>) -> Columns {
        let pointers = columns.iter().enumerate().filter_map(|(nth, column)| match &column.from {
            Source::Json(pointer) => Some((pointer, nth)),
            _ => None,
        });
        let tree = Tree::new(pointers);
        let (envelope, body_as, nul) = (false, BodyAs::Either, Nul::Kept);
        Columns { tree, stream, columns, envelope, body_as, nul }
    }

    /// True if this column must accept everything.
    fn takes_all(&self, nth: usize) -> bool {
        self.envelope && nth >= POSITION_COLUMNS
    }

    /// All columns, in the order of a row.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// True if there are no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Their names and types, in the order of a row.
    pub fn names_and_types(&self) -> impl Iterator<Item = (&str, ColumnType)> {
        self.columns.iter().map(|column| (column.name.as_str(), column.kind))
    }

    /// Replaces the content of `row` with the record's values.
    ///
    /// # Errors
    /// If the message cannot be decoded, or a value does not fit its column; `row` is then
    /// undefined.
    pub fn read<'a>(
        &'a self,
        record: Record<'a>,
        row: &mut Vec<Value<'a>>,
    ) -> Result<(), BadRecord> {
        row.clear();
        lookup::read(self, record, row).map_err(|why| why.of(record.offset))
    }
}

/// Number of columns at the beginning of every table.
const POSITION_COLUMNS: usize = 3;

/// The columns at the beginning of every table.
fn position() -> [Column; POSITION_COLUMNS] {
    [
        column("stream", Source::Stream, ColumnType::Text),
        column("offset", Source::Offset, ColumnType::Integer),
        column("timestamp", Source::Timestamp, ColumnType::Timestamp),
    ]
}

fn column(name: &str, from: Source, kind: ColumnType) -> Column {
    let name = name.to_owned();
    Column { name, from, kind, required: false, on_misfit: OnMisfit::BadMessage }
}

/// Reason why a record has no row.
enum Why {
    Undecodable(AmqpError),
    Misfit(String),
}

impl From<AmqpError> for Why {
    fn from(error: AmqpError) -> Why {
        Why::Undecodable(error)
    }
}

impl Why {
    fn of(self, offset: Offset) -> BadRecord {
        match self {
            Why::Undecodable(error) => undecodable(offset, &error),
            Why::Misfit(detail) => BadRecord { offset, reason: BadReason::Misfit, detail },
        }
    }
}
