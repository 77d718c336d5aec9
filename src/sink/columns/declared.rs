//! The columns of a table: those that are configured, or the envelope's.

use super::json::Tree;
use crate::sink::envelope::Nul;
use crate::types::StreamName;
use crate::types::column::{Column, ColumnType, OnMisfit, Property, Source};

/// The columns of one stream's rows.
#[derive(Clone, Debug)]
pub struct Columns {
    pub(super) stream: StreamName,
    pub(super) columns: Vec<Column>,
    /// Pointers of the JSON columns, with their columns.
    pub(super) tree: Tree,
    /// True if the columns after the timestamp are those of the envelope, which accept everything.
    envelope: bool,
    pub(super) body_as: BodyAs,
    pub(super) nul: Nul,
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
        let tree = tree(&columns);
        let (envelope, body_as, nul) = (false, BodyAs::Either, Nul::Kept);
        Columns { tree, stream, columns, envelope, body_as, nul }
    }

    /// True if this column must accept everything.
    pub(super) fn takes_all(&self, nth: usize) -> bool {
        self.envelope && (POSITION_COLUMNS..ENVELOPE_COLUMNS).contains(&nth)
    }

    /// True if the columns are those of the envelope, which accept everything.
    pub(super) fn is_envelope(&self) -> bool {
        self.envelope
    }

    /// The same columns, and this one behind them.
    pub(super) fn followed_by(mut self, column: Option<Column>) -> Columns {
        self.columns.extend(column);
        Columns { tree: tree(&self.columns), ..self }
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
}

/// Number of columns at the beginning of every table.
pub const POSITION_COLUMNS: usize = 3;

/// Number of columns of the envelope.
const ENVELOPE_COLUMNS: usize = 7;

/// The pointers into the body, with the places of their columns.
fn tree(columns: &[Column]) -> Tree {
    Tree::new(columns.iter().enumerate().filter_map(|(nth, column)| match &column.from {
        Source::Json(pointer) => Some((pointer, nth)),
        _ => None,
    }))
}

/// The columns at the beginning of every table.
fn position() -> [Column; POSITION_COLUMNS] {
    [
        column("stream", Source::Stream, ColumnType::Text),
        column("offset", Source::Offset, ColumnType::Integer),
        column("timestamp", Source::Timestamp, ColumnType::Timestamp),
    ]
}

pub(super) fn column(name: &str, from: Source, kind: ColumnType) -> Column {
    let name = name.to_owned();
    Column { name, from, kind, required: false, on_misfit: OnMisfit::BadMessage }
}
