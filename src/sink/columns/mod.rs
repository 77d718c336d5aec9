//! Typed columns: from a message to a row of values, the same for every sink that has columns.
//!
//! A value is looked up where its column says (`lookup.rs`; all pointers into a JSON body in one walk
//! over it, `json.rs`), and made what the column wants (`convert.rs`), or the message is bad:
//!
//! | column | takes |
//! |---|---|
//! | text | text; numbers and truth values as their text |
//! | integer | whole numbers, also `3.0`, and texts that are one |
//! | float | numbers, and texts that are one; not beyond the largest |
//! | numeric | numbers, all digits kept, and texts that are one; up to [`convert::DIGITS_MAX`] digits |
//! | boolean | true, false, and these as texts |
//! | timestamp | RFC 3339; whole numbers of milliseconds since 1970, and texts that are one; AMQP timestamps |
//! | json | anything |
//! | bytes | bytes; texts as UTF-8; AMQP strings that are not UTF-8 |
//!
//! A missing value, and a JSON or AMQP null, is null, unless the column is required. Where a key
//! comes twice in an object, the last counts.
//!
//! A JSON string that stands for no text, since it holds half of a surrogate pair (`"\ud83d"`), fits
//! `json` only, where it stays as it is written. An AMQP string that is not UTF-8 fits `bytes`, and
//! `json` as `{"base64": …}`.
//!
//! The columns of the envelope take everything: what is no text is the text of its JSON there, as
//! `envelope/mapping.rs` has it, and bytes are the text `{"base64":"…"}`.
//!
//! What a medium takes beyond that (lengths, NUL in text) is the medium's business. Knows nothing of
//! any medium.

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

/// A value of a row. What can be borrowed from the message is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// Text.
    Text(Cow<'a, str>),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// A decimal number: an optional minus, digits, and perhaps a point and more digits.
    Numeric(Cow<'a, str>),
    /// A truth value.
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
    /// Where the pointers of the JSON columns lead, and to which column.
    tree: Tree,
    /// True if the columns behind the timestamp are those of the envelope, which take everything.
    envelope: bool,
    body_as: BodyAs,
    nul: Nul,
}

/// What the column `body` of the envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyAs {
    /// Text where the body is UTF-8, else bytes. The column's type is given as text.
    Either,
    /// Text; what is not UTF-8 as `{"base64":"…"}`.
    Text,
    /// Bytes.
    Bytes,
}

impl Columns {
    /// The columns that a configuration names, behind `stream`, `offset` and `timestamp`.
    pub fn typed(stream: StreamName, columns: impl IntoIterator<Item = Column>) -> Columns {
        Columns::new(stream, position().into_iter().chain(columns).collect())
    }

    /// The columns of a sink for which none are named: `stream`, `offset`, `timestamp`,
    /// `message_id`, `subject`, `application_properties` (JSON) and `body`.
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

    /// For a medium whose text and JSON hold no NUL: in the envelope's columns, texts that hold one
    /// are `{"base64": …}`. The body is left as it is.
    pub fn without_nul(self) -> Columns {
        Columns { nul: Nul::Marked, ..self }
    }

    /// Only these columns; for what is no table.
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

    /// True if this column must not refuse anything.
    fn takes_all(&self, nth: usize) -> bool {
        self.envelope && nth >= POSITION_COLUMNS
    }

    /// All columns, in the order of a row.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Their names and types, in the order of a row.
    pub fn names_and_types(&self) -> impl Iterator<Item = (&str, ColumnType)> {
        self.columns.iter().map(|column| (column.name.as_str(), column.kind))
    }

    /// Puts the record's values in place of what `row` holds.
    ///
    /// # Errors
    /// Where the message cannot be decoded, or a value does not fit its column; `row` then holds
    /// anything.
    pub fn read<'a>(
        &'a self,
        record: Record<'a>,
        row: &mut Vec<Value<'a>>,
    ) -> Result<(), BadRecord> {
        row.clear();
        lookup::read(self, record, row).map_err(|why| why.of(record.offset))
    }
}

/// How many columns every table begins with.
const POSITION_COLUMNS: usize = 3;

/// The columns that every table begins with.
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

/// Why a record has no row.
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
