//! A value of a row.

use std::borrow::Cow;

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
