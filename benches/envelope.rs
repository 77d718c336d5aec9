//! Cost of one line: records to NDJSON in memory, on one core, without I/O.
//!
//!     cargo bench --bench envelope
//!     scripts/bench-instructions.sh
//!
//! Each figure is the median of [`ROUNDS`] rounds over the same batch. `copy` is the time for only
//! copying the encoded messages: the lower bound. The second command counts instructions, including those
//! from a chunk's bytes to lines and to columns.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rillway::flow::batch::{Batch, Part};
use rillway::sink::columns::Columns;
use rillway::sink::envelope::Envelope;
use rillway::types::column::{Column, ColumnType, OnMisfit};
use rillway::types::{ChunkId, Offset, StreamName, Timestamp};
use rillway::wire::block::Block;
use rillway::wire::chunk::Chunk;
use rillway::wire::compression::InflateLimits;

const ROUNDS: usize = 31;
/// Approximate size of the encoded messages in one batch, in bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Messages per chunk, and chunks per round, when instructions are counted.
const CHUNK: usize = 400;
const CHUNKS: usize = 10;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Ok([count, rounds, case]) = <[String; 3]>::try_from(args) else {
        lines();
        return Ok(());
    };
    ensure!(count == "--count", "expected: --count ROUNDS CASE");
    let rounds = rounds.parse()?;
    match case.as_str() {
        "chunk-to-ndjson" => {
            let mut envelope = Envelope::ndjson(&StreamName::new("events"));
            let mut out = Vec::with_capacity(4 << 20);
            count_of_chunks(rounds, |batch| {
                out.clear();
                assert!(envelope.append_batch(batch, &mut out).is_ok());
                black_box(&out);
            });
        }
        "chunk-to-columns" => {
            let columns = Columns::typed(StreamName::new("events"), typed()?);
            count_of_chunks(rounds, |batch| {
                for record in batch.records() {
                    let mut row = Vec::new();
                    assert!(columns.read(record, &mut row).is_ok());
                    black_box(&row);
                }
            });
        }
        name => {
            let case = cases().into_iter().find(|(known, _)| *known == name);
            let (_, message) = case.with_context(|| format!("there is no case {name:?}"))?;
            let batch = batch(&message);
            let mut envelope = Envelope::ndjson(batch.stream());
            let mut out = Vec::with_capacity(BATCH_BYTES * 12);
            for _ in 0..rounds {
                out.clear();
                assert!(envelope.append_batch(black_box(&batch), &mut out).is_ok());
                black_box(&out);
            }
            println!("{}", batch.messages());
        }
    }
    Ok(())
}

/// Reads chunks and does `work` with each, for all rounds; prints the number of messages per round.
fn count_of_chunks(rounds: usize, mut work: impl FnMut(&Batch)) {
    let chunk: Bytes = chunk_of_json().into();
    for _ in 0..rounds * CHUNKS {
        let Ok(chunk) = Chunk::decode(black_box(&chunk).clone()) else {
            unreachable!("the chunk was laid out here")
        };
        let id = chunk.id();
        let blocks = chunk.into_blocks(&InflateLimits { max_bytes: 1 << 20 }).unwrap_or_default();
        let part = |block| Part { block, chunk: id, permit: Arc::new(()) };
        let parts = blocks.into_iter().map(part).collect();
        let Some(batch) = Batch::new(StreamName::new("events"), parts) else {
            unreachable!("the chunk is not empty")
        };
        work(&batch);
    }
    println!("{}", CHUNK * CHUNKS);
}

/// Five values from the body, each of a different type.
fn typed() -> anyhow::Result<Vec<Column>> {
    let columns = [
        ("id", "/user/id", ColumnType::Integer),
        ("name", "/user/name", ColumnType::Text),
        ("amount", "/amount", ColumnType::Numeric),
        ("paid", "/paid", ColumnType::Boolean),
        ("at", "/at", ColumnType::Timestamp),
    ];
    let column = |(name, from, kind): (&str, &str, ColumnType)| {
        let (name, from, on_misfit) = (name.to_owned(), from.parse()?, OnMisfit::BadMessage);
        Ok(Column { name, from, kind, required: true, on_misfit })
    };
    columns.into_iter().map(column).collect()
}

/// JSON messages of 256 bytes, as the broker delivers them.
fn chunk_of_json() -> Vec<u8> {
    let mut section = Vec::new();
    for i in 0..CHUNK {
        let mut body = format!(
            r#"{{"user":{{"id":{},"name":"name {}"}},"amount":{}.{:02},"paid":{},"at":"2026-01-01T00:00:{:02}Z","note":""#,
            i * 7919,
            i,
            i * 37,
            i % 100,
            i % 3 == 0,
            i % 60
        );
        body.extend("of the day, sent to him who ".chars().cycle().take(254 - body.len()));
        body.push_str("\"}");
        let message = data(body.as_bytes());
        section.extend_from_slice(&(message.len() as u32).to_be_bytes());
        section.extend_from_slice(&message);
    }
    let mut chunk = vec![0x50, 0];
    chunk.extend_from_slice(&(CHUNK as u16).to_be_bytes());
    chunk.extend_from_slice(&(CHUNK as u32).to_be_bytes());
    chunk.extend_from_slice(&1_767_225_600_123i64.to_be_bytes());
    chunk.extend_from_slice(&1u64.to_be_bytes());
    chunk.extend_from_slice(&1_000_000u64.to_be_bytes());
    chunk.extend_from_slice(&crc32fast::hash(&section).to_be_bytes());
    chunk.extend_from_slice(&(section.len() as u32).to_be_bytes());
    chunk.extend_from_slice(&[0; 8]);
    chunk.extend_from_slice(&section);
    chunk
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let text = |n: usize| "hello world ".bytes().cycle().take(n).collect::<Vec<u8>>();
    let json = |n: usize| {
        let item = br#"{"id":12345,"name":"a name of some length","tags":["x","y"],"ok":true}"#;
        let mut all = b"[".to_vec();
        while all.len() + item.len() + 2 < n {
            all.extend_from_slice(item);
            all.push(b',');
        }
        all.extend_from_slice(b"0]");
        all
    };
    let binary = |n: usize| (0..n).map(|i| (i * 7 + 128) as u8).collect::<Vec<u8>>();
    vec![
        ("text 12 B", data(&text(12))),
        ("text 256 B", data(&text(256))),
        ("text 64 KiB", data(&text(64 << 10))),
        ("json 256 B", data(&json(256))),
        ("json 64 KiB", data(&json(64 << 10))),
        ("binary 12 B", data(&binary(12))),
        ("binary 64 KiB", data(&binary(64 << 10))),
        ("properties and text 12 B", [properties(), data(&text(12))].concat()),
    ]
}

fn lines() {
    println!(
        "{:<26}{:>12}{:>12}{:>14}{:>12}",
        "messages", "ns/message", "of it copy", "messages/s", "GB/s"
    );
    for (name, message) in cases() {
        let batch = batch(&message);
        let mut envelope = Envelope::ndjson(batch.stream());
        let mut out = Vec::with_capacity(BATCH_BYTES * 12);
        let line = median(|| {
            out.clear();
            assert!(envelope.append_batch(black_box(&batch), &mut out).is_ok());
            black_box(&out);
        });
        let copy = median(|| {
            out.clear();
            black_box(&batch).records().for_each(|r| out.extend_from_slice(r.message));
            black_box(&out);
        });
        let each = line / batch.messages() as f64;
        println!(
            "{name:<26}{:>12.1}{:>12.1}{:>14.0}{:>12.2}",
            each * 1e9,
            copy / batch.messages() as f64 * 1e9,
            1.0 / each,
            message.len() as f64 / each / 1e9
        );
    }
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}

fn data(body: &[u8]) -> Vec<u8> {
    let size = match u8::try_from(body.len()) {
        Ok(size) => vec![0xa0, size],
        Err(_) => [&[0xb0], &(body.len() as u32).to_be_bytes()[..]].concat(),
    };
    [&[0, 0x53, 0x75], &size[..], body].concat()
}

/// A message id, a content type and a creation time; two application properties.
fn properties() -> Vec<u8> {
    let string = |s: &str| [&[0xa1, s.len() as u8], s.as_bytes()].concat();
    let time = [&[0x83], &1_767_225_600_123i64.to_be_bytes()[..]].concat();
    let fields = [
        string("message-1"),
        vec![0x40; 5],
        string("text/plain"),
        vec![0x40; 2],
        time,
        string("key"),
        string("value"),
        string("n"),
        vec![0x54, 0xff],
    ];
    let list = fields[..5].concat();
    let map = fields[5..].concat();
    [
        &[0, 0x53, 0x73, 0xc0, list.len() as u8 + 1, 10],
        &list[..],
        &[0, 0x53, 0x74, 0xc1, map.len() as u8 + 1, 4],
        &map[..],
    ]
    .concat()
}

fn batch(message: &[u8]) -> Batch {
    let count = (BATCH_BYTES / (message.len() + 4)).max(1);
    let one = [&(message.len() as u32).to_be_bytes()[..], message].concat();
    let timestamp = Timestamp(1_767_225_600_123);
    let first = Offset(1_000_000);
    let Some(block) = Block::new(first, count as u32, timestamp, one.repeat(count).into()) else {
        unreachable!("the block was laid out above");
    };
    let chunk = ChunkId { first_offset: first, epoch: 1, timestamp, crc: 0 };
    let part = Part { block, chunk, permit: Arc::new(()) };
    match Batch::new(StreamName::new("events"), vec![part]) {
        Some(batch) => batch,
        None => unreachable!("the block is not empty"),
    }
}
