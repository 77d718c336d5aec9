//! How records are laid out and compressed: what several sinks have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// One JSON object per message, with everything that the message holds.
    #[default]
    Ndjson,
    /// The body as it is, and a delimiter.
    Raw,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With zstd.
    Zstd,
    /// With gzip.
    Gzip,
}

impl Compression {
    /// The highest level that may be asked for.
    pub(super) fn level_max(self) -> u32 {
        match self {
            Compression::None => 0,
            Compression::Zstd => 19,
            Compression::Gzip => 9,
        }
    }
}

pub(super) fn newline() -> String {
    "\n".to_owned()
}

pub(super) fn check_delimiter(
    format: RecordFormat,
    delimiter: &str,
    bad: &mut impl FnMut(&str, String),
) {
    if format == RecordFormat::Ndjson && delimiter != "\n" {
        bad(
            "delimiter",
            "it has no effect: lines of `ndjson` always end with \"\\n\". It is for \
             format = \"raw\""
                .to_owned(),
        );
    }
}
