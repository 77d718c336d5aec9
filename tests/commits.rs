//! When are offsets stored: every N messages, and not after each one; at once on request; and again after
//! a store did not arrive?

use std::time::Duration;

use rillway::wire::commands::keys;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, Home};
use crate::common::rstream::Rstream;
use crate::common::scripted::{Chunk, Say, Scripted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

/// Stores nothing by itself within the time of a test.
const NEVER: &str = r#"{ every = "1h", every_messages = 1000000000 }"#;

fn consumer(name: &str, stream: &str, commit: &str, sink: &str) -> String {
    format!(
        r#"
        [[consumer]]
        name = "{name}"
        stream = "{stream}"
        commit = {commit}
        batch = {{ max_age = "50ms", max_messages = 10 }}
        sink = {{ type = "{sink}" }}
        "#
    )
}

async fn stores(daemon: &Daemon, name: &str, result: &str) -> f64 {
    let (name, result) = (format!("consumer=\"{name}\""), format!("result=\"{result}\""));
    daemon.metric("rillway_offset_stores_total", &[&name, &result]).await.unwrap_or(0.0)
}

/// By both ways in which an operator requests it; the daemon continues as before.
async fn stored_at_once_where_asked(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "asked").await;
    let bodies = |range: std::ops::Range<u32>| range.map(|nth| nth.to_string());
    streams::publish(broker, &stream, bodies(0..20)).await;
    let consumers =
        [consumer("a", &stream, NEVER, "null"), consumer("b", &stream, NEVER, "stdout")].concat();
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    for name in ["a", "b"] {
        daemon.until_durable(name, 19).await;
        assert_eq!(streams::stored_offset(broker, &stream, name).await, None, "{name}");
    }

    let (status, body) = daemon.http("POST", "/api/v1/consumers/a/commit").await.unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(answer, json!({ "name": "a", "stored": [{ "stream": stream, "offset": 19 }] }));
    assert_eq!(rstream.stored_offset(&stream, "a").await, Some(19));
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, Some(19));
    assert_eq!(streams::stored_offset(broker, &stream, "b").await, None, "asked of a alone");
    assert_eq!(
        (stores(&daemon, "a", "stored").await, stores(&daemon, "b", "stored").await),
        (1.0, 0.0)
    );

    // A stored offset is not stored again, however often it is requested: that would grow the stream.
    for _ in 0..3 {
        let (status, again) = daemon.http("POST", "/api/v1/consumers/a/commit").await.unwrap();
        assert_eq!((status, again), (200, body.clone()));
    }
    assert_eq!(stores(&daemon, "a", "stored").await, 1.0);

    // The signal is for all of them.
    daemon.signal("USR1");
    eventually("the signal stores b's offset", SOON, || async {
        (streams::stored_offset(broker, &stream, "b").await == Some(19)).then_some(())
    })
    .await;
    streams::publish(broker, &stream, bodies(20..30)).await;
    let mut last = Value::Null;
    for name in ["a", "b"] {
        let all = daemon.until(name, "thirty are written", SOON, |c| {
            c["durable_offset"].as_u64() >= Some(29) && c["lag_messages"] == 0
        });
        last = all.await["durable_offset"].clone();
    }
    daemon.signal("USR1");
    for name in ["a", "b"] {
        eventually("the signal stores both offsets", SOON, || async {
            let stored = streams::stored_offset(broker, &stream, name).await;
            (stored == last.as_u64()).then_some(())
        })
        .await;
    }
    for name in ["a", "b"] {
        daemon.until(name, "it is seen", SOON, |c| c["stored_offset"] == last).await;
        assert_eq!(stores(&daemon, name, "stored").await, 2.0, "{name}");
    }
    let (status, _) = daemon.http("POST", "/api/v1/consumers/nobody/commit").await.unwrap();
    assert_eq!(status, 404);
    daemon.terminate().await;
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, last.as_u64());
    Ok(())
}

#[tokio::test]
async fn stored_at_once_where_asked_on_rabbitmq_3_10() {
    or_skip!(stored_at_once_where_asked(Version::V3_10).await);
}

#[tokio::test]
async fn stored_at_once_where_asked_on_rabbitmq_4_0() {
    or_skip!(stored_at_once_where_asked(Version::V4_0).await);
}

#[tokio::test]
async fn stored_at_once_where_asked_on_rabbitmq_4_3() {
    or_skip!(stored_at_once_where_asked(Version::V4_3).await);
}

/// 2,000 messages in batches of 10. At most as many stores as the policy says; and only one for several
/// batches that are written while a store is running; the last store at the end.
#[tokio::test]
async fn stored_every_n_messages_and_never_after_each_one() {
    let broker = or_skip!(Broker::shared(Version::V4_3).await);
    let stream = streams::create(broker, "every-n").await;
    streams::publish(broker, &stream, (0..2_000).map(|nth| nth.to_string())).await;
    let rows =
        [("by-100", 100, 20), ("by-700", 700, 2), ("by-1999", 1_999, 1), ("by-2001", 2_001, 0)];
    let consumers: String = rows
        .iter()
        .map(|(name, every, _)| {
            let commit = format!("{{ every = \"1h\", every_messages = {every} }}");
            consumer(name, &stream, &commit, "null")
        })
        .collect();
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    for (name, ..) in rows {
        daemon.until_durable(name, 1_999).await;
    }
    for (name, every, stores_max) in rows {
        // The store that was due when the last message became durable happens now or soon.
        let due = f64::from(u8::from(every <= 2_000));
        let stored = eventually("what is due is stored", SOON, || async {
            let stored = stores(&daemon, name, "stored").await;
            (stored >= due).then_some(stored)
        })
        .await;
        assert!(stored <= f64::from(stores_max), "{name}: {stored} stores");
    }
    daemon.terminate().await;
    for (name, ..) in rows {
        assert_eq!(streams::stored_offset(broker, &stream, name).await, Some(1_999), "{name}");
    }
}

/// One message at a time, each durable before the next is published: the count is exact.
#[tokio::test]
async fn the_stores_of_a_trickle_are_counted_exactly() {
    let broker = Scripted::start(Version::V4_3).await;
    let commit = r#"{ every = "1h", every_messages = 5 }"#;
    let home = Home::new(&broker.uri(), &consumer("c", "s", commit, "null"));
    let mut daemon = home.start();
    for nth in 0..23 {
        broker.append(Chunk::plain(nth, &["one"]));
        daemon.until_durable("c", nth).await;
        if nth % 5 == 4 {
            daemon.until("c", "it is stored", SOON, |c| c["stored_offset"] == nth).await;
        }
    }
    assert_eq!(stores(&daemon, "c", "stored").await, 4.0);
    daemon.terminate().await;
    let stored: Vec<u64> = broker.stores().into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(stored, [4, 9, 14, 19, 22]);
}

/// By time: soon after the durable offset moved, once, and not again while it does not move.
#[tokio::test]
async fn stored_by_time_only_where_something_moved() {
    let broker = Scripted::start(Version::V4_3).await;
    let commit = r#"{ every = "100ms", every_messages = 1000000000 }"#;
    let home = Home::new(&broker.uri(), &consumer("c", "s", commit, "null"));
    let mut daemon = home.start();
    for (chunk, last) in [(Chunk::plain(0, &["a", "b"]), 1), (Chunk::plain(2, &["c"]), 2)] {
        broker.append(chunk);
        daemon.until("c", "it is stored", SOON, |c| c["stored_offset"] == last).await;
        // Longer than many times the period: the observer looks at the stream once a second.
        let looked = broker.heard(keys::STREAM_STATS);
        eventually("a while passes", SOON, || async {
            (broker.heard(keys::STREAM_STATS) >= looked + 2).then_some(())
        })
        .await;
    }
    daemon.terminate().await;
    assert_eq!(broker.stores(), [("c".to_owned(), 1), ("c".to_owned(), 2)]);
}

/// StoreOffset has no answer: a dropped one is noticed, counted, and sent again.
#[tokio::test]
async fn a_store_that_was_dropped_is_sent_again() {
    for version in [Version::V3_10, Version::V4_3] {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(0, &["a", "b"]));
        broker.script(|heard| match heard.key {
            keys::STORE_OFFSET if heard.nth < 2 => Say::Nothing,
            _ => Say::Usual,
        });
        let home = Home::new(&broker.uri(), &consumer("c", "s", NEVER, "null"));
        let mut daemon = home.start();
        daemon.until_durable("c", 1).await;
        daemon.signal("USR1");
        daemon.until("c", "it is stored in the end", SOON, |c| c["stored_offset"] == 1).await;
        assert_eq!(stores(&daemon, "c", "not_confirmed").await, 2.0, "{version:?}");
        assert_eq!(stores(&daemon, "c", "stored").await, 1.0, "{version:?}");
        daemon.terminate().await;
        assert_eq!(broker.stored("c"), Some(1));
        assert_eq!(broker.heard(keys::STORE_OFFSET), 3);
    }
}
