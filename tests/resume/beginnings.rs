//! The beginning of a reference without a position is decided once: whatever stops the consumer before
//! its first commit, it begins there again, and nothing that was published since is skipped.

use std::time::Duration;

use rillway::wire::commands::keys;

use super::{FILE, NULL, STDOUT, assert_says, bodies, body_texts, consumer, forecast, printed};
use crate::common::daemon::{Daemon, Home};
use crate::common::scripted::{Chunk, Say, Scripted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

/// An object sink that holds everything until it is full or drained.
const HELD: &str =
    "{ type = \"object\", url = \"held\", format = \"ndjson\", rotate_age = \"1h\" }";

/// Every start that means another offset each time it is evaluated, with its first message in a stream of
/// 20 messages that were written at once.
fn starts() -> Vec<(&'static str, &'static str, u64)> {
    vec![
        ("next", "start = \"next\"", 20),
        ("ago", "start = { ago = \"1ms\" }", 20),
        ("last", "start = \"last\"", 0),
        ("first", "start = \"first\"", 0),
    ]
}

fn of_each_kind(stream: &str, sink: &str) -> String {
    starts().iter().map(|(name, start, _)| consumer(name, stream, sink, start)).collect()
}

async fn all_run(daemon: &mut Daemon) {
    for (name, ..) in starts() {
        daemon.until(name, "it runs", SOON, |c| c["state"] == "running").await;
    }
}

/// Connected once, then stopped or killed; only then messages are published.
async fn quiet_then_stopped(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    for killed in [false, true] {
        let stream = streams::create(broker, "quiet").await;
        streams::publish(broker, &stream, bodies(0..20)).await;
        let sink = |name: &str| format!("{{ type = \"file\", dir = \"{name}\" }}");
        let consumers: String = starts()
            .iter()
            .map(|(name, start, _)| consumer(name, &stream, &sink(name), start))
            .collect();
        let home = Home::new(&broker.uri(), &consumers);
        let mut daemon = home.start();
        all_run(&mut daemon).await;
        // The broker may have written the 20 messages as several chunks.
        let last = streams::stored_offset(broker, &stream, "last").await.map_or(0, |at| at + 1);
        let begun = |name: &str, from: u64| if name == "last" { last } else { from };
        if killed {
            daemon.kill()
        } else {
            daemon.terminate().await
        }
        streams::publish(broker, &stream, bodies(20..50)).await;

        for (name, says) in forecast(&home).await {
            if name == "next" || name == "ago" {
                assert_says(&says, &["offset 20 "]);
            }
        }
        let mut daemon = home.start();
        for (name, _, from) in starts() {
            let lines = usize::try_from(50 - begun(name, from)).unwrap();
            let written = |_: &serde_json::Value| home.lines(name, &stream).len() >= lines;
            daemon.until(name, "all is written", SOON, written).await;
        }
        daemon.terminate().await;
        for (name, _, from) in starts() {
            let all = bodies(begun(name, from)..50);
            assert_eq!(body_texts(&home.lines(name, &stream)), all, "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn quiet_then_stopped_on_rabbitmq_3_10() {
    or_skip!(quiet_then_stopped(Version::V3_10).await);
}

#[tokio::test]
async fn quiet_then_stopped_on_rabbitmq_4_0() {
    or_skip!(quiet_then_stopped(Version::V4_0).await);
}

#[tokio::test]
async fn quiet_then_stopped_on_rabbitmq_4_3() {
    or_skip!(quiet_then_stopped(Version::V4_3).await);
}

/// A container without a volume, or a second machine: only the broker has the beginning.
async fn on_another_machine(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "machine").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let home = Home::new(&broker.uri(), &consumer("c", &stream, FILE, "start = \"next\""));
    let mut daemon = home.start();
    let running = daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
    assert_eq!(running["durable_offset"], serde_json::Value::Null, "a beginning is no data");
    assert_eq!(streams::stored_offset(broker, &stream, "c").await, Some(19));
    daemon.kill();
    streams::publish(broker, &stream, bodies(20..50)).await;

    let other = Home::new(&broker.uri(), &consumer("c", &stream, FILE, "start = \"next\""));
    assert_says(&forecast(&other).await["c"], &["offset 20 "]);
    let mut daemon = other.start();
    let written = |_: &serde_json::Value| other.lines("out", &stream).len() >= 30;
    daemon.until("c", "all is written", SOON, written).await;
    daemon.terminate().await;
    assert_eq!(body_texts(&other.lines("out", &stream)), bodies(20..50));
    Ok(())
}

#[tokio::test]
async fn on_another_machine_on_rabbitmq_3_10() {
    or_skip!(on_another_machine(Version::V3_10).await);
}

#[tokio::test]
async fn on_another_machine_on_rabbitmq_4_0() {
    or_skip!(on_another_machine(Version::V4_0).await);
}

#[tokio::test]
async fn on_another_machine_on_rabbitmq_4_3() {
    or_skip!(on_another_machine(Version::V4_3).await);
}

/// The broker cannot store an offset below 0: for an empty stream, only the state file has the beginning.
async fn in_an_empty_stream(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "empty").await;
    let home = Home::new(&broker.uri(), &of_each_kind(&stream, NULL));
    let mut daemon = home.start();
    all_run(&mut daemon).await;
    daemon.kill();
    for (name, ..) in starts() {
        assert_eq!(streams::stored_offset(broker, &stream, name).await, None);
    }
    streams::publish(broker, &stream, bodies(0..5)).await;
    streams::publish(broker, &stream, bodies(5..10)).await;
    let mut daemon = home.start();
    for (name, ..) in starts() {
        daemon.until_durable(name, 9).await;
        let label = format!("consumer=\"{name}\"");
        let written = daemon.metric("rillway_written_messages_total", &[&label]).await;
        assert_eq!(written, Some(10.0), "{name}");
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn in_an_empty_stream_on_rabbitmq_3_10() {
    or_skip!(in_an_empty_stream(Version::V3_10).await);
}

#[tokio::test]
async fn in_an_empty_stream_on_rabbitmq_4_3() {
    or_skip!(in_an_empty_stream(Version::V4_3).await);
}

/// Messages that a sink holds in memory are not written when the process is killed.
#[tokio::test]
async fn killed_while_the_sink_holds_what_came() {
    let broker = or_skip!(Broker::shared(Version::V4_3).await);
    let stream = streams::create(broker, "held").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let home = Home::new(&broker.uri(), &consumer("c", &stream, HELD, "start = \"next\""));
    let mut daemon = home.start();
    daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
    streams::publish(broker, &stream, bodies(20..30)).await;
    let received = |c: &serde_json::Value| c["received_offset"].as_u64() >= Some(29);
    daemon.until("c", "it holds them", SOON, received).await;
    daemon.kill();
    let mut daemon = home.start();
    daemon.until("c", "it holds them again", SOON, received).await;
    daemon.terminate().await;
    let mut found = Vec::new();
    for entry in walk(&home.path("held")) {
        if entry.to_string_lossy().ends_with(".ndjson.zst") {
            let bytes = std::fs::read(entry).unwrap();
            let text = String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap();
            found.extend(text.lines().map(|l| serde_json::from_str(l).unwrap()));
        }
    }
    assert_eq!(body_texts(&found), bodies(20..30));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Nothing is read, and no credit given, before the beginning is on the broker and in the state file.
#[tokio::test]
async fn nothing_is_read_before_the_beginning_is_kept() {
    for version in Version::ALL {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(0, &["a", "b", "c"]));
        // The first two stores are lost.
        broker.script(|heard| match heard.key {
            keys::STORE_OFFSET if heard.nth < 2 => Say::Nothing,
            _ => Say::Usual,
        });
        let home = Home::new(&broker.uri(), &consumer("c", "s", STDOUT, "start = \"next\""));
        let mut daemon = home.start();
        daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
        assert_eq!(broker.stored("c"), Some(2), "{version:?}");
        assert_eq!(broker.heard(keys::STORE_OFFSET), 3);
        let state = std::fs::read_to_string(home.path("state/c@s.json")).unwrap();
        assert_says(&state, &["\"begins_at\": 3"]);
        broker.append(Chunk::plain(3, &["d"]));
        daemon.until_durable("c", 3).await;
        daemon.terminate().await;
        assert_eq!(broker.stored("c"), Some(3));
        let state = std::fs::read_to_string(home.path("state/c@s.json")).unwrap();
        assert_says(&state, &["\"offset\": 3"]);
        assert!(!state.contains("begins_at"), "{state}");
    }
}

/// A broker that stores nothing, and a state file that cannot be written: then it waits, and says so.
#[tokio::test]
async fn a_beginning_that_cannot_be_kept_is_waited_for() {
    let broker = Scripted::start(Version::V4_3).await;
    broker.append(Chunk::plain(0, &["a", "b", "c"]));
    broker.script(|heard| match heard.key {
        keys::STORE_OFFSET => Say::Nothing,
        _ => Say::Usual,
    });
    let home = Home::new(&broker.uri(), &consumer("c", "s", STDOUT, "start = \"last\""));
    let last = Home::new(&broker.uri(), &consumer("c", "s", STDOUT, "start = \"next\""));
    drop(home);
    let mut daemon = last.start();
    let backoff = |c: &serde_json::Value| c["state"] == "backoff" && c["reason"].is_string();
    let waiting = daemon.until("c", "it says why it waits", SOON, backoff).await;
    assert_says(waiting["reason"].as_str().unwrap(), &["offset 2", "it holds none"]);
    broker.append(Chunk::plain(3, &["d"]));
    broker.script(|_| Say::Usual);
    daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
    daemon.terminate().await;

    // In place of the file there is a folder, which cannot be replaced.
    let home = Home::new(&broker.uri(), &consumer("x", "s", STDOUT, "start = \"next\""));
    let state = home.path("state/x@s.json.next");
    std::fs::create_dir_all(&state).unwrap();
    let mut daemon = home.start();
    // Only until it finds the beginning on the broker, which has it by now.
    eventually("it says why it waits", SOON, || async {
        let log = home.log();
        let line = log.lines().find(|line| line.contains("cannot be written"))?;
        assert_says(line, &["state file", "x@s.json", "`state_dir`", "consumer=x"]);
        Some(())
    })
    .await;
    broker.append(Chunk::plain(4, &["e"]));
    std::fs::remove_dir(&state).unwrap();
    daemon.until_durable("x", 4).await;
    daemon.terminate().await;
    assert_eq!(body_texts(&printed(&home)), ["e"]);
}

/// A beginning that a policy chooses after a loss is treated like any other.
#[tokio::test]
async fn what_a_policy_begins_with_is_kept_too() {
    for sink in [STDOUT, FILE] {
        let broker = Scripted::start(Version::V4_3).await;
        let first = || Chunk::plain(0, &["a", "b", "c", "d", "e", "f"]);
        broker.append(first());
        let more = "on_offset_lost = \"next\"";
        let home = Home::new(&broker.uri(), &consumer("c", "s", sink, more));
        let mut daemon = home.start();
        daemon.until_durable("c", 5).await;
        daemon.terminate().await;
        // Another stream, which is shorter; then one that retention has truncated.
        for (log, next, reason, lost) in [
            (vec![Chunk::plain(0, &["x", "y"])], 2, "recreated", 2.0),
            // 3 to 99 are gone; 100 and 101 exist, and are skipped.
            (vec![Chunk::plain(100, &["x", "y"])], 102, "retention", 99.0),
        ] {
            broker.replace_log(log.clone());
            let mut daemon = home.start();
            daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
            let count = daemon.metric("rillway_lost_messages_total", &[reason]).await;
            assert_eq!(count, Some(lost), "{sink}: {reason}");
            daemon.kill();
            broker.append(Chunk::plain(next, &["z"]));
            let mut daemon = home.start();
            eventually("z is written", SOON, || async {
                let lines = if sink == FILE { home.lines("out", "s") } else { printed(&home) };
                (lines.last()?["body"] == "z").then_some(())
            })
            .await;
            daemon.until_durable("c", next).await;
            daemon.terminate().await;
            assert_eq!(broker.stored("c"), Some(next), "{sink}");
        }
    }
}
