//! Figures that were once wrong, each as it was found.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LONG, filer, lag};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, body};
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, eventually, streams};

/// The sum of a counter over one of its labels.
async fn sum(daemon: &Daemon, name: &str) -> Option<f64> {
    let (_, text) = daemon.http("GET", "/metrics").await?;
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn halted_on_another_incarnation(restarted: bool) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "shorter").await;
    streams::publish(broker, &stream, (0..8000).map(body)).await;
    let home = Home::new(&broker.uri(), &filer(&stream, ""));
    let mut daemon = home.start();
    daemon.until_durable("filer", 7999).await;
    if restarted {
        daemon.terminate().await;
        streams::delete(broker, &stream).await;
        streams::create_named(broker, &stream, &[]).await;
        streams::publish(broker, &stream, (0..5000).map(body)).await;
        daemon = home.start();
    } else {
        streams::delete(broker, &stream).await;
        streams::create_named(broker, &stream, &[]).await;
        streams::publish(broker, &stream, (0..5000).map(body)).await;
    }
    daemon.until_halted("filer").await;
    let shown = daemon
        .until("filer", "all of the new stream waits", LONG, |c| c["lag_messages"] == 5000)
        .await;
    assert_eq!(shown["stream_last_offset"], 4999);
    eventually("its age grows", LONG, || async { (lag(&daemon).await?.1 > 3.0).then_some(()) })
        .await;
    // The API and the metrics agree, and no connection was lost.
    let shown = daemon.consumer("filer").await.unwrap();
    let counted = sum(&daemon, "rillway_restarts_total").await;
    assert_eq!(shown["restarts"].as_f64(), counted);
    let lost = daemon.metric("rillway_restarts_total", &["reason=\"connection\""]).await;
    assert_eq!(lost, Some(0.0), "{}", home.log_tail());
    assert_eq!(restarted, counted == Some(0.0), "{counted:?}");
    daemon.terminate().await;
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_halts_on_a_re_created_stream() {
    or_skip!(halted_on_another_incarnation(false).await);
}

#[tokio::test]
async fn a_consumer_that_begins_on_a_re_created_stream() {
    or_skip!(halted_on_another_incarnation(true).await);
}

async fn outage() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "outage").await;
    let proxy = Proxy::to(broker.stream_port).await;
    let consumers = filer(&stream, "");
    let home = Home::with_broker(
        &format!(
            "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
            broker.uri_by(proxy.port)
        ),
        &consumers,
    );
    let mut daemon = home.start();
    let load = Load::on(broker, &stream, Pace::BRISK);
    daemon.until_durable("filer", 1000).await;
    proxy.refuse();
    let cut = Instant::now();
    daemon.until("filer", "away", LONG, |c| c["state"] == "backoff").await;
    // What is not written yet was published after the outage began, or just before it.
    eventually("the age grows with the outage", LONG, || async {
        let (_, age) = lag(&daemon).await?;
        (age >= 5.0 && age <= cut.elapsed().as_secs_f64() + 10.0).then_some(())
    })
    .await;
    // One row shows one moment, whenever it is read.
    let row = daemon
        .until("filer", "away, and not looked at, for three seconds", LONG, |c| {
            ["stream_seen_age_seconds", "ready_age_seconds"]
                .iter()
                .all(|age| c[*age].as_f64() > Some(3.0))
        })
        .await;
    let of = |key: &str| row[key].as_u64().unwrap();
    let (end, durable) = (of("stream_last_offset"), of("durable_offset"));
    assert!([0, end - durable].contains(&of("lag_messages")), "{row}");
    let restarts = row["restarts"].as_f64();
    assert!(restarts > Some(0.0) && sum(&daemon, "rillway_restarts_total").await >= restarts);
    proxy.resume();
    load.stop().await;
    eventually("no lag", LONG, || async { (lag(&daemon).await? == (0.0, 0.0)).then_some(()) })
        .await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn an_outage_of_a_consumer_that_kept_up() {
    or_skip!(outage().await);
}

/// A sink without a position of its own: the offset that it resumed from counts as durable.
async fn idle_after_a_restart() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "idle-restart").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let web = Web::start(|_| Reply::Keep).await;
    let consumer = format!(
        "[[consumer]]\nname = \"web\"\nstream = \"{stream}\"\nsink = {{ type = \"http\", url = \"{}\" }}\n",
        web.url()
    );
    let home = Home::new(&broker.uri(), &consumer);
    let mut daemon = home.start();
    daemon.until_durable("web", 99).await;
    daemon.terminate().await;
    let mut daemon = home.start();
    let is_idle = |c: &Value| {
        c["durable_offset"] == 99 && c["headroom_messages"] == 100 && c["ready"] == true
    };
    daemon.until("web", "it waits behind the last message", LONG, is_idle).await;
    let durable = async || daemon.metric("rillway_durable_offset", &["web"]).await;
    assert_eq!(durable().await, Some(99.0));
    // Nothing became durable in this run; the broker has answered in it.
    assert_eq!(daemon.metric("rillway_last_durable_timestamp_seconds", &["web"]).await, None);
    let began = daemon.metric("process_start_time_seconds", &[]).await.unwrap();
    let contact = daemon.metric("rillway_last_contact_timestamp_seconds", &["web"]).await;
    assert!(contact >= Some(began), "{contact:?} {began}");
    assert_eq!(daemon.metric("rillway_consumer_ready", &["web"]).await, Some(1.0));
    for name in
        ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_threads"]
    {
        assert!(daemon.metric(name, &[]).await > Some(0.0), "{name}");
    }
    assert!(daemon.metric("process_cpu_seconds_total", &[]).await.is_some());
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn an_idle_stream_after_a_restart() {
    or_skip!(idle_after_a_restart().await);
}

async fn sink_fails() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "sink-fails").await;
    let web = Web::start(|_| Reply::status(503)).await;
    let consumer = format!(
        "[[consumer]]\nname = \"web\"\nstream = \"{stream}\"\nsink = {{ type = \"http\", url = \"{}\" }}\n",
        web.url()
    );
    let home = Home::new(&broker.uri(), &consumer);
    let mut daemon = home.start();
    let waits = daemon.until("web", "it runs", LONG, |c| c["state"] == "running").await;
    assert_eq!(
        waits["headroom_messages"],
        Value::Null,
        "nothing is durable, and nothing is near: {waits}"
    );
    streams::publish(broker, &stream, (0..4).map(body)).await;
    let shown = daemon.until("web", "degraded", LONG, |c| c["state"] == "degraded").await;
    assert!(shown["reason"].as_str().unwrap().contains("503"), "{shown}");
    let age = |c: &Value| c["ready_age_seconds"].as_f64();
    daemon
        .until("web", "since three seconds", LONG, |c| {
            c["state"] == "degraded" && age(c) > Some(3.0)
        })
        .await;
    let (_, page) = daemon.http("GET", "/").await.unwrap();
    assert!(page.contains("<b>degraded</b> <span class=\"soft\">for "), "{page}");
    for (state, value) in [("degraded", 1.0), ("running", 0.0)] {
        let label = format!("state=\"{state}\"");
        assert_eq!(daemon.metric("rillway_consumer_state", &["web", &label]).await, Some(value));
    }
    assert_eq!(daemon.metric("rillway_consumer_ready", &["web"]).await, Some(0.0));
    let held = daemon.metric("rillway_buffered_bytes", &["web"]).await;
    let row = daemon.consumer("web").await.unwrap();
    assert!(held > Some(0.0) && held == row["buffered_bytes"].as_f64(), "{held:?} {row}");
    let (messages, seconds) = {
        let messages = daemon.metric("rillway_lag_messages", &["web"]).await;
        (messages, daemon.metric("rillway_lag_seconds", &["web"]).await)
    };
    assert!(messages == Some(4.0) && seconds > Some(3.0), "{messages:?} {seconds:?}");
    daemon.kill();
    Ok(())
}

#[tokio::test]
async fn a_sink_that_fails_for_long() {
    or_skip!(sink_fails().await);
}

/// Nothing to store for a long time, and then something: it has not been behind for that long.
async fn store_age() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "store-age").await;
    let commit =
        "[[consumer]]\nname = \"c\"\nsink = { type = \"null\" }\ncommit = { every = \"1h\" }\n";
    let home = Home::new(&broker.uri(), &format!("{commit}stream = \"{stream}\"\n"));
    let mut daemon = home.start();
    daemon.until("c", "it runs", LONG, |c| c["state"] == "running").await;
    let quiet = Instant::now();
    eventually("some quiet time", LONG, || async {
        (quiet.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
    let before = Instant::now();
    streams::publish(broker, &stream, (0..4).map(body)).await;
    daemon.until_durable("c", 3).await;
    eventually("its age grows", LONG, || async {
        let age = daemon.metric("rillway_offset_store_age_seconds", &["c"]).await?;
        let behind = before.elapsed().as_secs_f64();
        assert!(age <= behind, "{age} s, of which nothing was behind but for {behind} s");
        (age > 2.0).then_some(())
    })
    .await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn an_offset_is_behind_only_since_there_is_one_to_store() {
    or_skip!(store_age().await);
}

/// Only the sink knows the position, and it cannot be opened: the stored offset serves.
async fn dead_database() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "dead-database").await;
    streams::publish(broker, &stream, (0..200).map(body)).await;
    let reference = streams::unique("db");
    streams::store_offset(broker, &stream, &reference, 99).await;
    let nobody = crate::common::ports::nobody();
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"db\"\nreference = \"{reference}\"\nstream = \"{stream}\"\n\
             sink = {{ type = \"postgres\", url = \"postgres://me@{nobody}/db\", table = \"t\" }}\n"
        ),
    );
    let mut daemon = home.start();
    let behind = |c: &Value| c["lag_messages"].as_u64().is_some_and(|n| (100..105).contains(&n));
    let older = |c: &Value| c["lag_seconds"].as_f64() > Some(3.0);
    let shown = daemon.until("db", "its lag grows", LONG, |c| behind(c) && older(c)).await;
    assert_eq!((&shown["ready"], &shown["stored_offset"]), (&false.into(), &99.into()), "{shown}");
    assert_eq!(shown["headroom_messages"], 100, "{shown}");
    daemon.kill();
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_away_from_the_beginning() {
    or_skip!(dead_database().await);
}

/// Before 3.11 it takes seconds to see that a stream is empty: that is no outage.
async fn empty() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let stream = streams::create(broker, "empty").await;
    let home = Home::new(&broker.uri(), &filer(&stream, ""));
    let daemon = home.start();
    let known = || async { lag(&daemon).await.map(drop) };
    eventually("there is a lag", LONG, known).await;
    let looks = Instant::now();
    while looks.elapsed() < Duration::from_secs(12) {
        assert_eq!(lag(&daemon).await, Some((0.0, 0.0)), "after {:?}", looks.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn an_empty_stream_that_has_to_be_read() {
    or_skip!(empty().await);
}
