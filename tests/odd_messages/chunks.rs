//! Chunks that a real broker never sends, or only once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rillway::wire::commands::keys;

use super::{assert_says, consumer, file, lost};
use crate::common::daemon::Home;
use crate::common::scripted::{Chunk, Heard, Say, Scripted, message, sized};
use crate::common::{Version, eventually};

const SOON: Duration = Duration::from_secs(60);
const SKIP: &str = "on_bad_message = \"skip\"";
const VERSIONS: [Version; 2] = [Version::V3_10, Version::V4_3];

fn good() -> Chunk {
    Chunk::plain(2, &["c", "d", "e"])
}

/// Two good messages, the chunk at offset 2, and two more good ones at 5.
pub(super) async fn broker_with(version: Version, odd: Chunk) -> Scripted {
    let broker = Scripted::start(version).await;
    broker.append(Chunk::plain(0, &["a", "b"]));
    broker.append(odd);
    broker.append(Chunk::plain(5, &["f", "g"]));
    broker
}

/// A subscription, and not a probe of a single chunk: those have another id.
fn is_main_subscription(heard: &Heard) -> bool {
    heard.key == keys::SUBSCRIBE && heard.payload[4] == 0
}

#[tokio::test]
async fn a_damaged_chunk_halts_after_it_came_three_times() {
    for version in VERSIONS {
        let broker = broker_with(version, good().damaged()).await;
        let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), ""));
        let subscriptions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&subscriptions);
        broker.script(move |heard| {
            if is_main_subscription(heard) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Say::Usual
        });
        let mut daemon = home.start();
        let reason = daemon.until_halted("c").await;
        let words = ["\"s\"", "offset 2", "CRC", "3 times in a row", "on_bad_message = \"skip\""];
        assert_says(&reason, &words);
        daemon.terminate().await;
        assert_eq!(subscriptions.load(Ordering::SeqCst), 3, "{version:?}");
        assert_eq!(home.offsets("out", "s"), [0, 1], "{version:?}");
        assert_eq!(broker.stored("c"), Some(1), "{version:?}");
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_left_out() {
    for version in VERSIONS {
        let broker = broker_with(version, good().damaged()).await;
        let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), SKIP));
        let mut daemon = home.start();
        daemon.until_durable("c", 6).await;
        assert_eq!(lost(&daemon, "c", "crc").await, 3.0);
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), [0, 1, 5, 6], "{version:?}");
        assert_eq!(broker.stored("c"), Some(6), "{version:?}");
    }
}

/// What is left out is settled at once, behind the sink's own position: a drain flushes all the same.
#[tokio::test]
async fn a_damaged_chunk_behind_what_is_held_is_no_obstacle_to_a_drain() {
    let broker = broker_with(Version::V4_3, good().damaged()).await;
    let sink = "{ type = \"object\", url = \"out\", format = \"ndjson\", rotate_age = \"1h\" }";
    let home = Home::new(&broker.uri(), &consumer("c", "s", sink, SKIP));
    let mut daemon = home.start();
    let read = |c: &serde_json::Value| c["received_offset"] == 6;
    daemon.until("c", "received up to 6", SOON, read).await;
    assert_eq!(lost(&daemon, "c", "crc").await, 3.0);
    daemon.terminate().await;
    assert_eq!(broker.stored("c"), Some(6));
}

/// It was damaged in transit: when requested again, it is whole.
#[tokio::test]
async fn a_chunk_that_is_whole_the_second_time() {
    for version in VERSIONS {
        for more in ["", SKIP] {
            let broker = Arc::new(broker_with(version, good().damaged()).await);
            let (scripted, subscriptions) = (Arc::downgrade(&broker), AtomicUsize::new(0));
            broker.script(move |heard| {
                if is_main_subscription(heard) && subscriptions.fetch_add(1, Ordering::SeqCst) == 1
                {
                    let whole =
                        [Chunk::plain(0, &["a", "b"]), good(), Chunk::plain(5, &["f", "g"])];
                    scripted.upgrade().unwrap().replace_log(whole);
                }
                Say::Usual
            });
            let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), more));
            let mut daemon = home.start();
            daemon.until_durable("c", 6).await;
            let all = (0..7).collect::<Vec<_>>();
            assert_eq!(home.offsets("out", "s"), all, "{version:?} {more}");
            assert_eq!(lost(&daemon, "c", "crc").await, 0.0);
            for (reason, times) in [("\"reread\"", 1.0), ("\"connection\"", 0.0)] {
                let counted = daemon.metric("rillway_restarts_total", &[reason]).await;
                assert_eq!(counted, Some(times), "{reason}");
            }
        }
    }
}

/// The damaged chunk holds the position: some of it, or all, was read before.
#[tokio::test]
async fn a_damaged_chunk_at_the_position() {
    for version in VERSIONS {
        for (stored, lost_messages) in [(2, 2.0), (3, 1.0), (4, 0.0)] {
            // From a stored offset, with a sink that has no position.
            let broker = broker_with(version, good().damaged()).await;
            broker.set_stored("c", stored);
            let home = Home::new(&broker.uri(), &consumer("c", "s", "{ type = \"stdout\" }", SKIP));
            let mut daemon = home.start();
            daemon.until_durable("c", 6).await;
            assert_eq!(lost(&daemon, "c", "crc").await, lost_messages, "stored {stored}");
            daemon.terminate().await;
            let printed = std::fs::read_to_string(home.path("stdout")).unwrap();
            assert_eq!(printed.lines().count(), 2, "{printed}");
            assert_eq!(broker.stored("c"), Some(6));
        }
        // From the file's own position, at the end of the chunk that is now damaged.
        for more in ["", SKIP] {
            let broker = broker_with(version, good()).await;
            broker.replace_log([Chunk::plain(0, &["a", "b"]), good()]);
            let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), more));
            let mut daemon = home.start();
            daemon.until_durable("c", 4).await;
            daemon.terminate().await;
            let damaged = [Chunk::plain(0, &["a", "b"]), good().damaged(), Chunk::plain(5, &["f"])];
            broker.replace_log(damaged);
            let mut daemon = home.start();
            daemon.until_durable("c", 5).await;
            assert_eq!(lost(&daemon, "c", "crc").await, 0.0);
            daemon.terminate().await;
            assert_eq!(home.offsets("out", "s"), [0, 1, 2, 3, 4, 5], "{version:?} {more:?}");
        }
    }
}

/// On a quiet stream no next chunk shows what a damaged one held: it is requested again, and so is a
/// chunk behind it.
#[tokio::test]
async fn a_damaged_chunk_at_the_position_of_a_quiet_stream() {
    let plain = || Chunk::plain(0, &["a", "b"]);
    for version in VERSIONS {
        for (stored, damaged) in
            [(2, [plain(), good().damaged()]), (1, [plain().damaged(), good().damaged()])]
        {
            for whole_at in [1, 2] {
                let broker = Arc::new(Scripted::start(version).await);
                broker.replace_log(damaged.clone());
                broker.set_stored("c", stored);
                let (scripted, subscriptions) = (Arc::downgrade(&broker), AtomicUsize::new(0));
                broker.script(move |heard| {
                    if is_main_subscription(heard)
                        && subscriptions.fetch_add(1, Ordering::SeqCst) == whole_at
                    {
                        let whole = [Chunk::plain(0, &["a", "b"]), good()];
                        scripted.upgrade().unwrap().replace_log(whole);
                    }
                    Say::Usual
                });
                let sink = "{ type = \"stdout\" }";
                let home = Home::new(&broker.uri(), &consumer("c", "s", sink, ""));
                let mut daemon = home.start();
                daemon.until_durable("c", 4).await;
                assert_eq!(lost(&daemon, "c", "crc").await, 0.0, "{version:?} {stored}");
                daemon.terminate().await;
                let printed = std::fs::read_to_string(home.path("stdout")).unwrap();
                assert_eq!(printed.lines().count() as u64, 4 - stored, "{printed}");
            }
        }
    }
}

/// An unreadable batch in a chunk that arrived whole does not get better: it is not requested again.
async fn bad_batch(odd: Chunk, kind: &str, words: &[&str]) {
    for version in VERSIONS {
        let broker = broker_with(version, odd.clone()).await;
        let home = Home::new(
            &broker.uri(),
            &[
                consumer("halts", "s", &file("halts"), ""),
                consumer("skips", "s", &file("skips"), SKIP),
            ]
            .concat(),
        );
        let mut daemon = home.start();
        let reason = daemon.until_halted("halts").await;
        assert_says(&reason, &["\"s\"", "offset 2", "offsets 2 to 4"]);
        assert_says(&reason, words);
        daemon.until_durable("skips", 6).await;
        assert_eq!(lost(&daemon, "skips", kind).await, 3.0);
        daemon.terminate().await;
        assert_eq!(home.offsets("halts", "s"), [0, 1], "{version:?}");
        assert_eq!(home.offsets("skips", "s"), [0, 1, 5, 6], "{version:?}");
        assert_eq!((broker.stored("halts"), broker.stored("skips")), (Some(1), Some(6)));
    }
}

fn three_messages() -> Vec<u8> {
    ["c", "d", "e"].iter().flat_map(|body| sized(&message(body))).collect()
}

#[tokio::test]
async fn an_unknown_codec() {
    let plain = three_messages();
    let words = ["unknown codec 6", "on_bad_message = \"skip\""];
    bad_batch(Chunk::batch(2, 6, 3, plain.len() as u32, &plain), "undecodable", &words).await;
}

#[tokio::test]
async fn a_batch_that_is_not_what_it_says() {
    let words = ["gzip", "on_bad_message = \"skip\""];
    bad_batch(Chunk::batch(2, 1, 3, 100, b"this is not gzip"), "undecodable", &words).await;
}

#[tokio::test]
async fn a_batch_that_would_take_all_memory() {
    let words = ["inflated", "raise `memory`"];
    bad_batch(Chunk::batch(2, 1, 3, u32::MAX, b"a bomb"), "over_limit", &words).await;
}

#[tokio::test]
async fn a_batch_with_fewer_messages_than_it_says() {
    let plain = &three_messages()[..three_messages().len() - sized(&message("e")).len()];
    let words = ["does not hold exactly 3 messages"];
    bad_batch(Chunk::batch(2, 0, 3, plain.len() as u32, plain), "undecodable", &words).await;
}

/// Other consumers of the same stream, each with its own connection, are not affected.
#[tokio::test]
async fn a_consumer_that_requests_a_chunk_again_delays_no_other() {
    let broker = broker_with(Version::V4_3, good()).await;
    let home = Home::new(
        &broker.uri(),
        &[consumer("c", "s", &file("c"), ""), consumer("other", "elsewhere", &file("other"), "")]
            .concat(),
    );
    broker.script(|heard| {
        let about_s = heard.payload.windows(3).any(|bytes| bytes == [0, 1, b's']);
        if is_main_subscription(heard) && about_s { Say::HangUp } else { Say::Usual }
    });
    let mut daemon = home.start();
    daemon.until_durable("other", 6).await;
    eventually("the first one has tried again and again", SOON, || async {
        let restarts = daemon.metric("rillway_restarts_total", &["\"c\"", "\"connection\""]).await;
        (restarts >= Some(3.0)).then_some(())
    })
    .await;
    broker.append(Chunk::plain(7, &["h"]));
    daemon.until_durable("other", 7).await;
    broker.script(|_| Say::Usual);
    daemon.until_durable("c", 7).await;
    daemon.terminate().await;
    for name in ["c", "other"] {
        let stream = if name == "c" { "s" } else { "elsewhere" };
        assert_eq!(home.offsets(name, stream), (0..8).collect::<Vec<_>>(), "{name}");
    }
}
