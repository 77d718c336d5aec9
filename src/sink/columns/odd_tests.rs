//! Values that are legal where they come from, and that a column may not be able to hold: none is
//! altered in silence, none ends the process, and a column of the default table takes them all.

use proptest::prelude::*;

use super::tests::{read_one, record, typed, value_of};
use super::*;
use crate::sink::BadReason;
use crate::types::StreamName;
use crate::types::column::{ColumnType, OnMisfit};
use crate::wire::amqp::tests::encode::{Tree, any_message, section};

/// A JSON string that no Unicode text is: half of a surrogate pair.
const LONE: &str = r#""caf\u00e9 \ud83d""#;

#[test]
fn a_lone_surrogate_is_never_an_empty_text() {
    use ColumnType::*;
    let body = format!(r#"{{"v":{LONE}, "w": 1}}"#);
    for kind in [Text, Integer, Float, Numeric, Boolean, Timestamp, Bytes] {
        let why = value_of(&body, "/v", kind).unwrap_err();
        assert!(why.contains("surrogate"), "{kind:?}: {why}");
        let mut columns = typed(&[("c", "/v", kind)]);
        columns.columns[0].on_misfit = OnMisfit::Null;
        assert_eq!(read_one(&columns, &body), Ok(Value::Null), "{kind:?}");
        columns.columns[0].required = true;
        assert!(read_one(&columns, &body).is_err(), "{kind:?}");
    }
    // JSON can hold it: as it is written.
    assert_eq!(value_of(&body, "/v", Json), Ok(Value::Json(LONE.into())));
    assert_eq!(value_of(&body, "", Json), Ok(Value::Json(body.clone().into())));
    assert_eq!(value_of(&body, "/w", Integer), Ok(Value::Integer(1)));
}

#[test]
fn what_nobody_asks_for_does_not_make_a_body_no_json() {
    for body in [
        r#"{"\ud83d":1,"v":{"w":2}}"#,
        r#"{"a":"\udc00","v":{"\udc00\ud800":3,"w":2}}"#,
        r#"{"v":1e999,"v":{"w":2}}"#,
        r#"{"v":"\ud83d","v":{"w":2}}"#,
    ] {
        assert_eq!(value_of(body, "/v/w", ColumnType::Integer), Ok(Value::Integer(2)), "{body}");
    }
    // A step into what is neither an object nor a list finds nothing.
    for body in [r#"{"v":"\ud83d"}"#, r#"{"v":-1e999}"#, r#""\ud83d""#, "1e999"] {
        assert_eq!(value_of(body, "/v/w", ColumnType::Integer), Ok(Value::Null), "{body}");
    }
}

#[test]
fn no_exponent_ends_the_process() {
    use ColumnType::*;
    for number in [
        "1.5e-9223372036854775807",
        "1.5e-9223372036854775808",
        "1e9223372036854775807",
        "12e9223372036854775806",
        "-0.1e-9223372036854775808",
        "1e-99999999999999999999999",
    ] {
        for kind in [Integer, Numeric, Timestamp] {
            for body in [format!(r#"{{"v":{number}}}"#), format!(r#"{{"v":"{number}"}}"#)] {
                let why = value_of(&body, "/v", kind).unwrap_err();
                assert!(why.contains("column \"c\""), "{why}");
            }
        }
        assert!(value_of(number, "", Text).is_ok());
    }
    // Zero is zero, whatever its exponent.
    for zero in ["0e9223372036854775807", "-0.00e-99999999999999999999"] {
        assert_eq!(value_of(zero, "", Integer), Ok(Value::Integer(0)), "{zero}");
        let sign = if zero.starts_with('-') { "-0" } else { "0" };
        assert_eq!(value_of(zero, "", Numeric), Ok(Value::Numeric(sign.into())), "{zero}");
    }
}

#[test]
fn times_up_to_the_end_of_rfc_3339() {
    let at = |json: &str| value_of(json, "", ColumnType::Timestamp);
    for (json, micros) in [
        (r#""9999-12-31T23:59:59Z""#, 253_402_300_799_000_000),
        (r#""9999-12-31T23:59:59.999999Z""#, 253_402_300_799_999_999),
        (r#""9999-12-30T23:00:00-05:00""#, 253_402_228_800_000_000),
        (r#""9999-12-31T23:59:59-05:00""#, 253_402_318_799_000_000),
        (r#""0000-01-01T00:00:00Z""#, -62_167_219_200_000_000),
        (r#""0000-01-01T00:00:00+01:00""#, -62_167_222_800_000_000),
        ("253402300799999", 253_402_300_799_999_000),
        // A text of milliseconds counts, as every text that is exactly a number does.
        (r#""1700000000123""#, 1_700_000_000_123_000),
        (r#""-1.0""#, -1_000),
        (r#""2.5e1""#, 25_000),
    ] {
        assert_eq!(at(json), Ok(Value::Timestamp(micros)), "{json}");
    }
    for json in [
        r#""9999-12-31T23:59:59""#,
        r#""10000-01-01T00:00:00Z""#,
        r#""9999-13-31T23:59:59Z""#,
        r#""9999-12-31""#,
        r#""9999-12-31T24:00:00Z""#,
        r#""1.5""#,
        r#""9223372036854775807""#,
        "9223372036854775807",
        "-9223372036854775808",
    ] {
        assert!(at(json).is_err(), "{json}");
    }
}

/// All bytes that are no text are marked as what they are.
const MARKED: &str = r#"{"base64":"/wA="}"#;

/// A string of AMQP 0.9.1 that is not UTF-8, as RabbitMQ makes a string of AMQP 1.0 of it.
fn latin(code: u8) -> Vec<u8> {
    vec![code, 2, 0xff, 0]
}

#[test]
fn the_default_table_takes_every_property() {
    let columns = Columns::envelope(StreamName::from("events"), BodyAs::Either);
    let properties = |id: &[u8], subject: &[u8]| {
        let list = [id, &[0x40, 0x40], subject].concat();
        let head = [0, 0x53, 0x73, 0xc0, u8::try_from(list.len()).unwrap() + 1, 4];
        [&head[..], &list].concat()
    };
    for (value, expected) in [
        (vec![0xa0, 2, 0xff, 0], MARKED),
        (vec![0xa0, 2, b'a', b'b'], r#"{"base64":"YWI="}"#),
        (latin(0xa1), MARKED),
        (latin(0xa3), MARKED),
        (vec![0xa1, 2, b'a', 0], "a\0"),
        (vec![0x53, 7], "7"),
        (vec![0x41], "true"),
        (vec![0x45], "[]"),
        (vec![0x82, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "NaN"),
        (vec![0xc1, 5, 2, 0xa1, 1, b'k', 0x40], r#"{"k":null}"#),
    ] {
        let message = [properties(&value, &value), section(0x75, Tree::Binary(vec![]), true)];
        let message = message.concat();
        let mut row = Vec::new();
        columns.read(record(&message), &mut row).unwrap_or_else(|bad| panic!("{bad:?}"));
        let expected = Value::Text(expected.into());
        assert_eq!(row[3..5], [expected.clone(), expected], "{value:?}");
    }
}

#[test]
fn strings_that_are_not_utf_8_are_misfits_only_where_text_is_asked_for() {
    let entry = [&[0xa1, 1, b'k'][..], &latin(0xa1)].concat();
    let head = [0, 0x53, 0x74, 0xc1, u8::try_from(entry.len()).unwrap() + 1, 2];
    let message = [&head[..], &entry].concat();
    let read = |from: &str, kind| {
        let columns = typed(&[("c", from, kind)]);
        let mut row = Vec::new();
        columns.read(record(&message), &mut row).map(|()| format!("{:?}", row[0]))
    };
    let why = read("application_properties.k", ColumnType::Text).unwrap_err();
    assert_eq!(why.reason, BadReason::Misfit);
    assert!(why.detail.contains("not UTF-8"), "{}", why.detail);
    let bytes = Value::Bytes(vec![0xff, 0].into());
    assert_eq!(read("application_properties.k", ColumnType::Bytes), Ok(format!("{bytes:?}")));
    let json = Value::Json(MARKED.into());
    assert_eq!(read("application_properties.k", ColumnType::Json), Ok(format!("{json:?}")));
    let all = Value::Json(format!(r#"{{"k":{MARKED}}}"#).into());
    assert_eq!(read("application_properties", ColumnType::Json), Ok(format!("{all:?}")));
}

#[test]
fn numbers_that_are_not_finite_are_named_in_json() {
    let message = section(0x77, Tree::Double(f64::NEG_INFINITY.to_bits()), true);
    let columns = typed(&[("c", "body", ColumnType::Json)]);
    let mut row = Vec::new();
    columns.read(record(&message), &mut row).unwrap();
    assert_eq!(row, [Value::Json(r#""-Infinity""#.into())]);
}

#[test]
fn a_body_column_takes_amqp_values_as_json() {
    let columns = Columns::envelope(StreamName::from("events"), BodyAs::Either);
    let map = Tree::Map(vec![(Tree::String("k".into()), Tree::Int(1))]);
    for (message, expected) in [
        (section(0x77, map, true), r#"{"k":1}"#),
        (section(0x76, Tree::List(vec![Tree::Int(1)]), true), "[[1]]"),
        (section(0x77, Tree::Int(5), true), "5"),
    ] {
        let mut row = Vec::new();
        columns.read(record(&message), &mut row).unwrap();
        assert_eq!(row[6], Value::Text(expected.into()));
    }
}

proptest! {
    /// Whatever a message is: only what is no AMQP, or beyond its limits, has no row in the default
    /// table.
    #[test]
    fn the_default_table_takes_every_message(message in any_message()) {
        let columns = Columns::envelope(StreamName::from("events"), BodyAs::Either);
        let mut row = Vec::new();
        if let Err(bad) = columns.read(record(&message), &mut row) {
            prop_assert!(bad.reason != BadReason::Misfit, "{bad:?}");
        }
    }
}
