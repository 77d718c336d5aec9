//! Positions that the stream does not confirm. By default the consumer halts, changes nothing, and tells
//! the operator what happened and what to do. Otherwise it does as `on_offset_lost` says, and counts the
//! messages that are known to be lost.

use std::time::Duration;

use super::{
    FILE, NULL, STDOUT, assert_says, bodies, body_texts, consumer, forecast, offsets, printed,
};
use crate::common::daemon::{Daemon, Home};
use crate::common::rstream::Rstream;
use crate::common::scripted::{Chunk, Scripted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

const FIRST: &str = "on_offset_lost = \"first\"";
const NEXT: &str = "on_offset_lost = \"next\"";

fn broker_settings(uri: &str) -> String {
    format!("uri = \"{uri}\"\nheartbeat = \"30s\"")
}

async fn run_until(home: &Home, names: &[&str], offset: u64) {
    let mut daemon = home.start();
    for name in names {
        daemon.until_durable(name, offset).await;
    }
    daemon.terminate().await;
}

async fn lost(daemon: &Daemon, name: &str, reason: &str) -> Option<f64> {
    let (name, reason) = (format!("consumer=\"{name}\""), format!("reason=\"{reason}\""));
    daemon.metric("rillway_lost_messages_total", &[&name, &reason]).await
}

/// Waits until a consumer has written this many messages in this run, and fails if it writes more.
async fn until_written(daemon: &mut Daemon, name: &str, messages: u64) {
    let label = format!("consumer=\"{name}\"");
    let metric = "rillway_written_messages_total";
    eventually(&format!("{name} has written {messages}"), SOON, || async {
        let written = daemon.metric(metric, &[&label]).await.unwrap_or(0.0);
        assert!(written <= messages as f64, "{name} has written {written}");
        (written == messages as f64).then_some(())
    })
    .await;
}

/// The bodies in the segments of an old incarnation.
fn put_aside(home: &Home, stream: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(home.path("out").join(stream)).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".aside") {
            let text = std::fs::read_to_string(path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
    }
    body_texts(&lines)
}

/// Large enough that a few dozen fill a segment.
fn large(nth: u64) -> String {
    format!("{nth:01000}")
}

/// The first offset that is left.
async fn oldest(broker: &Broker, stream: &str) -> u64 {
    Rstream::at(broker).await.unwrap().read(stream, 0, 1).await[0].offset
}

/// Publishes [`large`] messages, numbered from 10, until retention has dropped the first segments
/// together with the offsets stored for these references. Returns the number of all messages.
async fn truncate(broker: &Broker, stream: &str, references: &[&str]) -> u64 {
    let mut published = 10;
    for round in 0..100 {
        streams::publish(broker, stream, (published..published + 50).map(large)).await;
        published += 50;
        // Truncation follows the end of a segment, and the stored offsets are evicted with the next one.
        if round < 8 || oldest(broker, stream).await <= 20 {
            continue;
        }
        let mut kept = false;
        for reference in references {
            kept |= streams::stored_offset(broker, stream, reference).await.is_some();
        }
        if !kept {
            return published;
        }
    }
    panic!("retention takes nothing");
}

async fn evicted_by_retention(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let arguments = [("max-length-bytes", "100000"), ("stream-max-segment-size-bytes", "50000")];
    let stream = streams::create_with(broker, "evicted", &arguments).await;
    streams::publish(broker, &stream, (0..10).map(large)).await;
    let consumers = |more: &str| {
        [
            consumer("f", &stream, FILE, more),
            consumer("p", &stream, STDOUT, more),
            consumer("n", &stream, NULL, more),
        ]
        .concat()
    };
    let home = Home::new(&broker.uri(), &consumers(""));
    run_until(&home, &["f", "p", "n"], 9).await;
    let published = truncate(broker, &stream, &["f", "p", "n"]).await;

    let plan = forecast(&home).await;
    let mut daemon = home.start();
    for name in ["p", "n"] {
        let reason = daemon.until_halted(name).await;
        let state = format!("{name}@{stream}.json");
        assert_says(&reason, &["no offset", "remembers 9", "on_offset_lost", &state, &stream]);
        assert_says(&plan[name], &["nowhere", "it would halt", "remembers 9"]);
    }
    let reason = daemon.until_halted("f").await;
    let says = "next offset wanted is 10, but the stream now starts at";
    assert_says(&reason, &[says, "retention", "on_offset_lost", &stream]);
    assert_says(&plan["f"], &["nowhere", "it would halt", says]);
    daemon.terminate().await;
    // A halted consumer has changed nothing.
    for name in ["f", "p", "n"] {
        assert_eq!(streams::stored_offset(broker, &stream, name).await, None, "{name}");
    }
    assert_eq!(home.offsets("out", &stream), (0..10).collect::<Vec<_>>());
    assert_eq!(offsets(&printed(&home)), (0..10).collect::<Vec<_>>());

    home.configure(&broker_settings(&broker.uri()), &consumers(FIRST));
    let before = oldest(broker, &stream).await;
    for (name, says) in forecast(&home).await {
        assert_says(&says, &["the first message", "on_offset_lost"]);
        assert_says(&says, &[if name == "f" { "retention" } else { "remembers 9" }]);
    }
    let mut daemon = home.start();
    for name in ["f", "p", "n"] {
        daemon
            .until(name, "all is read", SOON, |c| {
                c["lag_messages"] == 0 && c["durable_offset"].as_u64() > Some(published - 1)
            })
            .await;
    }
    let lines = home.lines("out", &stream);
    let first = lines[10]["offset"].as_u64().unwrap();
    assert_eq!(lost(&daemon, "f", "retention").await, Some((first - 10) as f64));
    daemon.terminate().await;

    // Retention may still be running: the consumer found the beginning somewhere in between.
    let after = oldest(broker, &stream).await;
    assert!((before..=after).contains(&first), "{before} {first} {after}");
    let number = |body: &str| body.parse::<u64>().unwrap();
    let numbers: Vec<u64> = body_texts(&lines).iter().map(|body| number(body)).collect();
    let expected: Vec<u64> = (0..10).chain(numbers[10]..published).collect();
    assert_eq!(numbers, expected);
    assert_eq!(printed(&home), lines, "what was printed is what was written");
    let last = lines.last().unwrap()["offset"].as_u64();
    for name in ["f", "p", "n"] {
        assert_eq!(streams::stored_offset(broker, &stream, name).await, last, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn evicted_by_retention_on_rabbitmq_3_10() {
    or_skip!(evicted_by_retention(Version::V3_10).await);
}

#[tokio::test]
async fn evicted_by_retention_on_rabbitmq_4_0() {
    or_skip!(evicted_by_retention(Version::V4_0).await);
}

#[tokio::test]
async fn evicted_by_retention_on_rabbitmq_4_3() {
    or_skip!(evicted_by_retention(Version::V4_3).await);
}

/// The stored offset still exists, but the messages after it do not: as on the broker between two
/// segments.
#[tokio::test]
async fn a_stored_offset_below_the_first_that_is_left() {
    for version in Version::ALL {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(100, &["a", "b", "c"]));
        broker.set_stored("c", 40);
        let home = Home::new(&broker.uri(), &consumer("c", "s", STDOUT, ""));
        let mut daemon = home.start();
        let reason = daemon.until_halted("c").await;
        let says = "next offset wanted is 41, but the stream now starts at 100: up to 59 messages";
        assert_says(&reason, &[says, "retention", "on_offset_lost", "\"c\"", "\"s\""]);
        daemon.terminate().await;
        assert_eq!((offsets(&printed(&home)), broker.stores()), (vec![], vec![]));

        home.configure(&broker_settings(&broker.uri()), &consumer("c", "s", STDOUT, FIRST));
        let mut daemon = home.start();
        daemon.until_durable("c", 102).await;
        assert_eq!(lost(&daemon, "c", "retention").await, Some(59.0));
        daemon.terminate().await;
        assert_eq!(offsets(&printed(&home)), [100, 101, 102]);
        // Its new beginning was stored first.
        let stores = [("c".to_owned(), 99), ("c".to_owned(), 102)];
        assert_eq!(broker.stores(), stores);

        // If the very next message exists, nothing is lost.
        broker.set_stored("c", 99);
        let home = Home::new(&broker.uri(), &consumer("c", "s", STDOUT, ""));
        run_until(&home, &["c"], 102).await;
        assert_eq!(offsets(&printed(&home)), [100, 101, 102]);
    }
}

/// Publishes one message after the other until these consumers are in this state. Returns the number of
/// all messages.
async fn publish_until(
    broker: &Broker,
    stream: &str,
    mut published: u64,
    daemon: &Daemon,
    names: &[&str],
    state: &str,
) -> u64 {
    for _ in 0..400 {
        let mut there = true;
        for name in names {
            there &= daemon.consumer(name).await.is_some_and(|c| c["state"] == state);
        }
        if there {
            return published;
        }
        streams::publish(broker, stream, bodies(published..published + 1)).await;
        published += 1;
    }
    panic!("not {state} after 400 messages");
}

async fn past_the_end(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "past").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    for name in ["p", "n", "f"] {
        streams::store_offset(broker, &stream, name, 500).await;
    }
    let settings = broker_settings(&broker.uri());
    let halting = consumer("p", &stream, STDOUT, "");
    let home = Home::with_broker(&settings, &halting);
    let mut published = 20;
    let mut daemon = home.start();
    let reason = daemon
        .until("p", "it doubts", SOON, |c| c["state"] == "backoff" && c["reason"].is_string());
    assert_says(reason.await["reason"].as_str().unwrap(), &["offset 500", "no chunk comes for it"]);
    // The chunk below the position decides.
    published = publish_until(broker, &stream, published, &daemon, &["p"], "halted").await;
    let reason = daemon.until_halted("p").await;
    let words =
        ["position is offset 500", "stream ends at", "created again", "on_offset_lost", &stream];
    assert_says(&reason, &words);
    daemon.terminate().await;
    assert_says(&forecast(&home).await["p"], &["nowhere", "position is offset 500"]);
    assert_eq!(streams::stored_offset(broker, &stream, "p").await, Some(500));
    assert_eq!(offsets(&printed(&home)), [0; 0]);

    let others = [consumer("n", &stream, NULL, NEXT), consumer("f", &stream, FILE, FIRST)].concat();
    home.configure(&settings, &[consumer("p", &stream, STDOUT, FIRST), others].concat());
    let mut daemon = home.start();
    published =
        publish_until(broker, &stream, published, &daemon, &["p", "f", "n"], "running").await;
    let label = "consumer=\"n\"";
    streams::publish(broker, &stream, bodies(published..published + 5)).await;
    published += 5;
    for name in ["p", "f"] {
        until_written(&mut daemon, name, published).await;
    }
    let written = eventually("n has the new messages", Duration::from_secs(60), || async {
        let written = daemon.metric("rillway_written_messages_total", &[label]).await;
        written.filter(|written| *written >= 5.0)
    })
    .await;
    assert!(written < published as f64, "{written}");
    daemon.terminate().await;
    assert_eq!(body_texts(&printed(&home)), bodies(0..published));
    let lines = home.lines("out", &stream);
    assert_eq!(body_texts(&lines), bodies(0..published));
    // The loss is over: what was read is stored, and the next run continues from there.
    let last = lines.last().unwrap()["offset"].as_u64();
    for name in ["p", "n", "f"] {
        assert_eq!(streams::stored_offset(broker, &stream, name).await, last, "{name}");
    }
    home.configure(&settings, &halting);
    streams::publish(broker, &stream, bodies(published..published + 5)).await;
    let mut daemon = home.start();
    until_written(&mut daemon, "p", 5).await;
    daemon.terminate().await;
    assert_eq!(body_texts(&printed(&home)), bodies(0..published + 5));
    Ok(())
}

#[tokio::test]
async fn past_the_end_on_rabbitmq_3_10() {
    or_skip!(past_the_end(Version::V3_10).await);
}

#[tokio::test]
async fn past_the_end_on_rabbitmq_4_0() {
    or_skip!(past_the_end(Version::V4_0).await);
}

#[tokio::test]
async fn past_the_end_on_rabbitmq_4_3() {
    or_skip!(past_the_end(Version::V4_3).await);
}

/// A re-created stream, with fewer messages than were read of the old incarnation, or with more: then
/// only its chunks show it.
async fn created_again(version: Version, messages: u64) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "again").await;
    let former: Vec<String> = (0..20).map(|nth| format!("former {nth}")).collect();
    streams::publish(broker, &stream, former.clone()).await;
    let settings = broker_settings(&broker.uri());
    let consumers = |more: &str| {
        [
            consumer("f", &stream, FILE, more),
            consumer("p", &stream, STDOUT, more),
            consumer("restored", &stream, NULL, more),
        ]
        .concat()
    };
    let home = Home::with_broker(&settings, &consumers(""));
    run_until(&home, &["f", "p", "restored"], 19).await;
    streams::delete(broker, &stream).await;
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, bodies(0..messages)).await;
    // As a tool that backs offsets up may do.
    streams::store_offset(broker, &stream, "restored", 19).await;

    let mut daemon = home.start();
    for name in ["f", "restored"] {
        let reason = daemon.until_halted(name).await;
        let says =
            if messages > 20 { "the chunk at offset 19 is not the one" } else { "offset 19, but" };
        assert_says(&reason, &[says, "deleted and created again", "on_offset_lost", &stream]);
    }
    let reason = daemon.until_halted("p").await;
    assert_says(&reason, &["no offset", "remembers 19", "created again", "on_offset_lost"]);
    daemon.terminate().await;
    // A position of the old stream is not carried over into this one.
    assert_eq!(streams::stored_offset(broker, &stream, "f").await, None);
    assert_eq!(streams::stored_offset(broker, &stream, "p").await, None);
    assert_eq!(body_texts(&home.lines("out", &stream)), former);
    assert_eq!(body_texts(&printed(&home)), former);

    home.configure(&settings, &consumers(FIRST));
    let mut daemon = home.start();
    for name in ["f", "p", "restored"] {
        daemon
            .until(name, "all is read anew", SOON, |c| {
                c["state"] == "running"
                    && c["lag_messages"] == 0
                    && c["durable_offset"].as_u64() == Some(messages - 1)
            })
            .await;
    }
    until_written(&mut daemon, "restored", messages).await;
    daemon.terminate().await;
    assert_eq!(body_texts(&printed(&home)), [former.clone(), bodies(0..messages)].concat());
    assert_eq!(body_texts(&home.lines("out", &stream)), bodies(0..messages));
    assert_eq!(put_aside(&home, &stream), former);
    for name in ["f", "p", "restored"] {
        let stored = streams::stored_offset(broker, &stream, name).await;
        assert_eq!(stored, Some(messages - 1), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn created_again_and_shorter_on_rabbitmq_3_10() {
    or_skip!(created_again(Version::V3_10, 10).await);
}

#[tokio::test]
async fn created_again_and_shorter_on_rabbitmq_4_0() {
    or_skip!(created_again(Version::V4_0, 10).await);
}

#[tokio::test]
async fn created_again_and_shorter_on_rabbitmq_4_3() {
    or_skip!(created_again(Version::V4_3, 10).await);
}

#[tokio::test]
async fn created_again_and_longer_on_rabbitmq_3_10() {
    or_skip!(created_again(Version::V3_10, 50).await);
}

#[tokio::test]
async fn created_again_and_longer_on_rabbitmq_4_0() {
    or_skip!(created_again(Version::V4_0, 50).await);
}

#[tokio::test]
async fn created_again_and_longer_on_rabbitmq_4_3() {
    or_skip!(created_again(Version::V4_3, 50).await);
}

/// The same under a running consumer that has not stored what it wrote.
async fn created_again_while_it_runs(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "meanwhile").await;
    let former: Vec<String> = (0..20).map(|nth| format!("former {nth}")).collect();
    streams::publish(broker, &stream, former.clone()).await;
    let consumers =
        [consumer("p", &stream, STDOUT, ""), consumer("f", &stream, FILE, FIRST)].concat();
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    for name in ["p", "f"] {
        daemon.until_durable(name, 19).await;
    }
    streams::delete(broker, &stream).await;
    for name in ["p", "f"] {
        daemon.until(name, "it misses the stream", SOON, |c| c["state"] == "backoff").await;
    }
    // The new stream is read while it is empty, or when it has passed the position: both show it.
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, bodies(0..50)).await;
    let reason = daemon.until_halted("p").await;
    assert_says(&reason, &["offset 19", "deleted and created again", "on_offset_lost", &stream]);
    until_written(&mut daemon, "f", 70).await;
    daemon.terminate().await;
    assert_eq!(body_texts(&printed(&home)), former);
    assert_eq!(body_texts(&home.lines("out", &stream)), bodies(0..50));
    assert_eq!(put_aside(&home, &stream), former);
    assert_eq!(streams::stored_offset(broker, &stream, "p").await, None);
    assert_eq!(streams::stored_offset(broker, &stream, "f").await, Some(49));
    Ok(())
}

#[tokio::test]
async fn created_again_while_it_runs_on_rabbitmq_3_10() {
    or_skip!(created_again_while_it_runs(Version::V3_10).await);
}

#[tokio::test]
async fn created_again_while_it_runs_on_rabbitmq_4_0() {
    or_skip!(created_again_while_it_runs(Version::V4_0).await);
}

#[tokio::test]
async fn created_again_while_it_runs_on_rabbitmq_4_3() {
    or_skip!(created_again_while_it_runs(Version::V4_3).await);
}
