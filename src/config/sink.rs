//! `consumer.sink`: where a consumer's records go.
//!
//! Knows the keys of every sink, not the sinks.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Problem;
use super::load::typed;
use super::schema::{join, nearest};
use super::units::{ByteSize, HumanDuration, OrNever};
use crate::types::Guarantee;

/// Where records go.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// Counts records and keeps nothing; for measuring.
    Null,
    /// Writes to standard output.
    Stdout(StdoutSink),
    /// Writes files: `DIR/STREAM/FIRSTOFFSET.ndjson[.zst|.gz]`.
    File(FileSink),
}

/// The names of the sinks, as `type` takes them.
const TYPES: [&str; 3] = ["null", "stdout", "file"];

/// A sink that writes to standard output.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct StdoutSink {
    /// `ndjson`: one JSON object per message, with everything that the message holds. `raw`: the
    /// bodies, each followed by the delimiter.
    pub format: RecordFormat,
    /// What follows each body; with `raw` only.
    pub delimiter: String,
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self { format: RecordFormat::Ndjson, delimiter: newline() }
    }
}

/// A sink that writes files.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct FileSink {
    /// The folder; each stream gets a folder of its own in it.
    pub dir: PathBuf,
    /// `ndjson`: one JSON object per message, with everything that the message holds. `raw`: the
    /// bodies, each followed by the delimiter.
    #[serde(default)]
    pub format: RecordFormat,
    /// What follows each body; with `raw` only.
    #[serde(default = "newline")]
    pub delimiter: String,
    /// How the files are compressed. Any tool for the format can read them.
    #[serde(default)]
    pub compression: Compression,
    /// How hard to compress: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6).
    #[serde(default)]
    pub compression_level: Option<u32>,
    /// The size on disk from which on the next batch starts a new file; or `never`.
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: OrNever<ByteSize>,
    /// The age from which on the next batch starts a new file; or `never`.
    #[serde(default = "never")]
    pub rotate_age: OrNever<HumanDuration>,
}

fn newline() -> String {
    "\n".to_owned()
}

fn rotate_bytes() -> OrNever<ByteSize> {
    OrNever(Some(ByteSize::mib(1024)))
}

fn never() -> OrNever<HumanDuration> {
    OrNever(None)
}

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
    fn level_max(self) -> u32 {
        match self {
            Compression::None => 0,
            Compression::Zstd => 19,
            Compression::Gzip => 9,
        }
    }
}

impl FileSink {
    /// The level to compress with: the one asked for, or the format's default.
    pub fn level(&self) -> u32 {
        self.compression_level.unwrap_or(match self.compression {
            Compression::None => 0,
            Compression::Zstd => 3,
            Compression::Gzip => 6,
        })
    }
}

impl SinkConfig {
    /// The name of the sink's kind, as `type` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            SinkConfig::Null => "null",
            SinkConfig::Stdout(_) => "stdout",
            SinkConfig::File(_) => "file",
        }
    }

    /// What a sink of this kind promises.
    pub fn guarantee(&self) -> Guarantee {
        match self {
            SinkConfig::Null => Guarantee::None,
            SinkConfig::Stdout(_) => Guarantee::AtLeastOnce,
            SinkConfig::File(_) => Guarantee::ExactlyOnce,
        }
    }

    /// The memory that the sink may take on top of the batches, at the most: its buffers, and what
    /// its compressor works with.
    pub fn overhead_bytes(&self) -> u64 {
        let mib = match self {
            SinkConfig::Null | SinkConfig::Stdout(_) => 2,
            SinkConfig::File(file) => {
                4 + match (file.compression, file.level()) {
                    (Compression::None, _) => 0,
                    (Compression::Gzip, _) => 1,
                    // zstd's window and tables grow with the level.
                    (Compression::Zstd, ..=3) => 6,
                    (Compression::Zstd, ..=9) => 24,
                    (Compression::Zstd, ..=15) => 48,
                    (Compression::Zstd, _) => 96,
                }
            }
        };
        mib << 20
    }

    /// Reads the table of a sink. `None` only where a problem was added.
    pub(super) fn from_value(
        value: Value,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<SinkConfig> {
        let before = problems.len();
        let sink = match read(value, at) {
            Ok(sink) => sink,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let mut bad =
            |key: &str, message: String| problems.push(Problem::new(join(at, key), message));
        let sink = match sink {
            SinkConfig::Null => SinkConfig::Null,
            SinkConfig::Stdout(stdout) => {
                check_delimiter(stdout.format, &stdout.delimiter, &mut bad);
                SinkConfig::Stdout(stdout)
            }
            SinkConfig::File(mut file) => {
                check_delimiter(file.format, &file.delimiter, &mut bad);
                check_file(&file, &mut bad);
                file.dir = folder.join(&file.dir);
                SinkConfig::File(file)
            }
        };
        (problems.len() == before).then_some(sink)
    }
}

fn read(value: Value, at: &str) -> Result<SinkConfig, Problem> {
    let allowed = || TYPES.map(|t| format!("{t:?}")).join(", ");
    let Value::Object(mut table) = value else {
        return Err(Problem::new(
            at,
            format!(
                "not a sink: expected a table, as in {{ type = \"stdout\" }}; the types are {}",
                allowed()
            ),
        ));
    };
    let at_type = join(at, "type");
    let kind = match table.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(_) => {
            return Err(Problem::new(
                at_type,
                format!("not a text: expected one of {}", allowed()),
            ));
        }
        None => {
            return Err(Problem::new(
                at,
                format!("the key `type` is missing: one of {}", allowed()),
            ));
        }
    };
    let table = Value::Object(table);
    match kind.as_str() {
        "null" => Ok(SinkConfig::Null),
        "stdout" => typed(table, at).map(SinkConfig::Stdout),
        "file" => typed(table, at).map(SinkConfig::File),
        other => {
            let near = nearest(other, &TYPES).map(|t| format!("; did you mean {t:?}?"));
            Err(Problem::new(
                at_type,
                format!(
                    "there is no sink {other:?}: expected one of {}{}",
                    allowed(),
                    near.unwrap_or_default()
                ),
            ))
        }
    }
}

fn check_delimiter(format: RecordFormat, delimiter: &str, bad: &mut impl FnMut(&str, String)) {
    if format == RecordFormat::Ndjson && delimiter != "\n" {
        bad(
            "delimiter",
            "it has no effect: lines of `ndjson` always end with \"\\n\". It is for \
             format = \"raw\""
                .to_owned(),
        );
    }
}

fn check_file(file: &FileSink, bad: &mut impl FnMut(&str, String)) {
    if file.dir.as_os_str().is_empty() {
        bad("dir", "an empty path: expected a folder".to_owned());
    }
    if let Some(level) = file.compression_level {
        let max = file.compression.level_max();
        if max == 0 {
            bad("compression_level", "it has no effect without `compression`".to_owned());
        } else if level == 0 || level > max {
            bad("compression_level", format!("{level} is out of range: 1 to {max}"));
        }
    }
    if file.rotate_bytes.0 == Some(ByteSize(0)) {
        bad(
            "rotate_bytes",
            "0 would start a file for each batch: expected a size, or \"never\"".to_owned(),
        );
    }
    if file.rotate_age.0.is_some_and(|age| age.0.is_zero()) {
        bad(
            "rotate_age",
            "0s would start a file for each batch: expected a duration, or \"never\"".to_owned(),
        );
    }
}
