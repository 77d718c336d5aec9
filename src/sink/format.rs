//! The shape that a record takes in a sink that writes bytes: one NDJSON line, or the bare body.
//!
//! The one place that turns this choice into an encoder. Knows nothing of where the bytes go.

use crate::settings::format::RecordFormat;
use crate::sink::envelope::Envelope;
use crate::types::StreamName;

/// How records are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line: stream, offset, timestamp, every AMQP section.
    Ndjson,
    /// The body alone, and a delimiter behind it.
    Raw {
        /// What ends each record.
        delimiter: Vec<u8>,
    },
}

impl Format {
    /// What the keys `format` and `delimiter` come to.
    pub fn of(format: RecordFormat, delimiter: &str) -> Format {
        match format {
            RecordFormat::Ndjson => Format::Ndjson,
            RecordFormat::Raw => Format::Raw { delimiter: delimiter.as_bytes().to_vec() },
        }
    }

    /// Bare bodies with a newline behind each.
    pub fn raw_lines() -> Format {
        Format::Raw { delimiter: b"\n".to_vec() }
    }

    /// What ends each record.
    pub fn delimiter(&self) -> &[u8] {
        match self {
            Format::Ndjson => b"\n",
            Format::Raw { delimiter } => delimiter,
        }
    }

    /// What a file of this format is called after its dot.
    pub fn extension(&self) -> &'static str {
        match self {
            Format::Ndjson => "ndjson",
            Format::Raw { .. } => "raw",
        }
    }

    /// The encoder for records of `stream`.
    pub fn envelope(&self, stream: &StreamName) -> Envelope {
        match self {
            Format::Ndjson => Envelope::ndjson(stream),
            Format::Raw { delimiter } => Envelope::raw(delimiter.clone()),
        }
    }
}
