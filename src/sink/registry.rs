//! The registry of sinks: one line for each.
//!
//! These lines define the values of `type`, the settings that are read, and the JSON Schema.
//! Everything else about a sink is in its [`Declaration`].

use std::ops::{Deref, DerefMut};
use std::path::Path;

use schemars::JsonSchema;
use serde_json::Value;

use super::declaration::{About, Check, Declaration, Use};
use super::placeholders::{self, Names};
use crate::settings::read::{nearest, typed};
use crate::settings::{BrokerConfig, Problem, join};
use crate::types::Guarantee;

/// Generates [`SinkConfig`] and everything that lists all sinks. A sink behind a cargo feature has
/// the feature's name as its `type`.
macro_rules! sinks {
    ($($(#[doc = $doc:literal])+ $sink:ident($settings:ty) $(if $feature:literal)?,)+) => {
        /// Destination of records.
        #[derive(Clone, Debug, PartialEq, JsonSchema)]
        #[schemars(tag = "type", rename_all = "snake_case")]
        pub enum SinkConfig {
            $($(#[doc = $doc])+ $(#[cfg(feature = $feature)])? $sink($settings),)+
        }

        /// The sinks of this build, in the order of the reference.
        pub const SINKS: &[fn() -> &'static About] =
            &[$($(#[cfg(feature = $feature)])? <$settings>::about,)+];

        /// The sinks that this build leaves out.
        pub const LEFT_OUT: &[&str] = &[$($(#[cfg(not(feature = $feature))] $feature,)?)+];

        impl SinkConfig {
            /// Facts that are the same for every sink of its kind.
            pub fn about(&self) -> &'static About {
                match self {
                    $($(#[cfg(feature = $feature)])? SinkConfig::$sink(_) => <$settings>::about(),)+
                }
            }

            /// Checks the sinks of a configuration against each other, kind by kind.
            pub fn validate_together(
                uses: &[Use<'_, SinkConfig>],
                broker: Option<&BrokerConfig>,
                problems: &mut Vec<Problem>,
            ) {
                $($(#[cfg(feature = $feature)])? {
                    fn of_kind<'a>(one: &Use<'a, SinkConfig>) -> Option<Use<'a, $settings>> {
                        match one.sink {
                            SinkConfig::$sink(settings) => Some(one.with(settings)),
                            _ => None,
                        }
                    }
                    let of_kind: Vec<_> = uses.iter().filter_map(of_kind).collect();
                    <$settings>::validate_together(&of_kind, broker, problems);
                })+
            }

            fn typed(kind: &str, table: Value, at: &str) -> Option<Result<SinkConfig, Problem>> {
                $($(#[cfg(feature = $feature)])? if kind == <$settings>::about().kind {
                    return Some(typed(table, at).map(SinkConfig::$sink));
                })+
                None
            }
        }

        impl Deref for SinkConfig {
            type Target = dyn Declaration;

            fn deref(&self) -> &Self::Target {
                match self {
                    $($(#[cfg(feature = $feature)])? SinkConfig::$sink(settings) => settings,)+
                }
            }
        }

        impl DerefMut for SinkConfig {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self {
                    $($(#[cfg(feature = $feature)])? SinkConfig::$sink(settings) => settings,)+
                }
            }
        }
    };
}

sinks! {
    /// Counts records and keeps nothing; for measuring.
    Null(super::null::NullSettings),
    /// Writes to standard output.
    Stdout(super::stdout::StdoutSettings),
    /// Writes files: `DIR/STREAM/FIRSTOFFSET.ndjson[.zst|.gz]`.
    File(super::file::FileSettings),
    /// Writes objects: Parquet or NDJSON, in a folder or an object store.
    Object(super::object::ObjectSettings) if "object",
    /// Writes rows into a table of a SQLite database.
    Sqlite(super::sqlite::SqliteSettings),
    /// Writes rows into a table of a PostgreSQL database.
    Postgres(super::postgres::PostgresSettings) if "postgres",
    /// Sends requests to a web service.
    Http(super::http::HttpSettings) if "http",
    /// Makes metrics from messages, on `/metrics`.
    Metrics(super::metrics::MetricsSettings),
    /// Publishes to another RabbitMQ stream, byte for byte.
    Stream(super::stream::StreamSettings),
}

impl SinkConfig {
    /// Name of the sink's kind, the value of `type`.
    pub fn kind(&self) -> &'static str {
        self.about().kind
    }

    /// Delivery guarantee of a sink of this kind.
    pub fn guarantee(&self) -> Guarantee {
        self.about().guarantee
    }

    /// The sink for a replay of dead letters.
    #[must_use]
    pub fn for_replay(&self, suffix: &str) -> SinkConfig {
        let mut sink = self.clone();
        sink.turn_to_replay(suffix);
        sink
    }

    /// The sink for one stream, with its names in place of the placeholders.
    #[must_use]
    pub fn for_stream(&self, names: &Names) -> SinkConfig {
        let mut sink = self.clone();
        sink.fill(names);
        sink
    }

    /// Reads and checks the table of a sink. `None` only if a problem was added.
    pub fn from_value(
        value: Value,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<SinkConfig> {
        let before = problems.len();
        match read(value, at) {
            Ok(mut sink) => {
                for (key, text) in sink.templates() {
                    if let Some(what) = placeholders::problem(&text) {
                        problems.push(Problem::new(join(at, key), what));
                    }
                }
                sink.validate(&mut Check::new(at, folder, problems));
                (problems.len() == before).then_some(sink)
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }
}

/// Names of the sinks, the values of `type`.
fn kinds() -> Vec<&'static str> {
    SINKS.iter().map(|about| about().kind).collect()
}

fn read(value: Value, at: &str) -> Result<SinkConfig, Problem> {
    let allowed = || kinds().iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", ");
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
    SinkConfig::typed(&kind, Value::Object(table), at).unwrap_or_else(|| {
        let message = if LEFT_OUT.contains(&kind.as_str()) {
            left_out(&kind)
        } else {
            let near = nearest(&kind, &kinds()).map(|t| format!("; did you mean {t:?}?"));
            let near = near.unwrap_or_default();
            format!("there is no sink {kind:?}: expected one of {}{near}", allowed())
        };
        Err(Problem::new(at_type, message))
    })
}

fn left_out(kind: &str) -> String {
    format!(
        "this rillway was built without the sink {kind:?}: use the build with all sinks, or build it \
         with `cargo build --release --features {kind}`"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn sink(value: Value) -> Result<SinkConfig, String> {
        let mut problems = Vec::new();
        SinkConfig::from_value(value, "sink", Path::new("/conf"), &mut problems)
            .ok_or_else(|| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_line_is_a_sink_of_its_own() {
        let kinds = kinds();
        assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), kinds.len(), "{kinds:?}");
        let schema = schemars::schema_for!(SinkConfig).to_value();
        let of = |one: &Value| one["properties"]["type"]["const"].as_str().map(str::to_owned);
        let shown: Vec<_> = schema["oneOf"].as_array().unwrap().iter().filter_map(of).collect();
        assert_eq!(shown, kinds, "the schema and the declarations name the sinks differently");
    }

    #[test]
    fn what_is_no_sink_is_told() {
        for (value, says) in [
            (json!("file"), "sink: not a sink: expected a table"),
            (json!({}), "sink: the key `type` is missing: one of \"null\", \""),
            (json!({ "type": 5 }), "sink.type: not a text"),
            (json!({ "type": "fiel" }), "did you mean \"file\"?"),
            (json!({ "type": "file", "dir": "" }), "sink.dir: an empty path"),
        ] {
            let told = sink(value).unwrap_err();
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        let file = sink(json!({ "type": "file", "dir": "data" })).unwrap();
        assert_eq!(file.place(), Some("/conf/data".into()));
        assert_eq!(file.for_replay(".again").place(), Some("/conf/data.again".into()));
    }

    #[test]
    #[cfg(feature = "http")]
    fn where_requests_go_is_told_without_what_is_secret() {
        let url = "https://svc:hunter2@h.example:8443/v1/in?key=abc";
        let http = sink(json!({ "type": "http", "url": url })).unwrap();
        assert_eq!(http.place(), Some("https://h.example:8443/v1/in".into()));
    }

    #[test]
    fn a_sink_that_was_left_out_says_how_to_get_it() {
        for kind in LEFT_OUT {
            let told = sink(json!({ "type": kind })).unwrap_err();
            assert!(told.contains("built without the sink"), "{told}");
            assert!(told.contains(&format!("--features {kind}")), "{told}");
        }
        let told = left_out("postgres");
        assert!(told.contains("built without the sink \"postgres\""), "{told}");
    }
}
