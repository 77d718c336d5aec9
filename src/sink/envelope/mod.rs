//! Encodes records: one line of NDJSON each, or the bare body followed by a delimiter.
//!
//! The line: `stream`, `offset`, `timestamp` (of the chunk); then, if present, `header`,
//! `delivery_annotations`, `message_annotations`, `properties`, `application_properties` and
//! `footer` as objects; then `body` and `body_encoding`:
//!
//! | `body_encoding` | the body was | `body` is |
//! |---|---|---|
//! | `json` | data that is one JSON document | that document's own text, line breaks between its tokens taken out |
//! | `text` | other data that is UTF-8; also no bytes at all | a string |
//! | `base64` | other data | a string, base64 with padding |
//! | `amqp` | an AMQP value or sequence, or absent | the value mapped to JSON (see `mapping.rs`); an array of the sequence's lists; null |
//!
//! RFC 8259 defines a document, so `123`, `true` and `"x"` are documents too: a producer that sends
//! JSON gets JSON back. The text is embedded unchanged: numbers keep their digits, and repeated
//! keys stay. Text that a common JSON parser could not read back is written as a string: see
//! `document.rs`.
//!
//! In `properties`, a field of bytes is followed by the field `NAME_encoding` with the value
//! `base64`.
//!
//! Several data sections are joined to one body. Invariants: a line contains no line break except
//! its last byte; `out` is unchanged if a record is refused; the only memory kept between records
//! is one small buffer. Knows nothing of files, networks or compression.

mod document;
mod escape;
mod mapping;
mod timestamp;

#[cfg(test)]
mod tests;

use crate::flow::batch::Batch;
use crate::sink::{BadRecord, undecodable};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::amqp::{AmqpError, Body, Data, Map, Message, Sequences, Value, single_data};
use crate::wire::block::Record;

use escape::{push_base64, push_string};
use mapping::Mapper;
pub(crate) use mapping::{Nul, marked, not_finite};
#[cfg(feature = "object")]
pub(crate) use timestamp::date;

/// Most bytes that the buffer for joined data sections keeps between two records.
const JOINED_KEEP_BYTES: usize = 1 << 20;

/// Encodes records of one stream in one format.
pub struct Envelope {
    format: Format,
    /// Buffer for joining data sections.
    joined: Vec<u8>,
}

enum Format {
    Ndjson(Line),
    Raw { delimiter: Vec<u8> },
}

/// The parts of a line that many records share.
struct Line {
    /// From the opening brace to the offset.
    head: Vec<u8>,
    /// The chunk's timestamp, and its text with the surrounding syntax.
    stamp: Option<Timestamp>,
    stamp_text: Vec<u8>,
}

impl Envelope {
    /// One line of JSON per record.
    pub fn ndjson(stream: &StreamName) -> Envelope {
        let mut head = b"{\"stream\":".to_vec();
        push_string(&mut head, stream.as_str());
        head.extend_from_slice(b",\"offset\":");
        let line = Line { head, stamp: None, stamp_text: Vec::new() };
        Envelope { format: Format::Ndjson(line), joined: Vec::new() }
    }

    /// The body of each record, then `delimiter`. Data sections are written unchanged, as is a
    /// string or a binary in an amqp-value; other values as the JSON of [`Envelope::ndjson`]; an
    /// absent body as nothing. A delimiter inside a body is not escaped.
    pub fn raw(delimiter: Vec<u8>) -> Envelope {
        Envelope { format: Format::Raw { delimiter }, joined: Vec::new() }
    }

    /// Appends one record. On an error `out` is unchanged.
    pub fn append(&mut self, record: Record<'_>, out: &mut Vec<u8>) -> Result<(), BadRecord> {
        let start = out.len();
        let done = match &mut self.format {
            Format::Ndjson(line) => line.append(record, &mut self.joined, out),
            Format::Raw { delimiter } => append_raw(record, delimiter, out),
        };
        done.map_err(|error| {
            out.truncate(start);
            undecodable(record.offset, &error)
        })
    }

    /// Offset in a line that this envelope wrote; `None` for any other text, and for bare bodies.
    pub fn offset_of(&self, line: &[u8]) -> Option<Offset> {
        let Format::Ndjson(Line { head, .. }) = &self.format else { return None };
        let rest = line.strip_prefix(&**head)?;
        let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
        // A number that ends with the line may be torn.
        rest.get(digits.len())?;
        std::str::from_utf8(digits).ok()?.parse().ok().map(Offset)
    }

    /// Appends every record of the batch, or none: then it returns all bad records.
    pub fn append_batch(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), Vec<BadRecord>> {
        let start = out.len();
        let mut bad = Vec::new();
        for record in batch.records() {
            if let Err(record) = self.append(record, out) {
                bad.push(record);
            }
        }
        if bad.is_empty() {
            return Ok(());
        }
        out.truncate(start);
        Err(bad)
    }
}

/// A value of the message as JSON.
pub(crate) fn value_as_json(message: &Message<'_>, value: Value<'_>) -> Result<String, AmqpError> {
    as_json(message, Nul::Kept, |mapper| mapper.value(value))
}

/// A section that is a map, as a JSON object.
pub(crate) fn map_as_json(
    message: &Message<'_>,
    map: Map<'_>,
    nul: Nul,
) -> Result<String, AmqpError> {
    as_json(message, nul, |mapper| mapper.object(map))
}

/// A body of sequences, as a JSON array of arrays.
pub(crate) fn sequences_as_json(
    message: &Message<'_>,
    sequences: Sequences<'_>,
) -> Result<String, AmqpError> {
    as_json(message, Nul::Kept, |mapper| mapper.sequences(sequences))
}

fn as_json(
    message: &Message<'_>,
    nul: Nul,
    write: impl FnOnce(&mut Mapper<'_>) -> Result<(), AmqpError>,
) -> Result<String, AmqpError> {
    let mut out = Vec::new();
    write(&mut Mapper::new(&mut out, message).with(nul))?;
    // Made of UTF-8 and ASCII only, so this cannot happen.
    let what = "its JSON is not UTF-8";
    String::from_utf8(out).map_err(|_| AmqpError::Malformed { at: 0, what })
}

/// Time in a record: RFC 3339, or a bare number of milliseconds if the year does not have four
/// digits.
pub(crate) fn rfc3339(ms: i64) -> String {
    let mut out = Vec::new();
    timestamp::push(&mut out, ms);
    String::from_utf8_lossy(&out).trim_matches('"').to_owned()
}

impl Line {
    fn append(
        &mut self,
        record: Record<'_>,
        joined: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), AmqpError> {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(itoa::Buffer::new().format(record.offset.0).as_bytes());
        if self.stamp != Some(record.timestamp) {
            self.set_stamp(record.timestamp);
        }
        out.extend_from_slice(&self.stamp_text);
        if let Some(body) = single_data(record.message) {
            push_data(out, body);
            return Ok(());
        }
        let message = Message::parse(record.message)?;
        let mut mapper = Mapper::new(out, &message);
        mapper.sections(&message)?;
        match message.body() {
            Body::Data(data) => match data.single() {
                Some(body) => push_data(out, body),
                None => {
                    join(data, joined);
                    push_data(out, joined);
                    joined.clear();
                    joined.shrink_to(JOINED_KEEP_BYTES);
                }
            },
            body => {
                mapper.raw(b"\"body\":");
                match body {
                    Body::Value(value) => mapper.value(value)?,
                    Body::Sequence(sequences) => mapper.sequences(sequences)?,
                    Body::Absent | Body::Data(_) => mapper.raw(b"null"),
                }
                mapper.raw(b",\"body_encoding\":\"amqp\"}\n");
            }
        }
        Ok(())
    }

    #[cold]
    fn set_stamp(&mut self, stamp: Timestamp) {
        self.stamp = Some(stamp);
        self.stamp_text.clear();
        self.stamp_text.extend_from_slice(b",\"timestamp\":");
        timestamp::push(&mut self.stamp_text, stamp.0);
        self.stamp_text.push(b',');
    }
}

fn join(data: Data<'_>, joined: &mut Vec<u8>) {
    joined.clear();
    for section in data.sections() {
        joined.extend_from_slice(section);
    }
}

/// From `"body"` to the end of the line.
#[inline]
fn push_data(out: &mut Vec<u8>, body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else {
        out.extend_from_slice(b"\"body\":");
        push_base64(out, body);
        out.extend_from_slice(b",\"body_encoding\":\"base64\"}\n");
        return;
    };
    match document::find(text) {
        Some(document) => {
            out.extend_from_slice(b"\"body\":");
            document.push(out);
            out.extend_from_slice(b",\"body_encoding\":\"json\"}\n");
        }
        None => {
            out.extend_from_slice(b"\"body\":");
            push_string(out, text);
            out.extend_from_slice(b",\"body_encoding\":\"text\"}\n");
        }
    }
}

fn append_raw(record: Record<'_>, delimiter: &[u8], out: &mut Vec<u8>) -> Result<(), AmqpError> {
    if let Some(body) = single_data(record.message) {
        out.extend_from_slice(body);
    } else {
        let message = Message::parse(record.message)?;
        let mut mapper = Mapper::new(out, &message);
        match message.body() {
            Body::Absent => {}
            Body::Data(data) => data.sections().for_each(|section| mapper.raw(section)),
            Body::Value(Value::Binary(bytes) | Value::RawString(bytes)) => mapper.raw(bytes),
            Body::Value(Value::String(text)) => mapper.raw(text.as_bytes()),
            Body::Value(value) => mapper.value(value)?,
            Body::Sequence(sequences) => mapper.sequences(sequences)?,
        }
    }
    out.extend_from_slice(delimiter);
    Ok(())
}
