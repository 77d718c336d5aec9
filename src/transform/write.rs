//! Values to JSON text.

use super::budget::{is_spent, take};
use super::number::Number;
use super::value::Value;

/// Reason why a value is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritable {
    /// More bytes than allowed.
    TooLong,
    /// A number that JSON cannot write.
    NotFinite,
}

/// Writes a value of at most so many bytes.
pub(super) fn write(value: &Value, bytes_max: usize) -> Result<Vec<u8>, Unwritable> {
    let mut out = Vec::with_capacity(128);
    append(value, &mut out, bytes_max)?;
    Ok(out)
}

/// Adds a value to a text that may have so many bytes then.
pub(super) fn append(value: &Value, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Unwritable> {
    Writer { out, bytes_max, names_numbers: false }.value(value)
}

/// Adds a string to a text.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    Writer { out, bytes_max: usize::MAX, names_numbers: false }.string(text);
}

/// The text of a value for the program itself, which is counted.
pub(super) fn text(value: &Value) -> Value {
    if !take(8 * value.weight().size) {
        return Value::Null;
    }
    let mut out = Vec::new();
    let mut writer = Writer { out: &mut out, bytes_max: usize::MAX, names_numbers: true };
    match writer.value(value) {
        Ok(()) => Value::text(String::from_utf8_lossy(&out)),
        Err(_) => Value::Null,
    }
}

/// The beginning of a value's text.
pub(super) fn beginning(value: &Value, bytes_max: usize) -> String {
    let mut out = Vec::new();
    let writer = Writer { out: &mut out, bytes_max, names_numbers: true };
    let cut = { writer }.value(value).is_err();
    let mut text = String::from_utf8_lossy(&out).into_owned();
    if cut || text.len() > bytes_max {
        let mut end = bytes_max.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    bytes_max: usize,
    /// True if numbers that JSON cannot write are written by their names.
    names_numbers: bool,
}

impl Writer<'_> {
    // As deep as values may be.
    fn value(&mut self, value: &Value) -> Result<(), Unwritable> {
        if self.out.len() > self.bytes_max {
            return Err(Unwritable::TooLong);
        }
        match value {
            Value::Null => self.push(b"null"),
            Value::Bool(true) => self.push(b"true"),
            Value::Bool(false) => self.push(b"false"),
            Value::Num(Number::Float(float)) if !float.is_finite() && !self.names_numbers => {
                return Err(Unwritable::NotFinite);
            }
            Value::Num(Number::Text(text)) => self.push(text.as_bytes()),
            Value::Num(number) => self.push(number.to_string().as_bytes()),
            Value::Str(text) => self.string(text),
            Value::Arr(array) => {
                self.push(b"[");
                for (nth, item) in array.items().iter().enumerate() {
                    if nth > 0 {
                        self.push(b",");
                    }
                    self.value(item)?;
                }
                self.push(b"]");
            }
            Value::Obj(object) => {
                self.push(b"{");
                for (nth, (key, item)) in object.entries().iter().enumerate() {
                    if nth > 0 {
                        self.push(b",");
                    }
                    self.string(key);
                    self.push(b":");
                    self.value(item)?;
                }
                self.push(b"}");
            }
        }
        match self.out.len() > self.bytes_max || is_spent() {
            true => Err(Unwritable::TooLong),
            false => Ok(()),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        let mut rest = text;
        while let Some(at) =
            rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
        {
            let (plain, special) = rest.split_at(at);
            self.push(plain.as_bytes());
            match special.as_bytes().first() {
                Some(b'"') => self.push(b"\\\""),
                Some(b'\\') => self.push(b"\\\\"),
                Some(b'\n') => self.push(b"\\n"),
                Some(b'\r') => self.push(b"\\r"),
                Some(b'\t') => self.push(b"\\t"),
                Some(other) => self.push(format!("\\u{other:04x}").as_bytes()),
                None => {}
            }
            rest = special.get(1..).unwrap_or_default();
        }
        self.push(rest.as_bytes());
        self.out.push(b'"');
    }
}
