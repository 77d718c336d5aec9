//! Streams over AMQP 0.9.1: does the source keep its contract, where does a consumer begin, what survives
//! kills, which losses are noticed, and what differs from the stream protocol?

mod identity;
mod limits;
mod peer;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use rillway::source::amqp::AmqpSource;
use serde_json::Value;

use crate::common::amqp091::{self, Basic};
use crate::common::daemon::Home;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::stage::{Kind, keeps_the_contract};
use crate::common::{Broker, Version, env_or, streams};

const SOON: Duration = Duration::from_secs(60);

fn uri(broker: &Broker) -> String {
    format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port)
}

fn consumer(name: &str, stream: &str, start: &str, more: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = {start}\n\
         batch = {{ max_age = \"50ms\" }}\n{more}\n"
    )
}

fn into_file(name: &str) -> String {
    format!("sink = {{ type = \"file\", dir = \"{name}\" }}")
}

const AMQP: Kind = Kind {
    port: |broker| broker.amqp_port,
    source: |options, stream| Arc::new(AmqpSource::new(options, stream)),
};

#[tokio::test]
async fn amqp_keeps_the_contract_on_rabbitmq_3_10() {
    or_skip!(keeps_the_contract(Version::V3_10, AMQP).await);
}

#[tokio::test]
async fn amqp_keeps_the_contract_on_rabbitmq_4_0() {
    or_skip!(keeps_the_contract(Version::V4_0, AMQP).await);
}

#[tokio::test]
async fn amqp_keeps_the_contract_on_rabbitmq_4_3() {
    or_skip!(keeps_the_contract(Version::V4_3, AMQP).await);
}

/// All start positions; then the daemon is killed before the first message, and begins there again.
async fn start_positions(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-start").await;
    for at in [0..10_u64, 10..20] {
        streams::publish(broker, &stream, at.map(|i| format!("message {i}"))).await;
    }
    let starts = [
        ("first", "\"first\"", Some(0)),
        ("last", "\"last\"", None),
        ("next", "\"next\"", Some(20)),
        ("offset", "{ offset = 13 }", Some(13)),
        ("ago", "{ ago = \"1h\" }", Some(0)),
        ("old", "{ timestamp = \"2020-01-01T00:00:00Z\" }", Some(0)),
    ];
    let all: String = starts
        .iter()
        .map(|(name, start, _)| consumer(name, &stream, start, &into_file(name)))
        .collect();
    let home = Home::new(&uri(broker), &all);
    let mut daemon = home.start();
    for (name, ..) in starts {
        daemon.until(name, "it runs", SOON, |c| c["state"] == "running").await;
    }
    daemon.kill();
    // Published while nothing runs: after a restart, `next` still means its first connection, not this
    // one.
    streams::publish(broker, &stream, (20..25).map(|i| format!("message {i}"))).await;
    let mut daemon = home.start();
    for (name, _, first) in starts {
        daemon.until_durable(name, 24).await;
        let offsets = home.offsets(name, &stream);
        let begins = offsets[0];
        // One publish call may still make several chunks: `last` is one of them.
        assert!(first.is_none_or(|first| first == begins), "{name} begins at {begins}");
        assert!(begins <= 20 && (name != "last" || begins >= 10), "{name} begins at {begins}");
        assert_eq!(offsets, (begins..25).collect::<Vec<_>>(), "{name}");
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn amqp_begins_where_the_configuration_says_on_rabbitmq_3_10() {
    or_skip!(start_positions(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_begins_where_the_configuration_says_on_rabbitmq_4_0() {
    or_skip!(start_positions(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_begins_where_the_configuration_says_on_rabbitmq_4_3() {
    or_skip!(start_positions(Version::V4_3).await);
}

/// Killed at random while messages are published: nothing missing, nothing duplicated.
async fn kills(version: Version) -> Result<(), Unavailable> {
    const EACH: u64 = 3000;
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-kills").await;
    let sqlite = "sink = { type = \"sqlite\", path = \"data.db\", table = \"events\" }";
    let consumers = consumer("files", &stream, "\"first\"", &into_file("files"))
        + &consumer("rows", &stream, "\"first\"", sqlite)
        + &consumer("nowhere", &stream, "\"first\"", "sink = { type = \"null\" }");
    let home = Home::new(&uri(broker), &consumers);
    let rounds = env_or("KILLS", 4);
    for round in 0..rounds {
        let mut daemon = home.start();
        let bodies = (round * EACH..(round + 1) * EACH).map(|i| format!("message {i}"));
        streams::publish(broker, &stream, bodies).await;
        let some = fastrand::u64(1..EACH);
        daemon.until_durable("files", round * EACH + some - 1).await;
        match round % 2 {
            0 => daemon.kill(),
            _ => daemon.terminate().await,
        }
    }
    let mut daemon = home.start();
    let all = rounds * EACH;
    for name in ["files", "rows", "nowhere"] {
        daemon.until_durable(name, all - 1).await;
    }
    daemon.terminate().await;
    assert_eq!(home.offsets("files", &stream), (0..all).collect::<Vec<_>>());
    let database = rusqlite::Connection::open(home.path("data.db")).unwrap();
    let sql = "SELECT count(*), count(DISTINCT offset), max(offset) FROM events";
    let counts: (i64, i64, i64) =
        database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let all = i64::try_from(all).unwrap();
    assert_eq!(counts, (all, all, all - 1));
    Ok(())
}

#[tokio::test]
async fn amqp_survives_kills_on_rabbitmq_3_10() {
    or_skip!(kills(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_survives_kills_on_rabbitmq_4_3() {
    or_skip!(kills(Version::V4_3).await);
}

/// AMQP does not deliver messages in compressed batches: the consumer notices.
async fn compressed(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "amqp-packed").await;
    streams::publish(broker, &stream, (0..5).map(|i| i.to_string())).await;
    let batch: Vec<_> = (5..15).map(|i| Outgoing::body(i.to_string())).collect();
    rstream.publish_batches(&stream, Compression::Gzip, 10, &batch).await;
    streams::publish(broker, &stream, (15..20).map(|i| i.to_string())).await;
    let on = |policy: &str| format!("on_offset_lost = \"{policy}\"\n");
    let home = Home::new(
        &uri(broker),
        &[
            consumer("halts", &stream, "\"first\"", &(on("halt") + &into_file("halts"))),
            consumer("goes-on", &stream, "\"first\"", &(on("first") + &into_file("goes-on"))),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    let reason = daemon.until_halted("halts").await;
    assert!(reason.contains("offsets 5 to 14") && reason.contains("compressed"), "{reason}");
    daemon.until_durable("goes-on", 19).await;
    assert_eq!(home.offsets("halts", &stream), (0..5).collect::<Vec<_>>());
    assert_eq!(home.offsets("goes-on", &stream), (0..5).chain(15..20).collect::<Vec<_>>());
    let labels = ["consumer=\"goes-on\"", "reason=\"retention\""];
    assert_eq!(daemon.metric("rillway_lost_messages_total", &labels).await, Some(10.0));
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn amqp_notices_compressed_batches_on_rabbitmq_4_0() {
    or_skip!(compressed(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_notices_compressed_batches_on_rabbitmq_4_3() {
    or_skip!(compressed(Version::V4_3).await);
}

/// A consumer of the stream protocol stores an offset, which takes an offset in the stream: over AMQP
/// that is a gap like any other.
async fn stored_offsets(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-stored").await;
    streams::publish(broker, &stream, (0..5).map(|i| i.to_string())).await;
    streams::store_offset(broker, &stream, "another", 3).await;
    assert_eq!(streams::stored_offset(broker, &stream, "another").await, Some(3));
    streams::publish(broker, &stream, (6..10).map(|i| i.to_string())).await;
    let first = "on_offset_lost = \"first\"\n".to_owned();
    let consumers = consumer("halts", &stream, "\"first\"", &into_file("halts"))
        + &consumer("goes-on", &stream, "\"first\"", &(first + &into_file("goes-on")));
    let home = Home::new(&uri(broker), &consumers);
    let mut daemon = home.start();
    let reason = daemon.until_halted("halts").await;
    assert!(reason.contains("offsets 5 to 5") && reason.contains("stored"), "{reason}");
    daemon.until_durable("goes-on", 9).await;
    assert_eq!(home.offsets("halts", &stream), (0..5).collect::<Vec<_>>());
    assert_eq!(home.offsets("goes-on", &stream), (0..5).chain(6..10).collect::<Vec<_>>());
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn amqp_takes_stored_offsets_for_a_loss_on_rabbitmq_4_0() {
    or_skip!(stored_offsets(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_takes_stored_offsets_for_a_loss_on_rabbitmq_4_3() {
    or_skip!(stored_offsets(Version::V4_3).await);
}

/// Neither super streams nor publishing are possible over AMQP 0.9.1: both errors come before anything
/// connects.
#[test]
fn amqp_is_for_reading_streams_only() {
    let sink = "sink = { type = \"null\" }";
    let home =
        Home::new("amqp://u:hunter2@localhost:1/%2f", &consumer("c", "s", "\"first\"", sink));
    let published = home.command(&["publish", "s", "--generate", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&published.stderr).into_owned();
    assert!(said.contains("--uri rabbitmq-stream://") && !said.contains("hunter2"), "{said}");
    assert_eq!(published.status.code(), Some(78), "{said}");
    let super_stream = "[[consumer]]\nname = \"c\"\nsuper_stream = \"s\"\n".to_owned() + sink;
    let home = Home::new("amqp://u:hunter2@localhost:1/%2f", &super_stream);
    let checked = home.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(said.contains("consumer[0].super_stream") && !checked.status.success(), "{said}");
}

/// Each refusal says what is wrong, without the password.
async fn refusals(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-refused").await;
    let queue = streams::unique("amqp-classic");
    amqp091::declare_queue(broker, &queue, "classic").await;
    let wrong = uri(broker).replace("guest:guest", "guest:hunter2");
    let vhost = uri(broker).replace("%2f", "nowhere");
    for (uri, stream, says) in [
        (wrong, stream.as_str(), "login"),
        (vhost, stream.as_str(), "virtual host \"nowhere\""),
        (uri(broker), "amqp-none", "there is no stream"),
        (uri(broker), queue.as_str(), "is not a stream"),
    ] {
        let home = Home::new(&uri, &consumer("c", stream, "\"first\"", &into_file("c")));
        let checked = home.command(&["check", "--connect"]).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains(says), "{says}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    amqp091::delete_queue(broker, &queue).await;
    Ok(())
}

#[tokio::test]
async fn amqp_refusals_say_why_on_rabbitmq_3_10() {
    or_skip!(refusals(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_refusals_say_why_on_rabbitmq_4_3() {
    or_skip!(refusals(Version::V4_3).await);
}

/// The same messages over both protocols. docs/guides/amqp.md lists what may differ.
async fn both_ways(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-both").await;
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let messages = vec![
        Basic { body: b"{\"i\":1}".to_vec(), ..Basic::default() },
        Basic {
            correlation_id: text("c-1"),
            message_id: text("m-1"),
            app_id: text("app"),
            headers: vec![
                (b"region".to_vec(), b"eu".to_vec()),
                (b"x-note".to_vec(), b"noted".to_vec()),
            ],
            body: b"plain text".to_vec(),
            ..Basic::default()
        },
        // Not UTF-8: it has to arrive all the same.
        Basic {
            message_id: Some(b"\xff\xfe".to_vec()),
            headers: vec![(b"k\xff".to_vec(), b"v\xff".to_vec())],
            body: b"\xff\x00".to_vec(),
            ..Basic::default()
        },
        Basic { body: Vec::new(), ..Basic::default() },
    ];
    let total = messages.len() as u64;
    amqp091::publish(broker, &stream, messages).await;
    let mut ways = Vec::new();
    for uri in [uri(broker), broker.uri()] {
        let home = Home::new(&uri, &consumer("c", &stream, "\"first\"", &into_file("c")));
        let mut daemon = home.start();
        daemon.until_durable("c", total - 1).await;
        daemon.terminate().await;
        ways.push(home.lines("c", &stream));
    }
    for (over_amqp, over_stream) in ways[0].iter().zip(&ways[1]) {
        assert_eq!(comparable(over_amqp), comparable(over_stream));
    }
    assert_eq!((ways[0].len(), ways[1].len()), (4, 4));
    Ok(())
}

/// A line without the parts that the broker's conversion changes.
fn comparable(line: &Value) -> Value {
    let mut line = line.clone();
    let fields = line.as_object_mut().unwrap();
    for gone in ["timestamp", "header"] {
        fields.remove(gone);
    }
    if let Some(annotations) = fields.get_mut("message_annotations").and_then(Value::as_object_mut)
    {
        for gone in ["x-exchange", "x-routing-key"] {
            annotations.remove(gone);
        }
        if annotations.is_empty() {
            fields.remove("message_annotations");
        }
    }
    line
}

#[tokio::test]
async fn amqp_and_the_stream_protocol_agree_on_rabbitmq_3_10() {
    or_skip!(both_ways(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_and_the_stream_protocol_agree_on_rabbitmq_4_0() {
    or_skip!(both_ways(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_and_the_stream_protocol_agree_on_rabbitmq_4_3() {
    or_skip!(both_ways(Version::V4_3).await);
}

/// A stream that was re-created, and is longer than the position.
async fn re_created(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-again").await;
    let bodies = |of: &str, n: u64| (0..n).map(|i| format!("{of} {i}")).collect::<Vec<_>>();
    streams::publish(broker, &stream, bodies("old", 10)).await;
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    daemon.until_durable("c", 9).await;
    daemon.terminate().await;
    streams::delete(broker, &stream).await;
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, bodies("new", 20)).await;
    let mut daemon = home.start();
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("not the one that was read before"), "{reason}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn amqp_notices_a_re_created_stream_on_rabbitmq_4_3() {
    or_skip!(re_created(Version::V4_3).await);
}

/// Message headers that would break a careless parser: a publisher's own offset, and tables nested more
/// deeply than the parser allows.
async fn odd_headers(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-headers").await;
    let plain = |i: u32| Basic { body: i.to_string().into_bytes(), ..Basic::default() };
    let with = |i: u32, raw_headers| Basic { raw_headers, ..plain(i) };
    let foreign = [&b"l"[..], &77_u64.to_be_bytes()].concat();
    let messages = vec![
        plain(0),
        with(1, amqp091::raw_header("x-stream-offset", &foreign)),
        with(2, amqp091::raw_header("x-deep", &amqp091::nested(80))),
        plain(3),
    ];
    amqp091::publish(broker, &stream, messages).await;
    let more = format!("on_bad_message = \"skip\"\n{}", into_file("c"));
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"first\"", &more));
    let mut daemon = home.start();
    daemon.until_durable("c", 3).await;
    daemon.terminate().await;
    let offsets = home.offsets("c", &stream);
    println!("{version:?}: {offsets:?}");
    for (offset, line) in offsets.iter().zip(home.lines("c", &stream)) {
        assert_eq!(line["body"], *offset, "{line}");
    }
    assert!([0, 1, 3].iter().all(|offset| offsets.contains(offset)), "{offsets:?}");
    Ok(())
}

#[tokio::test]
async fn amqp_takes_any_headers_on_rabbitmq_3_10() {
    or_skip!(odd_headers(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_takes_any_headers_on_rabbitmq_4_0() {
    or_skip!(odd_headers(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_takes_any_headers_on_rabbitmq_4_3() {
    or_skip!(odd_headers(Version::V4_3).await);
}
