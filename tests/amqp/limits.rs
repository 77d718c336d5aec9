//! What limits a consumer over AMQP 0.9.1: messages that are far larger than those that follow, retention
//! that overtakes it, a peer that falls silent; and what it says of its lag.

use std::net::TcpListener;

use serde_json::Value;

use super::{SOON, consumer, into_file, uri};
use crate::common::daemon::Home;
use crate::common::proxy::Proxy;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

fn uri_by(proxy: &Proxy) -> String {
    format!("amqp://guest:guest@localhost:{}/%2f", proxy.port)
}

/// A consumer into files of its name, with so little memory.
fn small(name: &str, stream: &str, memory: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nmemory = \"{memory}\"\n\
         batch = {{ max_bytes = \"256KiB\", max_age = \"50ms\" }}\n{}\n",
        into_file(name)
    )
}

/// A few messages of which three do not fit, and then many small ones: the broker is asked for few at
/// first, and for many again on the same connection.
async fn large_then_small(version: Version) -> Result<(), Unavailable> {
    const LARGE: usize = 6;
    const SMALL: usize = 20_000;
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-large").await;
    for i in 0..LARGE {
        streams::publish(broker, &stream, [format!("{i}-{}", "x".repeat(700_000))]).await;
    }
    // In chunks that fit: RabbitMQ 3.10 sends a chunk to its end, whatever the prefetch count is
    // (`rabbit_stream_queue:stream_entries`).
    for begin in (LARGE..LARGE + SMALL).step_by(500) {
        let some = (begin..LARGE + SMALL).take(500).map(|i| format!("{i}-small"));
        streams::publish(broker, &stream, some).await;
    }
    let proxy = Proxy::to(broker.amqp_port).await;
    let home = Home::new(&uri_by(&proxy), &small("c", &stream, "4MiB"));
    let mut daemon = home.start();
    let last = (LARGE + SMALL - 1) as u64;
    daemon.until_durable("c", last).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), (0..=last).collect::<Vec<_>>(), "{version:?}");
    let log = home.log();
    let widened = log.find("more messages under way begins");
    let widened = widened.unwrap_or_else(|| panic!("{version:?}: few all the time\n{log}"));
    // What did not fit costs a connection; a new consumer does not.
    assert!(!log[widened..].contains("does not fit"), "{}", &log[widened..]);
    Ok(())
}

#[tokio::test]
async fn amqp_asks_for_many_again_after_large_messages_on_rabbitmq_3_10() {
    or_skip!(large_then_small(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_asks_for_many_again_after_large_messages_on_rabbitmq_4_0() {
    or_skip!(large_then_small(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_asks_for_many_again_after_large_messages_on_rabbitmq_4_3() {
    or_skip!(large_then_small(Version::V4_3).await);
}

/// A message larger than all of `memory` halts its consumer, and says what to raise.
async fn too_large(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-too-large").await;
    streams::publish(broker, &stream, ["0".to_owned(), format!("1-{}", "x".repeat(700_000))]).await;
    let home = Home::new(&uri(broker), &small("c", &stream, "1MiB"));
    let mut daemon = home.start();
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("raise `memory`"), "{reason}");
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), [0]);
    Ok(())
}

#[tokio::test]
async fn amqp_halts_at_a_message_larger_than_memory_on_rabbitmq_4_3() {
    or_skip!(too_large(Version::V4_3).await);
}

/// A daemon that stands still while retention takes what it has not read: the gap is noticed, and counted.
async fn overtaken(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let retention = [("max-length-bytes", "1000000"), ("stream-max-segment-size-bytes", "500000")];
    let stream = streams::create_with(broker, "amqp-overtaken", &retention).await;
    let body = |i: u64| format!("{i}-{:x<10000}", "");
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let on = |name: &str, policy: &str| {
        let more = format!("on_offset_lost = \"{policy}\"\n{}", into_file(name));
        consumer(name, &stream, "\"first\"", &more)
    };
    let settings = format!("uri = \"{}\"\nheartbeat = \"60s\"", uri(broker));
    let home = Home::with_broker(&settings, &(on("halts", "halt") + &on("goes-on", "first")));
    let mut daemon = home.start();
    for name in ["halts", "goes-on"] {
        daemon.until_durable(name, 9).await;
    }
    daemon.signal("STOP");
    eventually("it is frozen", SOON, || async { daemon.is_frozen().then_some(()) }).await;
    // More than what may be on its way to it, chunk by chunk.
    let mut published = 10;
    while published < 3000 {
        streams::publish(broker, &stream, (published..published + 100).map(body)).await;
        published += 100;
    }
    daemon.signal("CONT");
    let reason = daemon.until_halted("halts").await;
    assert!(reason.contains("retention") && reason.contains("dropped"), "{reason}");
    daemon.until_durable("goes-on", published - 1).await;
    let labels = ["consumer=\"goes-on\"", "reason=\"retention\""];
    let lost = daemon.metric("rillway_lost_messages_total", &labels).await.unwrap();
    daemon.terminate().await;
    let read = home.offsets("goes-on", &stream);
    assert!(read.is_sorted_by(|a, b| a < b), "in order, and each once");
    assert!(lost > 0.0 && read.len() as f64 + lost == published as f64, "{lost}, {}", read.len());
    let halted = home.offsets("halts", &stream);
    assert_eq!(halted, (0..halted.len() as u64).collect::<Vec<_>>(), "nothing behind the gap");
    Ok(())
}

#[tokio::test]
async fn amqp_notices_what_retention_took_while_it_ran_on_rabbitmq_3_10() {
    or_skip!(overtaken(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_notices_what_retention_took_while_it_ran_on_rabbitmq_4_0() {
    or_skip!(overtaken(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_notices_what_retention_took_while_it_ran_on_rabbitmq_4_3() {
    or_skip!(overtaken(Version::V4_3).await);
}

/// A half-open connection is noticed by its silence, and what was published meanwhile is read.
async fn silent(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-silent").await;
    streams::publish(broker, &stream, (0..10).map(|i| i.to_string())).await;
    let proxy = Proxy::to(broker.amqp_port).await;
    let consumers = consumer("c", &stream, "\"first\"", &into_file("c"));
    let home = Home::with_heartbeat(&uri_by(&proxy), "2s", &consumers);
    let mut daemon = home.start();
    daemon.until_durable("c", 9).await;
    proxy.silence();
    let away = daemon.until("c", "it gives the connection up", SOON, |c| c["state"] == "backoff");
    let reason = away.await["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("it sent nothing for 4s"), "{reason}");
    streams::publish(broker, &stream, (10..20).map(|i| i.to_string())).await;
    proxy.resume();
    daemon.until_durable("c", 19).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), (0..20).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn amqp_notices_a_peer_that_falls_silent_on_rabbitmq_3_10() {
    or_skip!(silent(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_notices_a_peer_that_falls_silent_on_rabbitmq_4_3() {
    or_skip!(silent(Version::V4_3).await);
}

/// One that accepts connections, and says nothing at all.
#[tokio::test]
async fn amqp_gives_up_a_peer_that_never_says_a_word() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "uri = \"amqp://guest:guest@{}/%2f\"\nconnect_timeout = \"1s\"",
        mute.local_addr().unwrap()
    );
    let home = Home::with_broker(&settings, &consumer("c", "s", "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    let away = daemon.until("c", "it gives up", SOON, |c| c["state"] == "backoff").await;
    let reason = away["reason"].as_str().unwrap();
    assert!(reason.contains("no AMQP 0.9.1 connection within 1s"), "{reason}");
    daemon.terminate().await;
}

/// AMQP does not tell where a stream ends. So the lag is unknown, never 0, although another client sees
/// that much waits; what is durable is told as ever, and equals what the other client has seen in the end.
async fn lag_is_unknown(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "amqp-lag").await;
    let watched = rstream.watch(&stream);
    streams::publish(broker, &stream, (0..1000).map(|i| i.to_string())).await;
    // The smallest batch: a sink that takes its time, while thousands wait.
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    let mut looks = 0;
    let unknown = |c: &Value| c["lag_messages"].is_null() && c["lag_seconds"].is_null();
    let last = loop {
        let row = daemon.until("c", "it says something", SOON, |_| true).await;
        assert!(unknown(&row), "{row}");
        for name in ["rillway_lag_messages", "rillway_lag_seconds"] {
            assert_eq!(daemon.metric(name, &["consumer=\"c\""]).await, None, "{name}");
        }
        looks += 1;
        let seen = watched.messages().last().map(|(offset, _)| *offset);
        if seen == Some(999) && row["durable_offset"].as_u64() == seen {
            break seen;
        }
    };
    assert!(looks > 1, "it was looked at while messages waited");
    let durable = daemon.metric("rillway_durable_offset", &["consumer=\"c\""]).await;
    assert_eq!(durable, last.map(|last| last as f64));
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn amqp_never_says_that_there_is_no_lag_on_rabbitmq_3_10() {
    or_skip!(lag_is_unknown(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_never_says_that_there_is_no_lag_on_rabbitmq_4_3() {
    or_skip!(lag_is_unknown(Version::V4_3).await);
}

/// A message that the broker cannot convert: its own error ends the connection. All before it is read, and
/// the reason says where that is, and what helps. It is read by the stream protocol.
async fn poison(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "amqp-poison").await;
    streams::publish(broker, &stream, (0..20).map(|i| i.to_string())).await;
    rstream.publish(&stream, &[Outgoing::raw(b"no AMQP at all")]).await;
    streams::publish(broker, &stream, (21..30).map(|i| i.to_string())).await;
    let more = format!("on_bad_message = \"skip\"\n{}", into_file("c"));
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"first\"", &more));
    let mut daemon = home.start();
    let at = |c: &Value| c["reason"].as_str().is_some_and(|why| why.contains("at offset 20 (541"));
    let stuck = daemon.until("c", "it says where", SOON, at).await;
    assert!(stuck["reason"].as_str().unwrap().contains("rabbitmq-stream://"), "{stuck}");
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), (0..20).collect::<Vec<_>>(), "{version:?}");

    let settings = format!("uri = \"{}\"\nheartbeat = \"30s\"", broker.uri());
    home.configure(&settings, &consumer("c", &stream, "\"first\"", &more));
    let mut daemon = home.start();
    daemon.until_durable("c", 29).await;
    daemon.terminate().await;
    let all: Vec<u64> = (0..30).filter(|i| *i != 20).collect();
    assert_eq!(home.offsets("c", &stream), all, "{version:?}");
    Ok(())
}

#[tokio::test]
async fn amqp_says_at_which_message_the_broker_fails_on_rabbitmq_3_10() {
    or_skip!(poison(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_says_at_which_message_the_broker_fails_on_rabbitmq_4_0() {
    or_skip!(poison(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_says_at_which_message_the_broker_fails_on_rabbitmq_4_3() {
    or_skip!(poison(Version::V4_3).await);
}

/// RabbitMQ 3.10 fails at a compressed batch, where later releases pass over it.
async fn compressed_on_3_10() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "amqp-old").await;
    streams::publish(broker, &stream, (0..5).map(|i| i.to_string())).await;
    let batch: Vec<_> = (5..15).map(|i| Outgoing::body(i.to_string())).collect();
    rstream.publish_batches(&stream, Compression::Gzip, 10, &batch).await;
    let on = "on_offset_lost = \"first\"\n".to_owned() + &into_file("c");
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"first\"", &on));
    let mut daemon = home.start();
    let at = |c: &Value| c["reason"].as_str().is_some_and(|why| why.contains("at offset 5 (541"));
    daemon.until("c", "it says where", SOON, at).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), (0..5).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn amqp_says_where_rabbitmq_3_10_fails_at_a_compressed_batch() {
    or_skip!(compressed_on_3_10().await);
}
