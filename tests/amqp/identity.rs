//! Is it still the same stream, and the same position in it? A stream that is created again before anything
//! was read, and one that is read by one protocol and then by the other.

use super::{SOON, consumer, into_file, uri};
use crate::common::daemon::Home;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

fn bodies(of: &str, numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|i| format!("{of} {i}")).collect()
}

/// Pinned to an offset, and the stream that is there later is longer than that.
async fn re_created_unread(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-unread").await;
    streams::publish(broker, &stream, bodies("old", 0..10)).await;
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"next\"", &into_file("c")));
    let mut daemon = home.start();
    daemon.until("c", "it waits for what comes next", SOON, |c| c["state"] == "running").await;
    daemon.terminate().await;
    streams::delete(broker, &stream).await;
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, bodies("new", 0..20)).await;
    let mut daemon = home.start();
    daemon.until_durable("c", 19).await;
    daemon.terminate().await;
    let read: Vec<_> = home.lines("c", &stream).iter().map(|line| line["body"].clone()).collect();
    assert_eq!(read, bodies("new", 0..20), "{version:?}");
    Ok(())
}

#[tokio::test]
async fn amqp_begins_at_the_first_message_of_a_re_created_stream_on_rabbitmq_3_10() {
    or_skip!(re_created_unread(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_begins_at_the_first_message_of_a_re_created_stream_on_rabbitmq_4_0() {
    or_skip!(re_created_unread(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_begins_at_the_first_message_of_a_re_created_stream_on_rabbitmq_4_3() {
    or_skip!(re_created_unread(Version::V4_3).await);
}

/// The same stream is there after a restart: it is not taken for another one.
async fn next_is_kept(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-kept").await;
    streams::publish(broker, &stream, bodies("old", 0..10)).await;
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"next\"", &into_file("c")));
    let mut daemon = home.start();
    daemon.until("c", "it waits for what comes next", SOON, |c| c["state"] == "running").await;
    daemon.kill();
    streams::publish(broker, &stream, bodies("new", 10..20)).await;
    let mut daemon = home.start();
    daemon.until_durable("c", 19).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), (10..20).collect::<Vec<_>>(), "{version:?}");
    Ok(())
}

#[tokio::test]
async fn amqp_keeps_where_next_was_on_rabbitmq_3_10() {
    or_skip!(next_is_kept(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_keeps_where_next_was_on_rabbitmq_4_3() {
    or_skip!(next_is_kept(Version::V4_3).await);
}

/// A stream that is there again, and shorter than the position.
async fn re_created_shorter(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "amqp-shorter").await;
    streams::publish(broker, &stream, bodies("old", 0..10)).await;
    let home = Home::new(&uri(broker), &consumer("c", &stream, "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    daemon.until_durable("c", 9).await;
    streams::delete(broker, &stream).await;
    // Once the broker has said that there is no such stream, doubts are short.
    let missing = |c: &serde_json::Value| {
        c["reason"].as_str().is_some_and(|why| why.contains("there is no stream"))
    };
    daemon.until("c", "it is missing", SOON, missing).await;
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, bodies("new", 0..5)).await;
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("is lost") && reason.contains("ends at 4"), "{reason}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn amqp_halts_on_a_re_created_stream_that_is_shorter_on_rabbitmq_4_0() {
    or_skip!(re_created_shorter(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_halts_on_a_re_created_stream_that_is_shorter_on_rabbitmq_4_3() {
    or_skip!(re_created_shorter(Version::V4_3).await);
}

/// Read by the stream protocol up to the end of a compressed batch, then over AMQP, which does not deliver
/// that batch: the position is not past the end. Then by the stream protocol again.
async fn from_one_protocol_to_the_other(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "amqp-changed").await;
    streams::publish(broker, &stream, (0..5).map(|i| i.to_string())).await;
    let batch = |of: std::ops::Range<u64>| -> Vec<_> {
        of.map(|i| Outgoing::body(i.to_string())).collect()
    };
    rstream.publish_batches(&stream, Compression::Gzip, 10, &batch(5..15)).await;
    let one = consumer("c", &stream, "\"first\"", &into_file("c"));
    let settings = |uri: &str| format!("uri = \"{uri}\"\nheartbeat = \"30s\"");
    let home = Home::with_broker(&settings(&broker.uri()), &one);
    let mut daemon = home.start();
    daemon.until_durable("c", 14).await;
    daemon.terminate().await;

    // The offset that was stored there takes one of the stream's own.
    let on = "on_offset_lost = \"first\"\n".to_owned() + &into_file("c");
    home.configure(&settings(&uri(broker)), &consumer("c", &stream, "\"first\"", &on));
    let mut daemon = home.start();
    let waits = |c: &serde_json::Value| {
        c["reason"].as_str().is_some_and(|why| why.contains("compressed batches"))
    };
    daemon.until("c", "it waits for a message that is delivered", SOON, waits).await;
    streams::publish(broker, &stream, (0..5).map(|i| format!("later {i}"))).await;
    home.until_landed(&daemon, "c", &stream, 20).await;
    daemon.terminate().await;

    home.configure(&settings(&broker.uri()), &one);
    let daemon = home.start();
    streams::publish(broker, &stream, (5..10).map(|i| format!("later {i}"))).await;
    home.until_landed(&daemon, "c", &stream, 25).await;
    daemon.terminate().await;
    let lines = home.lines("c", &stream);
    let read: Vec<_> = lines.iter().map(|line| line["body"].to_string()).collect();
    let all = (0..15).map(|i| i.to_string()).chain((0..10).map(|i| format!("\"later {i}\"")));
    assert_eq!(read, all.collect::<Vec<_>>(), "{version:?}");
    Ok(())
}

#[tokio::test]
async fn a_consumer_may_change_its_protocol_and_back_on_rabbitmq_3_10() {
    or_skip!(from_one_protocol_to_the_other(Version::V3_10).await);
}

#[tokio::test]
async fn a_consumer_may_change_its_protocol_and_back_on_rabbitmq_4_0() {
    or_skip!(from_one_protocol_to_the_other(Version::V4_0).await);
}

#[tokio::test]
async fn a_consumer_may_change_its_protocol_and_back_on_rabbitmq_4_3() {
    or_skip!(from_one_protocol_to_the_other(Version::V4_3).await);
}
