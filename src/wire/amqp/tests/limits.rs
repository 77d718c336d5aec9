//! What the decoder refuses, where, and as what.

use super::super::*;
use super::encode::{Tree, described, encode, section};
use super::{body_value, unhex};

/// `levels` compounds of one kind, in one another.
fn nested(kind: &str, levels: usize) -> Tree {
    let mut tree = Tree::Null;
    for _ in 0..levels {
        tree = match kind {
            "list" => Tree::List(vec![tree]),
            "map" => Tree::Map(vec![(Tree::Null, tree)]),
            "array" => Tree::Array(vec![tree]),
            "described" => described(Tree::Ulong(1), tree),
            "descriptor" => described(tree, Tree::Null),
            other => panic!("no such kind: {other}"),
        };
    }
    tree
}

#[test]
fn nesting_stops_at_the_limit() {
    for kind in ["list", "map", "array", "described", "descriptor"] {
        let most = usize::from(DEPTH_MAX);
        // The section's own descriptor is none of the value's levels.
        let fits = section(0x77, nested(kind, most), false);
        assert_eq!(body_value(&fits), Ok(nested(kind, most)), "{kind}");
        let over = section(0x77, nested(kind, most + 1), false);
        let error = body_value(&over).unwrap_err();
        assert!(error.is_over_limit(), "{kind}: {error}");
    }
}

#[test]
fn five_thousand_levels_are_over_the_limit_and_no_stack_overflow() {
    // Written out, since the tests' encoder would recurse.
    let lists = (0..5000).fold(vec![0x40], |inner: Vec<u8>, _| {
        let size = (inner.len() as u32 + 4).to_be_bytes();
        [&[0xd0], &size[..], &[0, 0, 0, 1], &inner].concat()
    });
    let described = [&[0, 0x43].repeat(5000)[..], &[0x40]].concat();
    let descriptors = [&[0; 5000][..], &[0x40; 5001]].concat();
    for value in [lists, described, descriptors] {
        let body = [&[0, 0x53, 0x77][..], &value].concat();
        let walked = Message::parse(&body).and_then(|m| m.validate());
        assert!(walked.is_err_and(|e| e.is_over_limit()));
        // In a section that is not visited it does no harm; visited, it is the same error.
        let size = (value.len() as u32 + 4 + 3).to_be_bytes();
        let head = [&[0, 0x53, 0x74, 0xd1], &size[..], &[0, 0, 0, 2, 0xa1, 1, b'k']].concat();
        let message = [&head[..], &value, &[0, 0x53, 0x75, 0xa0, 1, b'x']].concat();
        let message = Message::parse(&message).unwrap();
        assert!(matches!(message.body(), Body::Data(_)));
        assert!(message.validate().is_err_and(|e| e.is_over_limit()));
    }
}

#[test]
fn elements_without_bytes_are_limited() {
    for code in [0x40, 0x41, 0x42, 0x43, 0x44, 0x45] {
        let array = |count: u32| {
            let count = count.to_be_bytes();
            [&[0, 0x53, 0x77, 0xf0, 0, 0, 0, 5], &count[..], &[code]].concat()
        };
        let fits = array(ZERO_WIDTH_MAX);
        let values = Message::parse(&fits).unwrap().validate();
        assert_eq!(values, Ok(ZERO_WIDTH_MAX as usize + 1), "{code:x}");
        for count in [ZERO_WIDTH_MAX + 1, u32::MAX] {
            let error = Message::parse(&array(count)).unwrap_err();
            let what = "an array of too many elements that take no bytes";
            let limit = ZERO_WIDTH_MAX as usize;
            assert_eq!(error, AmqpError::OverLimit { at: 8, what, limit }, "{code:x}");
        }
    }
    // Many such arrays, each within its limit, are too much together.
    let element = [&[0, 0, 0, 5], &ZERO_WIDTH_MAX.to_be_bytes()[..], &[0x40]].concat();
    let data = [&[0xf0], &element.repeat(1000)[..]].concat();
    let size = (data.len() as u32 + 4).to_be_bytes();
    let bytes = [&[0, 0x53, 0x77, 0xf0], &size[..], &1000u32.to_be_bytes(), &data].concat();
    let error = Message::parse(&bytes).unwrap().validate().unwrap_err();
    assert!(error.is_over_limit(), "{error}");
}

#[test]
fn malformed_messages_name_the_byte() {
    let malformed = |at, what| AmqpError::Malformed { at, what };
    let table = [
        ("not AMQP at all", "7b7d", malformed(0, "a message's section must start with 0x00")),
        ("a descriptor only", "00", truncated(1, "a format code", 1, 0)),
        ("an unknown section", "00537940", AmqpError::UnknownSection { at: 0, code: 0x79 }),
        (
            "an unknown symbolic section",
            "00a3016140",
            malformed(0, "a section's symbolic name is unknown"),
        ),
        (
            "a descriptor of a wrong type",
            "0054754041",
            unexpected(1, "a section's descriptor", "a ulong or a symbol", "an int"),
        ),
        (
            "a data section without binary",
            "005375a10178",
            unexpected(3, "a data section", "a binary", "a string"),
        ),
        ("a body that is cut", "005375a00401", truncated(5, "a binary", 4, 1)),
        ("a size that is cut", "005375b0000000", truncated(4, "a binary", 4, 3)),
        ("a header that is a map", "005370c10100", unexpected(3, "a header", "a list", "a map")),
        ("two headers", "0053704500537045", malformed(4, "a section comes twice")),
        (
            "bytes behind the body",
            "005375a00178ff",
            malformed(6, "a message's section must start with 0x00"),
        ),
        ("no such type", "0053770f", AmqpError::UnknownType { at: 3, code: 0x0f }),
        (
            "a reserved type of a known width",
            "00537757aa",
            AmqpError::UnknownType { at: 3, code: 0x57 },
        ),
        (
            "a map with an odd count",
            "005374c1020140",
            malformed(4, "a map has a key without a value"),
        ),
        (
            "a list's count without bytes",
            "005377d000000004ffffffff",
            malformed(8, "a count exceeds the bytes there are"),
        ),
        (
            "an array's count without bytes",
            "005377f0000000067fffffff5401",
            malformed(8, "an array's count exceeds the bytes there are"),
        ),
        ("an array without constructor", "005377e00101", truncated(6, "a format code", 1, 0)),
        (
            "a list with bytes left over",
            "005377c003014040",
            malformed(7, "bytes are left over behind the last item"),
        ),
        ("a list that is cut", "005377c0030150", truncated(5, "a compound value", 3, 2)),
        ("an item beyond its list", "005377c002015000537045", truncated(7, "a ubyte", 1, 0)),
        ("a surrogate", "005377730000d800", malformed(4, "a char is not a Unicode scalar value")),
        ("a boolean of 2", "0053775602", malformed(4, "a boolean is neither 0 nor 1")),
    ];
    for (name, hex, expected) in table {
        let bytes = unhex(hex);
        let walked = Message::parse(&bytes).and_then(|m| m.validate());
        assert_eq!(walked, Err(expected), "{name}");
        assert!(!expected.is_over_limit());
    }
}

fn truncated(at: usize, what: &'static str, needed: usize, left: usize) -> AmqpError {
    AmqpError::Truncated { at, what, needed, left }
}

fn unexpected(
    at: usize,
    what: &'static str,
    expected: &'static str,
    found: &'static str,
) -> AmqpError {
    AmqpError::Unexpected { at, what, expected, found }
}

#[test]
fn an_iterator_ends_after_its_first_error() {
    let list = unhex("005377c0040350005056");
    let Ok(Body::Value(Value::List(list))) = Message::parse(&list[..9]).map(|m| m.body()) else {
        panic!("not a list");
    };
    let items: Vec<_> = list.items().collect();
    assert!(matches!(items[..], [Ok(Value::Ubyte(0)), Err(_)]), "{items:?}");
}

#[test]
fn an_empty_array_may_lack_its_constructor() {
    for hex in ["005377e00100", "005377e0020040", "005377f00000000400000000"] {
        assert_eq!(body_value(&unhex(hex)), Ok(Tree::Array(vec![])), "{hex}");
    }
}

#[test]
fn truncation_at_every_byte_is_an_error_or_a_shorter_message() {
    let whole = [
        section(0x70, Tree::List(vec![Tree::Bool(true)]), true),
        section(0x74, Tree::Map(vec![(Tree::String("k".into()), Tree::Long(-1))]), false),
        section(0x75, Tree::Binary(b"body".to_vec()), true),
    ];
    let ends: Vec<usize> = (0..=3).map(|n| whole[..n].concat().len()).collect();
    let bytes = whole.concat();
    for cut in 0..=bytes.len() {
        let parsed = Message::parse(&bytes[..cut]);
        assert_eq!(parsed.is_ok(), ends.contains(&cut), "cut at {cut}: {parsed:?}");
    }
    assert_eq!(encode(&Tree::Null, true), [0x40]);
}
