//! Format of a record in a sink that writes bytes: one NDJSON line, or the bare body.
//!
//! The only place that turns this choice into an encoder. Knows nothing of where the bytes go.

use crate::settings::format::RecordFormat;
use crate::sink::envelope::Envelope;
use crate::types::StreamName;

/// Format of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line: stream, offset, timestamp, every AMQP section.
    Ndjson,
    /// The body alone, followed by a delimiter.
    Raw {
        /// End of each record.
        delimiter: Vec<u8>,
    },
}

impl Format {
    /// The format given by the keys `format` and `delimiter`.
    pub fn of(format: RecordFormat, delimiter: &str) -> Format {
        match format {
            RecordFormat::Ndjson => Format::Ndjson,
            RecordFormat::Raw => Format::Raw { delimiter: delimiter.as_bytes().to_vec() },
        }
    }

    /// Bare bodies, each followed by a newline.
    #[cfg(test)]
    pub(crate) fn raw_lines() -> Format {
        Format::Raw { delimiter: b"\n".to_vec() }
    }

    /// End of each record.
    pub fn delimiter(&self) -> &[u8] {
        match self {
            Format::Ndjson => b"\n",
            Format::Raw { delimiter } => delimiter,
        }
    }

    /// File name extension of this format.
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
