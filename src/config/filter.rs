//! `filter`: the messages that a consumer wants, by a value of each.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::{ByteSize, Problem, join};
use crate::types::column::Source;

/// Bytes of all values in a request: over AMQP 0.9.1 it has to fit into one frame, which has 128 KiB by default.
const VALUES_BYTES_MAX: usize = 64 << 10;
/// Bytes that a value takes there besides its own: 5 over AMQP 0.9.1, and its key in the stream protocol.
const VALUE_BYTES: usize = 20;

/// Bytes for the offset of a message that is left out, in two lists.
const OFFSETS_BYTES: u64 = 16;
/// Most reports of bad messages at the same time, and the bytes of each.
const REPORTS_MAX: u64 = 10_000;
const REPORT_BYTES: u64 = 256;

/// The messages that a consumer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    /// Messages with one of these values.
    pub values: Vec<String>,
    /// Also messages without a value.
    pub match_unfiltered: bool,
    /// Part of a message that holds its value. `None`: the value is known to the broker alone, and the
    /// consumer gets every message of each chunk that the broker selects.
    pub by: Option<Source>,
    /// True if the broker sends everything, and only the consumer filters.
    pub client_side: bool,
}

/// `filter`, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table such as { values = [\"eu\"], by = \"/region\" }")]
pub(super) struct FilterKeys {
    /// The filter values wanted, of those with which messages are published.
    values: Vec<String>,
    /// True to get messages without a filter value too.
    #[serde(default)]
    match_unfiltered: bool,
    /// Part of a message that holds its filter value, as in `columns`: a pointer into a JSON body
    /// ("/region"), `properties.NAME`, `application_properties.NAME`, `message_annotations.NAME` or `body`.
    /// The broker selects whole chunks, and not exactly; with this, single messages are selected.
    #[serde(default)]
    by: Option<String>,
    /// True to have the broker send everything, and to select only here, by `by`: for brokers before
    /// 3.13, and for messages that are published without filter values.
    #[serde(default)]
    client_side: bool,
}

impl FilterKeys {
    /// The checked keys.
    pub(super) fn check(self, at: &str, problems: &mut Vec<Problem>) -> FilterConfig {
        let FilterKeys { values, match_unfiltered, by, client_side } = self;
        let mut bad = |key: &str, what: String| problems.push(Problem::new(join(at, key), what));
        if values.is_empty() {
            bad("values", "it names no value: give one, as in [\"eu\"]".to_owned());
        }
        if values.iter().any(String::is_empty) {
            let what =
                "\"\" is no filter value: to get messages without one, set match_unfiltered = true";
            bad("values", what.to_owned());
        }
        let bytes: usize = values.iter().map(|value| value.len() + VALUE_BYTES).sum();
        if bytes > VALUES_BYTES_MAX {
            let most = ByteSize(VALUES_BYTES_MAX as u64);
            bad(
                "values",
                format!(
                    "they take {bytes} bytes in a request, {VALUE_BYTES} for each value besides its own: expected at most {most}: give fewer or shorter ones"
                ),
            );
        }
        let by = by.and_then(|text| match text.parse() {
            Ok(Source::Stream | Source::Offset | Source::Timestamp | Source::ApplicationProperties) => {
                bad(
                    "by",
                    format!(
                        "{text:?} is no filter value of a message: expected a pointer into a JSON body, as in \
                         \"/region\", or one of properties.NAME, application_properties.NAME, \
                         message_annotations.NAME, body"
                    ),
                );
                None
            }
            Ok(source) => Some(source),
            Err(error) => {
                bad("by", error.to_string());
                None
            }
        });
        if client_side && by.is_none() {
            let what = "it needs `by`, the part of a message that holds its filter value: the value that \
                        was given to the broker is not in the message";
            bad("client_side", what.to_owned());
        }
        FilterConfig { values, match_unfiltered, by, client_side }
    }
}

impl FilterConfig {
    /// Upper bound of the memory that it takes for a write of so many messages: the offsets of those that
    /// it leaves out, and the reports of bad ones.
    pub(super) fn overhead_bytes(&self, messages: u64) -> u64 {
        match self.by {
            Some(_) => messages * OFFSETS_BYTES + messages.min(REPORTS_MAX) * REPORT_BYTES,
            None => 0,
        }
    }

    /// True if the broker filters.
    pub fn is_at_broker(&self) -> bool {
        !self.client_side
    }
}

/// As `rillway check` shows it.
impl fmt::Display for FilterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.values)?;
        if self.match_unfiltered {
            f.write_str(" and messages without a value")?;
        }
        match (&self.by, self.client_side) {
            (Some(by), false) => write!(f, ", by {:?}", by.to_string()),
            (Some(by), true) => {
                write!(f, ", by {:?}; not by the broker, which sends everything", by.to_string())
            }
            (None, _) => f.write_str(
                "; WHOLE CHUNKS: without `by`, other messages of the chunks that the broker selects come too",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &str) -> Result<FilterConfig, String> {
        let file = config::File::from_str(filter, config::FileFormat::Toml);
        let merged = config::Config::builder().add_source(file).build().unwrap();
        let keys: FilterKeys = merged.try_deserialize().unwrap();
        let mut problems = Vec::new();
        let checked = keys.check("filter", &mut problems);
        match problems.first() {
            None => Ok(checked),
            Some(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_do() {
        for (filter, says) in [
            ("values = []", "filter.values: it names no value"),
            ("values = [\"eu\", \"\"]", "set match_unfiltered = true"),
            ("values = [\"eu\"]\nclient_side = true", "filter.client_side: it needs `by`"),
            ("values = [\"eu\"]\nby = \"region\"", "filter.by: \"region\" is not a source"),
            ("values = [\"eu\"]\nby = \"offset\"", "is no filter value of a message"),
            ("values = [\"eu\"]\nby = \"application_properties\"", "application_properties.NAME"),
        ] {
            let said = check(filter).unwrap_err();
            assert!(said.contains(says), "{filter}: {said}");
        }
        let long = format!("values = [\"{}\"]", "x".repeat(VALUES_BYTES_MAX + 1));
        assert!(check(&long).unwrap_err().contains("at most 64KiB"));
        let many = format!("values = [{}]", "\"abcd\", ".repeat(15_000));
        assert!(check(&many).unwrap_err().contains("at most 64KiB"));
    }

    #[test]
    fn check_says_what_comes() {
        for (filter, says) in [
            ("values = [\"eu\", \"us\"]\nby = \"/region\"", "[\"eu\", \"us\"], by \"/region\""),
            ("values = [\"eu\"]", "[\"eu\"]; WHOLE CHUNKS: without `by`"),
            (
                "values = [\"eu\"]\nby = \"properties.subject\"\nclient_side = true",
                "not by the broker, which sends everything",
            ),
            (
                "values = [\"eu\"]\nby = \"/r\"\nmatch_unfiltered = true",
                "[\"eu\"] and messages without a value, by \"/r\"",
            ),
        ] {
            let text = check(filter).unwrap().to_string();
            assert!(
                text.starts_with(says) || text.ends_with(says) || text.contains(says),
                "{text}"
            );
        }
    }
}
