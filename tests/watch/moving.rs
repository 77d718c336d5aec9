//! Streams that are deleted and created again, whose retention passes a reference, and partitions that
//! come and go.

use super::{LONG, is_unknown, metric, row, until, watch};
use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::rstream::Rstream;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, amqp091, eventually, streams};

async fn deleted(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "watched-deleted").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    rstream.store_offset(&stream, "billing", 39).await;
    let home = Home::new(&broker.uri(), &watch(&format!("stream = \"{stream}\""), &["billing"]));
    let daemon = home.start();
    let billing = (stream.as_str(), "billing");
    until(&daemon, billing, "60 behind", |row| row["lag_messages"] == 60).await;

    streams::delete(broker, &stream).await;
    let gone = until(&daemon, billing, "the stream is gone", |row| {
        row["problem"].as_str().is_some_and(|p| p.contains("does not exist"))
    })
    .await;
    assert!(is_unknown(&gone), "{gone}");
    assert_eq!(metric(&daemon, "lag_messages", &stream, "billing").await, None);
    // The alert is about this.
    assert_eq!(metric(&daemon, "offset_known", &stream, "billing").await, Some(0.0));

    // A new one of the same name, with nothing stored.
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, (0..50).map(body)).await;
    let new = until(&daemon, billing, "the new stream is seen", |row| {
        row["problem"].as_str().is_some_and(|p| p.contains("holds no offset"))
    })
    .await;
    assert!(is_unknown(&new), "{new}");
    rstream.store_offset(&stream, "billing", 9).await;
    until(&daemon, billing, "40 behind", |row| row["lag_messages"] == 40).await;
    daemon.terminate().await;
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_gone_has_no_lag_and_a_new_one_has_its_own() {
    for version in Version::ALL {
        or_skip!(deleted(version).await);
    }
}

async fn passed(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let retention = [("max-length-bytes", "1000000"), ("stream-max-segment-size-bytes", "500000")];
    let stream = streams::create_with(broker, "watched-passed", &retention).await;
    let large = "x".repeat(1000);
    streams::publish(broker, &stream, (0..100).map(|_| large.clone())).await;
    rstream.store_offset(&stream, "billing", 9).await;
    let home = Home::new(&broker.uri(), &watch(&format!("stream = \"{stream}\""), &["billing"]));
    let daemon = home.start();
    let billing = (stream.as_str(), "billing");
    until(&daemon, billing, "90 behind", |row| row["lag_messages"] == 90).await;
    let started = std::time::Instant::now();
    let mut total = 100;
    let passed = loop {
        streams::publish(broker, &stream, (0..500).map(|_| large.clone())).await;
        total += 500;
        let row = row(&daemon, &stream, "billing").await.unwrap();
        if row["headroom_messages"].as_i64().is_some_and(|headroom| headroom < 0) {
            break row;
        }
        assert!(started.elapsed() < LONG, "retention did not pass it: {row}");
    };
    // Whether the broker still has the offset or not: it does not look as if all were well.
    assert!(passed["lag_messages"].as_u64() > Some(90), "{passed}");
    let first = passed["stream_first_offset"].as_i64().unwrap();
    assert_eq!(passed["headroom_messages"].as_i64().unwrap(), 10 - first, "{passed}");
    // Its owner comes back.
    rstream.store_offset(&stream, "billing", total - 1).await;
    until(&daemon, billing, "it is well again", |row| {
        row["headroom_messages"].as_i64() > Some(0) && row["problem"].is_null()
    })
    .await;
    daemon.terminate().await;
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_whom_retention_passes_does_not_disappear() {
    for version in [Version::V4_0, Version::V4_3] {
        or_skip!(passed(version).await);
    }
}

async fn partitions(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let (orders, mut partitions) = streams::create_super(broker, "watched-super", 3).await;
    let missing = format!("{orders}-missing");
    for (nth, partition) in (1..).zip(&partitions) {
        streams::publish(broker, partition, (0..100).map(body)).await;
        rstream.store_offset(partition, "billing", 99 - nth * 10).await;
    }
    let watches = [&orders, &missing].map(|name| format!("super_stream = \"{name}\""));
    let watches = watches.map(|source| watch(&source, &["billing"]));
    let home = Home::new(&broker.uri(), &watches.concat());
    let daemon = home.start();
    let told = || async { metric(&daemon, "offset_known", &missing, "billing").await };
    let known = eventually("a missing super stream has a metric", LONG, told).await;
    assert_eq!(known, 0.0);
    assert!(metric(&daemon, "last_contact_timestamp_seconds", &missing, "billing").await.is_some());
    for (nth, partition) in (1..).zip(&partitions) {
        let row = until(&daemon, (partition, "billing"), "its lag is known", |row| {
            row["lag_messages"] == nth * 10
        })
        .await;
        assert_eq!(row["super_stream"], orders);
    }
    assert_eq!(metric(&daemon, "offset_known", &orders, "billing").await, None);

    // One more, and one less.
    let late = format!("{orders}-late");
    streams::create_named(broker, &late, &[]).await;
    streams::publish(broker, &late, (0..100).map(body)).await;
    rstream.store_offset(&late, "billing", 94).await;
    amqp091::bind(broker, &late, &orders, "late").await;
    until(&daemon, (&late, "billing"), "it is watched too", |row| row["lag_messages"] == 5).await;
    let unbound = partitions.remove(0);
    amqp091::unbind(broker, &unbound, &orders, ("0", 0)).await;
    eventually("it is not watched any more", LONG, || async {
        let is_shown = row(&daemon, &unbound, "billing").await.is_some();
        let is_counted = metric(&daemon, "lag_messages", &unbound, "billing").await.is_some();
        (!is_shown && !is_counted).then_some(())
    })
    .await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_of_a_super_stream_is_watched() {
    for version in [Version::V4_0, Version::V4_3] {
        or_skip!(partitions(version).await);
    }
}
