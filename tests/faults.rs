//! The broker stops, the network breaks, a peer goes silent, a stream is deleted: does consuming continue
//! by itself, with nothing lost or duplicated in the files?

use std::time::{Duration, Instant};

use bytes::BufMut;
use rillway::wire::commands::keys;
use serde_json::Value;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, assert_exact, body};
use crate::common::proxy::Proxy;
use crate::common::scripted::{Chunk, Scripted, frame};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

/// Of the tests in which a peer is silent.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Delay between an event and the test's view of it: polling, on a machine that may stall.
const MARGIN: Duration = Duration::from_secs(6);

const LONG: Duration = Duration::from_secs(60);

fn filer(name: &str, stream: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n\
         sink = {{ type = \"file\", dir = \"{name}\" }}\n\
         batch = {{ max_messages = 50, max_age = \"50ms\" }}\n\
         commit = {{ every_messages = 500, every = \"200ms\" }}\n\
         restart = {{ min_backoff = \"50ms\", max_backoff = \"1s\" }}\n"
    )
}

/// Through the proxy only.
fn behind(broker: &Broker, proxy: &Proxy, consumers: &str) -> Home {
    let settings = format!(
        "uri = \"{}\"\nheartbeat = \"{}s\"\nfollow_advertised_hosts = false",
        broker.uri_by(proxy.port),
        HEARTBEAT.as_secs()
    );
    Home::with_broker(&settings, consumers)
}

fn running(consumer: &Value) -> bool {
    consumer["state"] == "running"
}

/// Waits until something new is written. Only under a continuous load: of a backlog, everything may be
/// written by now.
async fn until_more(daemon: &mut Daemon, name: &str) {
    let written = |c: &Value| c["durable_offset"].as_u64();
    let before = daemon.consumer(name).await.and_then(|c| written(&c));
    daemon.until(name, "something more is written", LONG, |c| written(c) > before).await;
}

/// Waits until a consumer reports that it cannot work, and why.
async fn until_trouble(daemon: &mut Daemon, name: &str, within: Duration, why: &str) -> String {
    let what = format!("{name} not running: {why}");
    let says = |c: &Value| c["reason"].as_str().is_some_and(|reason| reason.contains(why));
    let trouble = daemon.until(name, &what, within, |c| !running(c) && says(c)).await;
    assert_eq!(trouble["ready"], false);
    trouble["reason"].as_str().unwrap().to_owned()
}

async fn broker_away() -> Result<(), Unavailable> {
    const EACH: u64 = 8_000;
    let broker = Broker::private(Version::V4_3).await?;
    let stream = streams::create(&broker, "restarted").await;
    let home = Home::new(&broker.uri(), &filer("filer", &stream));
    streams::publish(&broker, &stream, (0..EACH).map(body)).await;
    let mut daemon = home.start();
    for round in 1..=2 {
        // In the middle of a backlog, or just behind it if this test is slower than the daemon.
        daemon
            .until("filer", "a part of this round is written", LONG, |consumer| {
                consumer["durable_offset"].as_u64() >= Some(EACH * (round - 1))
            })
            .await;
        match round {
            1 => broker.stop().await,
            _ => broker.kill().await,
        }
        until_trouble(&mut daemon, "filer", LONG, "").await;
        assert_eq!(daemon.http("GET", "/readyz").await.unwrap().0, 503);
        assert_eq!(daemon.http("GET", "/livez").await.unwrap().0, 200);
        broker.start().await;
        daemon.until("filer", "running again", LONG, running).await;
        streams::publish(&broker, &stream, (EACH * round..EACH * (round + 1)).map(body)).await;
    }
    home.until_landed(&daemon, "filer", &stream, 3 * EACH).await;
    let log = home.log();
    assert!(!log.contains("failed; starting it again"), "only the connection was lost");
    daemon.terminate().await;
    let lines = home.lines("filer", &stream);
    assert_exact("files", &lines, 3 * EACH);
    let stored = streams::stored_offset(&broker, &stream, "filer").await;
    assert_eq!(stored, lines.last().unwrap()["offset"].as_u64());
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_restarted() {
    or_skip!(broker_away().await);
}

async fn connection_cut() -> Result<(), Unavailable> {
    const CUTS: u32 = 10;
    let broker = Broker::shared(Version::V4_0).await?;
    let proxy = Proxy::to(broker.stream_port).await;
    let stream = streams::create(broker, "cut").await;
    let home = behind(broker, &proxy, &filer("filer", &stream));
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut daemon = home.start();
    let lost = async |daemon: &Daemon| {
        daemon.metric("rillway_restarts_total", &["reason=\"connection\""]).await
    };
    for _ in 0..CUTS {
        daemon.until("filer", "running", LONG, running).await;
        until_more(&mut daemon, "filer").await;
        let before = lost(&daemon).await;
        proxy.cut();
        eventually("the loss is counted", LONG, || async {
            (lost(&daemon).await > before).then_some(())
        })
        .await;
    }
    let total = load.stop().await;
    home.until_landed(&daemon, "filer", &stream, total).await;
    let counted = lost(&daemon).await;
    assert!(counted >= Some(f64::from(CUTS)), "{CUTS} cuts, counted: {counted:?}");
    daemon.terminate().await;
    assert_exact("files", &home.lines("filer", &stream), total);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again() {
    or_skip!(connection_cut().await);
}

/// A silent peer is noticed within two heartbeats after its last sign of life. It is not noticed at once
/// either: that would be a closed connection.
async fn noticed(daemon: &mut Daemon, silent: Instant) {
    let within = (2 * HEARTBEAT + MARGIN).saturating_sub(silent.elapsed());
    until_trouble(daemon, "filer", within, "silent").await;
    let after = silent.elapsed();
    eprintln!("noticed after {after:?}");
    assert!(after > HEARTBEAT / 2, "noticed after {after:?}: it cannot have been for silence");
}

async fn network_silent() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let proxy = Proxy::to(broker.stream_port).await;
    let stream = streams::create(broker, "silent").await;
    let home = behind(broker, &proxy, &filer("filer", &stream));
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut daemon = home.start();
    until_more(&mut daemon, "filer").await;
    proxy.silence();
    noticed(&mut daemon, Instant::now()).await;
    proxy.resume();
    daemon.until("filer", "running", LONG, running).await;
    let total = load.stop().await;
    home.until_landed(&daemon, "filer", &stream, total).await;
    daemon.terminate().await;
    assert_exact("files", &home.lines("filer", &stream), total);
    Ok(())
}

#[tokio::test]
async fn a_network_that_goes_silent() {
    or_skip!(network_silent().await);
}

/// Also on a connection with nothing to deliver, where only heartbeats show it.
async fn broker_frozen_and_closing() -> Result<(), Unavailable> {
    let broker = Broker::private(Version::V4_3).await?;
    let stream = streams::create(&broker, "frozen").await;
    let heartbeat = format!("{}s", HEARTBEAT.as_secs());
    let home = Home::with_heartbeat(&broker.uri(), &heartbeat, &filer("filer", &stream));
    streams::publish(&broker, &stream, (0..1000).map(body)).await;
    let mut daemon = home.start();
    daemon.until_durable("filer", 999).await;
    broker.freeze().await;
    noticed(&mut daemon, Instant::now()).await;
    broker.thaw().await;
    daemon.until("filer", "running", LONG, running).await;
    streams::publish(&broker, &stream, (1000..2000).map(body)).await;
    home.until_landed(&daemon, "filer", &stream, 2000).await;

    // RabbitMQ gives no reason here: it closes the connection.
    broker.ctl(&["rabbitmqctl", "close_all_connections", "maintenance"]).await;
    eventually("the end of the connection in the log", LONG, || async {
        let said = |line: &str| line.contains("WARN") && line.contains("closed the socket");
        home.log().lines().any(said).then_some(())
    })
    .await;
    daemon.until("filer", "running", LONG, running).await;
    streams::publish(&broker, &stream, (2000..3000).map(body)).await;
    home.until_landed(&daemon, "filer", &stream, 3000).await;
    daemon.terminate().await;
    assert_exact("files", &home.lines("filer", &stream), 3000);
    Ok(())
}

/// The server's Close in the middle of the stream: it is answered, its code and reason are logged, and
/// the consumer connects again.
#[tokio::test]
async fn a_broker_that_closes_with_a_reason() {
    const VIRTUAL_HOST_ACCESS_FAILURE: u16 = 0x0c;
    let broker = Scripted::start(Version::V4_3).await;
    broker.append(Chunk::plain(0, &["one", "two"]));
    let home = Home::new(&broker.uri(), &filer("filer", "scripted"));
    let mut daemon = home.start();
    daemon.until_durable("filer", 1).await;
    let (connections, reason) = (broker.connections(), "maintenance at noon");
    broker.say(frame(keys::CLOSE, 1, |out| {
        out.put_u32(7);
        out.put_u16(VIRTUAL_HOST_ACCESS_FAILURE);
        out.put_u16(reason.len() as u16);
        out.put_slice(reason.as_bytes());
    }));
    eventually("the broker's reason in the log", LONG, || async {
        let said = |line: &str| line.contains("WARN") && line.contains(reason);
        home.log().lines().any(said).then_some(())
    })
    .await;
    assert!(broker.heard(keys::CLOSE) > 0, "the Close was not answered");
    broker.append(Chunk::plain(2, &["three"]));
    daemon.until_durable("filer", 2).await;
    assert!(broker.connections() > connections);
    daemon.terminate().await;
    assert_eq!(home.offsets("filer", "scripted"), [0, 1, 2]);
}

#[tokio::test]
async fn a_broker_that_freezes_and_one_that_closes_every_connection() {
    or_skip!(broker_frozen_and_closing().await);
}

/// The content of a stream that was re-created under a consumer that had read 1000 messages.
const CREATED_AGAIN: [(&str, u64); 3] = [("empty", 0), ("shorter", 500), ("longer", 3000)];

async fn stream_deleted(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let other = streams::create(broker, "kept").await;
    let mut all = vec![("other", other.clone())];
    for (name, _) in CREATED_AGAIN {
        all.push((name, streams::create(broker, name).await));
    }
    let home = Home::new(
        &broker.uri(),
        &all.iter().map(|(name, stream)| filer(name, stream)).collect::<String>(),
    );
    let mut daemon = home.start();
    for (name, stream) in &all {
        streams::publish(broker, stream, (0..1000).map(body)).await;
        daemon.until_durable(name, 999).await;
    }
    for (name, stream) in &all[1..] {
        streams::delete(broker, stream).await;
        let reason = until_trouble(&mut daemon, name, LONG, "does not exist").await;
        assert!(reason.contains(stream.as_str()), "{reason}");
    }
    // No other consumer was disturbed.
    let kept = daemon.consumer("other").await.unwrap();
    assert!(running(&kept) && kept["ready"] == true, "{kept}");
    streams::publish(broker, &other, (1000..2000).map(body)).await;
    home.until_landed(&daemon, "other", &other, 2000).await;

    for ((name, messages), (_, stream)) in CREATED_AGAIN.iter().zip(&all[1..]) {
        let state = daemon.consumer(name).await.unwrap()["state"].clone();
        assert!(state == "backoff" || state == "connecting", "{name} keeps trying: {state}");
        streams::create_named(broker, stream, &[]).await;
        streams::publish(broker, stream, (0..*messages).map(|i| body(i + 1_000_000))).await;
    }
    for ((name, _), (_, stream)) in CREATED_AGAIN.iter().zip(&all[1..]) {
        let reason = daemon.until_halted(name).await;
        assert!(reason.contains("is lost") && reason.contains("on_offset_lost"), "{reason}");
        eprintln!("{name}: {reason}");
        assert_exact(name, &home.lines(name, stream), 1000);
    }
    let (status, text) = daemon.http("GET", "/readyz").await.unwrap();
    assert_eq!(status, 503, "{text}");
    daemon.terminate().await;
    assert_exact("other", &home.lines("other", &other), 2000);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_deleted_and_created_again_on_rabbitmq_3_10() {
    or_skip!(stream_deleted(Version::V3_10).await);
}

#[tokio::test]
async fn a_stream_that_is_deleted_and_created_again_on_rabbitmq_4_3() {
    or_skip!(stream_deleted(Version::V4_3).await);
}
