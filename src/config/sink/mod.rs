//! `consumer.sink`: where a consumer's records go. One file for the keys of each sink, and this one
//! for the list of them.
//!
//! Knows the keys of every sink, not the sinks.

mod file;
mod format;
mod http;
mod metrics;
mod object;
mod postgres;
mod sqlite;
mod stdout;
mod stream;

use std::path::Path;

use schemars::JsonSchema;
use serde_json::Value;

use super::error::Problem;
use super::load::typed;
use super::schema::{join, nearest};
use super::start::Start;
use crate::types::Guarantee;

pub use self::file::FileSink;
pub use self::format::{Compression, RecordFormat};
pub use self::http::{BodyFormat, HttpCompression, HttpMethod, HttpSink, HttpTls};
pub use self::metrics::{MetricConfig, MetricKind, MetricsSink};
pub use self::object::{BodyType, ObjectFormat, ObjectPlace, ObjectSink};
pub use self::postgres::PostgresSink;
pub use self::sqlite::SqliteSink;
pub use self::stdout::StdoutSink;
pub use self::stream::StreamSink;

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
    /// Writes objects: Parquet or NDJSON, in a folder or an object store.
    Object(ObjectSink),
    /// Writes rows into a table of a SQLite database.
    Sqlite(SqliteSink),
    /// Writes rows into a table of a PostgreSQL database.
    Postgres(PostgresSink),
    /// Sends requests to a web service.
    Http(HttpSink),
    /// Makes metrics from messages, on `/metrics`.
    Metrics(MetricsSink),
    /// Publishes to another RabbitMQ stream, byte for byte.
    Stream(StreamSink),
}

/// As in `sink::BAD_RECORDS_MAX`.
const BAD_RECORDS_MAX: u64 = 10_000;

/// The names of the sinks, as `type` takes them.
const TYPES: &[&str] =
    &["null", "stdout", "file", "object", "sqlite", "postgres", "http", "metrics", "stream"];

impl SinkConfig {
    /// The name of the sink's kind, as `type` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            SinkConfig::Null => "null",
            SinkConfig::Stdout(_) => "stdout",
            SinkConfig::File(_) => "file",
            SinkConfig::Object(_) => "object",
            SinkConfig::Sqlite(_) => "sqlite",
            SinkConfig::Postgres(_) => "postgres",
            SinkConfig::Http(_) => "http",
            SinkConfig::Metrics(_) => "metrics",
            SinkConfig::Stream(_) => "stream",
        }
    }

    /// What a sink of this kind promises.
    pub fn guarantee(&self) -> Guarantee {
        match self {
            SinkConfig::Null => Guarantee::None,
            SinkConfig::Stdout(_) => Guarantee::AtLeastOnce,
            SinkConfig::File(_) => Guarantee::ExactlyOnce,
            SinkConfig::Object(_) => Guarantee::ExactlyOnce,
            SinkConfig::Sqlite(_) => Guarantee::ExactlyOnce,
            SinkConfig::Postgres(_) => Guarantee::ExactlyOnce,
            SinkConfig::Http(_) | SinkConfig::Metrics(_) => Guarantee::AtLeastOnce,
            SinkConfig::Stream(_) => Guarantee::EffectivelyOnce,
        }
    }

    /// The memory that the sink may take on top of the batches, at the most: its buffers, and what
    /// its compressor works with.
    pub fn overhead_bytes(&self) -> u64 {
        match self {
            SinkConfig::Null => 2 << 20,
            SinkConfig::Stdout(stdout) => stdout.overhead_bytes(),
            SinkConfig::File(file) => file.overhead_bytes(),
            SinkConfig::Object(object) => object.overhead_bytes(),
            SinkConfig::Sqlite(sqlite) => sqlite.overhead_bytes(),
            SinkConfig::Postgres(postgres) => postgres.overhead_bytes(),
            SinkConfig::Http(http) => http.overhead_bytes(),
            SinkConfig::Metrics(metrics) => metrics.overhead_bytes(),
            SinkConfig::Stream(stream) => stream.overhead_bytes(),
        }
    }

    /// How many times its own bytes a large message takes at the most while the sink writes it. JSON
    /// takes six bytes for a control character, and three to four for each of a number.
    pub(super) fn growth_max(&self) -> u64 {
        match self {
            SinkConfig::Null => 0,
            SinkConfig::Metrics(_) | SinkConfig::Stream(_) => 1,
            _ => 6,
        }
    }

    /// Of how many bad records it tells at once, where a batch has so many messages.
    pub(super) fn bad_records_max(&self, batch_messages: u64) -> u64 {
        // Batches that were joined are one.
        let most = |records: u64| records.min(batch_messages.saturating_mul(8));
        match self {
            SinkConfig::Null => 0,
            // Those that are found here, and those that the other side refuses.
            SinkConfig::Postgres(_) => most(2 * BAD_RECORDS_MAX),
            // The latter by the request, and several of these are in flight.
            SinkConfig::Http(http) => {
                most((2 * BAD_RECORDS_MAX).saturating_add(http.in_flight_records()))
            }
            _ => most(BAD_RECORDS_MAX),
        }
    }

    /// Where a consumer of this sink starts that has no position and is not told where.
    pub(super) fn start(&self) -> Start {
        match self {
            // What happened before anybody watched is no event of now.
            SinkConfig::Metrics(_) => Start::Next,
            _ => Start::First,
        }
    }

    /// The sink for a replay of dead letters: where what the consumer itself writes cannot take
    /// anything else, a place beside it. Other sinks tell the two by the reference.
    #[must_use]
    pub fn for_replay(&self, suffix: &str) -> SinkConfig {
        match self.clone() {
            SinkConfig::File(mut file) => {
                let mut dir = file.dir.into_os_string();
                dir.push(suffix);
                file.dir = dir.into();
                SinkConfig::File(file)
            }
            SinkConfig::Stream(mut stream) => {
                stream.publisher = stream.publisher.map(|name| name + suffix);
                SinkConfig::Stream(stream)
            }
            SinkConfig::Object(mut object) => {
                let (url, below) = (object.url.trim_end_matches('/'), suffix.trim_matches('.'));
                object.url = format!("{url}/{below}");
                SinkConfig::Object(object)
            }
            other => other,
        }
    }

    /// Reads the table of a sink. `None` only where a problem was added.
    pub(super) fn from_value(
        value: Value,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<SinkConfig> {
        let before = problems.len();
        let mut sink = match read(value, at) {
            Ok(sink) => sink,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let mut bad =
            |key: &str, message: String| problems.push(Problem::new(join(at, key), message));
        match &mut sink {
            SinkConfig::Null => {}
            SinkConfig::Stdout(stdout) => stdout.check(&mut bad),
            SinkConfig::File(file) => {
                file.check(&mut bad);
                file.locate(folder);
            }
            SinkConfig::Object(object) => {
                object.check(&mut bad);
                object.locate(folder);
            }
            SinkConfig::Sqlite(sqlite) => {
                sqlite.check(&mut bad);
                sqlite.locate(folder);
            }
            SinkConfig::Postgres(postgres) => {
                postgres.check(&mut bad);
                postgres.locate(folder);
            }
            SinkConfig::Http(http) => {
                http.check(&mut bad);
                http.locate(folder);
            }
            SinkConfig::Metrics(metrics) => metrics.check(&mut bad),
            SinkConfig::Stream(stream) => stream.check(&mut bad),
        }
        if let SinkConfig::Stream(stream) = &mut sink {
            stream.connect(at, folder, problems);
        }
        (problems.len() == before).then_some(sink)
    }
}

fn read(value: Value, at: &str) -> Result<SinkConfig, Problem> {
    let allowed = || TYPES.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", ");
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
        "object" => typed(table, at).map(SinkConfig::Object),
        "sqlite" => typed(table, at).map(SinkConfig::Sqlite),
        "postgres" => typed(table, at).map(SinkConfig::Postgres),
        "http" => typed(table, at).map(SinkConfig::Http),
        "metrics" => typed(table, at).map(SinkConfig::Metrics),
        "stream" => typed(table, at).map(SinkConfig::Stream),
        other => {
            let near = nearest(other, TYPES).map(|t| format!("; did you mean {t:?}?"));
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
