//! Keys of `{ type = "file" }`: defaults and validation.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::format::{Compression, RecordFormat, check_delimiter, newline};
use crate::settings::units::{ByteSize, HumanDuration, OrNever};

/// A sink that writes files.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct FileSettings {
    /// Folder in which each stream gets a folder of its own.
    pub dir: PathBuf,
    /// `ndjson`: one JSON object per message, with all its parts. `raw`: the bodies, each followed
    /// by the delimiter.
    #[serde(default)]
    pub format: RecordFormat,
    /// Delimiter after each body; with `raw` only.
    #[serde(default = "newline")]
    pub delimiter: String,
    /// Compression of the files. Any tool for the format can read them.
    #[serde(default)]
    pub compression: Compression,
    /// Compression level: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6).
    #[serde(default)]
    pub compression_level: Option<u32>,
    /// Size on disk from which the next batch starts a new file; or `never`.
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: OrNever<ByteSize>,
    /// Age from which the next batch starts a new file; or `never`.
    #[serde(default = "never")]
    pub rotate_age: OrNever<HumanDuration>,
}

fn rotate_bytes() -> OrNever<ByteSize> {
    OrNever(Some(ByteSize::mib(1024)))
}

fn never() -> OrNever<HumanDuration> {
    OrNever(None)
}

impl FileSettings {
    /// Compression level: the configured one, or the format's default.
    pub fn level(&self) -> u32 {
        self.compression_level.unwrap_or(match self.compression {
            Compression::None => 0,
            Compression::Zstd => 3,
            Compression::Gzip => 6,
        })
    }

    /// Makes a relative path start at the folder of the configuration file.
    pub(super) fn locate(&mut self, folder: &Path) {
        self.dir = folder.join(&self.dir);
    }

    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        check_delimiter(self.format, &self.delimiter, bad);
        if self.dir.as_os_str().is_empty() {
            bad("dir", "an empty path: expected a folder".to_owned());
        }
        self.compression.check_level(self.compression_level, bad);
        if self.rotate_bytes.0 == Some(ByteSize(0)) {
            bad(
                "rotate_bytes",
                "0 would start a file for each batch: expected a size, or \"never\"".to_owned(),
            );
        }
        if self.rotate_age.0.is_some_and(|age| age.0.is_zero()) {
            bad(
                "rotate_age",
                "0s would start a file for each batch: expected a duration, or \"never\""
                    .to_owned(),
            );
        }
    }
}
