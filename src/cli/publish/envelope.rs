//! Turns a line written by a Rillway sink back into a message.
//!
//! The keys that count are `body` with `body_encoding` (`json`, which is the default, `text` or `base64`),
//! `properties` and `application_properties`. Every other key is ignored, so that the output of a
//! sink can be published again. A property whose `NAME_encoding` is `base64` is bytes. Anything
//! that the client cannot publish unchanged (a body that was an AMQP value, a nested application
//! property) is an error.

use base64::Engine;
use chrono::{DateTime, Utc};
use rabbitmq_stream_client::types::{Message, SimpleValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::types::Timestamp;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    body_encoding: Encoding,
    #[serde(default)]
    properties: Map<String, Value>,
    #[serde(default)]
    application_properties: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    #[default]
    Json,
    Text,
    Base64,
    Amqp,
}

/// The message with this publishing id, and the size of its body.
pub(super) fn message(line: &[u8], id: u64) -> Result<(Message, usize), String> {
    let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let text = || {
        serde_json::from_str::<String>(envelope.body.get())
            .map_err(|_| "`body` is not a text, but `body_encoding` says so".to_owned())
    };
    let body = match envelope.body_encoding {
        Encoding::Json => envelope.body.get().as_bytes().to_vec(),
        Encoding::Text => text()?.into_bytes(),
        Encoding::Base64 => base64::engine::general_purpose::STANDARD
            .decode(text()?)
            .map_err(|e| format!("`body` is not base64: {e}"))?,
        Encoding::Amqp => {
            return Err(
                "a body that was an AMQP value or sequence cannot be published: only bytes \
                        can (json, text, base64)"
                    .to_owned(),
            );
        }
    };
    let size = body.len();
    let mut builder = Message::builder().publishing_id(id).body(body);
    for (key, value) in &envelope.application_properties {
        let value = simple(value).ok_or_else(|| {
            format!("application_properties.{key}: lists and objects cannot be published there")
        })?;
        builder = builder.application_properties().insert(key.as_str(), value).message_builder();
    }
    for (key, value) in &envelope.properties {
        if let Some(of) = marked(key) {
            if value != "base64" || !envelope.properties.contains_key(of) {
                return Err(format!(
                    "properties.{key}: {value} is not \"base64\", or there is no text property {of:?}"
                ));
            }
            continue;
        }
        let properties = builder.properties();
        if envelope.properties.contains_key(&format!("{key}_encoding")) {
            let text = value.as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|error| format!("properties.{key}: {value} is not base64: {error}"))?;
            builder = match key.as_str() {
                "message_id" => properties.message_id(bytes),
                "correlation_id" => properties.correlation_id(bytes),
                "user_id" => properties.user_id(bytes),
                _ => return Err(format!("properties.{key}: only a text can be published there")),
            }
            .message_builder();
            continue;
        }
        let bad = |allowed: &str| format!("properties.{key}: {value} is not {allowed}");
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| bad("a text"));
        let time = || time(value).ok_or_else(|| bad("a time (RFC 3339, or milliseconds)"));
        builder = match (key.as_str(), value.as_u64()) {
            ("message_id", Some(id)) => properties.message_id(id),
            ("message_id", None) => properties.message_id(text()?),
            ("correlation_id", Some(id)) => properties.correlation_id(id),
            ("correlation_id", None) => properties.correlation_id(text()?),
            ("user_id", _) => properties.user_id(text()?),
            ("to", _) => properties.to(text()?),
            ("subject", _) => properties.subject(text()?),
            ("reply_to", _) => properties.reply_to(text()?),
            ("content_type", _) => properties.content_type(text()?),
            ("content_encoding", _) => properties.content_encoding(text()?),
            ("absolute_expiry_time", _) => properties.absolute_expiry_time(time()?),
            ("creation_time", _) => properties.creation_time(time()?),
            ("group_id", _) => properties.group_id(text()?),
            ("group_sequence", number) => properties.group_sequence(
                number.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad("a 32-bit number"))?,
            ),
            ("reply_to_group_id", _) => properties.reply_to_group_id(text()?),
            _ => return Err(format!("properties.{key}: AMQP has no such property")),
        }
        .message_builder();
    }
    Ok((builder.build(), size))
}

/// The property whose encoding this key gives; `None` for any other key.
fn marked(key: &str) -> Option<&str> {
    key.strip_suffix("_encoding").filter(|_| key != "content_encoding")
}

fn simple(value: &Value) -> Option<SimpleValue> {
    Some(match value {
        Value::Null => SimpleValue::Null,
        Value::Bool(b) => SimpleValue::Boolean(*b),
        Value::String(s) => s.as_str().into(),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => SimpleValue::Long(n),
            (None, Some(n)) => SimpleValue::Ulong(n),
            (None, None) => SimpleValue::Double(n.as_f64()?.into()),
        },
        Value::Array(_) | Value::Object(_) => return None,
    })
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    let millis = match value {
        Value::String(text) => text.parse::<Timestamp>().ok()?.0,
        _ => value.as_i64()?,
    };
    DateTime::from_timestamp_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(line: &str) -> Result<Vec<u8>, String> {
        message(line.as_bytes(), 0).map(|(m, size)| {
            let body = m.data().unwrap_or_default().to_vec();
            assert_eq!(body.len(), size);
            body
        })
    }

    #[test]
    fn bodies_come_back_as_they_were() {
        for (line, wanted) in [
            (
                r#"{"offset":1,"body":{"b":1.00,"a":[1e400]}}"#,
                br#"{"b":1.00,"a":[1e400]}"#.as_slice(),
            ),
            (r#"{"body":"x","body_encoding":"json"}"#, b"\"x\""),
            (r#"{"body":"x\n","body_encoding":"text"}"#, b"x\n"),
            (r#"{"body":"/wA=","body_encoding":"base64"}"#, &[0xff, 0]),
            (r#"{"body":"","body_encoding":"text","header":{"durable":true}}"#, b""),
        ] {
            assert_eq!(body(line).unwrap(), wanted, "{line}");
        }
    }

    #[test]
    fn properties_that_were_bytes_are_bytes_again() {
        let line = r#"{"body":1,"properties":{"user_id":"Z3Vlc3Q=","user_id_encoding":"base64",
            "message_id":"/wA=","message_id_encoding":"base64","content_encoding":"gzip"}}"#;
        let message = message(line.as_bytes(), 0).unwrap().0;
        let properties = message.properties().unwrap();
        assert_eq!(format!("{:?}", properties.user_id), "Some([103, 117, 101, 115, 116])");
        assert_eq!(format!("{:?}", properties.message_id), "Some(Binary([255, 0]))");
        for (line, says) in [
            (r#"{"body":1,"properties":{"to":"/wA=","to_encoding":"base64"}}"#, "only a text"),
            (
                r#"{"body":1,"properties":{"user_id":"?","user_id_encoding":"base64"}}"#,
                "not base64",
            ),
            (
                r#"{"body":1,"properties":{"user_id":"","user_id_encoding":"hex"}}"#,
                "user_id_encoding",
            ),
            (r#"{"body":1,"properties":{"user_id_encoding":"base64"}}"#, "user_id_encoding"),
        ] {
            let why = super::message(line.as_bytes(), 0).unwrap_err();
            assert!(why.contains(says), "{line}: {why}");
        }
    }

    #[test]
    fn what_cannot_be_published_as_it_was_is_refused() {
        for (line, says) in [
            ("{}", "body"),
            ("[]", "expected"),
            (r#"{"body":1,"body_encoding":"text"}"#, "not a text"),
            (r#"{"body":"?","body_encoding":"base64"}"#, "not base64"),
            (r#"{"body":1,"body_encoding":"amqp"}"#, "AMQP value"),
            (r#"{"body":1,"body_encoding":"rot13"}"#, "rot13"),
            (r#"{"body":1,"properties":{"colour":1}}"#, "properties.colour"),
            (r#"{"body":1,"properties":{"subject":1}}"#, "1 is not a text"),
            (r#"{"body":1,"properties":{"creation_time":"noon"}}"#, "not a time"),
            (r#"{"body":1,"properties":{"group_sequence":4294967296}}"#, "32-bit"),
            (r#"{"body":1,"application_properties":{"a":[1]}}"#, "application_properties.a"),
        ] {
            let error = body(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn times_up_to_the_end_of_rfc_3339_are_read() {
        let line = r#"{"body":1,"properties":{"creation_time":"9999-12-31T23:59:59.999Z"}}"#;
        assert!(message(line.as_bytes(), 0).is_ok());
        let read = |text: &str| time(&Value::from(text)).map(|at| at.timestamp_millis());
        assert_eq!(read("9999-12-31T23:59:59.999Z"), Some(253_402_300_799_999));
        assert_eq!(read("2026-01-01T00:00:00Z"), Some(1_767_225_600_000));
    }

    #[test]
    fn properties_arrive() {
        let line = r#"{"body":1,
            "properties":{"message_id":7,"subject":"s","creation_time":"2026-01-01T00:00:00Z",
                "user_id":"u","content_type":"application/json","group_sequence":3},
            "application_properties":{"t":"x","b":true,"n":-1,"u":18446744073709551615,"f":1.5,"z":null}}"#;
        let message = message(line.as_bytes(), 0).unwrap().0;
        let properties = message.properties().unwrap();
        assert_eq!(properties.subject.as_ref().map(|s| s.to_string()), Some("s".to_owned()));
        assert_eq!(properties.group_sequence, Some(3));
        let custom = message.application_properties().unwrap();
        for (key, value) in [
            ("t", SimpleValue::from("x")),
            ("b", SimpleValue::Boolean(true)),
            ("n", SimpleValue::Long(-1)),
            ("u", SimpleValue::Ulong(u64::MAX)),
            ("f", SimpleValue::Double(1.5.into())),
            ("z", SimpleValue::Null),
        ] {
            assert_eq!(custom.get(key), Some(&value), "{key}");
        }
    }
}
