//! Filters: do exactly the messages wanted arrive, under their own offsets, with little else on the wire;
//! and does the position move past all others, so that retention never overtakes it?

mod kinds;
mod silence;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::{Daemon, Home};
use crate::common::rstream::{Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(90);

const BY_REGION: &str = "filter = { values = [\"eu\"], by = \"/region\" }";

/// A consumer into files.
fn consumer(name: &str, stream: &str, filter: &str) -> String {
    sinking(name, stream, filter, &format!("{{ type = \"file\", dir = \"{name}\" }}"))
}

fn sinking(name: &str, stream: &str, filter: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n{filter}\n\
         batch = {{ max_messages = 1000, max_age = \"50ms\" }}\n\
         commit = {{ every = \"200ms\" }}\n\
         restart = {{ min_backoff = \"20ms\", max_backoff = \"500ms\" }}\nsink = {sink}\n"
    )
}

/// A message of this region, of about 200 bytes.
fn message(region: &str, nth: u64) -> Outgoing {
    let filling = "x".repeat(150);
    Outgoing::body(format!("{{\"region\":{region:?},\"nth\":{nth},\"filling\":{filling:?}}}"))
}

/// Publishes messages in one run of chunks, with this filter value.
async fn publish(rstream: &Rstream, stream: &str, value: &str, regions: &[&str]) {
    let messages: Vec<_> =
        regions.iter().zip(0..).map(|(region, nth)| message(region, nth)).collect();
    rstream.publish_filtered(stream, value, &messages).await;
}

/// Publishes, four times, 2,475 messages with another value, and then 25 with the one wanted, of which
/// two are of another region. Returns the offsets of those of region `eu`: 92 of 10,000.
async fn publish_one_in_a_hundred(rstream: &Rstream, stream: &str) -> BTreeSet<u64> {
    let mut wanted = BTreeSet::new();
    for round in 0..4_u64 {
        publish(rstream, stream, "us", &["us"; 2475]).await;
        let mut regions = vec!["eu"; 25];
        (regions[3], regions[20]) = ("us", "asia");
        publish(rstream, stream, "eu", &regions).await;
        let first = round * 2500 + 2475;
        wanted.extend((first..).zip(regions).filter(|(_, r)| *r == "eu").map(|(offset, _)| offset));
    }
    wanted
}

const ALL: u64 = 10_000;

async fn count(daemon: &Daemon, metric: &str, name: &str) -> f64 {
    let label = format!("consumer=\"{name}\"");
    daemon.metric(metric, &[&label]).await.unwrap_or_else(|| panic!("{name} has no {metric}"))
}

/// What is in the files of a consumer: offset and region of each message.
fn written(home: &Home, name: &str, stream: &str) -> Vec<(u64, String)> {
    let lines = home.lines(name, stream);
    let of = |line: &Value| {
        let region = line["body"]["region"].as_str().unwrap_or_default().to_owned();
        (line["offset"].as_u64().unwrap(), region)
    };
    lines.iter().map(of).collect()
}

fn offsets(written: &[(u64, String)]) -> Vec<u64> {
    written.iter().map(|(offset, _)| *offset).collect()
}

/// One message in a hundred matches.
async fn one_in_a_hundred(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "filtered").await;
    let wanted = publish_one_in_a_hundred(&rstream, &stream).await;
    let client_side = "filter = { values = [\"eu\"], by = \"/region\", client_side = true }";
    let consumers = [
        consumer("filtered", &stream, BY_REGION),
        consumer("chunks", &stream, "filter = { values = [\"eu\"] }"),
        consumer("here", &stream, client_side),
        consumer("all", &stream, ""),
    ]
    .concat();
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    // The last chunk matches. Then others come, and nothing more that matches.
    for name in ["filtered", "chunks", "here", "all"] {
        daemon.until_durable(name, ALL - 1).await;
    }
    let wanted: Vec<u64> = wanted.into_iter().collect();
    for name in ["filtered", "here"] {
        let written = written(&home, name, &stream);
        assert_eq!(offsets(&written), wanted, "{name}");
        assert!(written.iter().all(|(_, region)| region == "eu"), "{name}: {written:?}");
    }
    // All messages of the chunks that the broker selects. It may select more than have the value.
    let chunks: BTreeSet<u64> = offsets(&written(&home, "chunks", &stream)).into_iter().collect();
    assert!(wanted.iter().all(|offset| chunks.contains(offset)));
    assert!(chunks.len() < ALL as usize / 10, "{} of {ALL} came", chunks.len());
    assert_eq!(written(&home, "all", &stream).len() as u64, ALL);
    let bytes = "rillway_received_bytes_total";
    let (few, here, all) = (
        count(&daemon, bytes, "filtered").await,
        count(&daemon, bytes, "here").await,
        count(&daemon, bytes, "all").await,
    );
    println!("{version:?}: {few} bytes received with the filter, {all} without");
    assert!(few < all / 20.0, "{few} bytes came with the filter, and {all} without");
    assert!(here > all / 2.0, "{here} bytes came to be filtered here, and {all} in all");
    let left_out = "rillway_filtered_messages_total";
    assert_eq!(count(&daemon, left_out, "here").await, (ALL - wanted.len() as u64) as f64);
    let (came, out) = (
        count(&daemon, "rillway_received_messages_total", "filtered").await,
        count(&daemon, left_out, "filtered").await,
    );
    assert!(out >= 8.0 && came - out == wanted.len() as f64, "{came} came, {out} were left out");
    assert_eq!(daemon.metric(left_out, &["consumer=\"all\""]).await, None);
    until_no_lag(&daemon, "filtered").await;
    daemon.terminate().await;
    let stored = rstream.stored_offset(&stream, "filtered").await;
    assert!(stored >= Some(ALL - 1), "{stored:?} is stored");

    // What comes while it does not run is found, and nothing is repeated.
    publish(&rstream, &stream, "us", &["us"; 500]).await;
    publish(&rstream, &stream, "eu", &["eu", "us", "eu"]).await;
    let daemon = home.start();
    home.until_landed(&daemon, "filtered", &stream, wanted.len() as u64 + 2).await;
    home.until_landed(&daemon, "all", &stream, ALL + 503).await;
    daemon.terminate().await;
    let of_all = written(&home, "all", &stream);
    assert_eq!(of_all.len() as u64, ALL + 503);
    let expected: Vec<u64> =
        of_all.iter().filter(|(_, region)| region == "eu").map(|(offset, _)| *offset).collect();
    assert_eq!(offsets(&written(&home, "filtered", &stream)), expected);
    Ok(())
}

async fn until_no_lag(daemon: &Daemon, name: &str) {
    let label = format!("consumer=\"{name}\"");
    eventually(&format!("{name} has no lag"), LONG, || async {
        let lag = daemon.metric("rillway_lag_messages", &[&label]).await?;
        (lag == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_in_a_hundred_is_read_on_rabbitmq_4_0() {
    or_skip!(one_in_a_hundred(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_in_a_hundred_is_read_on_rabbitmq_4_3() {
    or_skip!(one_in_a_hundred(Version::V4_3).await);
}

/// A broker without filters would send everything: that is said at the start, with what to do.
async fn before_filters() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let stream = streams::create(broker, "unfiltered").await;
    let bodies = (0..200_u64).map(|nth| {
        let region = if nth % 100 == 7 { "eu" } else { "us" };
        format!("{{\"region\":{region:?},\"nth\":{nth}}}")
    });
    streams::publish(broker, &stream, bodies).await;
    let client_side = "filter = { values = [\"eu\"], by = \"/region\", client_side = true }";
    let consumers =
        consumer("refused", &stream, BY_REGION) + &consumer("here", &stream, client_side);
    for uri in [broker.uri(), format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port)] {
        let home = Home::new(&uri, &consumers);
        let mut daemon = home.start();
        let why = daemon.until_halted("refused").await;
        for says in ["filter needs RabbitMQ 3.13 or later", "is 3.10", "filter.client_side = true"]
        {
            assert!(why.contains(says), "{why}");
        }
        daemon.until_durable("here", 199).await;
        assert_eq!(offsets(&written(&home, "here", &stream)), [7, 107], "{uri}");
        assert_eq!(count(&daemon, "rillway_filtered_messages_total", "here").await, 198.0);
        daemon.terminate().await;
        let check = home.command(&["check", "--connect"]).output().unwrap();
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert_eq!(check.status.code(), Some(69), "{said}");
        assert!(said.contains("filter needs RabbitMQ 3.13"), "{said}");
        let shown = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(
            shown.contains("filter:     [\"eu\"], by \"/region\"; not by the broker"),
            "{shown}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_broker_is_refused_or_everything_is_filtered_here() {
    or_skip!(before_filters().await);
}
