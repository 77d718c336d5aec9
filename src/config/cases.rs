//! `[[test]]`: a case of a consumer's programs, for `rillway test`. The daemon ignores them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::consumer::ConsumerConfig;
use crate::settings::read::typed;
use crate::settings::{Problem, join};
use crate::types::{ConsumerName, Timestamp};

/// A message, and what is to become of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TestConfig {
    /// What the case shows; its place in the file if it has no name.
    pub name: String,
    /// The consumer whose programs it is about.
    pub consumer: ConsumerName,
    /// The message's body.
    pub body: Vec<u8>,
    /// Its offset.
    pub offset: u64,
    /// Time of its chunk, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its properties.
    pub properties: Map<String, Value>,
    /// Its application properties.
    pub application_properties: Map<String, Value>,
    /// What is to become of it.
    pub expected: Expected,
    /// Values of the sink's columns that the row is to have; `None` if it is not looked at.
    pub row: Option<Map<String, Value>>,
}

/// What is to become of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// It is written with this body.
    Body(Value),
    /// It is written, with whatever body.
    Kept,
    /// It is left out.
    Dropped,
    /// It is a bad message, and the reason has this part.
    Bad(String),
}

/// A message, and what a consumer's programs are to make of it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct TestKeys {
    /// What the case shows, for the report.
    #[serde(default)]
    name: Option<String>,
    /// Name of the consumer whose `where` and `map` are tested.
    consumer: String,
    /// The message's body: a text as it stands, anything else as JSON.
    body: Value,
    /// Its offset.
    #[serde(default)]
    offset: u64,
    /// Time at which its chunk was written.
    #[serde(default)]
    timestamp: Option<String>,
    /// Its properties, by name: `subject`, `message_id`, `content_type`, …
    #[serde(default)]
    properties: Map<String, Value>,
    /// Its application properties.
    #[serde(default)]
    application_properties: Map<String, Value>,
    /// The body with which it is to be written: a text is JSON, anything else is written as JSON.
    #[serde(default)]
    expect: Option<Value>,
    /// Values that the sink's columns are to have, by their names.
    #[serde(default)]
    expect_row: Option<Map<String, Value>>,
    /// True if it is to be left out; false if it is to be written, with whatever body.
    #[serde(default)]
    dropped: Option<bool>,
    /// Part of the reason for which it is to be a bad message.
    #[serde(default)]
    bad: Option<String>,
}

impl TestConfig {
    /// Reads all cases, and checks them against the consumers. Those that could not be read were reported.
    pub(super) fn all(
        values: Vec<Value>,
        consumers: &[(String, ConsumerConfig)],
        all_were_read: bool,
        problems: &mut Vec<Problem>,
    ) -> Vec<TestConfig> {
        let mut all = Vec::new();
        for (nth, value) in values.into_iter().enumerate() {
            let at = format!("test[{nth}]");
            let keys: TestKeys = match typed(value, &at) {
                Ok(keys) => keys,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let consumer = consumers.iter().find(|(_, one)| one.name.as_str() == keys.consumer);
            let mut bad =
                |key: &str, what: String| problems.push(Problem::new(join(&at, key), what));
            match consumer {
                None if all_were_read => {
                    bad("consumer", format!("there is no consumer {:?}", keys.consumer));
                }
                _ => {}
            }
            if let Some(case) = TestConfig::of(keys, nth, &mut bad) {
                all.push(case);
            }
        }
        all
    }

    fn of(keys: TestKeys, nth: usize, bad: &mut impl FnMut(&str, String)) -> Option<TestConfig> {
        let timestamp_ms = match keys.timestamp.as_deref().map(str::parse::<Timestamp>) {
            None => 0,
            Some(Ok(at)) => at.0,
            Some(Err(error)) => {
                bad("timestamp", format!("{error}: expected as in \"2026-01-01T00:00:00Z\""));
                return None;
            }
        };
        let expected = match (keys.expect, keys.dropped, keys.bad) {
            (Some(Value::String(text)), None, None) => match serde_json::from_str(&text) {
                Ok(value) => Expected::Body(value),
                Err(error) => {
                    bad("expect", format!("the text is not JSON: {error}"));
                    return None;
                }
            },
            (Some(value), None, None) => Expected::Body(value),
            (None, Some(true), None) => Expected::Dropped,
            (None, Some(false), None) => Expected::Kept,
            (None, None, Some(part)) => Expected::Bad(part),
            (None, None, None) if keys.expect_row.is_some() => Expected::Kept,
            (None, None, None) => {
                bad(
                    "expect",
                    "the case expects nothing: give `expect`, `dropped` or `bad`".to_owned(),
                );
                return None;
            }
            _ => {
                bad("expect", "give one of `expect`, `dropped` and `bad`".to_owned());
                return None;
            }
        };
        let row_can_be = matches!(expected, Expected::Body(_) | Expected::Kept);
        if keys.expect_row.is_some() && !row_can_be {
            bad("expect_row", "a message that is not written has no row".to_owned());
            return None;
        }
        Some(TestConfig {
            name: keys.name.unwrap_or_else(|| format!("test[{nth}]")),
            consumer: ConsumerName::new(keys.consumer),
            body: match keys.body {
                Value::String(text) => text.into_bytes(),
                other => other.to_string().into_bytes(),
            },
            offset: keys.offset,
            timestamp_ms,
            properties: keys.properties,
            application_properties: keys.application_properties,
            expected,
            row: keys.expect_row,
        })
    }
}
