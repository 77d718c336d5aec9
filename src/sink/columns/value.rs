//! A value of a row.

use std::borrow::Cow;

use crate::sink::envelope::{marked, rfc3339};

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

/// A value as JSON, for people: a decimal number as one if JSON can write it, a time as text.
pub fn value_as_json(value: &Value<'_>) -> serde_json::Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| text.into());
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) => text.as_ref().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Numeric(text) | Value::Json(text) => parsed(text),
        Value::Boolean(value) => (*value).into(),
        Value::Timestamp(micros) => rfc3339(micros.div_euclid(1000)).into(),
        Value::Bytes(bytes) => parsed(&marked(bytes)),
    }
}
