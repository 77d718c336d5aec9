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

    /// Reports a level that has no effect or is out of range.
    pub fn check_level(self, level: Option<u32>, bad: &mut impl FnMut(&str, String)) {
        let Some(level) = level else { return };
        let max = self.level_max();
        if max == 0 {
            bad("compression_level", "it has no effect without `compression`".to_owned());
        } else if level == 0 || level > max {
            bad("compression_level", format!("{level} is out of range: 1 to {max}"));
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
