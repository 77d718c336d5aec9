//! `[[watch]]`: is the lag of a reference that another program owns what that program's client sees, and
//! is it unknown where nothing is known?
//!
//! The other program is rstream: it stores the offsets, and reads the stream for the truth.

mod moving;

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::body;
use crate::common::proxy::Proxy;
use crate::common::rstream::{Rstream, Watched};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

/// How far an age may be from the truth.
const SECONDS_MAX: f64 = 2.0;

fn watch(source: &str, references: &[&str]) -> String {
    format!("[[watch]]\n{source}\nreferences = {references:?}\n")
}

/// What the admin server shows of one reference on one stream.
async fn row(daemon: &Daemon, stream: &str, reference: &str) -> Option<Value> {
    let (_, text) = daemon.http("GET", "/api/v1/watches").await?;
    let all: Value = serde_json::from_str(&text).ok()?;
    let mut rows = all["watches"].as_array()?.iter();
    rows.find(|row| row["stream"] == stream && row["reference"] == reference).cloned()
}

/// Waits until a row is as wanted.
async fn until(
    daemon: &Daemon,
    (stream, reference): (&str, &str),
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    eventually(&format!("{reference} on {stream}: {what}"), LONG, || async {
        let found = row(daemon, stream, reference).await;
        found.filter(|row| wanted(row))
    })
    .await
}

fn is_unknown(row: &Value) -> bool {
    ["lag_messages", "lag_seconds", "headroom_messages", "stored_offset"]
        .iter()
        .all(|key| row[*key].is_null())
}

async fn metric(daemon: &Daemon, name: &str, stream: &str, reference: &str) -> Option<f64> {
    let name = format!("rillway_watch_{name}");
    let labels = [format!("stream=\"{stream}\""), format!("reference=\"{reference}\"")];
    daemon.metric(&name, &[&labels[0], &labels[1]]).await
}

/// What another client sees: the last message, and the time of the first one after this offset.
fn truth(watched: &Watched, stored: u64) -> (u64, Option<f64>) {
    let messages = watched.messages();
    let last = messages.last().unwrap().0;
    let first = messages.iter().find(|(offset, _)| *offset > stored);
    (last, first.map(|(_, ms)| *ms as f64 / 1000.0))
}

/// Compares all that is said of a reference with what the other client sees and stored.
async fn agrees(daemon: &Daemon, rstream: &Rstream, watched: &Watched, stream: &str, name: &str) {
    let stored = rstream.stored_offset(stream, name).await.unwrap();
    let (last, oldest) = truth(watched, stored);
    let agrees = |row: &Value| {
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = oldest.map_or(0.0, |oldest| now - oldest);
        row["lag_seconds"].as_f64().is_some_and(|lag| (lag - age).abs() <= SECONDS_MAX)
    };
    // A busy machine may need some observations.
    let row = until(daemon, (stream, name), &format!("{} behind", last - stored), |row| {
        row["stored_offset"] == stored && row["lag_messages"] == last - stored && agrees(row)
    })
    .await;
    assert_eq!(row["headroom_messages"], stored + 1, "nothing was dropped: {row}");
    assert_eq!(row["stream_last_offset"], last, "{row}");
    assert_eq!(row["problem"], Value::Null, "{row}");
    let lag = metric(daemon, "lag_messages", stream, name).await;
    assert_eq!(lag, Some((last - stored) as f64));
    assert_eq!(metric(daemon, "offset_known", stream, name).await, Some(1.0));
    let headroom = metric(daemon, "retention_headroom_messages", stream, name).await;
    assert_eq!(headroom, Some((stored + 1) as f64));
    assert!(metric(daemon, "lag_seconds", stream, name).await.is_some());
}

async fn at_rest(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "watched").await;
    let watched = rstream.watch(&stream);
    let names = ["billing", "audit", "silent"];
    let home = Home::new(&broker.uri(), &watch(&format!("stream = \"{stream}\""), &names));
    let daemon = home.start();
    let until_seen = async |count: usize| {
        eventually("the other client sees all", LONG, || async {
            (watched.count() >= count).then_some(())
        })
        .await;
    };

    // Nothing is stored: unknown, and not 0.
    streams::publish(broker, &stream, (0..1000).map(body)).await;
    until_seen(1000).await;
    for name in names {
        let row = until(&daemon, (&stream, name), "it was asked for", |row| {
            row["problem"].as_str().is_some_and(|p| p.contains("holds no offset"))
        })
        .await;
        assert!(is_unknown(&row), "{row}");
        assert_eq!(metric(&daemon, "lag_messages", &stream, name).await, None);
        assert_eq!(metric(&daemon, "offset_known", &stream, name).await, Some(0.0));
    }

    // What is stored takes offsets of the stream itself: these are no messages.
    rstream.store_offset(&stream, "billing", 400).await;
    rstream.store_offset(&stream, "audit", 999).await;
    agrees(&daemon, &rstream, &watched, &stream, "billing").await;
    agrees(&daemon, &rstream, &watched, &stream, "audit").await;
    // Again, some time later: it stays so.
    rstream.store_offset(&stream, "billing", 999).await;
    agrees(&daemon, &rstream, &watched, &stream, "billing").await;

    // More messages, of which nobody has stored anything.
    streams::publish(broker, &stream, (1000..1200).map(body)).await;
    until_seen(1200).await;
    agrees(&daemon, &rstream, &watched, &stream, "billing").await;
    agrees(&daemon, &rstream, &watched, &stream, "audit").await;
    rstream.store_offset(&stream, "audit", truth(&watched, 0).0).await;
    agrees(&daemon, &rstream, &watched, &stream, "audit").await;
    agrees(&daemon, &rstream, &watched, &stream, "billing").await;
    assert!(is_unknown(&row(&daemon, &stream, "silent").await.unwrap()));

    // A page for people has them too.
    let (_, page) = daemon.http("GET", "/").await.unwrap();
    assert!(page.contains("References of other programs") && page.contains("billing"), "{page}");
    let (ready, _) = daemon.http("GET", "/readyz").await.unwrap();
    assert_eq!(ready, 200, "an exporter is ready, whatever the others do");
    daemon.terminate().await;
    assert!(!home.path("state").exists(), "an exporter keeps no state");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_of_others_is_what_another_client_computes_on_rabbitmq_3_10() {
    or_skip!(at_rest(Version::V3_10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_of_others_is_what_another_client_computes_on_rabbitmq_4_0() {
    or_skip!(at_rest(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_of_others_is_what_another_client_computes_on_rabbitmq_4_3() {
    or_skip!(at_rest(Version::V4_3).await);
}

/// A consumer of Rillway's own on the same stream, and many references: one connection for all that only
/// looks.
async fn one_connection(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let proxy = Proxy::to(broker.stream_port).await;
    let stream = streams::create(broker, "watched-many").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let names: Vec<String> = (0..40).map(|nth| format!("r{nth}")).collect();
    for name in &names {
        streams::store_offset(broker, &stream, name, 9).await;
    }
    let others: Vec<&str> = names.iter().map(String::as_str).collect();
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n{}",
        watch(&format!("stream = \"{stream}\""), &others)
    );
    let settings = format!(
        "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
        broker.uri_by(proxy.port)
    );
    let home = Home::with_broker(&settings, &consumer);
    let mut daemon = home.start();
    for name in &names {
        until(&daemon, (&stream, name), "its lag is known", |row| row["lag_messages"] == 90).await;
    }
    daemon.until("c", "it has no lag", LONG, |c| c["lag_messages"] == 0).await;
    assert_eq!(proxy.open(), 2, "one to read, one to look\n{}", home.log_tail());
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_references_and_a_consumer_have_one_connection_to_look() {
    or_skip!(one_connection(Version::V4_3).await);
}

async fn checked() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "watched-checked").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    streams::store_offset(broker, &stream, "billing", 7).await;
    let home =
        Home::new(&broker.uri(), &watch(&format!("stream = \"{stream}\""), &["billing", "none"]));
    let said = |arguments: &[&str]| {
        let output = home.command(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, text) = said(&["check"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("references billing, none"), "{text}");
    let (code, text) = said(&["check", "--connect"]);
    assert_eq!(code, Some(0), "{text}");
    for says in [
        format!("stored:     7 for \"billing\" on {stream:?}"),
        format!("stored:     nothing for \"none\" on {stream:?}"),
    ] {
        assert!(text.contains(&says), "{says}\n{text}");
    }
    assert!(!home.path("state").exists());
    streams::delete(broker, &stream).await;
    let (code, text) = said(&["check", "--connect"]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("could not run") && text.contains("does not exist"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_shows_what_others_have_stored() {
    or_skip!(checked().await);
}
