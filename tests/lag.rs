//! Lag: does it fall to 0, and stay there, once everything is written, also on a stream where only the
//! broker's own chunks for stored offsets follow? Does it grow for a consumer that has halted? Does
//! headroom shrink as retention comes near?
//!
//! - [`truth`]: do the figures agree, second by second, with another client's?
//! - [`figures`]: figures that were once wrong
//! - [`shared`]: one connection for all streams of a node
//! - [`lookout`]: a stream that is no longer observed leaves nothing behind

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::body;
use crate::common::rstream::{Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

mod figures;
mod lookout;
mod shared;
mod truth;

const LONG: Duration = Duration::from_secs(60);

fn filer(stream: &str, more: &str) -> String {
    format!(
        "[[consumer]]\nname = \"filer\"\nstream = \"{stream}\"\n\
         sink = {{ type = \"file\", dir = \"filer\" }}\ncommit = {{ every = \"500ms\" }}\n{more}\n"
    )
}

/// Both lags, by the metrics; each a number, and never below 0.
async fn lag(daemon: &Daemon) -> Option<(f64, f64)> {
    let messages = daemon.metric("rillway_lag_messages", &["filer"]).await?;
    let seconds = daemon.metric("rillway_lag_seconds", &["filer"]).await?;
    assert!(messages.is_finite() && messages >= 0.0, "{messages} messages");
    assert!(seconds.is_finite() && seconds >= 0.0, "{seconds} seconds");
    Some((messages, seconds))
}

async fn until_no_lag(daemon: &Daemon) {
    eventually("no lag", LONG, || async { (lag(daemon).await? == (0.0, 0.0)).then_some(()) }).await;
}

async fn falls_to_zero(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "lag").await;
    let home = Home::new(&broker.uri(), &filer(&stream, ""));
    let mut daemon = home.start();
    // Of an empty stream, too.
    until_no_lag(&daemon).await;
    for round in 1..=2 {
        streams::publish(broker, &stream, (1000 * (round - 1)..1000 * round).map(body)).await;
        home.until_landed(&daemon, "filer", &stream, 1000 * round).await;
        // The last offset is stored: now there is a chunk behind it that no consumer receives.
        let last = home.lines("filer", &stream).last().unwrap()["offset"].clone();
        daemon
            .until("filer", "all is written and stored", LONG, |c| {
                c["durable_offset"] == last && c["stored_offset"] == last
            })
            .await;
        if version != Version::V3_10 {
            // Only for versions that report it.
            daemon
                .until("filer", "the chunk of the stored offset is seen", LONG, |c| {
                    c["stream_last_offset"].as_u64() > c["durable_offset"].as_u64()
                })
                .await;
        }
        until_no_lag(&daemon).await;
        // And it stays there, for longer than the time between two observations of the stream.
        let looks = Instant::now();
        while looks.elapsed() < Duration::from_secs(3) {
            assert_eq!(lag(&daemon).await, Some((0.0, 0.0)), "nothing came, and lag is back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(daemon.http("GET", "/readyz").await.unwrap().0, 200);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn it_falls_to_zero_on_rabbitmq_3_10() {
    or_skip!(falls_to_zero(Version::V3_10).await);
}

#[tokio::test]
async fn it_falls_to_zero_on_rabbitmq_4_0() {
    or_skip!(falls_to_zero(Version::V4_0).await);
}

#[tokio::test]
async fn it_falls_to_zero_on_rabbitmq_4_3() {
    or_skip!(falls_to_zero(Version::V4_3).await);
}

/// A hundred messages, one that cannot be read, and a hundred more: it halts at the bad one.
async fn halted(version: Version) -> Result<(), Unavailable> {
    let started = Instant::now();
    let broker = Broker::shared(version).await?;
    // Retention drops everything beyond a million bytes, segment by segment.
    let retention = [("max-length-bytes", "1000000"), ("stream-max-segment-size-bytes", "500000")];
    let stream = streams::create_with(broker, "halted", &retention).await;
    let rstream = Rstream::at(broker).await?;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    rstream.publish(&stream, &[Outgoing::raw([0x00, 0x53, 0x75, 0xA0, 200, b'x'])]).await;
    streams::publish(broker, &stream, (101..201).map(body)).await;

    let home = Home::new(&broker.uri(), &filer(&stream, "on_bad_message = \"halt\""));
    let mut daemon = home.start();
    let reason = daemon.until_halted("filer").await;
    assert!(reason.contains("offset 100 ") && reason.contains("on_bad_message"), "{reason}");
    assert_eq!(home.offsets("filer", &stream), (0..100).collect::<Vec<_>>());

    // One bad message and a hundred good ones, and what the broker itself added.
    let behind = |c: &Value| c["lag_messages"].as_u64().is_some_and(|n| (101..=105).contains(&n));
    let before = daemon.until("filer", "a lag of 101 or a few more", LONG, behind).await;
    assert_eq!(before["headroom_messages"], 100);
    let ready = daemon.http("GET", "/readyz").await.unwrap();
    assert_eq!(ready.0, 503);
    assert!(ready.1.contains("offset 100 "), "{}", ready.1);
    assert_eq!(daemon.http("GET", "/livez").await.unwrap().0, 200);
    let state = daemon.metric("rillway_consumer_state", &["filer", "state=\"halted\""]).await;
    assert_eq!(state, Some(1.0));

    // The first message that is not written grows older by a second each second.
    let began = Instant::now();
    let (_, age) = lag(&daemon).await.unwrap();
    eventually("lag in seconds grows", LONG, || async {
        (lag(&daemon).await?.1 >= age + 3.0).then_some(())
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(1), "it grew too fast");
    let (_, age) = lag(&daemon).await.unwrap();
    assert!(age < started.elapsed().as_secs_f64(), "{age} s: older than this test");

    streams::publish(broker, &stream, (0..50).map(|i| body(i + 1000))).await;
    let more = before["lag_messages"].as_u64().unwrap() + 50;
    daemon
        .until("filer", "lag in messages grows", LONG, |c| c["lag_messages"].as_u64() >= Some(more))
        .await;

    // Retention comes nearer, and passes the position.
    let headroom = async || daemon.metric("rillway_retention_headroom_messages", &["filer"]).await;
    assert_eq!(headroom().await, Some(100.0));
    let large = "x".repeat(1000);
    eventually("headroom counts down", LONG, || async {
        streams::publish(broker, &stream, (0..500).map(|_| large.clone())).await;
        (headroom().await? < 0.0).then_some(())
    })
    .await;
    let shown = daemon.consumer("filer").await.unwrap();
    assert!(shown["headroom_messages"].as_i64() < Some(0), "as the metric has it: {shown}");
    assert!(shown["stream_first_offset"].as_u64() > Some(100), "{shown}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn it_grows_for_a_halted_consumer_on_rabbitmq_3_10() {
    or_skip!(halted(Version::V3_10).await);
}

#[tokio::test]
async fn it_grows_for_a_halted_consumer_on_rabbitmq_4_3() {
    or_skip!(halted(Version::V4_3).await);
}
