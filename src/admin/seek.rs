//! Moving a consumer's position, as a request over HTTP.
//!
//! The body is JSON: `{"to": "first" | "last" | "next" | {"offset": N} | {"timestamp": "2026-01-01T00:00:00Z"},
//! "stream": "…", "dry_run": true, "may_skip": true, "alone": true}`. Only `to` is required.

use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::answer::{Answer, error, json};
use super::commands::Ordered;
use super::control::{Control, ControlError, Seek, SeekError, SeekTo};
use crate::types::Offset;

/// The body of a request.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    to: SeekTo,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    may_skip: bool,
    #[serde(default)]
    alone: bool,
}

const EXPECTED: &str = "expected \"first\", \"last\", \"next\", {\"offset\": N} or {\"timestamp\": \"2026-01-01T00:00:00Z\"}";

impl<'de> Deserialize<'de> for SeekTo {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SeekTo, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            Table(serde_json::Map<String, Value>),
        }
        let wrong = || serde::de::Error::custom(format!("`to`: {EXPECTED}"));
        Ok(match Form::deserialize(from).map_err(|_| wrong())? {
            Form::Word(word) => match word.as_str() {
                "first" => SeekTo::First,
                "last" => SeekTo::Last,
                "next" => SeekTo::Next,
                _ => return Err(wrong()),
            },
            Form::Table(table) => {
                match (table.len(), table.get("offset"), table.get("timestamp")) {
                    (1, Some(offset), None) => {
                        SeekTo::Offset(Offset(offset.as_u64().ok_or_else(wrong)?))
                    }
                    (1, None, Some(Value::String(time))) => {
                        SeekTo::Timestamp(time.parse().map_err(|_| wrong())?)
                    }
                    _ => return Err(wrong()),
                }
            }
        })
    }
}

/// Moves the consumer as the body says.
pub(super) async fn seek(control: &dyn Control, ordered: &Ordered<'_>, body: &[u8]) -> Answer {
    let Body { to, stream, dry_run, may_skip, alone } = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(problem) => {
            let text = format!(
                "the body is no request to move a position: {problem}. Send JSON such as {{\"to\": {{\"offset\": 0}}}}; \
                 for `to`, {EXPECTED}"
            );
            return error(StatusCode::BAD_REQUEST, &text);
        }
    };
    let target = match ordered.target_with(stream.as_deref()) {
        Ok(target) => target,
        Err(text) => return error(StatusCode::BAD_REQUEST, text),
    };
    let seek = Seek { to, dry_run, may_skip, alone, wait: ordered.wait() };
    match control.seek(target, seek).await {
        Ok(sought) if sought.finished => json(StatusCode::OK, &sought),
        Ok(sought) => json(StatusCode::ACCEPTED, &sought),
        Err(problem) => {
            let status = match &problem {
                SeekError::Control(
                    ControlError::Unknown(_) | ControlError::UnknownStream { .. },
                ) => StatusCode::NOT_FOUND,
                SeekError::Control(ControlError::Ending | ControlError::NotSkipped(_))
                | SeekError::Refused(_) => StatusCode::CONFLICT,
                SeekError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, &problem.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn read(text: &str) -> Result<Body, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_is_read() {
        let body = |to| Body { to, stream: None, dry_run: false, may_skip: false, alone: false };
        for (text, to) in [
            (r#"{"to":"first"}"#, SeekTo::First),
            (r#"{"to":"last"}"#, SeekTo::Last),
            (r#"{"to":"next"}"#, SeekTo::Next),
            (r#"{"to":{"offset":0}}"#, SeekTo::Offset(Offset(0))),
            (r#"{"to":{"offset":18446744073709551615}}"#, SeekTo::Offset(Offset(u64::MAX))),
            (
                r#"{"to":{"timestamp":"2026-01-01T00:00:00Z"}}"#,
                SeekTo::Timestamp(Timestamp(1_767_225_600_000)),
            ),
        ] {
            assert_eq!(read(text), Ok(body(to)), "{text}");
        }
        let all = read(r#"{"to":"next","stream":"s-1","dry_run":true}"#).unwrap();
        assert_eq!((all.stream.as_deref(), all.dry_run), (Some("s-1"), true));
        assert!(!all.may_skip && !all.alone, "nothing is skipped that was not ordered");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_expected() {
        for (text, says) in [
            ("", "EOF"),
            ("{}", "`to`: expected"),
            (r#"{"to":"frist"}"#, "{\"offset\": N}"),
            (r#"{"to":5}"#, "{\"offset\": N}"),
            (r#"{"to":{"offset":-1}}"#, "{\"offset\": N}"),
            (r#"{"to":{"offset":1,"timestamp":"2026-01-01T00:00:00Z"}}"#, "{\"offset\": N}"),
            (r#"{"to":{"timestamp":"yesterday"}}"#, "{\"offset\": N}"),
            (r#"{"to":"first","dryrun":true}"#, "unknown field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
