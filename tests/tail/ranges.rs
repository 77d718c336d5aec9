//! Ranges of `rillway tail`, exact to the message, over both protocols, on the oldest and the newest version of
//! RabbitMQ.

use super::*;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Version, streams};

const CODECS: [Compression; 3] = [Compression::Gzip, Compression::Lz4, Compression::Zstd];

fn body(nth: u64) -> String {
    format!(
        "{{\"nth\":{nth},\"kind\":\"{}\"}}",
        if nth.is_multiple_of(3) { "third" } else { "other" }
    )
}

/// Publishes three chunks of ten messages. Each chunk is one compressed batch, so its first and last offset are
/// known.
async fn compressed(broker: &Broker) -> Result<String, Unavailable> {
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "tail").await;
    for (nth, codec) in (0..).zip(CODECS) {
        let messages = (nth * 10..nth * 10 + 10).map(|nth| Outgoing::body(body(nth)));
        rstream.publish_batches(&stream, codec, 10, &messages.collect::<Vec<_>>()).await;
    }
    Ok(stream)
}

async fn exact(uri: &str, stream: &str, total: u64) {
    let all: Vec<u64> = (0..total).collect();
    let middle: Vec<u64> = (13..=17).collect();
    for (arguments, expected) in [
        (&["--from", "first", "--until", "end"][..], all.as_slice()),
        (&["--until", "end"], &all),
        (&["--until", "offset:29"], &all),
        (&["--from", "ago:1h", "--until", "end"], &all),
        (&["--from", "offset:13", "--until", "offset:17"], &middle),
        (&["--from", "offset:13", "--limit", "5"], &middle),
        (&["--from", "offset:17", "-n", "1"], &[17]),
        (&["--from", "next", "--until", "end"], &[]),
        (&["--from", "offset:30", "--until", "end"], &[]),
        (&["--until", "ago:1h"], &[]),
        (&["--until", "time:1999-01-01T00:00:00Z"], &[]),
        (
            &["--from", "offset:11", "--until", "end", "--filter", "/kind=third", "-n", "3"],
            &[12, 15, 18],
        ),
        (&["--from", "first", "--until", "end", "--filter", "body~\"nth\":2", "-n", "2"], &[2, 20]),
    ] {
        let run = tail(uri, stream, &[arguments, &["--json"]].concat()).await;
        assert_eq!(run.offsets(), expected, "{arguments:?}: {}", run.err);
        assert_eq!(run.err, "", "{arguments:?}");
        for line in run.lines() {
            assert_eq!(line["body"].to_string(), body(line["offset"].as_u64().unwrap()));
        }
    }
}

async fn over_the_stream_protocol(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = compressed(broker).await?;
    exact(&broker.uri(), &stream, 30).await;
    let last = tail(&broker.uri(), &stream, &["--from", "last", "--until", "end", "--json"]).await;
    assert_eq!(last.offsets(), (20..30).collect::<Vec<_>>());
    // Times are those of chunks, and a range includes both of its ends.
    let all = tail(&broker.uri(), &stream, &["--until", "end", "--json"]).await.lines();
    let time = all[10]["timestamp"].as_str().unwrap();
    let at = format!("time:{time}");
    let expected = |wanted: &dyn Fn(&str) -> bool| {
        let found = all.iter().filter(|line| wanted(line["timestamp"].as_str().unwrap()));
        found.map(|line| line["offset"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let from = tail(&broker.uri(), &stream, &["--from", &at, "--until", "end", "--json"]).await;
    assert_eq!(from.offsets(), expected(&|other| other >= time));
    let until = tail(&broker.uri(), &stream, &["--until", &at, "--json"]).await;
    assert_eq!(until.offsets(), expected(&|other| other <= time));
    nothing_is_left(broker, &stream, 30).await;
    Ok(())
}

/// No offset is stored: that would have taken one of the stream's offsets.
async fn nothing_is_left(broker: &Broker, stream: &str, end: u64) {
    assert_eq!(streams::stored_offset(broker, stream, "rillway-tail").await, None);
    streams::publish(broker, stream, ["more"]).await;
    let from = format!("offset:{end}");
    let run = tail(&broker.uri(), stream, &["--from", &from, "-n", "1", "--json"]).await;
    assert_eq!(run.offsets(), [end]);
}

#[tokio::test]
async fn exact_on_rabbitmq_3_10() {
    or_skip!(over_the_stream_protocol(Version::V3_10).await);
}

#[tokio::test]
async fn exact_on_rabbitmq_4_3() {
    or_skip!(over_the_stream_protocol(Version::V4_3).await);
}

async fn over_amqp(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "tail-amqp").await;
    // Compressed batches are not delivered there.
    streams::publish(broker, &stream, (0..30).map(body)).await;
    exact(&amqp_uri(broker), &stream, 30).await;
    nothing_is_left(broker, &stream, 30).await;
    Ok(())
}

#[tokio::test]
async fn exact_over_amqp_on_rabbitmq_3_10() {
    or_skip!(over_amqp(Version::V3_10).await);
}

#[tokio::test]
async fn exact_over_amqp_on_rabbitmq_4_3() {
    or_skip!(over_amqp(Version::V4_3).await);
}

/// For people: offset, sections and body; no colours in a pipe, unless they are asked for.
#[tokio::test]
async fn messages_are_shown_to_people() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let rstream = Rstream::at(broker).await?;
            let stream = streams::create(broker, "tail-shown").await;
            let message = Outgoing::body("hello")
                .with("application_properties", serde_json::json!({ "region": "eu" }));
            rstream.publish(&stream, &[message, Outgoing::body([0, 255])]).await;
            let (uri, until) = (broker.uri(), ["--until", "end"]);
            let run = tail(&uri, &stream, &until).await;
            let shown: Vec<&str> = run.out.lines().collect();
            assert!(shown[0].starts_with("-- offset 0, 20"), "{}", run.out);
            assert_eq!(shown[1], "   application_properties.region: \"eu\"");
            assert_eq!(shown[2], "hello");
            assert!(shown[3].starts_with("-- offset 1, 20"), "{}", run.out);
            assert_eq!(shown[4], "(2 bytes, base64) AP8=");
            let colour = tail(&uri, &stream, &["--until", "end", "--color", "always"]).await;
            assert!(colour.out.starts_with("\u{1b}["), "{}", colour.out);
            let bodies = ["--until", "offset:0", "--format", "body"];
            assert_eq!(tail(&uri, &stream, &bodies).await.out, "hello\n");
            let hex = ["--from", "offset:1", "-n", "1", "--format", "body", "--binary", "hex"];
            assert_eq!(tail(&uri, &stream, &hex).await.out, "00ff\n");
            let of_eu =
                ["--until", "end", "--filter", "application_properties.region=eu", "--json"];
            assert_eq!(tail(&uri, &stream, &of_eu).await.offsets(), [0]);
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// With a filter the broker leaves chunks out. The range ends even if its last chunk is one of these.
#[tokio::test]
async fn the_brokers_filter_leaves_chunks_out() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let rstream = Rstream::at(broker).await?;
            let stream = streams::create(broker, "tail-filter").await;
            for (value, range) in [("eu", 0..5), ("us", 5..10), ("eu", 10..15), ("us", 15..20)] {
                let messages: Vec<Outgoing> = range.map(|nth| Outgoing::body(body(nth))).collect();
                rstream.publish_filtered(&stream, value, &messages).await;
            }
            let arguments = ["--until", "end", "--filter-value", "eu", "--json"];
            let run = tail(&broker.uri(), &stream, &arguments).await;
            let expected: Vec<u64> = (0..5).chain(10..15).collect();
            assert_eq!(run.offsets(), expected);
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
