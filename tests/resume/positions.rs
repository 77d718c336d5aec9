//! Which position counts: the sink's own, else the stored one; 0 is one like any other.

use super::{
    FILE, NULL, STDOUT, assert_says, bodies, body_texts, consumer, forecast, offsets, printed,
};
use crate::common::daemon::Home;
use crate::common::rstream::Rstream;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// Two independent clients.
async fn assert_stored(broker: &Broker, stream: &str, reference: &str, offset: Option<u64>) {
    let rstream = Rstream::at(broker).await.unwrap();
    assert_eq!(rstream.stored_offset(stream, reference).await, offset, "{reference}, by rstream");
    let stored = streams::stored_offset(broker, stream, reference).await;
    assert_eq!(stored, offset, "{reference}, by the official client");
}

async fn after_the_stored_offset(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "stored").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    streams::store_offset(broker, &stream, "zero", 0).await;
    rstream.store_offset(&stream, "zero-by-rstream", 0).await;
    rstream.store_offset(&stream, "by-rstream", 12).await;
    streams::store_offset(broker, &stream, "in-a-new-file", 7).await;
    streams::store_offset(broker, &stream, "all-read", 19).await;
    // `next` would skip all of it: so it would show if a stored offset were not found.
    let next = "start = \"next\"";
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("zero", &stream, STDOUT, next),
            consumer("zero-by-rstream", &stream, NULL, next),
            consumer("by-rstream", &stream, NULL, next),
            consumer("in-a-new-file", &stream, FILE, next),
            consumer("all-read", &stream, NULL, next),
            consumer("never", &stream, NULL, "start = \"first\""),
        ]
        .concat(),
    );
    let plan = forecast(&home).await;
    for (name, position) in [
        ("zero", "offset 1 "),
        ("zero-by-rstream", "offset 1 "),
        ("by-rstream", "offset 13 "),
        ("in-a-new-file", "offset 8 "),
        ("all-read", "offset 20 "),
    ] {
        assert!(plan[name].starts_with(position), "{name}: {}", plan[name]);
        assert_says(&plan[name], &["after the offset stored on the broker"]);
    }
    assert_says(&plan["never"], &["offset 0 ", "no offset was ever stored"]);
    assert_stored(broker, &stream, "zero", Some(0)).await;
    assert_stored(broker, &stream, "never", None).await;

    let mut daemon = home.start();
    for name in ["zero", "zero-by-rstream", "by-rstream", "in-a-new-file", "never"] {
        daemon.until_durable(name, 19).await;
    }
    for (name, written) in [
        ("zero", 19),
        ("zero-by-rstream", 19),
        ("by-rstream", 7),
        ("in-a-new-file", 12),
        ("never", 20),
    ] {
        let label = format!("consumer=\"{name}\"");
        let counted = daemon.metric("rillway_written_messages_total", &[&label]).await;
        assert_eq!(counted, Some(f64::from(written)), "{name}");
    }
    daemon.terminate().await;
    assert_eq!(offsets(&printed(&home)), (1..20).collect::<Vec<_>>());
    assert_eq!(home.offsets("out", &stream), (8..20).collect::<Vec<_>>());
    for name in ["zero", "zero-by-rstream", "by-rstream", "in-a-new-file", "all-read", "never"] {
        assert_stored(broker, &stream, name, Some(19)).await;
    }
    Ok(())
}

#[tokio::test]
async fn after_the_stored_offset_on_rabbitmq_3_10() {
    or_skip!(after_the_stored_offset(Version::V3_10).await);
}

#[tokio::test]
async fn after_the_stored_offset_on_rabbitmq_4_0() {
    or_skip!(after_the_stored_offset(Version::V4_0).await);
}

#[tokio::test]
async fn after_the_stored_offset_on_rabbitmq_4_3() {
    or_skip!(after_the_stored_offset(Version::V4_3).await);
}

/// Whatever somebody stored meanwhile, higher or lower: the file continues after its own last record, and
/// in the end the broker has the file's offset again.
async fn the_files_own_position_goes_first(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "own").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let home = Home::new(&broker.uri(), &consumer("f", &stream, FILE, ""));
    let mut daemon = home.start();
    daemon.until_durable("f", 19).await;
    daemon.terminate().await;
    assert_stored(broker, &stream, "f", Some(19)).await;

    let mut published = 20;
    for meddled in [Some(4), Some(0), None] {
        let last = home.offsets("out", &stream).last().copied().unwrap();
        let meddled = meddled.unwrap_or(last + 15);
        streams::store_offset(broker, &stream, "f", meddled).await;
        let plan = forecast(&home).await;
        assert!(plan["f"].starts_with(&format!("offset {} ", last + 1)), "{}", plan["f"]);
        assert_says(&plan["f"], &["own position", &format!("the broker has {meddled} stored")]);
        assert_stored(broker, &stream, "f", Some(meddled)).await;

        streams::publish(broker, &stream, bodies(published..published + 30)).await;
        published += 30;
        let mut daemon = home.start();
        let written = usize::try_from(published).unwrap();
        daemon
            .until("f", "all is written", std::time::Duration::from_secs(60), |_| {
                home.lines("out", &stream).len() >= written
            })
            .await;
        daemon.terminate().await;
        let lines = home.lines("out", &stream);
        assert_eq!(body_texts(&lines), bodies(0..published), "after {meddled} was stored");
        assert_stored(broker, &stream, "f", offsets(&lines).last().copied()).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_files_own_position_goes_first_on_rabbitmq_3_10() {
    or_skip!(the_files_own_position_goes_first(Version::V3_10).await);
}

#[tokio::test]
async fn the_files_own_position_goes_first_on_rabbitmq_4_0() {
    or_skip!(the_files_own_position_goes_first(Version::V4_0).await);
}

#[tokio::test]
async fn the_files_own_position_goes_first_on_rabbitmq_4_3() {
    or_skip!(the_files_own_position_goes_first(Version::V4_3).await);
}
