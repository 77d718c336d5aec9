//! Filters beside everything else: AMQP 0.9.1, super streams, a single active consumer, bad messages.

use super::{BY_REGION, LONG, consumer, offsets, publish, publish_one_in_a_hundred, written};
use crate::common::amqp091::{self, Basic};
use crate::common::daemon::Home;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

async fn over_amqp(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "filtered-amqp").await;
    let wanted: Vec<u64> = publish_one_in_a_hundred(&rstream, &stream).await.into_iter().collect();
    let uri = format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port);
    let home = Home::new(&uri, &consumer("files", &stream, BY_REGION));
    let mut daemon = home.start();
    let last = *wanted.last().unwrap();
    daemon.until_durable("files", last).await;
    assert_eq!(offsets(&written(&home, "files", &stream)), wanted);
    let came = daemon.metric("rillway_received_messages_total", &[]).await.unwrap();
    assert!(came < 2000.0, "{came} came");
    assert_eq!(daemon.metric("rillway_lost_messages_total", &["retention"]).await, Some(0.0));
    // It goes on behind a gap, after a restart too.
    daemon.kill();
    publish(&rstream, &stream, "us", &["us"; 300]).await;
    publish(&rstream, &stream, "eu", &["eu"; 3]).await;
    let mut daemon = home.start();
    daemon.until_durable("files", 10_302).await;
    let found = offsets(&written(&home, "files", &stream));
    assert_eq!(found, [wanted, vec![10_300, 10_301, 10_302]].concat());
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filtered_over_amqp_on_rabbitmq_4_0() {
    or_skip!(over_amqp(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filtered_over_amqp_on_rabbitmq_4_3() {
    or_skip!(over_amqp(Version::V4_3).await);
}

/// Each partition is filtered by itself, and its position moves.
async fn super_streams() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let (orders, partitions) = streams::create_super(broker, "filtered-super", 2).await;
    publish(&rstream, &partitions[0], "eu", &["eu"; 5]).await;
    publish(&rstream, &partitions[0], "us", &["us"; 50]).await;
    publish(&rstream, &partitions[1], "us", &["us"; 50]).await;
    let text = consumer("files", &orders, BY_REGION).replace("\nstream =", "\nsuper_stream =");
    let home = Home::new(&broker.uri(), &text);
    let daemon = home.start();
    for (partition, last) in partitions.iter().zip([54.0, 49.0]) {
        let label = format!("stream=\"{partition}\"");
        eventually("each partition is passed over", LONG, || async {
            let durable = daemon.metric("rillway_durable_offset", &[&label]).await?;
            (durable >= last).then_some(())
        })
        .await;
    }
    assert_eq!(offsets(&written(&home, "files", &partitions[0])), [0, 1, 2, 3, 4]);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_a_super_stream_are_filtered() {
    or_skip!(super_streams().await);
}

/// The second one goes on where the first had passed over everything.
async fn single_active() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "filtered-single").await;
    publish(&rstream, &stream, "eu", &["eu"; 5]).await;
    publish(&rstream, &stream, "us", &["us"; 50]).await;
    let text = consumer("files", &stream, &format!("{BY_REGION}\nsingle_active = true"));
    let folder = tempfile::tempdir().unwrap();
    let dir = format!("dir = \"{}\"", folder.path().join("out").display());
    let text = text.replace("dir = \"files\"", &dir);
    let (first, second) = (Home::new(&broker.uri(), &text), Home::new(&broker.uri(), &text));
    let mut active = first.start();
    active.until_durable("files", 54).await;
    let mut passive = second.start();
    passive.until("files", "it stands by", LONG, |c| c["state"] == "passive").await;
    active.terminate().await;
    passive.until("files", "it is active", LONG, |c| c["state"] == "running").await;
    publish(&rstream, &stream, "eu", &["eu", "us"]).await;
    let path = folder.path().join("out").display().to_string();
    second.until_landed(&passive, &path, &stream, 6).await;
    passive.terminate().await;
    let all = offsets(&written(&second, &path, &stream));
    assert_eq!(all[..5], [0, 1, 2, 3, 4]);
    assert!(all.len() == 6 && all[5] > 54, "{all:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_active_consumer_is_filtered() {
    or_skip!(single_active().await);
}

/// A body that is not JSON has no value that could be compared: `on_bad_message` decides.
async fn bad_messages() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_0).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "filtered-bad").await;
    let bodies =
        ["{\"region\":\"eu\"}", "no JSON", "{\"region\":\"us\"}", "{}", "{\"region\":\"eu\"}"];
    let messages: Vec<_> = bodies.iter().map(Outgoing::body).collect();
    rstream.publish_filtered(&stream, "eu", &messages).await;
    let letters = "on_bad_message = \"dead_letter\"\n\
                   dead_letter = { type = \"file\", dir = \"letters\" }";
    let or_none = "filter = { values = [\"eu\"], by = \"/region\", match_unfiltered = true }";
    let consumers = [
        consumer("halts", &stream, BY_REGION),
        consumer("skips", &stream, &format!("{or_none}\non_bad_message = \"skip\"")),
        consumer("sets-aside", &stream, &format!("{BY_REGION}\n{letters}")),
    ]
    .concat();
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    let why = daemon.until_halted("halts").await;
    assert!(why.contains("offset 1") && why.contains("\"filter.by\""), "{why}");
    assert!(why.contains("not JSON") && why.contains("on_bad_message"), "{why}");
    assert_eq!(offsets(&written(&home, "halts", &stream)), [0]);
    for name in ["skips", "sets-aside"] {
        daemon.until_durable(name, 4).await;
    }
    assert_eq!(offsets(&written(&home, "skips", &stream)), [0, 3, 4]);
    assert_eq!(offsets(&written(&home, "sets-aside", &stream)), [0, 4]);
    assert_eq!(home.offsets("letters", &stream), [1]);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_readable_value_is_a_bad_one() {
    or_skip!(bad_messages().await);
}

/// What has no filter value comes only where it is asked for; compressed batches never have one.
async fn unfiltered() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "filtered-none").await;
    publish(&rstream, &stream, "us", &["us"; 3]).await;
    let none = ["{\"nth\":3}", "{\"region\":\"us\"}"].map(Outgoing::body);
    rstream.publish(&stream, &none).await;
    let batch = ["{\"region\":\"eu\"}", "{\"nth\":6}"].map(Outgoing::body);
    rstream.publish_batches(&stream, Compression::Gzip, 2, &batch).await;
    publish(&rstream, &stream, "eu", &["eu"]).await;
    let or_none = "filter = { values = [\"eu\"], by = \"/region\", match_unfiltered = true }";
    let consumers = consumer("or-none", &stream, or_none) + &consumer("eu", &stream, BY_REGION);
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    for name in ["or-none", "eu"] {
        daemon.until_durable(name, 7).await;
    }
    assert_eq!(offsets(&written(&home, "or-none", &stream)), [3, 5, 6, 7]);
    assert_eq!(offsets(&written(&home, "eu", &stream)), [7]);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_value_comes_if_it_is_wanted() {
    or_skip!(unfiltered().await);
}

/// Published over AMQP 0.9.1, the filter value is in the message.
async fn published_over_amqp() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "filtered-header").await;
    let of = |region: &str| Basic {
        headers: vec![(b"x-stream-filter-value".to_vec(), region.as_bytes().to_vec())],
        body: b"no JSON".to_vec(),
        ..Basic::default()
    };
    let regions = ["us", "eu", "asia", "eu", "us", "us", "eu"];
    amqp091::publish(broker, &stream, regions.map(of).into()).await;
    let by = "filter = { values = [\"eu\"], by = \"message_annotations.x-stream-filter-value\" }";
    let text = consumer("files", &stream, by);
    let amqp = format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port);
    for uri in [broker.uri(), amqp] {
        let home = Home::new(&uri, &text);
        let mut daemon = home.start();
        daemon.until_durable("files", 6).await;
        assert_eq!(home.offsets("files", &stream), [1, 3, 6], "{uri}");
        daemon.terminate().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_filter_value_of_amqp_0_9_1_is_in_the_message() {
    or_skip!(published_over_amqp().await);
}
