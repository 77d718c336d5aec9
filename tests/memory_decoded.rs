//! Messages that are small on the wire and large once decoded, alone and in compressed entries; batches
//! of only bad messages; and very large single messages: does the daemon's peak memory stay within the
//! bound that `rillway check` prints, plus 8 MiB for the process, whatever the sink?

use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, eventually, streams};

const MIB: u64 = 1 << 20;
const PROCESS_BYTES: u64 = 8 * MIB;
const LONG: Duration = Duration::from_secs(120);

/// Forty bytes: an array of 4,000 nulls in the application properties, and a body.
fn nulls() -> Vec<u8> {
    let array = [&[0xf0][..], &5u32.to_be_bytes(), &4000u32.to_be_bytes(), &[0x40]].concat();
    let map = [&[0x00, 0x53, 0x74, 0xc1, 14, 2, 0xa1, 1, b'n'][..], &array].concat();
    [&map[..], &[0x00, 0x53, 0x75, 0xa0, 1, b'x']].concat()
}

/// A message with this body.
fn data(body: &str) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[0x00, 0x53, 0x75, 0xb0][..], &length, body.as_bytes()].concat()
}

/// Not AMQP.
fn bad() -> Vec<u8> {
    vec![0xff; 24]
}

/// Text that is six times as long as JSON.
fn escaped() -> Vec<u8> {
    data(&"\u{1}".repeat(900_000))
}

/// Every sink, by the TOML of its table.
async fn sinks(web: &Web, broker: &Broker, label: &str) -> Vec<(&'static str, String)> {
    let parquet =
        "type = \"object\"\nurl = \"archive\"\nrotate_bytes = \"4MiB\"\nrotate_age = \"2s\"";
    let mut sinks = vec![
        ("parquet", parquet.to_owned()),
        ("ndjson", format!("{parquet}\nformat = \"ndjson\"\ncompression = \"none\"")),
        ("file", "type = \"file\"\ndir = \"out\"".to_owned()),
        ("sqlite", "type = \"sqlite\"\npath = \"out.db\"".to_owned()),
        ("stdout", "type = \"stdout\"".to_owned()),
        ("http", format!("type = \"http\"\nurl = \"{}\"", web.url())),
        ("null", "type = \"null\"".to_owned()),
    ];
    let labels = "labels = { other = \"application_properties.other\" }";
    let metric = format!("name = \"seen_total\"\ntype = \"counter\"\n{labels}");
    sinks.push(("metrics", format!("type = \"metrics\"\n[[consumer.sink.metrics]]\n{metric}")));
    let target = streams::create(broker, &format!("{label}-target")).await;
    let keys = format!("type = \"stream\"\nstream = \"{target}\"\nannotate = true");
    sinks.push(("stream", keys));
    match Postgres::shared().await {
        Ok(postgres) => {
            let (url, schema) = (postgres.url(), postgres.schema().await);
            let keys = format!("url = \"{url}\"\nschema = \"{schema}\"\ntable = \"events\"");
            sinks.push(("postgres", format!("type = \"postgres\"\n{keys}\ncreate = true")));
        }
        Err(why) => eprintln!("SKIPPED postgres: {why:?}"),
    }
    sinks
}

/// How messages are packed into chunks.
#[derive(Clone, Copy)]
enum Entries {
    Single,
    /// This many in each compressed entry.
    Zstd(usize),
}

/// A stream with these messages.
async fn published(
    label: &str,
    messages: &[Vec<u8>],
    entries: Entries,
) -> Result<(&'static Broker, String), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, label).await;
    let rstream = Rstream::at(broker).await?;
    let outgoing: Vec<Outgoing> = messages.iter().map(Outgoing::raw).collect();
    // A frame has at most 1 MiB.
    let together = if messages.iter().any(|message| message.len() > 100_000) { 1 } else { 10_000 };
    for some in outgoing.chunks(together) {
        match entries {
            Entries::Single => rstream.publish(&stream, some).await,
            Entries::Zstd(messages) => {
                rstream.publish_batches(&stream, Compression::Zstd, messages, some).await;
            }
        }
    }
    Ok((broker, stream))
}

/// Runs a consumer until this offset is durable, and returns the daemon's peak and its bound.
async fn carried(
    (broker, stream): (&Broker, &str),
    (label, name): (&str, &str),
    consumer: &str,
    last: u64,
) -> (u64, u64) {
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"c\"\nreference = \"{name}\"\nstream = \"{stream}\"\n\
             start = \"first\"\nmemory = \"4MiB\"\n{consumer}"
        ),
    );
    let bound = home.memory_bound_bytes() + PROCESS_BYTES;
    let daemon = home.start();
    eventually("everything is durable", LONG, || async {
        let consumer = daemon.consumer("c").await?;
        let state = consumer["state"].as_str().unwrap_or_default();
        assert_ne!(state, "halted", "{name}: {consumer}");
        (consumer["durable_offset"].as_u64() == Some(last)).then_some(())
    })
    .await;
    let most = daemon.most_memory_bytes();
    eprintln!("{label} into {name}: {} MiB at the most, of {} MiB", most / MIB, bound / MIB);
    daemon.signal("TERM");
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0), "{name}: {}", home.log_tail());
    (most, bound)
}

/// Carries the stream's messages into each sink, and compares the peak with the bound.
async fn bounded(
    label: &str,
    (messages, entries): (&[Vec<u8>], Entries),
    batch: &str,
    keys: &str,
) -> Result<(), Unavailable> {
    let (broker, stream) = published(label, messages, entries).await?;
    let web = Web::start(|_| Reply::status(204)).await;
    let mut beyond = Vec::new();
    for (name, sink) in sinks(&web, broker, label).await {
        let consumer =
            format!("batch = {{ max_bytes = \"4MiB\"{batch} }}\n{keys}\n[consumer.sink]\n{sink}\n");
        let last = messages.len() as u64 - 1;
        let (most, bound) = carried((broker, &stream), (label, name), &consumer, last).await;
        if most > bound {
            beyond.push(format!("{name}: {} MiB, of {} MiB", most / MIB, bound / MIB));
        }
    }
    assert!(beyond.is_empty(), "{label}: {beyond:#?}");
    Ok(())
}

#[tokio::test]
async fn small_messages_that_are_large_when_decoded() {
    or_skip!(bounded("nulls", (&vec![nulls(); 4_000][..], Entries::Single), "", "").await);
}

#[tokio::test]
async fn batches_of_bad_messages_that_are_skipped() {
    // One batch, and as many as are joined.
    let batch = ", max_messages = 1000000, max_age = \"3s\"";
    or_skip!(
        bounded(
            "all-bad",
            (&vec![bad(); 50_000][..], Entries::Single),
            batch,
            "on_bad_message = \"skip\""
        )
        .await
    );
}

#[tokio::test]
async fn batches_of_bad_messages_that_become_dead_letters() {
    let keys = "on_bad_message = \"dead_letter\"\n\
                dead_letter = { type = \"file\", dir = \"letters\" }";
    or_skip!(bounded("letters", (&vec![bad(); 20_000][..], Entries::Single), "", keys).await);
}

#[tokio::test]
async fn large_messages_that_are_larger_as_json() {
    or_skip!(bounded("escaped", (&vec![escaped(); 12][..], Entries::Single), "", "").await);
}

/// Some 1,000 times their size on the wire, once they are inflated and decoded.
#[tokio::test]
async fn compressed_entries_of_messages_that_are_large_when_decoded() {
    let messages = vec![nulls(); 20_000];
    or_skip!(bounded("zipped", (&messages, Entries::Zstd(2_000)), "", "").await);
}

#[tokio::test]
async fn compressed_entries_of_bad_messages() {
    let (messages, keys) = (vec![bad(); 50_000], "on_bad_message = \"skip\"");
    or_skip!(bounded("zipped-bad", (&messages, Entries::Zstd(5_000)), "", keys).await);
}

/// Of each batch, an archive's dictionaries keep one short value, and nothing else of their columns. Each batch fills a
/// page of the body, which has no dictionary, so that what waits for a page does not end the object.
async fn new_values_among_long_ones() -> Result<(), Unavailable> {
    const BATCHES: usize = 45;
    const BATCH: usize = 100;
    let long = "x".repeat(12_000);
    let messages: Vec<Vec<u8>> = (0..BATCHES * BATCH)
        .map(|nth| match nth % BATCH {
            0 => data(&format!("{{\"value\":\"{nth}\"}}")),
            _ => data(&format!("{{\"value\":\"{long}\"}}")),
        })
        .collect();
    let (broker, stream) = published("dictionary", &messages, Entries::Zstd(BATCH)).await?;
    let consumer = format!(
        "batch = {{ max_bytes = \"4MiB\", max_messages = {BATCH} }}\n[consumer.sink]\ntype = \"object\"\nurl = \"archive\"\n\
         rotate_bytes = \"4MiB\"\nrotate_records = {}\n\
         columns = {{ a = \"/value\", b = \"/value\", body = \"body\" }}\n",
        messages.len()
    );
    let last = messages.len() as u64 - 1;
    let (most, bound) = carried((broker, &stream), ("dictionary", "object"), &consumer, last).await;
    assert!(most <= bound, "{} MiB, of {} MiB", most / MIB, bound / MIB);
    Ok(())
}

#[tokio::test]
async fn an_archive_keeps_short_values_of_large_batches() {
    or_skip!(new_values_among_long_ones().await);
}
