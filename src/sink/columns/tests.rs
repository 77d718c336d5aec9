use proptest::prelude::*;

use super::declared::column;
use super::*;
use crate::sink::BadReason;
use crate::sink::conformance::{BAD_MESSAGE, message};
use crate::types::column::{ColumnType, OnMisfit};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::block::Record;

pub(super) fn typed(columns: &[(&str, &str, ColumnType)]) -> Columns {
    let columns = columns
        .iter()
        .map(|(name, from, kind)| column(name, from.parse().unwrap(), *kind))
        .collect();
    Columns::only(StreamName::from("events"), columns)
}

pub(super) fn record(message: &[u8]) -> Record<'_> {
    Record { offset: Offset(7), timestamp: Timestamp(1_700_000_000_123), message }
}

/// The one value of a body's one column, or why there is none.
pub(super) fn value_of(body: &str, from: &str, kind: ColumnType) -> Result<Value<'static>, String> {
    let columns = typed(&[("c", from, kind)]);
    read_one(&columns, body)
}

pub(super) fn read_one(columns: &Columns, body: &str) -> Result<Value<'static>, String> {
    let message = message(body.as_bytes());
    let mut row = vec![Value::Null; 9];
    columns.read(record(&message), &mut row).map_err(|bad| {
        assert_eq!((bad.offset, bad.reason), (Offset(7), BadReason::Misfit));
        bad.detail
    })?;
    assert_eq!(row.len(), 1);
    Ok(match row.remove(0) {
        Value::Null => Value::Null,
        Value::Text(text) => Value::Text(text.into_owned().into()),
        Value::Integer(n) => Value::Integer(n),
        Value::Float(n) => Value::Float(n),
        Value::Numeric(text) => Value::Numeric(text.into_owned().into()),
        Value::Boolean(value) => Value::Boolean(value),
        Value::Timestamp(at) => Value::Timestamp(at),
        Value::Json(text) => Value::Json(text.into_owned().into()),
        Value::Bytes(bytes) => Value::Bytes(bytes.into_owned().into()),
    })
}

pub(super) fn text(text: &'static str) -> Value<'static> {
    Value::Text(text.into())
}

fn numeric(text: &'static str) -> Value<'static> {
    Value::Numeric(text.into())
}

#[test]
fn each_type_takes_what_the_table_says() {
    use ColumnType::*;
    for (json, kind, value) in [
        (r#""a\u00e9\n\"""#, Text, text("aé\n\"")),
        ("12.50", Text, text("12.50")),
        ("true", Text, text("true")),
        ("-9223372036854775808", Integer, Value::Integer(i64::MIN)),
        ("3.0", Integer, Value::Integer(3)),
        ("2.5e1", Integer, Value::Integer(25)),
        (r#""42""#, Integer, Value::Integer(42)),
        ("1e-3", Float, Value::Float(0.001)),
        ("7", Float, Value::Float(7.0)),
        ("12345678901234567890.0100", Numeric, numeric("12345678901234567890.0100")),
        ("1.25e3", Numeric, numeric("1250")),
        ("-1.25E-3", Numeric, numeric("-0.00125")),
        ("0.5e1", Numeric, numeric("5")),
        (r#""0.10""#, Numeric, numeric("0.10")),
        ("false", Boolean, Value::Boolean(false)),
        (r#""true""#, Boolean, Value::Boolean(true)),
        ("1700000000123", Timestamp, Value::Timestamp(1_700_000_000_123_000)),
        (r#""2023-11-14T22:13:20.5+01:00""#, Timestamp, Value::Timestamp(1_699_996_400_500_000)),
        (r#"{"a": [1, 2]}"#, Json, Value::Json(r#"{"a": [1, 2]}"#.into())),
        (r#""x""#, Json, Value::Json(r#""x""#.into())),
        (r#""x""#, Bytes, Value::Bytes(b"x".as_slice().into())),
        ("null", Integer, Value::Null),
    ] {
        let body = format!(r#"{{"v": {json}}}"#);
        assert_eq!(value_of(&body, "/v", kind), Ok(value), "{json} as {kind:?}");
    }
    for (json, kind) in [
        ("{}", Text),
        ("[1]", Text),
        ("9223372036854775808", Integer),
        ("1.5", Integer),
        (r#""1 ""#, Integer),
        (r#""0x1""#, Integer),
        ("true", Integer),
        ("1e400", Float),
        (r#""NaN""#, Float),
        ("1e2000", Numeric),
        ("1e-2000", Numeric),
        ("1e99999999999999999999", Numeric),
        (r#""1.""#, Numeric),
        (r#""-""#, Numeric),
        ("1", Boolean),
        ("1.5", Timestamp),
        (r#""yesterday""#, Timestamp),
        (r#""2023-02-30T00:00:00Z""#, Timestamp),
        ("1", Bytes),
    ] {
        let body = format!(r#"{{"v": {json}}}"#);
        let why = value_of(&body, "/v", kind).unwrap_err();
        assert!(why.starts_with("column \"c\": "), "{why}");
    }
}

#[test]
fn pointers_lead_where_rfc_6901_says() {
    let body =
        r#"{"a":{"b":[10,{"c":20}],"":30,"x/y":40,"~":50},"a2":1,"dup":1,"dup":{"d":2},"n":null}"#;
    for (from, json) in [
        ("/a/b/0", Some("10")),
        ("/a/b/1/c", Some("20")),
        ("/a/b/1", Some(r#"{"c":20}"#)),
        ("/a/", Some("30")),
        ("/a/x~1y", Some("40")),
        ("/a/~0", Some("50")),
        ("", Some(body)),
        ("/dup", Some(r#"{"d":2}"#)),
        ("/dup/d", Some("2")),
        ("/a/b/2", None),
        ("/a/b/01", None),
        ("/a/b/-", None),
        ("/a2/b", None),
        ("/zzz", None),
        ("/n", None),
    ] {
        let expected = json.map_or(Value::Null, |json| Value::Json(json.to_owned().into()));
        assert_eq!(value_of(body, from, ColumnType::Json), Ok(expected), "{from}");
    }
    // A later repetition takes back what an earlier one held.
    let body = r#"{"a":{"b":1},"a":{}}"#;
    assert_eq!(value_of(body, "/a/b", ColumnType::Integer), Ok(Value::Null));
}

#[test]
fn what_is_missing_is_null_unless_it_is_required() {
    let mut columns = typed(&[("c", "/v", ColumnType::Integer)]);
    assert_eq!(read_one(&columns, "{}"), Ok(Value::Null));
    columns.columns[0].on_misfit = OnMisfit::Null;
    assert_eq!(read_one(&columns, r#"{"v":"x"}"#), Ok(Value::Null));
    assert_eq!(read_one(&columns, "no JSON"), Ok(Value::Null));
    columns.columns[0].required = true;
    assert!(read_one(&columns, "{}").unwrap_err().contains("requires one"));
    assert!(read_one(&columns, r#"{"v":null}"#).unwrap_err().contains("requires one"));
    assert!(read_one(&columns, r#"{"v":"x"}"#).unwrap_err().contains("\"x\""));
}

#[test]
fn a_body_that_is_no_json_is_bad_for_those_who_ask_into_it_only() {
    for body in ["", "{", "{\"v\":1}}", "{\"v\":01}", "nul", &"[".repeat(100_000)] {
        let why = value_of(body, "/v", ColumnType::Text).unwrap_err();
        assert!(why.contains("not JSON"), "{why}");
        let columns = typed(&[("c", "body", ColumnType::Text)]);
        assert_eq!(read_one(&columns, body), Ok(Value::Text(body.to_owned().into())));
    }
}

/// Properties, application properties and annotations; a body that is an AMQP map.
#[test]
fn sections_are_looked_into() {
    // message annotations {x: 5 (ulong)}, properties ["id-1" , null, null, "subject"],
    // application properties {region: "eu", n: -2 (smalllong), when: timestamp}, body map {k: "v"}
    let mut encoded = vec![0, 0x53, 0x72, 0xc1, 6, 2, 0xa3, 1, b'x', 0x53, 5];
    encoded.extend([0, 0x53, 0x73, 0xc0, 11, 4, 0xa1, 4, b'i', b'd', b'-', b'1', 0x40, 0x40]);
    encoded.extend([0xa1, 0]);
    let entries: &[&[u8]] = &[
        &[0xa1, 2, b'r', b'e', 0xa1, 2, b'e', b'u'],
        &[0xa1, 1, b'n', 0x55, 0xfe],
        &[0xa1, 1, b't', 0x83, 0, 0, 0, 0, 0, 0, 0, 9],
    ];
    let entries = entries.concat();
    encoded.extend([0, 0x53, 0x74, 0xc1, u8::try_from(entries.len()).unwrap() + 1, 6]);
    encoded.extend(&entries);
    encoded.extend([0, 0x53, 0x77, 0xc1, 7, 2, 0xa1, 1, b'k', 0xa1, 1, b'v']);
    let columns = typed(&[
        ("a", "message_annotations.x", ColumnType::Integer),
        ("b", "properties.message_id", ColumnType::Text),
        ("c", "properties.subject", ColumnType::Text),
        ("d", "properties.to", ColumnType::Text),
        ("e", "application_properties.re", ColumnType::Text),
        ("f", "application_properties.n", ColumnType::Numeric),
        ("g", "application_properties.t", ColumnType::Timestamp),
        ("h", "application_properties.none", ColumnType::Text),
        ("i", "application_properties", ColumnType::Json),
        ("j", "/k", ColumnType::Text),
        ("k", "body", ColumnType::Json),
        ("l", "offset", ColumnType::Integer),
        ("m", "stream", ColumnType::Text),
        ("n", "timestamp", ColumnType::Timestamp),
    ]);
    let mut row = Vec::new();
    columns.read(record(&encoded), &mut row).unwrap();
    let properties = r#"{"re":"eu","n":-2,"t":"1970-01-01T00:00:00.009Z"}"#;
    assert_eq!(
        row,
        [
            Value::Integer(5),
            text("id-1"),
            text(""),
            Value::Null,
            text("eu"),
            numeric("-2"),
            Value::Timestamp(9_000),
            Value::Null,
            Value::Json(properties.into()),
            text("v"),
            Value::Json(r#"{"k":"v"}"#.into()),
            Value::Integer(7),
            text("events"),
            Value::Timestamp(1_700_000_000_123_000),
        ]
    );
}

#[test]
fn the_envelope_takes_every_body() {
    let columns = Columns::envelope(StreamName::from("events"), BodyAs::Either);
    for (body, expected) in [
        (&b"text"[..], text("text")),
        (b"", text("")),
        (&[0xff, 0], Value::Bytes(vec![0xff, 0].into())),
    ] {
        let message = message(body);
        let mut row = Vec::new();
        columns.read(record(&message), &mut row).unwrap();
        assert_eq!(row.len(), 7);
        assert_eq!(row[6], expected);
        assert_eq!(row[0..2], [text("events"), Value::Integer(7)]);
    }
    let bad = columns.read(record(BAD_MESSAGE), &mut Vec::new()).unwrap_err();
    assert_eq!(bad.reason, BadReason::Undecodable);
}

#[test]
fn an_offset_beyond_what_a_column_holds_is_bad() {
    let columns = Columns::typed(StreamName::from("events"), []);
    let message = message(b"x");
    let far = Record { offset: Offset(1 << 63), ..record(&message) };
    assert_eq!(columns.read(far, &mut Vec::new()).unwrap_err().reason, BadReason::Misfit);
}

proptest! {
    /// What serde_json's own tree says is what is found, for any pointer into any document.
    #[test]
    fn agrees_with_a_tree(keys in prop::collection::vec("[ab01]", 0..4), json in document()) {
        let pointer: String = keys.iter().map(|key| format!("/{key}")).collect();
        let expected = json.pointer(&pointer).filter(|v| !v.is_null()).cloned();
        let found = value_of(&json.to_string(), &pointer, ColumnType::Json).unwrap();
        let found = match found {
            Value::Json(text) => Some(serde_json::from_str::<serde_json::Value>(&text).unwrap()),
            _ => None,
        };
        prop_assert_eq!(found, expected);
    }

    /// A decimal number keeps its value, whatever its exponent.
    #[test]
    fn decimals_keep_their_value(n in -1_000_000_i64..1_000_000, e in -20_i32..20) {
        let found = value_of(&format!("{n}e{e}"), "", ColumnType::Numeric).unwrap();
        let Value::Numeric(digits) = found else { panic!("{found:?}") };
        prop_assert!(!digits.contains('e'));
        let expected: f64 = format!("{n}e{e}").parse().unwrap();
        prop_assert_eq!(digits.parse::<f64>().unwrap(), expected);
    }
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value as Json;
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        ".{0,4}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::vec(("[ab01]", inner), 0..3)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}
