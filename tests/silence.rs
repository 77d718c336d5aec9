//! Is anything skipped silently? A scripted broker does what a healthy one never does: leaves a chunk
//! out, answers as a replica that is behind, or has another stream under the same name.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use rillway::wire::commands::keys;

use crate::common::daemon::Home;
use crate::common::scripted::{Chunk, Heard, Say, Scripted, answer, frame};
use crate::common::{Version, eventually};

const SOON: Duration = Duration::from_secs(60);

fn home(broker: &Scripted, keys: &str) -> Home {
    let settings = format!("uri = \"{}\"\nheartbeat = \"10s\"", broker.uri());
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"s\"\n{keys}\nsink = {{ type = \"file\", dir = \"out\" }}\n"
    );
    Home::with_broker(&settings, &consumer)
}

/// A chunk on the consumer's own subscription.
fn deliver(chunk: &Chunk) -> Bytes {
    frame(keys::DELIVER, 1, |out| {
        out.put_u8(0);
        out.put_slice(&chunk.bytes);
    })
}

/// True for the consumer's own subscription, to the stream "s" from this offset, and not for a probe's,
/// which may have had the same id before.
fn subscribes(heard: &Heard, from: u64) -> bool {
    let from = [&[0, 0, 1, b's', 0, 4][..], &from.to_be_bytes()].concat();
    heard.key == keys::SUBSCRIBE && heard.payload.get(4..18) == Some(&from[..])
}

#[tokio::test]
async fn a_chunk_that_is_not_delivered_is_asked_for() {
    for version in [Version::V3_10, Version::V4_0, Version::V4_3] {
        let broker = Scripted::start(version).await;
        let chunks = [0, 3, 6].map(|first| Chunk::plain(first, &["a", "b", "c"]));
        let leaves_one_out = vec![deliver(&chunks[0]), deliver(&chunks[2])];
        chunks.into_iter().for_each(|chunk| broker.append(chunk));
        let first = std::sync::atomic::AtomicBool::new(true);
        broker.script(move |heard| {
            if subscribes(heard, 0) && first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                let frames = [vec![answer(heard, 1, |_| {})], leaves_one_out.clone()].concat();
                return Say::Frames(frames);
            }
            Say::Usual
        });
        let home = home(&broker, "start = \"first\"");
        let mut daemon = home.start();
        daemon.until_durable("c", 8).await;
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), (0..9).collect::<Vec<_>>(), "{version:?}");
        assert!(home.log().contains("were not delivered"), "{version:?}: {}", home.log());
    }
}

#[tokio::test]
async fn the_brokers_own_chunks_are_no_loss() {
    for version in [Version::V3_10, Version::V4_0, Version::V4_3] {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(0, &["a", "b", "c"]));
        broker.append(Chunk::plain(4, &["d", "e"]));
        let home = home(&broker, "start = \"first\"");
        let mut daemon = home.start();
        daemon.until_durable("c", 5).await;
        let lost = daemon.metric("rillway_lost_messages_total", &["reason=\"retention\""]).await;
        assert_eq!(lost, Some(0.0));
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), [0, 1, 2, 4, 5], "{version:?}");
    }
}

/// A replica that is catching up knows the leader's end, but answers a subscription beyond its own end
/// with what comes next there: chunks below the position. That is no re-created stream.
#[tokio::test]
async fn a_replica_that_is_behind_is_no_lost_position() {
    for policy in ["halt", "first", "next"] {
        let broker = Scripted::start(Version::V4_3).await;
        broker.append(Chunk::plain(0, &["a", "b", "c"]));
        broker.append(Chunk::plain(3, &["d", "e", "f"]));
        let home = home(&broker, &format!("start = \"first\"\non_offset_lost = \"{policy}\""));
        let mut daemon = home.start();
        daemon.until_durable("c", 5).await;
        daemon.terminate().await;

        broker.append(Chunk::plain(6, &["g", "h"]));
        let stale = deliver(&Chunk::plain(0, &["a", "b", "c"]));
        let first = std::sync::atomic::AtomicBool::new(true);
        broker.script(move |heard| {
            if subscribes(heard, 5) && first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                return Say::Frames(vec![answer(heard, 1, |_| {}), stale.clone()]);
            }
            Say::Usual
        });
        let mut daemon = home.start();
        daemon.until_durable("c", 7).await;
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), (0..8).collect::<Vec<_>>(), "{policy}");
        assert!(home.log().contains("asking the leader"), "{policy}: {}", home.log());
    }
}

/// `next` is pinned to an offset; a stream that is re-created before any message ends below it.
#[tokio::test]
async fn next_on_a_stream_that_is_created_again_begins_with_its_first_message() {
    for version in [Version::V3_10, Version::V4_0, Version::V4_3] {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(0, &["a", "b", "c", "d", "e", "f"]));
        let home = home(&broker, "start = \"next\"");
        let mut daemon = home.start();
        daemon.until("c", "it waits for what comes next", SOON, |c| c["state"] == "running").await;
        broker.replace_log([Chunk::plain(0, &["x", "y", "z"])]);
        let gone = frame(keys::METADATA_UPDATE, 1, |out| {
            out.put_u16(0x06);
            out.put_u16(1);
            out.put_slice(b"s");
        });
        broker.say(gone);
        daemon.until_durable("c", 2).await;
        daemon.terminate().await;
        let bodies: Vec<_> =
            home.lines("out", "s").iter().map(|line| line["body"].clone()).collect();
        assert_eq!(bodies, ["x", "y", "z"], "{version:?}");
    }
}

/// A node that has just elected its leader, or has just restarted, does not know the stream's end yet.
#[tokio::test]
async fn next_waits_for_a_node_that_does_not_know_the_end() {
    let broker = Scripted::start(Version::V4_0).await;
    broker.append(Chunk::plain(0, &["a", "b", "c"]));
    broker.script(|heard| match heard.key {
        keys::STREAM_STATS => Say::Frames(vec![answer(heard, 1, |out| {
            out.put_u32(2);
            for (name, value) in [("first_chunk_id", 0), ("committed_chunk_id", -1)] {
                out.put_u16(u16::try_from(name.len()).unwrap());
                out.put_slice(name.as_bytes());
                out.put_i64(value);
            }
        })]),
        _ => Say::Usual,
    });
    let home = home(&broker, "start = \"next\"");
    let mut daemon = home.start();
    let waits = daemon.until("c", "it waits", SOON, |c| c["state"] == "backoff");
    assert!(waits.await["reason"].as_str().unwrap().contains("its end is not known"));
    broker.script(|_| Say::Usual);
    daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
    broker.append(Chunk::plain(3, &["d"]));
    daemon.until_durable("c", 3).await;
    eventually("nothing else came", SOON, || async {
        (home.offsets("out", "s") == [3]).then_some(())
    })
    .await;
    daemon.terminate().await;
}
