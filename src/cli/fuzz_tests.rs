//! The fuzz functions, driven within one process by mutated seeds: of the decoders, of everything that
//! makes values of messages, of the state that is kept, of configurations, and of lines that are read
//! back. `RILLWAY_FUZZ=N` asks for N executions of each target instead of some thousands.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Instant;

use fastrand::Rng;

use crate::consumer::fuzzing;
use crate::sink::fuzzing::{Values, state};
use crate::wire::fuzzing as decoders;

/// Words that are now and then inserted into the bytes.
const WORDS: [&[u8]; 24] = [
    br#"\ud83d"#,
    br#"\udc00"#,
    br#"\u0000"#,
    b"1.5e-9223372036854775807",
    b"1e9223372036854775807",
    b"18446744073709551615",
    b"9223372036854775808",
    b"9999-12-31T23:59:59Z",
    b"-009999-01-01T00:00:00Z",
    br#"{"a":"#,
    br#""a":["#,
    b"}",
    b"]",
    b"\"",
    b"\xff\xfe",
    b"\0\x53\x73\xc0",
    b"\0\x53\x74\xc1",
    b"\0\x53\x77",
    b"\xa1\x02\xff\x00",
    b"\xf0\0\0\0\x05\0\0\x0f\xa0\x40",
    b"\xd1\0\0\0\x08\0\0\0\x02",
    b"null",
    b"1e999",
    b"0.1",
];

fn mutate(rng: &mut Rng, seeds: &[Vec<u8>], bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&seeds[rng.usize(0..seeds.len())]);
    for _ in 0..rng.usize(0..6) {
        let at = rng.usize(0..=bytes.len());
        let end = (at + rng.usize(0..9)).min(bytes.len());
        match rng.u32(0..7) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.u32(0..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 if rng.u32(0..4) == 0 => bytes.truncate(at),
            5 => drop(bytes.splice(at..end, WORDS[rng.usize(0..WORDS.len())].iter().copied())),
            _ => drop(bytes.splice(at..at, WORDS[rng.usize(0..WORDS.len())].iter().copied())),
        }
    }
    bytes.truncate(4096);
}

/// This many executions, from a seed that is printed if one fails.
fn drive(name: &str, few: u64, share: u64, seeds: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let asked = std::env::var("RILLWAY_FUZZ").ok().map(|n| n.parse::<u64>().unwrap());
    let count = asked.map_or(few, |n| n / share);
    let seed = asked.map_or(7, |_| fastrand::u64(..));
    let (mut rng, mut bytes) = (Rng::with_seed(seed), Vec::new());
    let began = Instant::now();
    for _ in 0..count {
        mutate(&mut rng, seeds, &mut bytes);
        let target = std::panic::AssertUnwindSafe(|| target(&bytes));
        if std::panic::catch_unwind(target).is_err() {
            panic!("{name} fails on {:?} ({bytes:02x?})", String::from_utf8_lossy(&bytes));
        }
    }
    eprintln!("{name}: {count} executions in {} s", began.elapsed().as_secs());
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let seeds: Vec<_> = files.map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn frames() {
    drive("frame", 3_000, 1, &corpus("frame"), decoders::frame);
}

#[test]
fn frames_of_amqp091() {
    drive("amqp091", 5_000, 1, &corpus("amqp091"), decoders::amqp091);
}

#[test]
fn chunks() {
    drive("chunk", 3_000, 4, &corpus("chunk"), decoders::chunk);
}

#[test]
fn messages() {
    drive("message", 20_000, 1, &corpus("message"), decoders::message);
}

#[test]
fn values_of_bodies() {
    let seeds = texts(&[
        r#"{"a":1,"b":{"c":[1,2]}}"#,
        r#"{"a":["1.5e3",null],"a":"2026-01-01T00:00:00.5+01:00"}"#,
        r#"{"a":-12345678901234567890.5e-10}"#,
        r#""a""#,
        "[[[1]]]",
        "",
    ]);
    let mut values = Values::default();
    drive("values of a body", 10_000, 1, &seeds, |data| values.body(data));
}

#[test]
fn values_of_messages() {
    let mut values = Values::default();
    drive("values of a message", 10_000, 1, &corpus("message"), |data| values.message(data));
}

#[test]
fn states() {
    let checkpoint = r#"{"offset":7,"chunk":{"first_offset":0,"epoch":1,"timestamp":5,"crc":9}}"#;
    let seeds = texts(&[
        &format!(
            r#"{{"layout":1,"stream":"s","reference":"r","sequence":18446744073709551615,"epoch":1,"history":1,"owner":{{"id":"x","process":1,"since":5}},"checkpoint":{checkpoint},"claim":null}}"#
        ),
        r#"{"sequence":18446744073709551615,"state":{"stream":"s","reference":"r"}}"#,
        &format!(
            r#"{{"layout":2,"stream":"s","reference":"r","sequence":7,"epoch":1,"history":1,"owner":{{"id":"x","process":1,"since":5}},"checkpoint":{checkpoint},"claim":{{"key":"k","bytes":5,"crc":1,"first_offset":0,"last_offset":18446744073709551615,"records":2,"checkpoint":{checkpoint},"staged":{{"objects":2,"number":18446744073709551615}}}},"partition_by":["a"],"columns":{{"a":"text"}},"latest":["a"]}}"#
        ),
        "{\"objects\":[{\"folder\":\"a=b\",\"extension\":\"ndjson\",\"first_offset\":1,\"last_offset\":2,\"records\":2,\"bytes\":0,\"crc\":0}]}\n",
        checkpoint,
    ]);
    drive("state", 10_000, 1, &seeds, state);
}

#[test]
fn folders_of_an_archive() {
    let seeds = texts(&[
        "[\"/a\",\"date\",\"hour\"]\n{\"a\":\"eu.\"}",
        "[{\"name\":\"x\",\"from\":\"/a/0\",\"required\":true}]\n{\"a\":[\"__HIVE_DEFAULT_PARTITION__\"]}",
        "[\"application_properties.a\",\"properties.message_id\",\"body\"]\nS\u{e3}o/Paulo~",
        "[\"\",{\"name\":\"t\",\"from\":\"timestamp\"}]\n\"1.5e-9223372036854775807\"",
    ]);
    drive("folders", 10_000, 1, &seeds, crate::sink::fuzzing::folders);
}

#[test]
fn changes_of_rows() {
    let seeds = texts(&[
        "{\"from\":\"/op\",\"equals\":\"d\"}\n{\"a\":\"k\",\"op\":\"d\"}",
        "{\"from\":\"/a\",\"equals\":1}\n{\"a\":1.0}",
        "\"empty_body\"\nnull",
        "{\"from\":\"application_properties.a\",\"equals\":true}\n{\"a\":{}}",
    ]);
    drive("changes", 10_000, 1, &seeds, crate::sink::fuzzing::changes);
}

#[test]
fn arguments() {
    let seeds = texts(&[
        "time:2026-01-01T00:00:00+01:00",
        "time:9999-12-31T23:59:59.999Z",
        "offset:18446744073709551615",
        "ago:1d2h3m4s5ms",
        "end",
        "/a/0!=x",
        "application_properties.a~b",
        r#"{"layout":1,"exported_at":"x","positions":[{"consumer":"c","stream":"s","next_offset":7}]}"#,
    ]);
    drive("arguments", 10_000, 1, &seeds, super::fuzzing::arguments);
}

#[cfg(feature = "otel")]
#[test]
fn answers_of_a_collector() {
    let refused = b"\x0a\x0b\x08\x07\x12\x07too old".to_vec();
    let many = [&b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x12"[..], b"\x00"].concat();
    let json =
        br#"{"partialSuccess":{"rejectedSpans":"7","errorMessage":"correct-horse"}}"#.to_vec();
    let seeds = [refused, many, json, Vec::new()];
    drive("answer", 10_000, 1, &seeds, crate::otlp::fuzz_answer);
}

#[test]
fn state_files() {
    let chunk = r#"{"first_offset":0,"epoch":1,"timestamp":5,"crc":9}"#;
    let seeds = texts(&[
        &format!(
            r#"{{"stream":"s","reference":"r","offset":18446744073709551615,"chunk":{chunk},"written":5}}"#
        ),
        r#"{"stream":"s","reference":"r","offset":7,"chunk":null,"written":"2026-01-01T00:00:00Z"}"#,
        r#"{"stream":"s","reference":"r","begins_at":7,"written":-9223372036854775808}"#,
        &format!(
            r#"{{"stream":"s","reference":"r","begins_at":18446744073709551615,"behind":{chunk},"instead_of":{{"offset":3,"chunk":{chunk}}},"written":5}}"#
        ),
        r#"{"stream":"s","reference":"r","begins_at":0,"instead_of":{"offset":3,"chunk":null},"moved":{"over":18446744073709551615,"sink_is_behind":true},"written":5}"#,
    ]);
    drive("state file", 10_000, 1, &seeds, fuzzing::state_file);
}

#[test]
fn indices_of_dead_letters() {
    let seeds = texts(&["1\n2\n18446744073709551615\n", "7\n12", "+5\n -1\n\r\n08\r\n", ""]);
    drive("dead-letter index", 10_000, 1, &seeds, fuzzing::dead_letter_index);
}

#[test]
fn lines_that_are_read_back() {
    let seeds = texts(&[
        r#"{"offset":1,"message_annotations":{"x-rillway-reason":"misfit","x-rillway-consumer":"c","x-rillway-timestamp":"2026-01-01T00:00:00Z"},"body":" {} ","body_encoding":"text"}"#,
        r#"{"body":"/wA=","body_encoding":"base64","properties":{"message_id":"/wA=","message_id_encoding":"base64","creation_time":253402300799999,"group_sequence":4294967296},"application_properties":{"n":1e308}}"#,
    ]);
    drive("line", 10_000, 1, &seeds, super::fuzzing::line);
}

#[test]
fn columns() {
    let seeds = texts(&[
        "\u{1}/a/b\n{\"a\":{\"b\":\"12\"}}",
        "\u{d}/a~1b/0\n{\"a/b\":[253402300799999]}",
        "\u{5}properties.creation_time\n",
        "\u{b}body\n-1.5e-9223372036854775807",
    ]);
    drive("columns", 10_000, 1, &seeds, crate::sink::fuzzing::columns);
}

#[test]
fn configurations() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rillway.toml");
    let small = "[broker]\nuri=\"rabbitmq-stream://localhost\"\n[[consumer]]\nname=\"a\"\nstream=\"s\"\nstart={ago=\"1h\"}\nmemory=\"64MiB\"\nsink={type=\"sqlite\",path=\"x\",columns={a={from=\"/a/0\",type=\"numeric\"}}}\n";
    let secret = "[broker]\nuri={env=\"SECRET\"}\npassword={env=\"SECRET\"}\n[[consumer]]\nname=\"a\"\nstream=\"s\"\nsink={type=\"postgres\",url={env=\"SECRET\"}}\n";
    let file = std::fs::read(reference).unwrap();
    let seeds = vec![file, small.as_bytes().to_vec(), secret.as_bytes().to_vec()];
    drive("configuration", 60, 200, &seeds, crate::config::fuzzing::configuration);
}

#[cfg(feature = "transform")]
#[test]
fn programs() {
    let seeds = texts(&[
        ".a == \"x\" and (.b | not)\0{\"a\":\"x\",\"b\":[1.50,null]}",
        "{a, b: [.c[]? | . * 2], \"d\\(.e)\": .e?}\0{\"a\":1,\"c\":[1,2.5e3],\"e\":\"\\u00e9\"}",
        "def f: if . > 3 then . else . + 1 | f end; [.[] | f] | sort | add\0[1,2,9007199254740993]",
        "reduce .[] as [$k, $v] ({}; .[$k] += $v) | to_entries | map(select(.value > 1))\0[[\"a\",1],[\"a\",2]]",
        "[.. | strings | gsub(\"(?<x>a+)\"; \"<\\(.x)>\"; \"i\")] | join(\",\")\0{\"a\":\"AaB\",\"b\":[\"c\"]}",
        "try error(.a) catch (. | tojson | fromjson) | .[1:3], path(..)\0{\"a\":[1,2,3]}",
        "label $out | foreach range(10; 0; -3) as $i (0; . + $i; if . > 12 then break $out else . end)\0null",
        "del(.a[0], .b) | .c |= (. // \"n\") | @base64 \"\\(.c)\", todate?\0{\"a\":[1,2],\"b\":1e999}",
        "walk(if type == \"object\" then with_entries(.key |= ascii_upcase) end)\0{\"a\":{\"b\":[{}]}}",
        "limit(5; repeat(. * 2)) | select(. > 10) | @csv \"\\([.])\", strftime(\"%F\")?\x00123",
        "until(. > 1e6; . * .) , ([splits(\"a\")] | group_by(.)), $message.offset\0\"3\"",
    ]);
    drive("program", 1_000, 20, &seeds, crate::transform::fuzzing::program);
}
