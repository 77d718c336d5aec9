//! The fuzz functions on mutated seeds, for toolchains without a fuzzer; and the seeds themselves.
//!
//! `RILLWAY_WRITE_SEEDS=1 cargo test --lib wire::fuzzing` writes fuzz/corpus again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::BufMut;
use proptest::prelude::*;

use super::*;
use crate::wire::amqp::tests::{unhex, vectors::VECTORS};
use crate::wire::chunk::testing::{self, CODECS, Entry};
use crate::wire::commands::{consumer_update_response, keys};
use crate::wire::compression::Codec;
use crate::wire::cursor::PutExt;
use crate::wire::frame::{RESPONSE_BIT, write_frame};

fn corpus(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

/// Every seed of a target that is in the repository. A fuzzer's own finds have no suffix.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let seeds: BTreeMap<_, _> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| name.ends_with(".bin"))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect();
    assert!(!seeds.is_empty(), "no seeds for {target}");
    seeds
}

fn chunk_seeds() -> Vec<(String, Vec<u8>)> {
    let message = |n: u8| vec![n; usize::from(n)];
    let batch = |codec| Entry::Batch(codec, vec![message(12), Vec::new(), message(40)]);
    let simple = |n| Entry::Simple(message(n));
    let mut all: Vec<Entry> = CODECS.into_iter().map(batch).collect();
    all.insert(0, simple(1));
    all.push(simple(12));
    let mut seeds = vec![
        ("simple".to_owned(), testing::chunk(&[simple(12), simple(0), simple(255)])),
        ("mixed".to_owned(), testing::chunk(&all)),
        ("empty-batch".to_owned(), testing::chunk(&[Entry::Batch(Codec::Gzip, vec![])])),
        ("no-entries".to_owned(), testing::chunk(&[])),
        ("tracking".to_owned(), testing::chunk_of(1, 1, 1, b"\x01\x03abc\0\0\0\0\0\0\0\x09")),
    ];
    for codec in CODECS {
        seeds.push((format!("batch-{codec}"), testing::chunk(&[batch(codec)])));
    }
    seeds.into_iter().map(|(name, bytes)| (format!("{name}.bin"), bytes.to_vec())).collect()
}

fn frame_seeds() -> Vec<(String, Vec<u8>)> {
    type Content<'a> = &'a dyn Fn(&mut BytesMut);
    let chunk = testing::chunk(&[Entry::Simple(vec![7; 12])]);
    let answer = |out: &mut BytesMut| {
        out.put_u32(1);
        out.put_u16(1);
    };
    let pairs = [("version".to_owned(), "4.3.6".to_owned())];
    let frames: [(&str, u16, u16, Content<'_>); 13] = [
        ("deliver-1", keys::DELIVER, 1, &|out| {
            out.put_u8(9);
            out.put_slice(&chunk);
        }),
        ("deliver-2", keys::DELIVER, 2, &|out| {
            out.put_u8(9);
            out.put_u64(1000);
            out.put_slice(&chunk);
        }),
        ("metadata-update", keys::METADATA_UPDATE, 1, &|out| {
            out.put_u16(6);
            out.put_string("", "events").unwrap();
        }),
        ("consumer-update", keys::CONSUMER_UPDATE, 1, &|out| out.put_slice(&[0, 0, 0, 1, 9, 1])),
        ("publish-confirm", keys::PUBLISH_CONFIRM, 1, &|out| {
            out.put_slice(&[1, 0, 0, 0, 1]);
            out.put_u64(7);
        }),
        ("publish-error", keys::PUBLISH_ERROR, 1, &|out| {
            out.put_slice(&[1, 0, 0, 0, 1]);
            out.put_u64(7);
            out.put_u16(0x12);
        }),
        ("close", keys::CLOSE, 1, &|out| {
            answer(out);
            out.put_string("", "bye").unwrap();
        }),
        ("tune", keys::TUNE, 1, &|out| out.put_u64(0x0010_0000_0000_003c)),
        ("credit-error", keys::CREDIT | RESPONSE_BIT, 1, &|out| out.put_slice(&[0, 4, 9])),
        ("peer-properties", keys::PEER_PROPERTIES | RESPONSE_BIT, 1, &|out| {
            answer(out);
            out.put_string_pairs("", &pairs).unwrap();
        }),
        ("metadata", keys::METADATA | RESPONSE_BIT, 1, &|out| {
            out.put_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0x15, 0xb0]);
            out.put_slice(&[0, 0, 0, 1, 0, 1, b's', 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
        }),
        ("stream-stats", keys::STREAM_STATS | RESPONSE_BIT, 1, &|out| {
            answer(out);
            out.put_u32(1);
            out.put_string("", "committed_offset").unwrap();
            out.put_i64(-1);
        }),
        ("query-offset", keys::QUERY_OFFSET | RESPONSE_BIT, 1, &|out| {
            answer(out);
            out.put_u64(12);
        }),
    ];
    let mut seeds = Vec::new();
    let mut all = BytesMut::new();
    for (name, key, version, content) in frames {
        let start = all.len();
        write_frame(&mut all, key, version, |out| {
            content(out);
            Ok(())
        })
        .unwrap();
        seeds.push((format!("{name}.bin"), all[start..].to_vec()));
    }
    all.put_slice(&commands::heartbeat());
    all.put_slice(&consumer_update_response(1, commands::ResponseCode::Ok, None));
    seeds.push(("all.bin".to_owned(), all.to_vec()));
    seeds
}

/// One message of each kind that other implementations encoded (see `amqp/tests/vectors.rs`).
fn message_seeds() -> Vec<(String, Vec<u8>)> {
    let file = |name: &str| {
        let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        format!("{}.bin", name.chars().map(safe).collect::<String>())
    };
    let all = VECTORS.iter().map(|(name, hex, _)| (file(name), unhex(hex)));
    // Long ones would drown the rest.
    all.filter(|(_, bytes)| bytes.len() <= 512).collect()
}

fn amqp091_seeds() -> Vec<(String, Vec<u8>)> {
    let short = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    let long = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let frame = |kind: u8, payload: &[u8]| [&[kind, 0, 1][..], &long(payload), &[0xce]].concat();
    let method = |class: u8, number: u8, arguments: &[u8]| {
        frame(1, &[&[0, class, 0, number], arguments].concat())
    };
    let field =
        |name: &str, kind: u8, value: &[u8]| [&short(name.as_bytes())[..], &[kind], value].concat();
    let text = |name: &str, value: &str| field(name, b'S', &long(value.as_bytes()));
    let offset = field("x-stream-offset", b'l', &7_u64.to_be_bytes());
    let inner = [text("k", "v"), field("n", b'I', &[0, 0, 0, 1])].concat();
    let table = [
        offset.clone(),
        text("x-note", "seen"),
        field("CC", b'A', &long(&[&b"S"[..], &long(b"key")].concat())),
        field("x-deep", b'F', &long(&inner)),
        field("when", b'T', &1_700_000_000_u64.to_be_bytes()),
        field("price", b'D', &[2, 0, 0, 0, 100]),
        field("blob", b'x', &long(b"\xff\x00")),
        field("none", b'V', &[]),
        field("yes", b't', &[1]),
    ]
    .concat();
    let head = |bytes: u64, flags: u16, properties: &[u8]| {
        let fixed = [&[0, 60, 0, 0][..], &bytes.to_be_bytes(), &flags.to_be_bytes()].concat();
        frame(2, &[&fixed, properties].concat())
    };
    let every = [
        short(b"text/plain"),
        short(b"gzip"),
        long(&table),
        vec![2, 5],
        short(b"urn:uuid:01020304-0506-0708-090a-0b0c0d0e0f10"),
        short(b"reply"),
        short(b"60000"),
        short(b"m-1"),
        1_700_000_000_u64.to_be_bytes().to_vec(),
        short(b"kind"),
        short(b"guest"),
        short(b"app"),
    ]
    .concat();
    let deliver =
        method(60, 60, &[&short(b"tag")[..], &7_u64.to_be_bytes(), &[0, 0], &short(b"q")].concat());
    let close = [&404_u16.to_be_bytes()[..], &short(b"NOT_FOUND"), &[0, 50, 0, 10]].concat();
    let start =
        [&[0, 9][..], &long(&text("version", "4.3.6")), &long(b"PLAIN EXTERNAL"), &long(b"en_US")];
    let mut seeds = vec![
        ("start", method(10, 10, &start.concat())),
        ("tune", method(10, 30, &[7, 255, 0, 2, 0, 0, 0, 60])),
        ("connection-close", method(10, 50, &close)),
        ("channel-close", method(20, 40, &close)),
        ("consuming", method(60, 21, &short(b"tag"))),
        ("cancel", method(60, 30, &[&short(b"tag")[..], &[1]].concat())),
        ("declared", method(50, 11, &[&short(b"q")[..], &[0, 0, 0, 9, 0, 0, 0, 1]].concat())),
        ("plain", [deliver.clone(), head(5, 1 << 13, &long(&offset)), frame(3, b"hello")].concat()),
        ("every-property", [deliver, head(2, 0xfff8, &every), frame(3, b"{}")].concat()),
        ("heartbeat", crate::wire::amqp091::HEARTBEAT.to_vec()),
    ];
    let all = seeds.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    seeds.push(("all", all));
    seeds.into_iter().map(|(name, bytes)| (format!("{name}.bin"), bytes)).collect()
}

#[test]
fn the_corpus_holds_the_seeds_that_are_built_here() {
    let all = [
        ("frame", frame_seeds()),
        ("chunk", chunk_seeds()),
        ("message", message_seeds()),
        ("amqp091", amqp091_seeds()),
    ];
    for (target, built) in all {
        if std::env::var_os("RILLWAY_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            for (name, bytes) in &built {
                std::fs::write(corpus(target).join(name), bytes).unwrap();
            }
        }
        let kept = seeds(target);
        for (name, bytes) in &built {
            let kept = kept.get(name).unwrap_or_else(|| panic!("{target}/{name} is missing"));
            // Packed bytes may differ from one version of a codec to the next.
            if !name.starts_with("batch-") && name != "mixed.bin" && name != "empty-batch.bin" {
                assert_eq!(kept, bytes, "{target}/{name} is out of date");
            }
        }
    }
}

#[test]
fn every_seed_reaches_what_it_stands_for() {
    for (name, bytes) in seeds("chunk") {
        chunk(&bytes);
        let chunk = Chunk::decode(bytes.into()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(chunk.into_blocks(&INFLATE_LIMITS).is_ok(), "{name}");
    }
    seeds("message").into_values().for_each(|bytes| message(&bytes));
    for (name, bytes) in seeds("amqp091") {
        amqp091(&bytes);
        assert!(crate::wire::amqp091::fuzzing::reads(&bytes), "{name}");
    }
    for (name, bytes) in seeds("frame") {
        frame(&bytes);
        let mut buf = BytesMut::from(&bytes[..]);
        while let Some(frame) = split_frame(&mut buf, &FRAME_LIMITS).unwrap() {
            let read = decode_server_frame(frame).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!matches!(read, ServerFrame::Unknown { .. }), "{name}");
        }
        assert!(buf.is_empty(), "{name}");
    }
}

/// One thing that goes wrong with bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Fill(prop::sample::Index, u8, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let range = |at: &prop::sample::Index, count: u8| {
            let at = at.index(length);
            at..(at + usize::from(count)).min(length)
        };
        match self {
            Mutation::Set(at, value) => bytes[at.index(length)] = *value,
            Mutation::Flip(at, bit) => bytes[at.index(length)] ^= 1 << (bit % 8),
            Mutation::Fill(at, count, value) => bytes[range(at, count % 9)].fill(*value),
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
            Mutation::Remove(at, count) => drop(bytes.drain(range(at, *count))),
            Mutation::Repeat(at, count) => {
                let range = range(at, *count);
                let again = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, again);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    let telling = prop::sample::select(vec![0, 1, 4, 0x7f, 0x80, 0x81, 0xff]);
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(a, v)| Mutation::Set(a, v)),
        (at(), any::<u8>()).prop_map(|(a, b)| Mutation::Flip(a, b)),
        (at(), any::<u8>(), telling).prop_map(|(a, n, v)| Mutation::Fill(a, n, v)),
        at().prop_map(Mutation::Cut),
        (at(), any::<u8>()).prop_map(|(a, n)| Mutation::Remove(a, n)),
        (at(), any::<u8>()).prop_map(|(a, n)| Mutation::Repeat(a, n)),
    ]
}

fn mutated(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds(target).into_values().collect();
    (prop::sample::select(seeds), prop::collection::vec(mutation(), 1..6)).prop_map(
        |(mut bytes, mutations)| {
            mutations.iter().for_each(|m| m.apply(&mut bytes));
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn mutated_frames_break_no_promise(bytes in mutated("frame")) {
        frame(&bytes);
    }

    #[test]
    fn mutated_chunks_break_no_promise(bytes in mutated("chunk")) {
        chunk(&bytes);
    }

    #[test]
    fn mutated_frames_of_amqp091_break_no_promise(bytes in mutated("amqp091")) {
        amqp091(&bytes);
    }

    #[test]
    fn mutated_messages_break_no_promise(bytes in mutated("message")) {
        message(&bytes);
    }

    #[test]
    fn any_bytes_break_no_promise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        frame(&bytes);
        chunk(&bytes);
        message(&bytes);
    }
}
