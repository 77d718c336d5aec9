//! Start position of a consumer that has never stored an offset.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::units::HumanDuration;
use crate::types::{Offset, Timestamp};

/// Start position for a consumer without a position to resume from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest message that the stream still holds.
    First,
    /// The first message of the last chunk (not the last message).
    Last,
    /// The first message that is published after the consumer first connects.
    Next,
    /// Exactly this message.
    Offset(Offset),
    /// The first message of the first chunk that was written at this time or later.
    Timestamp(Timestamp),
    /// Like `Timestamp`, counted back from the consumer's first start.
    Ago(HumanDuration),
}

const ALLOWED: &str = "\"first\", \"last\", \"next\", { offset = N }, { timestamp = \
                       \"2026-01-01T00:00:00Z\" } or { ago = \"1h\" }";

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::First => f.write_str("first"),
            Start::Last => f.write_str("last"),
            Start::Next => f.write_str("next"),
            Start::Offset(offset) => write!(f, "offset {offset}"),
            Start::Timestamp(at) => write!(f, "timestamp {at}"),
            Start::Ago(ago) => write!(f, "{ago} ago"),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Start::First | Start::Last | Start::Next => to.collect_str(self),
            Start::Offset(offset) => json!({ "offset": offset }).serialize(to),
            Start::Timestamp(at) => json!({ "timestamp": at.to_string() }).serialize(to),
            Start::Ago(ago) => json!({ "ago": ago }).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StartVisitor)
    }
}

struct StartVisitor;

impl<'de> Visitor<'de> for StartVisitor {
    type Value = Start;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALLOWED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Start, E> {
        match text {
            "first" => Ok(Start::First),
            "last" => Ok(Start::Last),
            "next" => Ok(Start::Next),
            _ => Err(E::custom(format!("{text:?} is not a start position: expected {ALLOWED}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Start, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(A::Error::custom(format!("an empty table: expected {ALLOWED}")));
        };
        let start = match key.as_str() {
            "offset" => Start::Offset(Offset(map.next_value()?)),
            "timestamp" => Start::Timestamp(map.next_value::<Instant>()?.0),
            "ago" => Start::Ago(map.next_value()?),
            _ => return Err(A::Error::unknown_field(&key, &["offset", "timestamp", "ago"])),
        };
        match map.next_key::<String>()? {
            None => Ok(start),
            Some(other) => Err(A::Error::custom(format!(
                "both `{key}` and `{other}` are given: expected one of {ALLOWED}"
            ))),
        }
    }
}

/// A timestamp in RFC 3339.
struct Instant(Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.parse::<Timestamp>() {
            Ok(at) => Ok(Instant(at)),
            Err(error) => Err(D::Error::custom(format!(
                "{text:?} is not a point in time ({error}): expected RFC 3339 with a zone, as in \
                 \"2026-01-01T00:00:00Z\" or \"2026-01-01T01:00:00+01:00\""
            ))),
        }
    }
}

impl JsonSchema for Start {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ago = generator.subschema_for::<HumanDuration>();
        let one = |key: &str, description: &str, mut value: serde_json::Value| {
            if let Some(value) = value.as_object_mut() {
                value.insert("description".into(), description.into());
            }
            json!({
                "type": "object",
                "properties": { key: value },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "anyOf": [
                { "type": "string", "enum": ["first", "last", "next"] },
                one(
                    "offset",
                    "Start with exactly this message.",
                    json!({ "type": "integer", "minimum": 0 }),
                ),
                one(
                    "timestamp",
                    "Start with the first chunk written at this time (RFC 3339) or later.",
                    json!({ "type": "string", "format": "date-time" }),
                ),
                one(
                    "ago",
                    "Start with the first chunk written within this time before the first start.",
                    ago.to_value(),
                ),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    #[test]
    fn every_form_is_read_and_written_back() {
        for (written, start) in [
            (json!("first"), Start::First),
            (json!("last"), Start::Last),
            (json!("next"), Start::Next),
            (json!({ "offset": 0 }), Start::Offset(Offset(0))),
            (json!({ "offset": u64::MAX }), Start::Offset(Offset(u64::MAX))),
            (
                json!({ "timestamp": "2026-01-01T00:00:00Z" }),
                Start::Timestamp(Timestamp(1_767_225_600_000)),
            ),
            (json!({ "ago": "1h" }), Start::Ago(HumanDuration::secs(3600))),
        ] {
            assert_eq!(from_value::<Start>(written.clone()).unwrap(), start);
            assert_eq!(serde_json::to_value(start).unwrap(), written);
        }
        let for_ever = json!({ "timestamp": "9999-12-31T23:59:59Z" });
        let start = Start::Timestamp(Timestamp(253_402_300_799_000));
        assert_eq!(from_value::<Start>(for_ever.clone()).unwrap(), start);
        assert_eq!(serde_json::to_value(start).unwrap(), for_ever);
        let zoned = json!({ "timestamp": "2026-01-01T01:00:00.250+01:00" });
        assert_eq!(
            from_value::<Start>(zoned).unwrap(),
            Start::Timestamp(Timestamp(1_767_225_600_250))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (written, says) in [
            (json!("frist"), "\"frist\""),
            (json!(5), "{ offset = N }"),
            (json!({}), "empty"),
            (json!({ "offset": -1 }), "-1"),
            (json!({ "offset": 1, "ago": "1h" }), "both `offset` and `ago`"),
            (json!({ "timestamp": "2026-01-01T00:00:00" }), "with a zone"),
            (json!({ "timestamp": "yesterday" }), "\"yesterday\""),
        ] {
            let error = from_value::<Start>(written).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
