//! Makes a row of the table from a record: which columns there are, and what each takes.
//!
//! Without `columns` there are those of the envelope, with two for the body: `body` if it is text, and
//! `body_raw` if it is not, or if the server cannot hold it as text (a NUL). So no message is refused for
//! its content.

use bytes::{BufMut, BytesMut};

use super::encode::{PgType, field, has_nul};
use crate::sink::columns::{BodyAs, Columns, Value};
use crate::sink::{BadReason, BadRecord};
use crate::types::StreamName;
use crate::types::column::{Column, ColumnType};
use crate::wire::block::Record;

/// The last column of the default table.
const BODY_RAW: &str = "body_raw";

/// The columns, independent of the table.
#[derive(Debug)]
pub(super) struct Shape {
    columns: Columns,
    /// Whether the last column, the body, is two.
    splits_body: bool,
}

impl Shape {
    pub(super) fn new(stream: &StreamName, columns: Option<Vec<Column>>) -> Shape {
        match columns {
            Some(columns) => {
                Shape { columns: Columns::typed(stream.clone(), columns), splits_body: false }
            }
            None => {
                let columns = Columns::envelope(stream.clone(), BodyAs::Either).without_nul();
                Shape { columns, splits_body: true }
            }
        }
    }

    /// Names and types, in the order of a row.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, ColumnType)> {
        let raw = self.splits_body.then_some((BODY_RAW, ColumnType::Bytes));
        self.columns.names_and_types().chain(raw)
    }

    /// Appends the record as a row for columns of these types. On an error `out` is unchanged.
    pub(super) fn append<'a>(
        &'a self,
        record: Record<'a>,
        types: &[PgType],
        row: &mut Vec<Value<'a>>,
        out: &mut BytesMut,
    ) -> Result<(), BadRecord> {
        self.columns.read(record, row)?;
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
        out.put_i16(i16::try_from(types.len()).unwrap_or(i16::MAX));
        for (nth, (value, kind)) in row.iter().zip(types).enumerate() {
            if let Err(why) = field(out, value, *kind) {
                out.truncate(start);
                let name = self.columns().nth(nth).map_or("", |(name, _)| name);
                let about = format!("column {name:?}");
                return Err(BadRecord::about(about, record.offset, BadReason::Refused, why));
            }
        }
        Ok(())
    }
}
