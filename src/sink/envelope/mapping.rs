//! Maps AMQP values to JSON.
//!
//! | AMQP | JSON |
//! |---|---|
//! | null, boolean | the same |
//! | integers of all widths | a number with all digits |
//! | float, double | the shortest number that reads back the same; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | decimal | a string with every digit |
//! | char, string, symbol | a string |
//! | binary | a string, base64 with padding; in `properties`, followed by the field `NAME_encoding`
//! with the value `base64` |
//! | string or symbol whose bytes are not UTF-8 | `{"base64": …}` |
//! | timestamp | a string, RFC 3339 with milliseconds; a number of milliseconds if the year does
//! not have four digits |
//! | uuid | a string, 8-4-4-4-12 |
//! | list, array | an array |
//! | map whose keys are all strings or symbols | an object |
//! | any other map | an array of `[key, value]`, so that 1 and "1" stay different |
//! | described value | `{"descriptor": …, "value": …}` |
//!
//! All sinks use this mapping: a value that a table cannot hold natively is stored in this form.
//! Bytes in a text column become the text `{"base64":"…"}` ([`marked`]). A sink that cannot store a
//! NUL has texts with one mapped like those that are not UTF-8 ([`Nul::Marked`]).
//!
//! Sections that are maps are always objects; a key that is not text becomes the text of its JSON.
//! The fields of `header` and `properties` have their names, with underscores; null fields are left
//! out. Repeated keys are all written.

use std::io::Write as _;

use crate::wire::amqp::{AmqpError, List, Map, Message, Sequences, Value};

use super::escape::{push_base64, push_escaped, push_string};
use super::timestamp;

/// Largest JSON of a message's values: a multiple of its encoded length, plus a constant. Normal
/// values stay below 10 bytes per byte; an array can repeat a large descriptor for every element of
/// one byte, or declare elements that take none.
const GROWTH_MAX: usize = 32;
const GROWTH_SPARE_BYTES: usize = 64 << 10;

/// The same for a large message, to save memory. Numbers and times take three times their bytes.
const LARGE_GROWTH_MAX: usize = 4;
const LARGE_GROWTH_SPARE_BYTES: usize = 2 << 20;

const HEADER: [&str; 5] = ["durable", "priority", "ttl", "first_acquirer", "delivery_count"];
const PROPERTIES: [&str; 13] = [
    "message_id",
    "user_id",
    "to",
    "subject",
    "reply_to",
    "correlation_id",
    "content_type",
    "content_encoding",
    "absolute_expiry_time",
    "creation_time",
    "group_id",
    "group_sequence",
    "reply_to_group_id",
];

/// Treatment of texts that contain a NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Nul {
    /// Written like any other text.
    #[default]
    Kept,
    /// Written like bytes: `{"base64": …}`. PostgreSQL's text and `jsonb` cannot hold a NUL.
    Marked,
}

/// The text that represents bytes in a text column.
pub(crate) fn marked(bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("{{\"base64\":\"{}\"}}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Name of a number that is not finite.
pub(crate) fn not_finite(n: f64) -> &'static str {
    match n {
        n if n.is_nan() => "NaN",
        n if n > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// Writes one message's values.
pub(super) struct Mapper<'o> {
    out: &'o mut Vec<u8>,
    nul: Nul,
    /// Limit for the length of `out`.
    end: usize,
    limit: usize,
    encoded_len: usize,
}

impl<'o> Mapper<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, message: &Message<'_>) -> Self {
        let encoded_len = message.encoded().len();
        let grown = |times, spare| encoded_len.saturating_mul(times).saturating_add(spare);
        let limit = grown(GROWTH_MAX, GROWTH_SPARE_BYTES)
            .min(grown(LARGE_GROWTH_MAX, LARGE_GROWTH_SPARE_BYTES));
        Mapper { end: out.len().saturating_add(limit), limit, encoded_len, out, nul: Nul::Kept }
    }

    pub(super) fn with(self, nul: Nul) -> Self {
        Mapper { nul, ..self }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// All sections except the body, each followed by a comma.
    pub(super) fn sections(&mut self, message: &Message<'_>) -> Result<(), AmqpError> {
        if let Some(header) = message.header_list() {
            self.raw(b"\"header\":");
            self.fields(header, &HEADER, "a header has more than 5 fields")?;
        }
        let maps = [
            ("\"delivery_annotations\":", message.delivery_annotations()),
            ("\"message_annotations\":", message.message_annotations()),
        ];
        for (name, map) in maps {
            self.section(name, map)?;
        }
        if let Some(properties) = message.properties_list() {
            self.raw(b"\"properties\":");
            let too_many = "a properties section has more than 13 fields";
            self.fields(properties, &PROPERTIES, too_many)?;
        }
        self.section("\"application_properties\":", message.application_properties())?;
        self.section("\"footer\":", message.footer())
    }

    /// An array of lists, one for each section.
    pub(super) fn sequences(&mut self, sequences: Sequences<'_>) -> Result<(), AmqpError> {
        let mut before = b'[';
        for list in sequences.lists() {
            self.out.push(before);
            self.array(list.items())?;
            before = b',';
        }
        self.out.push(b']');
        Ok(())
    }

    /// Any value. The decoder's depth limit bounds the recursion.
    pub(super) fn value(&mut self, value: Value<'_>) -> Result<(), AmqpError> {
        self.check_growth()?;
        match value {
            Value::Null => self.raw(b"null"),
            Value::Bool(true) => self.raw(b"true"),
            Value::Bool(false) => self.raw(b"false"),
            Value::Ubyte(n) => self.integer(n),
            Value::Ushort(n) => self.integer(n),
            Value::Uint(n) => self.integer(n),
            Value::Ulong(n) => self.integer(n),
            Value::Byte(n) => self.integer(n),
            Value::Short(n) => self.integer(n),
            Value::Int(n) => self.integer(n),
            Value::Long(n) => self.integer(n),
            Value::Float(n) if n.is_finite() => self.display(format_args!("{n:?}")),
            Value::Double(n) if n.is_finite() => self.display(format_args!("{n:?}")),
            Value::Float(n) => self.not_finite(n.into()),
            Value::Double(n) => self.not_finite(n),
            Value::Decimal(decimal) => self.display(format_args!("\"{decimal}\"")),
            Value::Char(c) => self.text(c.encode_utf8(&mut [0; 4])),
            Value::Timestamp(ms) => timestamp::push(self.out, ms),
            Value::Uuid(uuid) => self.uuid(uuid),
            Value::Binary(bytes) => push_base64(self.out, bytes),
            Value::String(text) | Value::Symbol(text) => self.text(text),
            Value::RawString(bytes) | Value::RawSymbol(bytes) => self.marked(bytes),
            Value::List(list) => self.array(list.items())?,
            Value::Array(array) => self.array(array.items())?,
            Value::Map(map) => self.map(map)?,
            Value::Described(described) => {
                self.raw(b"{\"descriptor\":");
                self.value(described.descriptor()?)?;
                self.raw(b",\"value\":");
                self.value(described.value()?)?;
                self.raw(b"}");
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        match self.nul {
            Nul::Marked if text.contains('\0') => self.marked(text.as_bytes()),
            _ => push_string(self.out, text),
        }
    }

    fn marked(&mut self, bytes: &[u8]) {
        self.raw(b"{\"base64\":");
        push_base64(self.out, bytes);
        self.raw(b"}");
    }

    fn check_growth(&self) -> Result<(), AmqpError> {
        if self.out.len() <= self.end {
            return Ok(());
        }
        Err(AmqpError::OverLimit {
            at: self.encoded_len,
            what: "values that grow too large as JSON (limit in bytes)",
            limit: self.limit,
        })
    }

    fn section(&mut self, name: &str, map: Option<Map<'_>>) -> Result<(), AmqpError> {
        let Some(map) = map else { return Ok(()) };
        self.raw(name.as_bytes());
        self.object(map)?;
        self.raw(b",");
        Ok(())
    }

    /// An object, whatever type the keys have.
    pub(super) fn object(&mut self, map: Map<'_>) -> Result<(), AmqpError> {
        self.out.push(b'{');
        let mut comma = false;
        for entry in map.entries() {
            let (key, value) = entry?;
            if std::mem::replace(&mut comma, true) {
                self.out.push(b',');
            }
            self.key(key)?;
            self.out.push(b':');
            self.value(value)?;
        }
        self.raw(b"}");
        Ok(())
    }

    /// A section's key: text unchanged, anything else as the text of its JSON.
    fn key(&mut self, key: Value<'_>) -> Result<(), AmqpError> {
        let start = self.out.len();
        self.value(key)?;
        if self.out.get(start) != Some(&b'"') {
            let json = self.out.split_off(start);
            self.out.push(b'"');
            push_escaped(self.out, &String::from_utf8_lossy(&json));
            self.out.push(b'"');
        }
        Ok(())
    }

    /// A list of named fields, as an object followed by a comma.
    fn fields(
        &mut self,
        list: List<'_>,
        names: &[&str],
        too_many: &'static str,
    ) -> Result<(), AmqpError> {
        if list.len() as usize > names.len() {
            return Err(AmqpError::Malformed { at: list.at(), what: too_many });
        }
        self.out.push(b'{');
        let mut comma = false;
        let mut names = names.iter();
        for value in list.items() {
            let value = value?;
            let name = names.next().copied().unwrap_or_default();
            if matches!(value, Value::Null) {
                continue;
            }
            self.raw(if std::mem::replace(&mut comma, true) { b",\"" } else { b"\"" });
            self.raw(name.as_bytes());
            self.raw(b"\":");
            self.value(value)?;
            if matches!(value, Value::Binary(_)) {
                self.raw(b",\"");
                self.raw(name.as_bytes());
                self.raw(b"_encoding\":\"base64\"");
            }
        }
        self.raw(b"},");
        Ok(())
    }

    fn array<'a>(
        &mut self,
        items: impl Iterator<Item = Result<Value<'a>, AmqpError>>,
    ) -> Result<(), AmqpError> {
        self.out.push(b'[');
        let mut comma = false;
        for item in items {
            if std::mem::replace(&mut comma, true) {
                self.out.push(b',');
            }
            self.value(item?)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, map: Map<'_>) -> Result<(), AmqpError> {
        // An error occurs again, and is reported, when the entries are written.
        let nul = self.nul;
        let is_text = |key: Value<'_>| {
            key.as_str().is_some_and(|text| nul == Nul::Kept || !text.contains('\0'))
        };
        let object = map.entries().all(|e| e.is_ok_and(|(key, _)| is_text(key)));
        let [open, colon, close] = if object { ["", ":", ""] } else { ["[", ",", "]"] };
        self.out.push(if object { b'{' } else { b'[' });
        let mut comma = false;
        for entry in map.entries() {
            let (key, value) = entry?;
            if std::mem::replace(&mut comma, true) {
                self.out.push(b',');
            }
            self.raw(open.as_bytes());
            self.value(key)?;
            self.raw(colon.as_bytes());
            self.value(value)?;
            self.raw(close.as_bytes());
        }
        self.out.push(if object { b'}' } else { b']' });
        Ok(())
    }

    fn integer(&mut self, n: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }

    fn display(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory cannot fail.
        self.out.write_fmt(text).unwrap_or_default();
    }

    fn not_finite(&mut self, n: f64) {
        self.out.push(b'"');
        self.raw(not_finite(n).as_bytes());
        self.out.push(b'"');
    }

    fn uuid(&mut self, uuid: &[u8; 16]) {
        self.out.push(b'"');
        for (i, byte) in uuid.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                self.out.push(b'-');
            }
            for digit in [byte >> 4, byte & 15] {
                self.out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
            }
        }
        self.out.push(b'"');
    }
}
