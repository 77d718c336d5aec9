//! Finds a column's value in a message.

use std::borrow::Cow;

use super::convert::{Found, any_text, convert};
use super::declared::{BodyAs, Columns};
use super::value::Value;
use crate::sink::envelope::{self, Nul};
use crate::sink::{BadReason, BadRecord, undecodable};
use crate::types::Offset;
use crate::types::column::{Column, ColumnType, OnMisfit, Property, Source};
use crate::wire::amqp::{AmqpError, Body, Map, Message, Value as Amqp};
use crate::wire::block::Record;

impl Columns {
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
        read(self, record, row).map_err(|why| why.of(record.offset))
    }
}

/// Reason why a record has no row.
enum Why {
    Undecodable(AmqpError),
    /// With the column's name.
    Misfit {
        column: String,
        what: String,
    },
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
            Why::Misfit { column, what } => {
                let column = format!("column {column:?}");
                BadRecord::about(column, offset, BadReason::Misfit, what)
            }
        }
    }
}

fn read<'a>(columns: &'a Columns, record: Record<'a>, row: &mut Vec<Value<'a>>) -> Result<(), Why> {
    let message = Message::parse(record.message)?;
    let mut pointed_at = PointedAt::find(columns, &message)?;
    for (nth, column) in columns.columns.iter().enumerate() {
        row.push(match &column.from {
            Source::Stream => Value::Text(Cow::Borrowed(columns.stream.as_str())),
            Source::Offset => offset(column, record.offset)?,
            Source::Timestamp => made(column, Some(Found::Timestamp(record.timestamp.0)))?,
            from if columns.takes_all(nth) => match from {
                Source::Property(property) => open(of_property(&message, *property)?, columns.nul),
                Source::Body => columns.body(body(&message)?),
                _ => application_properties(column, &message, columns.nul)?,
            },
            Source::Body => made(column, body(&message)?)?,
            Source::Json(_) => match &mut pointed_at {
                PointedAt::Values(values) => {
                    made(column, values.get_mut(nth).and_then(Option::take))?
                }
                PointedAt::NotJson(why) => {
                    misfit(column, || format!("the body is not JSON: {why}"))?
                }
            },
            Source::Property(property) => made(column, of_property(&message, *property)?)?,
            Source::ApplicationProperties => application_properties(column, &message, Nul::Kept)?,
            Source::ApplicationProperty(name) => {
                made(column, of_map(&message, message.application_properties(), name)?)?
            }
            Source::MessageAnnotation(name) => {
                made(column, of_map(&message, message.message_annotations(), name)?)?
            }
        });
    }
    Ok(())
}

/// Fast path: most tables use the offset unchanged, for every record.
fn offset<'a>(column: &Column, offset: Offset) -> Result<Value<'a>, Why> {
    match (column.kind, i64::try_from(offset.0)) {
        (ColumnType::Integer, Ok(offset)) => Ok(Value::Integer(offset)),
        _ => made(column, Some(Found::Number(Cow::Owned(offset.to_string())))),
    }
}

/// Converts the found value to the column's type.
fn made<'a>(column: &Column, found: Option<Found<'a>>) -> Result<Value<'a>, Why> {
    match found {
        Some(found) => convert(found, column.kind).or_else(|what| misfit(column, || what)),
        None if column.required => Err(misfit_of(
            column,
            format!(
                "there is no value at {:?}, and the column requires one",
                column.from.to_string()
            ),
        )),
        None => Ok(Value::Null),
    }
}

fn misfit<'a>(column: &Column, what: impl FnOnce() -> String) -> Result<Value<'a>, Why> {
    match column.on_misfit {
        OnMisfit::Null if !column.required => Ok(Value::Null),
        _ => Err(misfit_of(column, what())),
    }
}

fn misfit_of(column: &Column, what: String) -> Why {
    Why::Misfit { column: column.name.clone(), what }
}

/// The values that the pointers select, by column.
enum PointedAt<'a> {
    Values(Vec<Option<Found<'a>>>),
    NotJson(String),
}

impl<'a> PointedAt<'a> {
    fn find(columns: &Columns, message: &Message<'a>) -> Result<PointedAt<'a>, AmqpError> {
        if columns.tree.is_empty() {
            return Ok(PointedAt::Values(Vec::new()));
        }
        Ok(match body(message)? {
            None => PointedAt::NotJson("there is none".to_owned()),
            Some(Found::Bytes(Cow::Borrowed(text))) => Self::of(columns, text, |found| found),
            Some(Found::Text(Cow::Borrowed(text))) => {
                Self::of(columns, text.as_bytes(), |found| found)
            }
            // The text was built for this walk, and is dropped after it.
            Some(Found::Bytes(text)) => Self::of(columns, &text, Found::into_owned),
            Some(other) => Self::of(columns, other.into_json().as_bytes(), Found::into_owned),
        })
    }

    fn of<'t>(
        columns: &Columns,
        text: &'t [u8],
        keep: impl Fn(Found<'t>) -> Found<'a>,
    ) -> PointedAt<'a> {
        let mut slots = vec![None; columns.columns.len()];
        match columns.tree.find(text, &mut slots) {
            Ok(()) => PointedAt::Values(
                slots.into_iter().map(|raw| raw.and_then(Found::of_json).map(&keep)).collect(),
            ),
            Err(error) => PointedAt::NotJson(error.to_string()),
        }
    }
}

/// The body: the bytes of data sections; the content of an AMQP value; a sequence as JSON.
fn body<'a>(message: &Message<'a>) -> Result<Option<Found<'a>>, AmqpError> {
    match message.body() {
        Body::Absent => Ok(None),
        Body::Data(data) => Ok(Some(Found::Bytes(data.joined()))),
        Body::Value(value) => of_value(message, value),
        Body::Sequence(sequences) => envelope::sequences_as_json(message, sequences)
            .map(|json| Some(Found::Compound(Cow::Owned(json)))),
    }
}

/// The body as JSON text, as pointers into it take it: data and strings are texts of JSON, other values are
/// mapped to it. `None` if the message has no body. Whether it is JSON is not checked.
///
/// # Errors
/// If the message cannot be decoded.
pub fn json_of_body<'a>(message: &Message<'a>) -> Result<Option<Cow<'a, [u8]>>, AmqpError> {
    Ok(body(message)?.map(|found| match found {
        Found::Bytes(bytes) => bytes,
        Found::Text(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Found::Text(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        other => Cow::Owned(other.into_json().into_owned().into_bytes()),
    }))
}

fn application_properties<'a>(
    column: &Column,
    message: &Message<'a>,
    nul: Nul,
) -> Result<Value<'a>, Why> {
    let map = message.application_properties();
    let json = map.map(|map| envelope::map_as_json(message, map, nul)).transpose()?;
    made(column, json.map(|json| Found::Compound(Cow::Owned(json))))
}

/// The value as text, whatever it is.
fn open(found: Option<Found<'_>>, nul: Nul) -> Value<'_> {
    found.map_or(Value::Null, |found| Value::Text(any_text(found, nul)))
}

impl Columns {
    /// The body for a column that accepts every body: text if it is UTF-8, else bytes. If the column
    /// accepts only one of them, bytes become marked text, or text becomes its bytes.
    fn body<'a>(&self, body: Option<Found<'a>>) -> Value<'a> {
        let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        match (body, self.body_as) {
            (None, _) => Value::Null,
            (Some(Found::Bytes(bytes) | Found::NotUtf8(bytes)), as_what) => match as_what {
                BodyAs::Bytes => Value::Bytes(bytes),
                BodyAs::Text | BodyAs::Either if is_text(&bytes) => as_text(bytes),
                BodyAs::Either => Value::Bytes(bytes),
                BodyAs::Text => Value::Text(Cow::Owned(envelope::marked(&bytes))),
            },
            // A text body with a NUL stays text: it is not inside JSON.
            (Some(Found::Text(text)), _) => Value::Text(text),
            (Some(other), _) => Value::Text(other.into_json()),
        }
    }
}

/// Bytes as text, if they are UTF-8.
fn as_text(bytes: Cow<'_, [u8]>) -> Value<'_> {
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(Cow::Borrowed(text)),
            Err(_) => Value::Bytes(Cow::Borrowed(bytes)),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Value::Text(Cow::Owned(text)),
            Err(error) => Value::Bytes(Cow::Owned(error.into_bytes())),
        },
    }
}

fn of_map<'a>(
    message: &Message<'a>,
    map: Option<Map<'a>>,
    name: &str,
) -> Result<Option<Found<'a>>, AmqpError> {
    let value = map.map(|map| map.get(name)).transpose()?.flatten();
    value.map_or(Ok(None), |value| of_value(message, value))
}

fn of_property<'a>(
    message: &Message<'a>,
    property: Property,
) -> Result<Option<Found<'a>>, AmqpError> {
    let Some(list) = message.properties_list() else { return Ok(None) };
    match list.items().nth(property as usize).transpose()? {
        Some(value) => of_value(message, value),
        None => Ok(None),
    }
}

fn of_value<'a>(message: &Message<'a>, value: Amqp<'a>) -> Result<Option<Found<'a>>, AmqpError> {
    let number = |text: String| Found::Number(Cow::Owned(text));
    Ok(Some(match value {
        Amqp::Null => return Ok(None),
        Amqp::Bool(value) => Found::Boolean(value),
        Amqp::Ubyte(n) => number(n.to_string()),
        Amqp::Ushort(n) => number(n.to_string()),
        Amqp::Uint(n) => number(n.to_string()),
        Amqp::Ulong(n) => number(n.to_string()),
        Amqp::Byte(n) => number(n.to_string()),
        Amqp::Short(n) => number(n.to_string()),
        Amqp::Int(n) => number(n.to_string()),
        Amqp::Long(n) => number(n.to_string()),
        Amqp::Float(n) if n.is_finite() => number(format!("{n:?}")),
        Amqp::Double(n) if n.is_finite() => number(format!("{n:?}")),
        Amqp::Float(n) => Found::NotFinite(n.into()),
        Amqp::Double(n) => Found::NotFinite(n),
        // Digits, or "NaN" and the like; digits count as a number.
        Amqp::Decimal(decimal) => Found::Text(Cow::Owned(decimal.to_string())),
        Amqp::Char(c) => Found::Text(Cow::Owned(c.to_string())),
        Amqp::Timestamp(ms) => Found::Timestamp(ms),
        Amqp::Binary(bytes) => Found::Bytes(Cow::Borrowed(bytes)),
        Amqp::String(text) | Amqp::Symbol(text) => Found::Text(Cow::Borrowed(text)),
        Amqp::RawString(bytes) | Amqp::RawSymbol(bytes) => Found::NotUtf8(Cow::Borrowed(bytes)),
        Amqp::Uuid(_) => {
            let json = envelope::value_as_json(message, value)?;
            Found::Text(Cow::Owned(json.trim_matches('"').to_owned()))
        }
        Amqp::List(_) | Amqp::Map(_) | Amqp::Array(_) | Amqp::Described(_) => {
            Found::Compound(Cow::Owned(envelope::value_as_json(message, value)?))
        }
    }))
}
