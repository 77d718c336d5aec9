//! `[[watch]]`: references of other programs, of which the lag is shown.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::names::{REFERENCE_BYTES_MAX, STREAM_BYTES_MAX};
use crate::settings::read::typed;
use crate::settings::{BrokerConfig, Problem, Protocol, join};
use crate::types::{Reference, StreamName};

/// References on one stream, or on each partition of a super stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// The stream, or the super stream.
    pub stream: StreamName,
    /// True if it is a super stream.
    pub is_super_stream: bool,
    /// The references; at least one, each once.
    pub references: Vec<Reference>,
}

/// References that other programs own. Their lag and headroom are shown in `rillway_watch_…`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct WatchKeys {
    /// The stream. This or `super_stream` is required.
    #[serde(default)]
    stream: Option<String>,
    /// The super stream (RabbitMQ 3.11 and later), with all of its partitions.
    #[serde(default)]
    super_stream: Option<String>,
    /// Name under which the other program stores its offset on the broker. This or `references` is
    /// required.
    #[serde(default)]
    reference: Option<String>,
    /// Several of them.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    references: Option<Names>,
}

/// A list of names. A single text is read too, for an error that says what to do.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of texts, as in [\"billing\", \"audit\"]")]
enum Names {
    List(Vec<String>),
    One(String),
}

const WILDCARD: &str = "the stream protocol does not tell which references there are: name each. To find \
                        them: rabbitmq-streams list_stream_tracking STREAM, or GET \
                        /api/stream/VHOST/STREAM/tracking of the plugin rabbitmq_stream_management";

impl WatchConfig {
    /// Reads the table of a watch. `None` only if a problem was added.
    fn from_value(value: Value, at: &str, problems: &mut Vec<Problem>) -> Option<WatchConfig> {
        let before = problems.len();
        let keys: WatchKeys = match typed(value, at) {
            Ok(keys) => keys,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let mut bad = |key: &str, what: String| problems.push(Problem::new(join(at, key), what));
        let stream = match (keys.stream, keys.super_stream) {
            (Some(stream), None) => Some(("stream", stream)),
            (None, Some(super_stream)) => Some(("super_stream", super_stream)),
            (Some(_), Some(_)) => {
                bad("super_stream", "there is a `stream` already: give one of the two".to_owned());
                None
            }
            (None, None) => {
                bad("stream", "it is missing: the stream, or else `super_stream`".to_owned());
                None
            }
        };
        let (key, references) = match (keys.reference, keys.references) {
            (Some(one), None) => ("reference", vec![one]),
            (None, Some(Names::List(all))) => ("references", all),
            (None, Some(Names::One(one))) => {
                bad(
                    "references",
                    match one.as_str() {
                        "*" => WILDCARD.to_owned(),
                        _ => format!("{one:?} is not a list: write [{one:?}]"),
                    },
                );
                return None;
            }
            (Some(_), Some(_)) => {
                bad("references", "there is a `reference` already: give one of the two".to_owned());
                return None;
            }
            (None, None) => {
                let what =
                    "it is missing: the name under which the other program stores its offset";
                bad("reference", what.to_owned());
                return None;
            }
        };
        if references.is_empty() {
            bad(key, "it is empty: name at least one".to_owned());
        }
        for name in &references {
            check_name(key, name, REFERENCE_BYTES_MAX, &mut bad);
            if name == "*" {
                bad(key, WILDCARD.to_owned());
            }
        }
        let (key, stream) = stream?;
        check_name(key, &stream, STREAM_BYTES_MAX, &mut bad);
        let is_super_stream = key == "super_stream";
        (problems.len() == before).then(|| WatchConfig {
            stream: StreamName::new(stream),
            is_super_stream,
            references: references.into_iter().map(Reference::new).collect(),
        })
    }

    /// Reads all watches, and checks them against each other and the broker's protocol.
    pub(super) fn all(
        values: Vec<Value>,
        broker: Option<&BrokerConfig>,
        problems: &mut Vec<Problem>,
    ) -> Vec<WatchConfig> {
        if !values.is_empty() && broker.is_some_and(|broker| broker.protocol == Protocol::Amqp) {
            problems.push(Problem::new(
                "watch",
                "it needs the stream protocol, and `broker.uri` says AMQP 0.9.1, which stores no offsets: \
                 use rabbitmq-stream://…",
            ));
        }
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for (i, value) in values.into_iter().enumerate() {
            let at = format!("watch[{i}]");
            let Some(watch) = WatchConfig::from_value(value, &at, problems) else { continue };
            for reference in &watch.references {
                if !seen.insert((watch.stream.clone(), watch.is_super_stream, reference.clone())) {
                    let (of, name) = (watch.stream.as_str(), reference.as_str());
                    let what = format!("{name:?} on {of:?} is watched already: leave one out");
                    problems.push(Problem::new(at.clone(), what));
                }
            }
            all.push(watch);
        }
        all
    }
}

fn check_name(key: &str, name: &str, bytes_max: usize, bad: &mut impl FnMut(&str, String)) {
    if name.is_empty() || name.len() > bytes_max {
        bad(key, format!("it is {} bytes long: expected 1 to {bytes_max}", name.len()));
    } else if name.chars().any(char::is_control) {
        bad(key, format!("{name:?} holds a control character"));
    }
}
