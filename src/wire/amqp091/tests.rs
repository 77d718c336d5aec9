//! Does the conversion write valid AMQP 1.0, and survive any bytes?

use proptest::prelude::*;

use super::*;
use crate::types::Offset;
use crate::wire::amqp::{Body, Message, Value};

fn delivered() -> Delivered {
    Delivered { tag: 1, exchange: Vec::new(), routing_key: b"q".to_vec() }
}

fn short_of(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long_of(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn field(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    [&short_of(name.as_bytes())[..], &[kind], value].concat()
}

/// Properties with these flags and values, and headers that hold offset 7 and these fields.
fn properties(flags: u16, before: &[u8], fields: &[Vec<u8>], after: &[u8]) -> Vec<u8> {
    let offset = field("x-stream-offset", b'l', &7_i64.to_be_bytes());
    let table = [offset, fields.concat()].concat();
    [&(flags | 1 << 13).to_be_bytes()[..], before, &long_of(&table), after].concat()
}

fn converted(properties: &[u8], body: &[u8], style: Style) -> (Incoming, Vec<u8>) {
    let mut out = Vec::new();
    let size = body.len() as u64;
    let incoming = begin_message(&mut out, properties, size, &delivered(), "q", style).unwrap();
    out.extend_from_slice(body);
    assert!(out.len() as u64 <= bound(size, properties.len(), &delivered()));
    (incoming, out)
}

#[test]
fn a_bare_body_is_a_data_section() {
    for style in [Style::Record, Style::Container] {
        let (incoming, bytes) = converted(&properties(0, &[], &[], &[]), b"hello", style);
        assert_eq!(incoming, Incoming { offset: Offset(7), timestamp: None });
        assert_eq!(bytes, b"\x00\x53\x75\xa0\x05hello");
    }
}

/// A table has no room for such a time; the property keeps it.
#[test]
fn a_time_of_any_publisher_is_one_that_a_table_holds() {
    for (seconds, wanted) in [
        (0, Some(0)),
        (253_402_300_799, Some(253_402_300_799_000)),
        (253_402_300_800, None),
        (99_999_999_999_999, None),
        (i64::MAX, None),
        (i64::MIN, None),
        (-1, Some(-1000)),
    ] {
        let all = properties(1 << 6, &[], &[], &seconds.to_be_bytes());
        let (incoming, bytes) = converted(&all, b"body", Style::Container);
        assert_eq!(incoming.timestamp, wanted, "{seconds}");
        let message = Message::parse(&bytes).unwrap();
        message.validate().unwrap();
        assert!(message.properties().is_ok());
    }
}

#[test]
fn properties_and_headers_go_where_the_broker_puts_them() {
    let flags = 1 << 15 | 1 << 12 | 1 << 11 | 1 << 7 | 1 << 6 | 1 << 5 | 1 << 3;
    let before = short_of(b"text/plain");
    let urn = b"urn:uuid:01020304-0506-0708-090a-0b0c0d0e0f10";
    let after = [
        vec![1, 5],
        short_of(urn),
        1_700_000_000_u64.to_be_bytes().to_vec(),
        short_of(b"kind"),
        short_of(b"app"),
    ]
    .concat();
    let fields = [
        field("n", b'I', &(-3_i32).to_be_bytes()),
        field("x-note", b'S', &long_of(b"seen")),
        field("bin", b'S', &long_of(b"\xff\x00")),
    ];
    let all = properties(flags, &before, &fields, &after);
    let (incoming, bytes) = converted(&all, b"body", Style::Container);
    assert_eq!(incoming.timestamp, Some(1_700_000_000_000));
    let message = Message::parse(&bytes).unwrap();
    message.validate().unwrap();
    let annotations = message.message_annotations().unwrap();
    assert!(matches!(annotations.get("x-basic-type"), Ok(Some(Value::String("kind")))));
    assert!(matches!(annotations.get("x-note"), Ok(Some(Value::String("seen")))));
    let application = message.application_properties().unwrap();
    assert!(matches!(application.get("n"), Ok(Some(Value::Int(-3)))));
    assert!(matches!(application.get("bin"), Ok(Some(Value::Binary(b"\xff\x00")))));
    assert_eq!((annotations.len(), application.len()), (2, 2));

    let (_, bytes) = converted(&all, b"body", Style::Record);
    let message = Message::parse(&bytes).unwrap();
    message.validate().unwrap();
    let application = message.application_properties().unwrap();
    assert!(matches!(application.get("x-basic-app-id"), Ok(Some(Value::String("app")))));
    assert!(matches!(application.get("x-basic-type"), Ok(Some(Value::String("kind")))));
}

#[test]
fn a_body_that_is_amqp_stays_so() {
    let all = properties(1 << 5, &[], &[], &short_of(b"amqp-1.0"));
    let (_, bytes) = converted(&all, b"\x00\x53\x77\xa1\x02hi", Style::Container);
    let message = Message::parse(&bytes).unwrap();
    assert!(matches!(message.body(), Body::Value(Value::String("hi"))));
}

#[test]
fn the_style_follows_the_version() {
    for (version, style) in [
        ("3.10.8", Style::Record),
        ("3.12.14", Style::Record),
        ("3.13.0", Style::Container),
        ("4.3.6", Style::Container),
        ("4.4.0-beta.1", Style::Container),
        ("", Style::Container),
    ] {
        assert_eq!(Style::of(version), style, "{version}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        Method::parse(&bytes).ok();
        content_header(&bytes).ok();
        frame(&bytes, 200).ok();
        let mut out = Vec::new();
        for style in [Style::Record, Style::Container] {
            begin_message(&mut out, &bytes, 0, &delivered(), "q", style).ok();
        }
    }

    /// Damaged tables in right properties reach the values.
    #[test]
    fn any_table_is_read_or_refused_and_what_is_read_is_valid(
        table in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(1), Just(b'F'), Just(b'A'), Just(b'S'), Just(b'V')], 0..60)
    ) {
        let all = properties(0, &[], &[table], &[]);
        let mut out = Vec::new();
        if begin_message(&mut out, &all, 0, &delivered(), "q", Style::Container).is_ok() {
            prop_assert!(out.len() as u64 <= bound(0, all.len(), &delivered()));
            Message::parse(&out).unwrap();
        }
    }
}
