//! Tests of the decoder: round trips, vectors from other implementations, limits, and exact errors.

pub(crate) mod encode;
mod limits;
pub(crate) mod vectors;

use proptest::prelude::*;

use super::*;
use encode::{Tree, any_message, any_tree, described, encode, section, tree};

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex: {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The value of a message with an amqp-value section.
fn body_value(message: &[u8]) -> Result<Tree, AmqpError> {
    match Message::parse(message)?.body() {
        Body::Value(value) => tree(value),
        other => panic!("not an amqp-value: {other:?}"),
    }
}

proptest! {
    #[test]
    fn every_value_comes_back(value in any_tree(), tight: bool) {
        let message = section(0x77, value.clone(), tight);
        prop_assert_eq!(body_value(&message), Ok(value));
        prop_assert!(Message::parse(&message).unwrap().validate().is_ok());
    }

    #[test]
    fn a_message_comes_back_section_by_section(message in any_message()) {
        let parsed = Message::parse(&message).unwrap();
        prop_assert_eq!(parsed.encoded(), &message[..]);
        prop_assert!(parsed.validate().is_ok());
        fuzz_message(&message);
    }

    #[test]
    fn a_damaged_message_never_panics(
        mut message in any_message(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!message.is_empty());
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        fuzz_message(&message);
        fuzz_message(&message[..cut.index(message.len())]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        code in 0x6fu8..0x7a,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        fuzz_message(&bytes);
        fuzz_message(&[&[0, 0x53, code], &bytes[..]].concat());
    }
}

#[test]
fn messages_of_other_implementations_are_read_whole() {
    for (name, hex, expected) in vectors::VECTORS {
        let bytes = unhex(hex);
        let walked = Message::parse(&bytes).and_then(|m| m.validate());
        assert_eq!(walked.is_ok(), expected.is_some(), "{name}: {walked:?}");
        fuzz_message(&bytes);
    }
}

fn vector(name: &str) -> Vec<u8> {
    let found = vectors::VECTORS.iter().find(|v| v.0 == name);
    unhex(found.unwrap_or_else(|| panic!("no vector {name}")).1)
}

#[test]
fn typed_views_show_every_field() {
    let bytes = vector("proton every section");
    let message = Message::parse(&bytes).unwrap();
    let header = Header {
        durable: Some(true),
        priority: Some(9),
        ttl: Some(1000),
        first_acquirer: Some(true),
        delivery_count: Some(3),
    };
    assert_eq!(message.header(), Ok(Some(header)));
    let uuid = unhex("0123456789abcdef0123456789abcdef");
    let properties = Properties {
        message_id: Some(MessageId::Uuid(uuid.first_chunk().unwrap())),
        user_id: Some(b"guest"),
        to: Some("to"),
        subject: Some("s"),
        reply_to: Some("r"),
        correlation_id: Some(MessageId::Ulong(u64::MAX)),
        content_type: Some("application/json"),
        content_encoding: Some("gzip"),
        absolute_expiry_time: Some(1_767_225_600_123),
        creation_time: Some(1_767_225_600_123),
        group_id: Some("g"),
        group_sequence: Some(u32::MAX),
        reply_to_group_id: Some("rg"),
    };
    assert_eq!(message.properties(), Ok(Some(properties)));
    let map = message.application_properties().unwrap();
    assert_eq!(map.len(), 6);
    assert!(matches!(map.get("neg"), Ok(Some(Value::Int(-1) | Value::Long(-1)))));
    assert!(matches!(map.get("absent"), Ok(None)));
    assert!(message.delivery_annotations().is_some() && message.message_annotations().is_some());
    assert!(message.footer().is_none());
}

#[test]
fn lists_may_end_early_and_text_may_be_a_symbol() {
    let short = section(0x73, Tree::List(vec![Tree::Null, Tree::String("me".into())]), true);
    let properties = Message::parse(&short).unwrap().properties().unwrap().unwrap();
    assert_eq!(properties, Properties { user_id: Some(b"me"), ..Properties::default() });

    let mut fields = vec![Tree::Null; 6];
    fields[0] = Tree::String("id".into());
    fields.push(Tree::String("text/plain".into()));
    let bytes = section(0x73, Tree::List(fields), true);
    let properties = Message::parse(&bytes).unwrap().properties().unwrap().unwrap();
    assert_eq!(properties.message_id, Some(MessageId::String("id")));
    assert_eq!(properties.content_type, Some("text/plain"));

    for empty in [&[0x45][..], &[0xc0, 1, 0], &[0xd0, 0, 0, 0, 4, 0, 0, 0, 0]] {
        let bytes = [&[0, 0x53, 0x70], empty].concat();
        assert_eq!(Message::parse(&bytes).unwrap().header(), Ok(Some(Header::default())));
    }
    let null = Message::parse(&[0, 0x53, 0x70, 0x40, 0, 0x53, 0x72, 0x40]).unwrap().header();
    assert_eq!(null, Ok(None));
}

#[test]
fn a_field_of_the_wrong_type_or_too_many_fields_are_named() {
    let bytes = section(0x70, Tree::List(vec![Tree::Bool(true), Tree::Uint(4)]), true);
    let error = Message::parse(&bytes).unwrap().header().unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed AMQP 1.0 at byte 7: priority must be a ubyte, it is a uint"
    );
    let bytes = section(0x73, Tree::List(vec![Tree::Null; 14]), true);
    let error = Message::parse(&bytes).unwrap().properties().unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed AMQP 1.0 at byte 19: a properties section has more than 13 fields"
    );
}

#[test]
fn bodies_of_every_shape() {
    let data = |bytes: &[u8]| section(0x75, Tree::Binary(bytes.to_vec()), true);
    let joined = |message: &[u8]| match Message::parse(message).unwrap().body() {
        Body::Data(data) => (data.joined().into_owned(), data.sections().count()),
        other => panic!("not data: {other:?}"),
    };
    assert!(matches!(Message::parse(&[]).unwrap().body(), Body::Absent));
    assert_eq!(joined(&data(b"")), (vec![], 1));
    assert_eq!(joined(&data(b"one")), (b"one".to_vec(), 1));
    assert_eq!(joined(&[data(b"one"), data(b""), data(b"two")].concat()), (b"onetwo".to_vec(), 3));
    // Sections in any order, the body's included.
    let header = section(0x70, Tree::List(vec![]), true);
    let mixed = [data(b"a"), header.clone(), data(b"b")].concat();
    assert_eq!(joined(&mixed), (b"ab".to_vec(), 2));
    assert_eq!(joined(&[data(b"a"), header].concat()), (b"a".to_vec(), 1));
    // Wide sizes, and a symbolic descriptor.
    let symbolic = encode(
        &described(Tree::Symbol("amqp:data:binary".into()), Tree::Binary(b"x".to_vec())),
        true,
    );
    assert_eq!(joined(&symbolic), (b"x".to_vec(), 1));
    let wide = section(0x75, Tree::Binary(b"x".to_vec()), false);
    assert_eq!(joined(&wide), (b"x".to_vec(), 1));

    let list = section(0x76, Tree::List(vec![Tree::Int(-1)]), true);
    let two = [list.clone(), list.clone()].concat();
    match Message::parse(&two).unwrap().body() {
        Body::Sequence(s) => assert_eq!(s.lists().map(|l| l.len()).collect::<Vec<_>>(), [1, 1]),
        other => panic!("not a sequence: {other:?}"),
    }
    let value = section(0x77, Tree::Null, true);
    for pair in [[&value, &value], [&value, &list], [&list, &value]] {
        let bytes = [pair[0].clone(), pair[1].clone()].concat();
        let error = Message::parse(&bytes).unwrap_err();
        let what = "a second body of another kind, or a second amqp-value";
        assert_eq!(error, AmqpError::Malformed { at: pair[0].len(), what });
    }
}

#[test]
fn the_short_cut_agrees_with_the_long_way() {
    for len in [0usize, 1, 12, 255, 256, 70_000] {
        let body = vec![7; len];
        for tight in [true, false] {
            let bytes = section(0x75, Tree::Binary(body.clone()), tight);
            // The wide form of the descriptor is left to the long way.
            assert_eq!(single_data(&bytes), tight.then_some(&body[..]), "{len}");
            let Body::Data(data) = Message::parse(&bytes).unwrap().body() else { panic!() };
            assert_eq!(data.single(), Some(&body[..]), "{len}");
        }
    }
    let two = [0, 0x53, 0x75, 0xa0, 0, 0, 0x53, 0x75, 0xa0, 0];
    assert_eq!(single_data(&two), None);
    assert_eq!(single_data(&[0, 0x53, 0x75, 0xa0, 2, 1]), None);
}

#[test]
fn decimals_to_text() {
    // The 128-bit ones stand in the vectors, encoded by another implementation.
    let d32: [(u32, &str); 8] = [
        (101 << 23, "0"),
        (101 << 23 | 1, "1"),
        (1 << 31 | (99 << 23) | 1250, "-12.50"),
        // The second form: a coefficient of 2^23 and more.
        (0b11 << 29 | 101 << 21 | (9_999_999 - (1 << 23)), "9999999"),
        // One digit too many counts as zero.
        (0b11 << 29 | 101 << 21 | (10_000_000 - (1 << 23)), "0"),
        (0x7800_0000, "Infinity"),
        (0xf800_0000, "-Infinity"),
        (0x7c00_0000, "NaN"),
    ];
    for (bits, text) in d32 {
        assert_eq!(Decimal::D32(&bits.to_be_bytes()).to_string(), text, "{bits:x}");
    }
    let d64: [(u64, &str); 4] = [
        (398 << 53 | 42, "42"),
        (767 << 53 | 1, "1E+369"),
        (0b11 << 61 | 398 << 51 | (9_999_999_999_999_999 - (1 << 53)), "9999999999999999"),
        (0b11 << 61 | 398 << 51 | (10_000_000_000_000_000 - (1 << 53)), "0"),
    ];
    for (bits, text) in d64 {
        assert_eq!(Decimal::D64(&bits.to_be_bytes()).to_string(), text, "{bits:x}");
    }
    let wide = 0b11u128 << 125 | 6176 << 111; // The second form has too many digits always.
    assert_eq!(Decimal::D128(&wide.to_be_bytes()).to_string(), "0");
}
