//! Where does a consumer without a position begin? At each of the start positions, on each version, exact
//! to the message.
//!
//! The exact answer follows from how the streams are made here, and not from what the daemon or a client
//! says: each sub-entry batch is one entry, and so is in one chunk, which is confirmed before the next
//! one is published.

use std::time::Duration;

use crate::common::daemon::{Daemon, Home};
use crate::common::proxy::Proxy;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

/// Consumers that store nothing before they end: a stored offset takes an offset of the stream, and then
/// the offsets of the messages after it could not be predicted.
fn consumers(stream: &str, starts: &[(&str, String)]) -> String {
    starts
        .iter()
        .map(|(name, start)| {
            format!(
                r#"
                [[consumer]]
                name = "{name}"
                stream = "{stream}"
                start = {start}
                commit = {{ every = "1h", every_messages = 1000000000 }}
                batch = {{ max_age = "50ms" }}
                sink = {{ type = "file", dir = "{name}" }}
                "#
            )
        })
        .collect()
}

async fn all_run(daemon: &mut Daemon, starts: &[(&str, String)]) {
    for (name, _) in starts {
        daemon.until(name, "it runs", SOON, |c| c["state"] == "running").await;
    }
}

fn bodies(offsets: std::ops::Range<u64>) -> Vec<String> {
    offsets.map(|offset| format!("message {offset}")).collect()
}

fn outgoing(offsets: std::ops::Range<u64>) -> Vec<Outgoing> {
    bodies(offsets).iter().map(Outgoing::body).collect()
}

/// Waits until the last message is written.
async fn until_written(daemon: &mut Daemon, home: &Home, name: &str, stream: &str, last: u64) {
    let body = format!("message {last}");
    let landed = |_: &serde_json::Value| {
        home.lines(name, stream).last().is_some_and(|line| line["body"] == body.as_str())
    };
    daemon.until(name, &body, SOON, landed).await;
}

fn offsets_and_bodies(home: &Home, name: &str, stream: &str) -> Vec<(u64, String)> {
    let of = |line: &serde_json::Value| {
        (line["offset"].as_u64().unwrap(), line["body"].as_str().unwrap().to_owned())
    };
    home.lines(name, stream).iter().map(of).collect()
}

/// Every message from `from` on, as the consumer `all` has them, which began with the first. Storing a
/// beginning takes offsets: up to `exact` there are none of these.
#[track_caller]
fn assert_written(home: &Home, all: &str, name: &str, stream: &str, from: Begins, exact: u64) {
    let all = offsets_and_bodies(home, all, stream);
    let published: Vec<String> = all.iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(published, bodies(0..all.len() as u64));
    for (nth, (offset, _)) in all.iter().enumerate().take(usize::try_from(exact).unwrap()) {
        assert_eq!(*offset, nth as u64);
    }
    let skip = match from {
        Begins::Message(nth) => usize::try_from(nth).unwrap(),
        Begins::Offset(from) => all.iter().take_while(|(offset, _)| *offset < from).count(),
    };
    let found = offsets_and_bodies(home, name, stream);
    let ends = |all: &[(u64, String)]| (all.first().cloned(), all.last().cloned(), all.len());
    assert_eq!(ends(&found), ends(&all[skip..]), "{name}: first, last and how many");
    assert_eq!(found, all[skip..], "{name}");
}

/// The expected first message.
#[derive(Debug, Clone, Copy)]
enum Begins {
    /// The message with this number, counted from 0.
    Message(u64),
    /// The first one at or above this offset.
    Offset(u64),
}

fn now_ms() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

/// A time in milliseconds that is after everything confirmed so far and before everything published next.
/// The broker's clock is this machine's.
async fn a_moment_between() -> u128 {
    let moment = now_ms() + 1;
    eventually("the clock moves", SOON, || async { (now_ms() >= moment).then_some(()) }).await;
    moment
}

fn rfc3339(ms: u128) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
    format!("{{ timestamp = \"{at}\" }}")
}

async fn every_start_is_exact(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "starts").await;
    rstream.publish_batches(&stream, Compression::Gzip, 10, &outgoing(0..10)).await;
    streams::publish(broker, &stream, bodies(10..110)).await;
    let before_zstd = a_moment_between().await;
    rstream.publish_batches(&stream, Compression::Zstd, 20, &outgoing(110..130)).await;
    let before_last = a_moment_between().await;
    rstream.publish_batches(&stream, Compression::None, 30, &outgoing(130..160)).await;
    let at_the_end = a_moment_between().await;

    let offset = |n: u64| format!("{{ offset = {n} }}");
    let starts = [
        ("first", "\"first\"".to_owned(), 0),
        ("last", "\"last\"".to_owned(), 130),
        ("next", "\"next\"".to_owned(), 160),
        ("offset-0", offset(0), 0),
        ("offset-in-gzip", offset(7), 7),
        ("offset-at-a-batchs-last", offset(9), 9),
        ("offset-in-plain", offset(57), 57),
        ("offset-in-zstd", offset(119), 119),
        ("offset-in-uncompressed", offset(131), 131),
        ("offset-past-the-end", offset(203), 203),
        ("timestamp-of-zstd", rfc3339(before_zstd), 110),
        ("timestamp-of-the-last", rfc3339(before_last), 130),
        ("timestamp-past-the-end", rfc3339(at_the_end), 160),
        ("timestamp-long-ago", rfc3339(0), 0),
        ("ago-long", "{ ago = \"1h\" }".to_owned(), 0),
        ("ago-short", "{ ago = \"1ms\" }".to_owned(), 160),
    ];
    let configured: Vec<_> = starts.iter().map(|(name, start, _)| (*name, start.clone())).collect();
    let home = Home::new(&broker.uri(), &consumers(&stream, &configured));
    let mut daemon = home.start();
    all_run(&mut daemon, &configured).await;
    // Consumers of other streams are not delayed.
    for (name, _, first) in &starts {
        if *first < 160 {
            daemon.until_durable(name, 159).await;
        }
    }
    streams::publish(broker, &stream, bodies(160..300)).await;
    for (name, ..) in &starts {
        until_written(&mut daemon, &home, name, &stream, 299).await;
    }
    daemon.terminate().await;
    for (name, _, first) in &starts {
        let first = match *first {
            past if past > 160 => Begins::Offset(past),
            first => Begins::Message(first),
        };
        assert_written(&home, "first", name, &stream, first, 160);
    }
    Ok(())
}

#[tokio::test]
async fn every_start_is_exact_on_rabbitmq_3_10() {
    or_skip!(every_start_is_exact(Version::V3_10).await);
}

#[tokio::test]
async fn every_start_is_exact_on_rabbitmq_4_0() {
    or_skip!(every_start_is_exact(Version::V4_0).await);
}

#[tokio::test]
async fn every_start_is_exact_on_rabbitmq_4_3() {
    or_skip!(every_start_is_exact(Version::V4_3).await);
}

async fn every_start_works_on_an_empty_stream(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "empty").await;
    let starts = [
        ("first", "\"first\"".to_owned(), 0),
        ("last", "\"last\"".to_owned(), 0),
        ("next", "\"next\"".to_owned(), 0),
        ("offset-0", "{ offset = 0 }".to_owned(), 0),
        ("offset-7", "{ offset = 7 }".to_owned(), 7),
        ("timestamp", rfc3339(now_ms()), 0),
        ("ago", "{ ago = \"1h\" }".to_owned(), 0),
    ];
    let configured: Vec<_> = starts.iter().map(|(name, start, _)| (*name, start.clone())).collect();
    let home = Home::new(&broker.uri(), &consumers(&stream, &configured));
    let mut daemon = home.start();
    all_run(&mut daemon, &configured).await;
    streams::publish(broker, &stream, bodies(0..5)).await;
    streams::publish(broker, &stream, bodies(5..20)).await;
    for (name, ..) in &starts {
        daemon.until_durable(name, 19).await;
    }
    daemon.terminate().await;
    for (name, _, first) in &starts {
        assert_written(&home, "first", name, &stream, Begins::Offset(*first), 20);
    }
    Ok(())
}

#[tokio::test]
async fn every_start_works_on_an_empty_stream_on_rabbitmq_3_10() {
    or_skip!(every_start_works_on_an_empty_stream(Version::V3_10).await);
}

#[tokio::test]
async fn every_start_works_on_an_empty_stream_on_rabbitmq_4_0() {
    or_skip!(every_start_works_on_an_empty_stream(Version::V4_0).await);
}

#[tokio::test]
async fn every_start_works_on_an_empty_stream_on_rabbitmq_4_3() {
    or_skip!(every_start_works_on_an_empty_stream(Version::V4_3).await);
}

/// A running consumer has promised everything published from then on, even if its connection breaks
/// before the first message.
async fn a_start_is_kept_over_a_broken_connection(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "kept").await;
    streams::publish(broker, &stream, bodies(0..10)).await;
    let proxy = Proxy::to(broker.stream_port).await;
    let settings = format!(
        "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
        broker.uri_by(proxy.port)
    );
    let starts = [
        ("all", "\"first\"".to_owned(), Begins::Message(0)),
        ("next", "\"next\"".to_owned(), Begins::Message(10)),
        ("offset", "{ offset = 15 }".to_owned(), Begins::Offset(15)),
        ("ago", "{ ago = \"1ms\" }".to_owned(), Begins::Message(10)),
    ];
    let configured: Vec<_> = starts.iter().map(|(name, start, _)| (*name, start.clone())).collect();
    let home = Home::with_broker(&settings, &consumers(&stream, &configured));
    let mut daemon = home.start();
    all_run(&mut daemon, &configured).await;
    proxy.refuse();
    for (name, ..) in &starts {
        daemon.until(name, "it noticed", SOON, |c| c["state"] == "backoff").await;
    }
    streams::publish(broker, &stream, bodies(10..20)).await;
    streams::publish(broker, &stream, bodies(20..30)).await;
    proxy.resume();
    for (name, ..) in &starts {
        until_written(&mut daemon, &home, name, &stream, 29).await;
    }
    daemon.terminate().await;
    for (name, _, first) in &starts {
        assert_written(&home, "all", name, &stream, *first, 10);
    }
    Ok(())
}

#[tokio::test]
async fn a_start_is_kept_over_a_broken_connection_on_rabbitmq_3_10() {
    or_skip!(a_start_is_kept_over_a_broken_connection(Version::V3_10).await);
}

#[tokio::test]
async fn a_start_is_kept_over_a_broken_connection_on_rabbitmq_4_0() {
    or_skip!(a_start_is_kept_over_a_broken_connection(Version::V4_0).await);
}

#[tokio::test]
async fn a_start_is_kept_over_a_broken_connection_on_rabbitmq_4_3() {
    or_skip!(a_start_is_kept_over_a_broken_connection(Version::V4_3).await);
}

/// For a future time the broker would begin with the next written message. Messages from before the given
/// time are left out, also after restarts, and no message after it.
async fn a_time_that_is_still_to_come(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let published_before = if version == Version::V4_0 { 0 } else { 10 };
    let stream = streams::create(broker, "future").await;
    streams::publish(broker, &stream, bodies(0..published_before)).await;
    let time = now_ms() + 15_000;
    let starts = [("c", rfc3339(time))];
    let home = Home::new(&broker.uri(), &consumers(&stream, &starts));
    let mut daemon = home.start();
    all_run(&mut daemon, &starts).await;
    let early = published_before..published_before + 10;
    streams::publish(broker, &stream, bodies(early.clone())).await;
    daemon.terminate().await;
    let mut daemon = home.start();
    all_run(&mut daemon, &starts).await;
    let more = early.end..early.end + 5;
    streams::publish(broker, &stream, bodies(more.clone())).await;
    assert!(now_ms() < time, "this machine is too slow for the test to show anything");
    eventually("the time has come", SOON, || async { (now_ms() > time).then_some(()) }).await;
    streams::publish(broker, &stream, bodies(more.end..more.end + 20)).await;
    let last = more.end + 19;
    until_written(&mut daemon, &home, "c", &stream, last).await;
    daemon.terminate().await;
    let found: Vec<String> =
        offsets_and_bodies(&home, "c", &stream).into_iter().map(|(_, body)| body).collect();
    assert_eq!(found, bodies(more.end..last + 1), "{published_before} before");
    assert!(home.log().contains("the first chunk written at 20"), "{}", home.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_time_that_is_still_to_come_on_rabbitmq_3_10() {
    or_skip!(a_time_that_is_still_to_come(Version::V3_10).await);
}

#[tokio::test]
async fn a_time_that_is_still_to_come_on_rabbitmq_4_0() {
    or_skip!(a_time_that_is_still_to_come(Version::V4_0).await);
}

#[tokio::test]
async fn a_time_that_is_still_to_come_on_rabbitmq_4_3() {
    or_skip!(a_time_that_is_still_to_come(Version::V4_3).await);
}
