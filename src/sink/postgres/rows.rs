//! Makes a row of the table from a record: which columns there are, and what each takes.
//!
//! Without `columns` there are those of the envelope, with two for the body: `body` if it is text, and
//! `body_raw` if it is not, or if the server cannot hold it as text (a NUL). So no message is refused for
//! its content.

use bytes::{BufMut, BytesMut};

use super::encode::{PgType, field, has_nul};
use crate::sink::columns::{BodyAs, Change, Changes, Columns, Value};
use crate::sink::{BadReason, BadRecord};
use crate::types::StreamName;
use crate::types::column::{Column, ColumnType};
use crate::types::upsert::Upsert;
use crate::wire::block::Record;

/// The last column of the default table.
const BODY_RAW: &str = "body_raw";

/// The columns, independent of the table.
#[derive(Debug)]
pub(super) struct Shape {
    columns: Columns,
    /// Whether the last column, the body, is two.
    splits_body: bool,
    /// How rows are replaced by their key; `None`: each record is a row of its own.
    keyed: Option<Keyed>,
}

/// Rows that are replaced by their key.
#[derive(Debug)]
struct Keyed {
    changes: Changes,
    names: Vec<String>,
}

impl Shape {
    pub(super) fn new(
        stream: &StreamName,
        columns: Option<Vec<Column>>,
        upsert: Option<&Upsert>,
    ) -> Shape {
        let splits_body = columns.is_none();
        let columns = match columns {
            Some(columns) => Columns::typed(stream.clone(), columns),
            None => Columns::envelope(stream.clone(), BodyAs::Either).without_nul(),
        };
        let keyed = upsert.map(|upsert| Keyed {
            changes: Changes::new(columns.clone(), upsert),
            names: upsert.key.clone(),
        });
        Shape { columns, splits_body, keyed }
    }

    /// The columns of the key, or none if each record is a row of its own.
    pub(super) fn key(&self) -> &[String] {
        self.keyed.as_ref().map_or(&[], |keyed| &keyed.names)
    }

    /// Names and types, in the order of a row.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, ColumnType)> {
        let raw = self.splits_body.then_some((BODY_RAW, ColumnType::Bytes));
        self.columns.names_and_types().chain(raw)
    }

    /// Appends the record as a row for columns of these types. Where rows are replaced by their key, it is a
    /// change, with a last field that tells whether it deletes. On an error `out` is unchanged.
    pub(super) fn append<'a>(
        &'a self,
        record: Record<'a>,
        types: &[PgType],
        row: &mut Vec<Value<'a>>,
        out: &mut BytesMut,
    ) -> Result<(), BadRecord> {
        let change = match &self.keyed {
            Some(keyed) => Some(keyed.changes.read(record, row)?),
            None => self.columns.read(record, row).map(|()| None)?,
        };
        if self.splits_body {
            match row.pop() {
                Some(Value::Text(text)) if !has_nul(&text) => {
                    row.extend([Value::Text(text), Value::Null]);
                }
                Some(Value::Text(text)) => {
                    let bytes = match text {
                        std::borrow::Cow::Borrowed(text) => text.as_bytes().into(),
                        std::borrow::Cow::Owned(text) => text.into_bytes().into(),
                    };
                    row.extend([Value::Null, Value::Bytes(bytes)]);
                }
                other => row.extend([Value::Null, other.unwrap_or(Value::Null)]),
            }
        }
        let start = out.len();
        // No table has more than 1,600 columns.
        let fields = types.len() + usize::from(change.is_some());
        out.put_i16(i16::try_from(fields).unwrap_or(i16::MAX));
        for (nth, (value, kind)) in row.iter().zip(types).enumerate() {
            if let Err(why) = field(out, value, *kind) {
                out.truncate(start);
                let name = self.columns().nth(nth).map_or("", |(name, _)| name);
                let about = format!("column {name:?}");
                return Err(BadRecord::about(about, record.offset, BadReason::Refused, why));
            }
        }
        if let Some(change) = change {
            out.put_i32(1);
            out.put_u8(u8::from(change == Change::Delete));
        }
        Ok(())
    }
}
