//! Golden lines, and properties: every line parses, is one line, and gives the body back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::flow::batch::Part;
use crate::sink::BadReason;
use crate::types::ChunkId;
use crate::types::Offset;
use crate::wire::amqp::tests::encode::{Tree, any_message, described, section};
use crate::wire::amqp::tests::{unhex, vectors::VECTORS};
use crate::wire::block::Block;

const STAMP: Timestamp = Timestamp(1_767_225_600_123);

fn record(message: &[u8]) -> Record<'_> {
    Record { offset: Offset(123), timestamp: STAMP, message }
}

fn line(message: &[u8]) -> Result<String, BadRecord> {
    let mut out = Vec::new();
    Envelope::ndjson(&StreamName::new("events")).append(record(message), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn data(body: &[u8]) -> Vec<u8> {
    section(0x75, Tree::Binary(body.to_vec()), true)
}

/// The text after the timestamp.
fn rest(message: &[u8]) -> String {
    let line = line(message).unwrap();
    let head = r#"{"stream":"events","offset":123,"timestamp":"2026-01-01T00:00:00.123Z","#;
    line.strip_prefix(head).unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[test]
fn bodies_of_data_become_json_text_or_base64() {
    let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
    let (fits, over) = (deep(63), deep(64));
    let (fits, over) =
        (std::str::from_utf8(&fits).unwrap(), std::str::from_utf8(&over).unwrap().to_owned());
    let json = |text: &str| format!("\"body\":{text},\"body_encoding\":\"json\"}}\n");
    let text = |text: &str| format!("\"body\":{},\"body_encoding\":\"text\"}}\n", json!(text));
    let table = [
        ("hello world!", text("hello world!")),
        ("", text("")),
        ("   ", text("   ")),
        ("a\n\"b\"\\\u{1}\u{1f}\u{7f}é\u{2028}", text("a\n\"b\"\\\u{1}\u{1f}\u{7f}é\u{2028}")),
        // Scalars are documents.
        ("123", json("123")),
        ("-0.0e+5", json("-0.0e+5")),
        ("true", json("true")),
        ("null", json("null")),
        (r#""quoted é \u00e9 \ud83d\ude00""#, json(r#""quoted é \u00e9 \ud83d\ude00""#)),
        // Embedded unchanged, except for line breaks and the surrounding text.
        (r#"{"a":1.50,"a" : 1E2,"b":[]}"#, json(r#"{"a":1.50,"a" : 1E2,"b":[]}"#)),
        ("\r\n{\r\n  \"a\":\n\t[1,\n2]\n}\n", json("{  \"a\":\t[1,2]}")),
        ("123456789012345678901234567890", json("123456789012345678901234567890")),
        (fits, json(fits)),
        // No documents, or none that every parser reads back.
        (over.as_str(), text(&over)),
        ("nul", text("nul")),
        ("nullx", text("nullx")),
        ("1 2", text("1 2")),
        ("1\n2", text("1\n2")),
        ("01", text("01")),
        ("+1", text("+1")),
        ("1.", text("1.")),
        (".5", text(".5")),
        ("-", text("-")),
        ("1e", text("1e")),
        ("1e309", text("1e309")),
        ("NaN", text("NaN")),
        ("[1,]", text("[1,]")),
        ("[1}", text("[1}")),
        ("{\"a\"}", text("{\"a\"}")),
        ("{\"a\":1,}", text("{\"a\":1,}")),
        ("{a:1}", text("{a:1}")),
        ("{} {}", text("{} {}")),
        ("[", text("[")),
        ("\"a", text("\"a")),
        ("\"a\nb\"", text("\"a\nb\"")),
        (r#""\ud800""#, text(r#""\ud800""#)),
        (r#""\ud800\u0041""#, text(r#""\ud800\u0041""#)),
        (r#""\udc00""#, text(r#""\udc00""#)),
        (r#""\x""#, text(r#""\x""#)),
        ("\u{feff}{}", text("\u{feff}{}")),
    ];
    for (body, expected) in table {
        assert_eq!(rest(&data(body.as_bytes())), expected, "{body:?}");
    }
    let digits = |n| "1".repeat(n);
    assert_eq!(rest(&data(digits(300).as_bytes())), json(&digits(300)));
    assert_eq!(rest(&data(digits(400).as_bytes())), text(&digits(400)));
    assert_eq!(
        rest(&data(b"\xff\x00")),
        "\"body\":\"/wA=\",\"body_encoding\":\"base64\"}\n".to_owned()
    );
    let joined = [data(b"{\"a\""), data(b""), data(b":1}")].concat();
    assert_eq!(rest(&joined), json("{\"a\":1}"));
    // A character that two sections share is whole again.
    assert_eq!(rest(&[data(b"\xc3"), data(b"\xa9")].concat()), text("é"));
}

#[test]
fn every_section_stands_in_its_place() {
    let map = |key: Tree| Tree::Map(vec![(key, Tree::Null)]);
    let message = [
        section(0x78, map(Tree::Symbol("f".into())), true),
        section(0x70, Tree::List(vec![Tree::Bool(true), Tree::Null, Tree::Uint(5)]), true),
        section(0x71, map(Tree::Ulong(7)), true),
        section(0x72, map(Tree::Binary(vec![255])), true),
        section(0x73, Tree::List(vec![Tree::Null, Tree::Binary(b"me".to_vec())]), true),
        section(0x74, map(Tree::List(vec![Tree::String("a\"b".into())])), true),
        data(b"x"),
    ]
    .concat();
    let expected = concat!(
        r#""header":{"durable":true,"ttl":5},"delivery_annotations":{"7":null},"#,
        r#""message_annotations":{"/w==":null},"properties":{"user_id":"bWU=","user_id_encoding":"base64"},"#,
        r#""application_properties":{"[\"a\\\"b\"]":null},"footer":{"f":null},"#,
        r#""body":"x","body_encoding":"text"}"#,
        "\n"
    );
    assert_eq!(rest(&message), expected);
    assert_eq!(rest(&[]), "\"body\":null,\"body_encoding\":\"amqp\"}\n");
}

/// What AMQP 0.9.1 lets be a property, and RabbitMQ makes a string of AMQP 1.0.
#[test]
fn properties_that_are_no_text_say_so() {
    let latin = || Tree::RawString(vec![0xff, 0]);
    let message = [
        section(0x73, Tree::List(vec![Tree::Binary(vec![0xff, 0]), Tree::Null, latin()]), true),
        section(0x74, Tree::Map(vec![(latin(), latin())]), true),
        data(b"x"),
    ]
    .concat();
    let expected = concat!(
        r#""properties":{"message_id":"/wA=","message_id_encoding":"base64","#,
        r#""to":{"base64":"/wA="}},"#,
        r#""application_properties":{"{\"base64\":\"/wA=\"}":{"base64":"/wA="}},"#,
        r#""body":"x","body_encoding":"text"}"#,
        "\n"
    );
    assert_eq!(rest(&message), expected);
}

/// For a destination whose text cannot hold a NUL.
#[test]
fn a_nul_can_be_marked() {
    let nul = |text: &str| Tree::String(text.into());
    let entry = (nul("k\0"), Tree::Map(vec![(nul("i\0"), Tree::Char('\0'))]));
    let encoded = section(0x74, Tree::Map(vec![entry, (nul("k"), nul("v"))]), true);
    let message = Message::parse(&encoded).unwrap();
    let json = map_as_json(&message, message.application_properties().unwrap(), Nul::Marked);
    let expected = r#"{"{\"base64\":\"awA=\"}":[[{"base64":"aQA="},{"base64":"AA=="}]],"k":"v"}"#;
    assert_eq!(json.unwrap(), expected);
}

#[test]
fn values_map_to_json() {
    let text = |s: &str| Tree::String(s.into());
    let table = [
        (Tree::Null, "null"),
        (Tree::Ulong(u64::MAX), "18446744073709551615"),
        (Tree::Long(i64::MIN), "-9223372036854775808"),
        (Tree::Float(0.1f32.to_bits()), "0.1"),
        (Tree::Double(1e300f64.to_bits()), "1e300"),
        (Tree::Double(f64::NAN.to_bits()), r#""NaN""#),
        (Tree::Float(f32::INFINITY.to_bits()), r#""Infinity""#),
        (Tree::Double(f64::NEG_INFINITY.to_bits()), r#""-Infinity""#),
        (Tree::Char('"'), r#""\"""#),
        (Tree::Timestamp(-1), r#""1969-12-31T23:59:59.999Z""#),
        (Tree::Timestamp(i64::MAX), "9223372036854775807"),
        (Tree::Binary(vec![]), r#""""#),
        (Tree::Map(vec![]), "{}"),
        (Tree::Map(vec![(text("a"), Tree::Null), (text("a"), text("b"))]), r#"{"a":null,"a":"b"}"#),
        (
            Tree::Map(vec![(text("1"), Tree::Null), (Tree::Int(1), Tree::Null)]),
            r#"[["1",null],[1,null]]"#,
        ),
        (Tree::Array(vec![Tree::Int(-1), Tree::Int(2)]), "[-1,2]"),
        (Tree::RawString(vec![0xff, 0]), r#"{"base64":"/wA="}"#),
        (Tree::RawSymbol(vec![0xff, 0]), r#"{"base64":"/wA="}"#),
        (
            Tree::Map(vec![(Tree::RawString(vec![0xff, 0]), Tree::Null)]),
            r#"[[{"base64":"/wA="},null]]"#,
        ),
        (
            described(Tree::Symbol("d".into()), Tree::List(vec![])),
            r#"{"descriptor":"d","value":[]}"#,
        ),
    ];
    for (value, expected) in table {
        let expected = format!("\"body\":{expected},\"body_encoding\":\"amqp\"}}\n");
        assert_eq!(rest(&section(0x77, value.clone(), true)), expected, "{value:?}");
    }
    let lists = [section(0x76, Tree::List(vec![Tree::Int(1)]), true), unhex("00537645")].concat();
    assert_eq!(rest(&lists), "\"body\":[[1],[]],\"body_encoding\":\"amqp\"}\n");
}

#[test]
fn messages_of_other_implementations_give_the_lines_they_should() {
    for (name, hex, expected) in VECTORS {
        let line = line(&unhex(hex));
        let Some(expected) = expected else {
            assert_eq!(line.unwrap_err().reason, BadReason::Undecodable, "{name}");
            continue;
        };
        let line = line.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let mut got: Json = serde_json::from_str(&line).unwrap();
        for key in ["stream", "offset", "timestamp"] {
            assert!(got.as_object_mut().unwrap().shift_remove(key).is_some(), "{name}: {key}");
        }
        assert_eq!(got, serde_json::from_str::<Json>(expected).unwrap(), "{name}");
    }
}

/// The body's bytes, from the line alone.
fn body_of(line: &str) -> Vec<u8> {
    let json: Json = serde_json::from_str(line).unwrap();
    let text = || json["body"].as_str().unwrap().as_bytes().to_vec();
    match json["body_encoding"].as_str().unwrap() {
        "text" => text(),
        "base64" => STANDARD.decode(text()).unwrap(),
        // The text unchanged, not as a parser understands it.
        "json" => {
            let start = line.find("\"body\":").unwrap() + 7;
            let end = line.rfind(",\"body_encoding\"").unwrap();
            line.as_bytes()[start..end].to_vec()
        }
        other => panic!("{other}"),
    }
}

fn check_body(body: &[u8]) -> Result<(), TestCaseError> {
    let line = line(&data(body)).unwrap();
    prop_assert_eq!(line.matches(['\n', '\r']).count(), 1);
    let got = body_of(&line);
    if line.ends_with("\"json\"}\n") {
        let expected: Vec<u8> =
            body.trim_ascii().iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
        prop_assert_eq!(got, expected);
    } else {
        prop_assert_eq!(got, body);
        // What is not embedded is no document, or one of those that are refused on purpose.
        if let Ok(text) = std::str::from_utf8(body) {
            let parsed = serde_json::from_str::<Json>(text);
            let refused = text.contains(['[', '{']) || text.contains("30");
            prop_assert!(parsed.is_err() || refused);
        }
    }
    Ok(())
}

/// JSON text, with the spaces and the escapes that serde_json would not write.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_filter("finite", |n| n.abs() < 1e308).prop_map(|n| format!("{n:?}")),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| json!(s).to_string()),
        "\"[a-z]{0,20}(\\\\u00[0-9a-fA-F]{2}|\\\\[nrtbf\"/])?[ -!#-\\[]{0,20}\"",
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..5);
        let pairs = proptest::collection::vec((any::<String>(), inner), 0..5);
        prop_oneof![
            list.prop_map(|items| format!("[{}]", items.join(",\r\n "))),
            pairs.prop_map(|pairs| {
                let pairs = pairs.into_iter().map(|(k, v)| format!("{} :\n{v}\t", json!(k)));
                format!("{{ {}\n}}", pairs.collect::<Vec<_>>().join(" ,"))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_come_back(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_body(&body)?;
    }

    #[test]
    fn any_text_comes_back(body: String) {
        check_body(body.as_bytes())?;
    }

    #[test]
    fn json_is_embedded(body in json_text()) {
        check_body(body.as_bytes())?;
        let line = line(&data(body.as_bytes())).unwrap();
        prop_assert!(line.ends_with("\"body_encoding\":\"json\"}\n"), "{}", line);
        let got: Json = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&got["body"], &serde_json::from_str::<Json>(&body).unwrap());
    }

    /// The validator says what serde_json says, on texts that are almost JSON.
    #[test]
    fn damaged_json_is_judged_as_serde_json_does(
        body in json_text(),
        at in any::<prop::sample::Index>(),
        with in "[]\\[{}\",:0-9eE.+\\\\nu \n-]{0,2}",
        keep: bool,
    ) {
        let chars: Vec<char> = body.chars().collect();
        let at = at.index(chars.len() + 1);
        let skip = usize::from(!keep && at < chars.len());
        let damaged: String =
            chars[..at].iter().copied().chain(with.chars()).chain(chars[at + skip..].iter().copied()).collect();
        let expected = serde_json::from_str::<Json>(&damaged);
        let found = document::find(&damaged).is_some();
        // Near the largest binary64 the two may differ.
        if !damaged.contains("30") {
            prop_assert_eq!(found, expected.is_ok(), "{:?}: {:?}", damaged, expected);
        }
        check_body(damaged.as_bytes())?;
    }

    #[test]
    fn any_message_gives_one_line_that_parses(message in any_message(), cut: bool) {
        let mut out = b"before".to_vec();
        let mut envelope = Envelope::ndjson(&StreamName::new("a \"stream\"\n"));
        let message = if cut { &message[..message.len() / 2] } else { &message[..] };
        match envelope.append(record(message), &mut out) {
            Ok(()) => {
                let line = std::str::from_utf8(out.strip_prefix(b"before").unwrap()).unwrap();
                prop_assert_eq!(line.find(['\n', '\r']), Some(line.len() - 1));
                let json: Json = serde_json::from_str(line).unwrap();
                prop_assert_eq!(&json["stream"], "a \"stream\"\n");
                prop_assert_eq!(&json["offset"], 123);
            }
            Err(bad) => {
                prop_assert_eq!(&out, b"before");
                // Its lists stand in for the header too, which may be too long.
                prop_assert!(cut || bad.detail.contains("more than 5 fields"), "{:?}", bad);
            }
        }
    }

    #[test]
    fn strings_are_escaped_as_serde_json_does(text: String) {
        let mut out = Vec::new();
        push_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn specials_are_found_at_any_distance(
        mut text in proptest::collection::vec(0x20u8..0xff, 0..40),
        at in any::<prop::sample::Index>(),
        special in prop_oneof![0u8..0x20, Just(b'"'), Just(b'\\')],
    ) {
        text.retain(|b| !b"\"\\".contains(b));
        prop_assert_eq!(escape::next_special(&text, 0), text.len());
        let at = at.index(text.len() + 1);
        text.insert(at, special);
        prop_assert_eq!(escape::next_special(&text, 0), at);
        prop_assert_eq!(escape::next_special(&text, at + 1), text.len());
    }

    #[test]
    fn times_are_written_as_jiff_does(ms in -62_167_219_200_000i64..253_402_207_200_000) {
        let mut out = Vec::new();
        timestamp::push(&mut out, ms);
        let expected = format!("\"{:.3}\"", jiff::Timestamp::from_millisecond(ms).unwrap());
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn the_edges_of_time() {
    let table = [
        (0, "\"1970-01-01T00:00:00.000Z\""),
        (951_782_400_000, "\"2000-02-29T00:00:00.000Z\""),
        (4_107_542_399_999, "\"2100-02-28T23:59:59.999Z\""),
        (4_107_542_400_000, "\"2100-03-01T00:00:00.000Z\""),
        (253_402_300_799_999, "\"9999-12-31T23:59:59.999Z\""),
        (253_402_300_800_000, "253402300800000"),
        (-62_167_219_200_000, "\"0000-01-01T00:00:00.000Z\""),
        (-62_167_219_200_001, "-62167219200001"),
        (i64::MIN, "-9223372036854775808"),
    ];
    for (ms, expected) in table {
        let mut out = Vec::new();
        timestamp::push(&mut out, ms);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn the_timestamp_follows_the_record() {
    let mut envelope = Envelope::ndjson(&StreamName::new("s"));
    let message = data(b"x");
    let mut out = Vec::new();
    for ms in [0, 0, 1, 0] {
        let record = Record { offset: Offset(1), timestamp: Timestamp(ms), message: &message };
        envelope.append(record, &mut out).unwrap();
    }
    let text = String::from_utf8(out).unwrap();
    let stamps: Vec<_> = text.lines().map(|l| l[39..].split('Z').next().unwrap()).collect();
    assert_eq!(
        stamps,
        [
            "970-01-01T00:00:00.000",
            "970-01-01T00:00:00.000",
            "970-01-01T00:00:00.001",
            "970-01-01T00:00:00.000"
        ]
    );
}

#[test]
fn raw_writes_bodies_and_delimiters() {
    let table = [
        (data(b"bytes \xff\n"), &b"bytes \xff\n|"[..]),
        ([data(b"a"), data(b"b")].concat(), b"ab|"),
        (data(b""), b"|"),
        (vec![], b"|"),
        (section(0x77, Tree::String("text".into()), true), b"text|"),
        (section(0x77, Tree::Binary(vec![0, 1]), true), b"\x00\x01|"),
        (section(0x77, Tree::Symbol("s".into()), true), b"\"s\"|"),
        (
            section(0x77, Tree::Map(vec![(Tree::String("k".into()), Tree::Int(-1))]), true),
            b"{\"k\":-1}|",
        ),
        (section(0x76, Tree::List(vec![Tree::Int(1)]), true), b"[[1]]|"),
    ];
    for (message, expected) in table {
        let mut out = Vec::new();
        Envelope::raw(b"|".to_vec()).append(record(&message), &mut out).unwrap();
        assert_eq!(out, expected);
    }
}

#[test]
fn values_that_grow_out_of_bounds_are_over_limit() {
    // An array whose elements take one byte each and repeat a descriptor of 10 kB.
    let descriptor = Tree::Symbol("d".repeat(10_000));
    let elements = (0..10_000).map(|_| described(descriptor.clone(), Tree::Ubyte(1))).collect();
    let repeated = section(0x77, Tree::Array(elements), false);
    assert!(repeated.len() < 21_000);
    let mut deep = vec![0x40];
    for _ in 0..5000 {
        deep = [&[0xd0], &(deep.len() as u32 + 4).to_be_bytes()[..], &[0, 0, 0, 1], &deep].concat();
    }
    let deep = [&[0, 0x53, 0x77], &deep[..]].concat();
    for message in [repeated, deep] {
        let bad = line(&message).unwrap_err();
        assert_eq!((bad.offset, bad.reason), (Offset(123), BadReason::OverLimit), "{}", bad.detail);
    }
}

#[test]
fn a_batch_is_written_whole_or_not_at_all() {
    let batch = |messages: &[&[u8]]| {
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|m| [&(m.len() as u32).to_be_bytes()[..], m].concat())
            .collect();
        let count = messages.len() as u32;
        let block = Block::new(Offset(10), count, STAMP, bytes.into()).unwrap();
        let chunk = ChunkId { first_offset: Offset(10), epoch: 1, timestamp: STAMP, crc: 0 };
        let part = Part { block, chunk, permit: std::sync::Arc::new(()) };
        Batch::new(StreamName::new("events"), vec![part]).unwrap()
    };
    let good = data(b"x");
    let deep = [&[0, 0x53, 0x77][..], &[0, 0x43].repeat(100), &[0x40]].concat();
    let mut envelope = Envelope::ndjson(&StreamName::new("events"));
    let mut out = b"kept".to_vec();

    let mixed = batch(&[&good, b"not AMQP", &good, &deep, &good[..4]]);
    let bad = envelope.append_batch(&mixed, &mut out).unwrap_err();
    let found: Vec<_> = bad.iter().map(|b| (b.offset.0, b.reason)).collect();
    let expected =
        [(11, BadReason::Undecodable), (13, BadReason::OverLimit), (14, BadReason::Undecodable)];
    assert_eq!(found, expected);
    assert_eq!(
        bad[0].detail,
        "malformed AMQP 1.0 at byte 0: a message's section must start with 0x00"
    );
    assert_eq!(out, b"kept");

    let without = mixed.without(bad.iter().map(|b| b.offset).collect());
    envelope.append_batch(&without, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("\"offset\":10,") && text.contains("\"offset\":12,"), "{text}");
}
