//! All streams of a node are observed over one connection: is it really one, and does a slow or missing
//! stream delay no other?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rillway::wire::commands::keys;

use super::LONG;
use crate::common::daemon::{Daemon, Home};
use crate::common::load::body;
use crate::common::proxy::Proxy;
use crate::common::scripted::{Chunk, Say, Scripted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

fn consumer(name: &str, stream: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n\
         restart = {{ min_backoff = \"60s\", max_backoff = \"60s\" }}\n"
    )
}

/// Waits until the streams of these consumers have been observed so many times from now on.
async fn until_looked_at_again(daemon: &mut Daemon, names: &[String], times: u32) {
    for _ in 0..times {
        let began = Instant::now();
        for name in names {
            let seen_since = |c: &serde_json::Value| {
                let age = c["stream_seen_age_seconds"].as_f64();
                age.is_some_and(|age| age < began.elapsed().as_secs_f64())
            };
            daemon.until(name, "its stream is looked at again", LONG, seen_since).await;
        }
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
    let asked = Arc::new(AtomicU64::new(0));
    let asks = Arc::clone(&asked);
    broker.script(move |heard| match heard.key {
        keys::STREAM_STATS if heard.payload.ends_with(b"slow") => {
            asks.fetch_add(1, Ordering::SeqCst);
            Say::Nothing
        }
        _ => Say::Usual,
    });
    let good: Vec<_> = (0..5).map(|i| format!("good-{i}")).collect();
    let mut consumers: String = good.iter().map(|name| consumer(name, "good")).collect();
    consumers.push_str(&consumer("slow", "slow"));
    let settings = format!("uri = \"{}\"\nrequest_timeout = \"15s\"", broker.uri());
    let home = Home::with_broker(&settings, &consumers);
    let mut daemon = home.start();
    until_looked_at(&mut daemon, &good).await;
    // While the requests for the slow one wait, of its consumer and of who looks at it; and after they have failed.
    for nth in 2..=3 {
        eventually("the slow one is asked for", LONG, || async {
            (asked.load(Ordering::SeqCst) >= nth).then_some(())
        })
        .await;
        until_looked_at_again(&mut daemon, &good, 3).await;
        assert_eq!(asked.load(Ordering::SeqCst), nth, "the others waited for its end");
    }
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
        "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
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
        until_looked_at_again(&mut daemon, &names, 3).await;
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
