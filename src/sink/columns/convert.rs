//! Converts a found value to its column's type.

use std::borrow::Cow;

use super::value::Value;
use crate::sink::envelope::{self, Nul};
use crate::types::column::ColumnType;
use crate::types::time::parse_micros;

/// Most digits of a decimal number, written out.
pub(super) const DIGITS_MAX: usize = 1000;

/// A value as found in the message. Nulls are not included.
pub(super) enum Found<'a> {
    Boolean(bool),
    /// In JSON's notation.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// A JSON string that is not valid Unicode, because it holds half of a surrogate pair: its raw
    /// text.
    LoneSurrogate(Cow<'a, str>),
    /// An AMQP string that is not UTF-8.
    NotUtf8(Cow<'a, [u8]>),
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// A list, a map, or the like: JSON.
    Compound(Cow<'a, str>),
    /// NaN or infinity.
    NotFinite(f64),
}

impl<'a> Found<'a> {
    /// The value of a JSON text; `None` for null. The text was checked before.
    pub(super) fn of_json(raw: &'a str) -> Option<Found<'a>> {
        Some(match raw.as_bytes().first()? {
            b'n' => return None,
            b't' => Found::Boolean(true),
            b'f' => Found::Boolean(false),
            b'"' => unquoted(raw),
            b'{' | b'[' => Found::Compound(Cow::Borrowed(raw)),
            _ => Found::Number(Cow::Borrowed(raw)),
        })
    }

    /// The same value without borrowed parts.
    pub(super) fn into_owned<'o>(self) -> Found<'o> {
        match self {
            Found::Boolean(value) => Found::Boolean(value),
            Found::Number(text) => Found::Number(Cow::Owned(text.into_owned())),
            Found::Text(text) => Found::Text(Cow::Owned(text.into_owned())),
            Found::Bytes(bytes) => Found::Bytes(Cow::Owned(bytes.into_owned())),
            Found::LoneSurrogate(raw) => Found::LoneSurrogate(Cow::Owned(raw.into_owned())),
            Found::NotUtf8(bytes) => Found::NotUtf8(Cow::Owned(bytes.into_owned())),
            Found::Timestamp(ms) => Found::Timestamp(ms),
            Found::Compound(text) => Found::Compound(Cow::Owned(text.into_owned())),
            Found::NotFinite(number) => Found::NotFinite(number),
        }
    }

    /// The value as JSON.
    pub(super) fn into_json(self) -> Cow<'a, str> {
        let quoted = |text: &str| Cow::Owned(serde_json::Value::from(text).to_string());
        match self {
            Found::Boolean(true) => Cow::Borrowed("true"),
            Found::Boolean(false) => Cow::Borrowed("false"),
            Found::Number(text) | Found::Compound(text) | Found::LoneSurrogate(text) => text,
            Found::NotUtf8(bytes) => Cow::Owned(envelope::marked(&bytes)),
            Found::Text(text) => quoted(&text),
            Found::Bytes(bytes) => {
                use base64::Engine as _;
                quoted(&base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Found::Timestamp(ms) => quoted(&envelope::rfc3339(ms)),
            Found::NotFinite(number) => quoted(envelope::not_finite(number)),
        }
    }

    /// A description that quotes at most a short part of the value.
    fn words(&self) -> String {
        let glimpse = |text: &str| {
            let short: String = text.chars().take(24).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("{short:?}{more}")
        };
        match self {
            Found::Boolean(value) => value.to_string(),
            Found::Number(text) => format!("the number {}", glimpse(text).trim_matches('"')),
            Found::Text(text) => format!("the text {}", glimpse(text)),
            Found::Bytes(bytes) => format!("{} bytes that are not text", bytes.len()),
            Found::LoneSurrogate(raw) => {
                format!("the string {}, which holds a lone surrogate,", glimpse(raw))
            }
            Found::NotUtf8(bytes) => format!("a string of {} bytes that is not UTF-8", bytes.len()),
            Found::Timestamp(_) => "a timestamp".to_owned(),
            Found::Compound(text) if text.starts_with('{') => "an object".to_owned(),
            Found::Compound(_) => "a list".to_owned(),
            Found::NotFinite(_) => "a number that is not finite".to_owned(),
        }
    }
}

/// Converts the value to the column's type.
///
/// # Errors
/// A text that names the value and the expected type.
pub(super) fn convert<'a>(found: Found<'a>, kind: ColumnType) -> Result<Value<'a>, String> {
    let converted = match kind {
        ColumnType::Text => text(found),
        ColumnType::Integer => by_number(found, |text| integer(text).map(Value::Integer)),
        ColumnType::Float => by_number(found, |text| float(text).map(Value::Float)),
        ColumnType::Numeric => numeric(found),
        ColumnType::Boolean => boolean(found),
        ColumnType::Timestamp => timestamp(found),
        ColumnType::Json => Ok(Value::Json(found.into_json())),
        ColumnType::Bytes => bytes(found),
    };
    converted.map_err(|found| format!("{} is not {}", found.words(), name_of(kind)))
}

fn name_of(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text",
        ColumnType::Integer => "a whole number of 64 bits",
        ColumnType::Float => "a number of 64 bits",
        ColumnType::Numeric => "a decimal number (of at most 1000 digits)",
        ColumnType::Boolean => "true or false",
        ColumnType::Timestamp => "a point in time (RFC 3339, or milliseconds since 1970)",
        ColumnType::Json => "JSON",
        ColumnType::Bytes => "bytes",
    }
}

type Converted<'a> = Result<Value<'a>, Found<'a>>;

fn text(found: Found<'_>) -> Converted<'_> {
    Ok(Value::Text(match found {
        Found::Text(text) | Found::Number(text) => text,
        Found::Boolean(true) => Cow::Borrowed("true"),
        Found::Boolean(false) => Cow::Borrowed("false"),
        Found::Timestamp(ms) => Cow::Owned(envelope::rfc3339(ms)),
        Found::Bytes(Cow::Borrowed(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => return Err(found),
        },
        Found::Bytes(Cow::Owned(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => Cow::Owned(text),
            Err(error) => return Err(Found::Bytes(Cow::Owned(error.into_bytes()))),
        },
        found @ (Found::Compound(_)
        | Found::NotFinite(_)
        | Found::LoneSurrogate(_)
        | Found::NotUtf8(_)) => return Err(found),
    }))
}

/// Converts any value to text, for a column that must accept everything.
pub(super) fn any_text(found: Found<'_>, nul: Nul) -> Cow<'_, str> {
    match found {
        Found::Text(text) if nul == Nul::Marked && text.contains('\0') => {
            Cow::Owned(envelope::marked(text.as_bytes()))
        }
        Found::Text(text) => text,
        Found::Bytes(bytes) | Found::NotUtf8(bytes) => Cow::Owned(envelope::marked(&bytes)),
        Found::Timestamp(ms) => Cow::Owned(envelope::rfc3339(ms)),
        Found::NotFinite(number) => Cow::Borrowed(envelope::not_finite(number)),
        found => found.into_json(),
    }
}

/// The text of a number counts as a number: many producers send it so.
fn by_number<'a>(found: Found<'a>, read: impl FnOnce(&str) -> Option<Value<'a>>) -> Converted<'a> {
    match &found {
        Found::Number(text) => read(text).ok_or(found),
        Found::Text(text) if is_number(text) => read(text).ok_or(found),
        _ => Err(found),
    }
}

fn integer(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let written_out = written_out(text)?;
    let (whole, fraction) = written_out.split_once('.').unwrap_or((&written_out, ""));
    fraction.bytes().all(|b| b == b'0').then(|| whole.parse().ok()).flatten()
}

fn float(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn numeric(found: Found<'_>) -> Converted<'_> {
    match found {
        Found::Number(text) => decimal(text).map_err(Found::Number),
        Found::Text(text) if is_number(&text) => decimal(text).map_err(Found::Text),
        found => Err(found),
    }
}

fn decimal(text: Cow<'_, str>) -> Result<Value<'_>, Cow<'_, str>> {
    if !text.contains(['e', 'E']) {
        return if text.len() <= DIGITS_MAX { Ok(Value::Numeric(text)) } else { Err(text) };
    }
    match written_out(&text) {
        Some(digits) => Ok(Value::Numeric(Cow::Owned(digits))),
        None => Err(text),
    }
}

/// A JSON number without its exponent; `None` if that takes too many digits.
fn written_out(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.bytes().all(|digit| digit == b'0') && text.contains(['e', 'E']) {
        return Some(format!("{sign}0")); // Whatever its exponent.
    }
    // Position of the point in `digits`.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent.parse().ok()?)?;
    let count = i64::try_from(digits.len()).ok()?;
    let limit = i64::try_from(DIGITS_MAX).ok()?;
    if count > limit || point > limit || count.checked_sub(point)? > limit {
        return None;
    }
    // From here on, nothing is larger than the limit.
    let zeros = |n: i64| Some("0".repeat(usize::try_from(n).ok()?));
    let (whole, fraction) = if point <= 0 {
        ("0".to_owned(), zeros(point.checked_neg()?)? + &digits)
    } else if point >= count {
        (digits.clone() + &zeros(point - count)?, String::new())
    } else {
        let (whole, fraction) = digits.split_at(usize::try_from(point).ok()?);
        (whole.to_owned(), fraction.to_owned())
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        significant => significant,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// True if the text is a JSON number.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
        }
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    digits(whole)
        && digits(fraction)
        && digits(exponent)
        && (whole == "0" || !whole.starts_with('0'))
}

fn boolean(found: Found<'_>) -> Converted<'_> {
    match &found {
        Found::Boolean(value) => Ok(Value::Boolean(*value)),
        Found::Text(text) if text == "true" => Ok(Value::Boolean(true)),
        Found::Text(text) if text == "false" => Ok(Value::Boolean(false)),
        _ => Err(found),
    }
}

fn timestamp(found: Found<'_>) -> Converted<'_> {
    let micros = match &found {
        Found::Timestamp(ms) => ms.checked_mul(1000),
        Found::Number(text) => integer(text).and_then(|ms| ms.checked_mul(1000)),
        Found::Text(text) if is_number(text) => integer(text).and_then(|ms| ms.checked_mul(1000)),
        Found::Text(text) => parse_micros(text).ok(),
        _ => None,
    };
    micros.map(Value::Timestamp).ok_or(found)
}

fn bytes(found: Found<'_>) -> Converted<'_> {
    match found {
        Found::Bytes(bytes) | Found::NotUtf8(bytes) => Ok(Value::Bytes(bytes)),
        Found::Text(Cow::Borrowed(text)) => Ok(Value::Bytes(Cow::Borrowed(text.as_bytes()))),
        Found::Text(Cow::Owned(text)) => Ok(Value::Bytes(Cow::Owned(text.into_bytes()))),
        found => Err(found),
    }
}

/// The value of a JSON string. Its syntax was checked before.
fn unquoted(raw: &str) -> Found<'_> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    if !inner.contains('\\') {
        return Found::Text(Cow::Borrowed(inner));
    }
    match serde_json::from_str(raw) {
        Ok(text) => Found::Text(Cow::Owned(text)),
        // A lone surrogate: allowed by the syntax, but not valid Unicode.
        Err(_) => Found::LoneSurrogate(Cow::Borrowed(raw)),
    }
}
