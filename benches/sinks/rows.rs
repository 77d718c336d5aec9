//! The rows: JSON of 256 bytes, the same for every sink and loader.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use rillway::flow::batch::{Batch, Part};
use rillway::sink::conformance;

pub(crate) const STREAM: &str = "events";
pub(crate) const BODY_BYTES: usize = 256;

/// Messages per chunk on a busy stream.
const PER_CHUNK: u64 = 400;

/// The timestamp that [`conformance::part`] gives the chunk that begins at `first`.
const FIRST_MS: u64 = 1_700_000_000_000;

/// Message `i`.
pub(crate) fn body(i: u64) -> String {
    let (user, cents, country) = (i.wrapping_mul(7919) % 50_000, i * 37 % 100_000, i % 23);
    let mut body = format!(
        "{{\"seq\":{i},\"user\":{{\"id\":\"u-{user:05}\",\"country\":\"c{country}\"}},\"amount\":{}.{:02},\
         \"paid\":{},\"note\":\"",
        cents / 100,
        cents % 100,
        i.is_multiple_of(3)
    );
    const WORDS: [&str; 8] = ["order ", "of ", "the ", "day, ", "sent ", "to ", "him ", "who "];
    let mut word = i;
    while body.len() < BODY_BYTES - 2 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.push_str(WORDS[(word >> 60) as usize % WORDS.len()]);
    }
    body.truncate(BODY_BYTES - 2);
    body.push_str("\"}");
    body
}

/// Batches as the consumer hands them over while the sink is slower: as many batches of 10,000 messages
/// as the default memory holds, joined into one.
pub(crate) fn batches(messages: u64) -> anyhow::Result<Vec<Batch>> {
    const PER_BATCH: u64 = 60_000;
    let mut batches = Vec::new();
    for first in (0..messages).step_by(PER_BATCH as usize) {
        let last = (first + PER_BATCH).min(messages);
        let parts: Option<Vec<Part>> = (first..last)
            .step_by(PER_CHUNK as usize)
            .map(|chunk| {
                let of = chunk..(chunk + PER_CHUNK).min(last);
                let of: Vec<_> = of.map(|i| conformance::message(body(i).as_bytes())).collect();
                conformance::part(chunk, &of)
            })
            .collect();
        let parts = parts.context("a chunk could not be made")?;
        batches.push(Batch::new(STREAM.into(), parts).context("an empty batch")?);
    }
    Ok(batches)
}

/// The same rows for the loaders: the columns of the default table, as CSV.
pub(crate) fn write_csv(path: &Path, messages: u64) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    for i in 0..messages {
        let body = body(i);
        ensure!(body.len() == BODY_BYTES, "{body}");
        let ms = FIRST_MS + (i - i % PER_CHUNK) % 1_000_000;
        let at = jiff::Timestamp::from_millisecond(i64::try_from(ms)?)?;
        let at = at.strftime("%Y-%m-%d %H:%M:%S.%3f");
        writeln!(out, "{STREAM},{i},{at},,,,\"{}\"", body.replace('"', "\"\""))?;
    }
    out.into_inner()?.sync_all()?;
    Ok(())
}
