//! One case: makes the message, and compares what becomes of it.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::{Map, Value};

use super::diff::Problem;
use crate::config::{Config, ConsumerConfig, Expected, TestConfig};
use crate::consumer::{Made, Transform, Verdict};
use crate::sink::columns::{Columns, json_of_body, value_as_json};
use crate::transform::on_large_stack;
use crate::types::{Offset, Timestamp};
use crate::wire::amqp::{Message, Plain, compose};
use crate::wire::block::Block;

/// Result of a case.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) consumer: String,
    pub(super) passed: bool,
    pub(super) problems: Vec<Problem>,
}

/// What became of the message.
enum Became {
    /// It is written as this message.
    Written(Vec<u8>),
    Dropped,
    Bad(String),
}

pub(super) fn run(config: &Config, case: &TestConfig) -> Outcome {
    let problems = problems(config, case).unwrap_or_else(|what| vec![Problem::told(what)]);
    Outcome {
        name: case.name.clone(),
        consumer: case.consumer.to_string(),
        passed: problems.is_empty(),
        problems,
    }
}

fn problems(config: &Config, case: &TestConfig) -> Result<Vec<Problem>, String> {
    let consumer = config.consumers.iter().find(|one| one.name == case.consumer);
    let consumer = consumer.ok_or("its consumer does not exist")?;
    let message = message(case)?;
    let became = became(consumer, case, message)?;
    let mut problems = Vec::new();
    match (&case.expected, &became) {
        (Expected::Body(expected), Became::Written(message)) => {
            let found = body(message)?;
            if found != *expected {
                problems.push(Problem::differs("the body differs", expected, &found));
            }
        }
        (Expected::Kept, Became::Written(_)) | (Expected::Dropped, Became::Dropped) => {}
        (Expected::Bad(part), Became::Bad(reason)) if reason.contains(part.as_str()) => {}
        (Expected::Bad(part), Became::Bad(reason)) => {
            let what = format!("the reason {reason:?} does not contain {part:?}");
            problems.push(Problem::told(what));
        }
        (expected, Became::Written(message)) => {
            let body = body(message)?;
            problems
                .push(Problem::told(format!("{}, but it is written as {body}", wish(expected))));
        }
        (expected, Became::Dropped) => {
            problems.push(Problem::told(format!("{}, but it is left out", wish(expected))));
        }
        (expected, Became::Bad(reason)) => {
            problems.push(Problem::told(format!("{}, but it is bad: {reason}", wish(expected))));
        }
    }
    if let (Some(expected), Became::Written(message)) = (&case.row, &became) {
        problems.extend(row(consumer, case, message, expected));
    }
    Ok(problems)
}

fn wish(expected: &Expected) -> &'static str {
    match expected {
        Expected::Body(_) | Expected::Kept => "it is to be written",
        Expected::Dropped => "it is to be left out",
        Expected::Bad(_) => "it is to be a bad message",
    }
}

fn became(
    consumer: &ConsumerConfig,
    case: &TestConfig,
    message: Vec<u8>,
) -> Result<Became, String> {
    let (keep, reshape) = (consumer.keep.clone(), consumer.reshape.clone());
    let transform = Transform::new(consumer.stream.clone(), keep, reshape, true);
    let Some(transform) = transform else { return Ok(Became::Written(message)) };
    // On a stack for programs, as in the daemon.
    let judged = on_large_stack(|| {
        let block = block(case, &message)?;
        let record = block.records().next()?;
        let mut made = Made::default();
        let verdict = transform.judge(record, &mut made);
        let message = made.messages().next().map(|(_, message)| message.to_vec());
        Some(verdict.map(|verdict| (verdict, message)))
    })?;
    Ok(match judged.ok_or("the message is too long")? {
        Ok((Verdict::Kept | Verdict::Made, made)) => Became::Written(made.unwrap_or(message)),
        Ok((Verdict::Dropped, _)) => Became::Dropped,
        Err(bad) => Became::Bad(bad.detail),
    })
}

fn block(case: &TestConfig, message: &[u8]) -> Option<Block> {
    let mut bytes = BytesMut::with_capacity(message.len() + 4);
    bytes.put_u32(u32::try_from(message.len()).ok()?);
    bytes.put_slice(message);
    Block::new(Offset(case.offset), 1, Timestamp(case.timestamp_ms), bytes.freeze())
}

/// The body as JSON; as a text, if it is none.
fn body(message: &[u8]) -> Result<Value, String> {
    let parsed = Message::parse(message).map_err(|error| error.to_string())?;
    let body = json_of_body(&parsed).map_err(|error| error.to_string())?.unwrap_or_default();
    let as_text = || Value::from(String::from_utf8_lossy(&body).into_owned());
    Ok(serde_json::from_slice(&body).unwrap_or_else(|_| as_text()))
}

/// What differs in the columns.
fn row(
    consumer: &ConsumerConfig,
    case: &TestConfig,
    message: &[u8],
    expected: &Map<String, Value>,
) -> Vec<Problem> {
    let Some(columns) = consumer.sink.columns() else {
        let what = format!(
            "`expect_row` needs a sink with columns, and {:?} has none",
            consumer.sink.kind()
        );
        return vec![Problem::told(what)];
    };
    let columns = Columns::typed(consumer.stream.clone(), columns.0.iter().cloned());
    let block = block(case, message);
    let Some(record) = block.as_ref().and_then(|block| block.records().next()) else {
        return vec![Problem::told("the message is too long")];
    };
    let mut row = Vec::new();
    if let Err(bad) = columns.read(record, &mut row) {
        return vec![Problem::told(format!("it has no row: {}", bad.detail))];
    }
    let row = columns.names_and_types().map(|(name, _)| name).zip(&row);
    let row: Map<String, Value> =
        row.map(|(name, value)| (name.to_owned(), value_as_json(value))).collect();
    let found: Map<String, Value> =
        expected.keys().filter_map(|name| Some((name.clone(), row.get(name)?.clone()))).collect();
    match found == *expected {
        true => Vec::new(),
        false => vec![Problem::differs("the row differs", &expected.clone().into(), &found.into())],
    }
}

/// The case's message, encoded.
fn message(case: &TestConfig) -> Result<Vec<u8>, String> {
    // In the standard's order.
    const NAMES: [&str; 13] = [
        "message_id",
        "user_id",
        "to",
        "subject",
        "reply_to",
        "correlation_id",
        "content_type",
        "content_encoding",
        "absolute_expiry_time",
        "creation_time",
        "group_id",
        "group_sequence",
        "reply_to_group_id",
    ];
    if let Some(name) = case.properties.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(format!("properties.{name}: AMQP has no such property"));
    }
    let property = |name: &str| {
        let Some(value) = case.properties.get(name) else { return Ok(Plain::Null) };
        let bad = |allowed: &str| format!("properties.{name}: {value} is not {allowed}");
        Ok(match (name, value) {
            ("content_type" | "content_encoding", Value::String(text)) => Plain::Symbol(text),
            ("absolute_expiry_time" | "creation_time", Value::String(text)) => {
                let at: Timestamp = text.parse().map_err(|_| bad("a time"))?;
                Plain::Timestamp(at.0)
            }
            ("absolute_expiry_time" | "creation_time", value) => {
                Plain::Timestamp(value.as_i64().ok_or_else(|| bad("a time"))?)
            }
            ("group_sequence", value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                Plain::Uint(number.ok_or_else(|| bad("a 32-bit number"))?)
            }
            ("message_id" | "correlation_id", Value::Number(number)) => {
                Plain::Ulong(number.as_u64().ok_or_else(|| bad("a text or a positive number"))?)
            }
            ("user_id", Value::String(text)) => Plain::Binary(text.as_bytes()),
            (_, Value::String(text)) => Plain::Text(text),
            _ => return Err(bad("a text")),
        })
    };
    let properties = NAMES.iter().map(|name| property(name)).collect::<Result<Vec<_>, String>>()?;
    let custom = case.application_properties.iter().map(|(key, value)| {
        let plain = match value {
            Value::Null => Plain::Null,
            Value::Bool(bool) => Plain::Bool(*bool),
            Value::String(text) => Plain::Text(text),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Plain::Long(number),
                (None, Some(number)) => Plain::Ulong(number),
                (None, None) => Plain::Double(number.as_f64().unwrap_or_default()),
            },
            _ => return Err(format!("application_properties.{key}: no lists and tables there")),
        };
        Ok((key.as_str(), plain))
    });
    let custom = custom.collect::<Result<Vec<_>, String>>()?;
    Ok(compose(&properties, &custom, &case.body))
}
