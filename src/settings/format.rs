//! Format and compression of records, shared by several sinks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Format of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// One JSON object per message, with all its parts.
    #[default]
    Ndjson,
    /// The body unchanged, and a delimiter.
    Raw,
}

/// Compression of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// Zstandard.
    Zstd,
    /// Gzip.
    Gzip,
}

impl Compression {
    /// The highest level allowed.
    pub fn level_max(self) -> u32 {
        match self {
            Compression::None => 0,
            Compression::Zstd => 19,
            Compression::Gzip => 9,
        }
    }

    /// Most memory of a compressor at this level, in MiB.
    pub fn memory_mib(self, level: u32) -> u64 {
        match (self, level) {
            (Compression::None, _) => 0,
            (Compression::Gzip, _) => 1,
            // zstd's window and tables grow with the level.
            (Compression::Zstd, ..=3) => 6,
            (Compression::Zstd, ..=9) => 24,
            (Compression::Zstd, ..=15) => 48,
            (Compression::Zstd, _) => 96,
        }
    }
}

/// Default delimiter.
pub fn newline() -> String {
    "\n".to_owned()
}

/// Reports a delimiter that has no effect.
pub fn check_delimiter(format: RecordFormat, delimiter: &str, bad: &mut impl FnMut(&str, String)) {
    if format == RecordFormat::Ndjson && delimiter != "\n" {
        bad(
            "delimiter",
            "it has no effect: lines of `ndjson` always end with \"\\n\". It is for \
             format = \"raw\""
                .to_owned(),
        );
    }
}
