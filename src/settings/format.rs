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
    pub fn level_max(self) -> u32 {
        match self {
            Compression::None => 0,
            Compression::Zstd => 19,
            Compression::Gzip => 9,
        }
    }

    /// Tells that a level has no effect, or is out of range.
    pub fn check_level(self, level: Option<u32>, bad: &mut impl FnMut(&str, String)) {
        let Some(level) = level else { return };
        let max = self.level_max();
        if max == 0 {
            bad("compression_level", "it has no effect without `compression`".to_owned());
        } else if level == 0 || level > max {
            bad("compression_level", format!("{level} is out of range: 1 to {max}"));
        }
    }

    /// What a compressor at this level works with, in MiB at the most.
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

/// The delimiter where none is given.
pub fn newline() -> String {
    "\n".to_owned()
}

/// Tells that a delimiter has no effect.
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
