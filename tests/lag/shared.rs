//! All streams of a node are observed over one connection: is it really one, and does a slow or missing
//! stream delay no other?

use std::time::{Duration, Instant};

use rillway::wire::commands::keys;

use super::LONG;
use crate::common::daemon::{Daemon, Home};
use crate::common::load::body;
use crate::common::proxy::Proxy;
use crate::common::scripted::{Chunk, Say, Scripted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

/// Observations come every second; one that is this late was delayed.
const LATE_SECONDS: f64 = 2.5;

fn consumer(name: &str, stream: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n\
         restart = {{ min_backoff = \"60s\", max_backoff = \"60s\" }}\n"
    )
}

/// Checks for a while that the streams of these consumers are observed every second.
async fn are_looked_at(daemon: &Daemon, names: &[String], time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for name in names {
            let said = daemon.consumer(name).await.unwrap();
            let age = said["stream_seen_age_seconds"].as_f64();
            assert!(age.is_some_and(|age| age < LATE_SECONDS), "{name}: {said}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_looked_at(daemon: &mut Daemon, names: &[String]) {
    for name in names {
        let seen = |c: &serde_json::Value| c["stream_seen_age_seconds"].is_f64();
        daemon.until(name, "its stream is looked at", LONG, seen).await;
    }
}

#[tokio::test]
async fn a_stream_that_nobody_answers_for_keeps_no_other_waiting() {
    let broker = Scripted::start(Version::V4_3).await;
    broker.append(Chunk::plain(0, &["a", "b", "c"]));
    broker.script(|heard| match heard.key {
        keys::STREAM_STATS if heard.payload.ends_with(b"slow") => Say::Nothing,
        _ => Say::Usual,
    });
    let good: Vec<_> = (0..5).map(|i| format!("good-{i}")).collect();
    let mut consumers: String = good.iter().map(|name| consumer(name, "good")).collect();
    consumers.push_str(&consumer("slow", "slow"));
    let settings = format!("uri = \"{}\"\nrequest_timeout = \"1s\"", broker.uri());
    let home = Home::with_broker(&settings, &consumers);
    let mut daemon = home.start();
    until_looked_at(&mut daemon, &good).await;
    // Several requests for the slow one fail.
    are_looked_at(&daemon, &good, Duration::from_secs(6)).await;
    let slow = daemon.consumer("slow").await.unwrap();
    assert!(slow["stream_seen_age_seconds"].is_null(), "{slow}");
    // One for each consumer, and one for all observations.
    assert_eq!(broker.connections(), 7, "{}", home.log_tail());
    daemon.terminate().await;
}

async fn one_connection(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let proxy = Proxy::to(broker.stream_port).await;
    let streams =
        [streams::create(broker, "shared").await, streams::create(broker, "shared").await];
    let names: Vec<_> = (0..20).map(|i| format!("c{i}")).collect();
    let of = |i: usize| &streams[i % streams.len()];
    let mut consumers: String =
        names.iter().enumerate().map(|(i, name)| consumer(name, of(i))).collect();
    consumers.push_str(&consumer("lost", &streams::unique("missing")));
    let settings = format!(
        "uri = \"{}\"\nheartbeat = \"2s\"\nfollow_advertised_hosts = false",
        broker.uri_by(proxy.port)
    );
    let home = Home::with_broker(&settings, &consumers);
    let mut daemon = home.start();
    until_looked_at(&mut daemon, &names).await;
    // The consumer without a stream has no connection, and no observation of its own.
    let enough = names.len() + 1;
    eventually("one connection more than consumers", LONG, || async {
        (proxy.open() == enough).then_some(())
    })
    .await;
    if version == Version::V4_3 {
        are_looked_at(&daemon, &names, Duration::from_secs(4)).await;
        assert_eq!(proxy.open(), enough, "{}", home.log_tail());
    }
    for stream in &streams {
        streams::publish(broker, stream, (0..10).map(body)).await;
    }
    for name in &names {
        daemon
            .until(name, "the end is seen, and no lag", LONG, |c| {
                c["stream_last_offset"].as_u64() >= Some(9) && c["lag_messages"] == 0
            })
            .await;
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn twenty_consumers_have_one_connection_more_on_rabbitmq_4_3() {
    or_skip!(one_connection(Version::V4_3).await);
}

#[tokio::test]
async fn twenty_consumers_have_one_connection_more_on_rabbitmq_3_10() {
    or_skip!(one_connection(Version::V3_10).await);
}
