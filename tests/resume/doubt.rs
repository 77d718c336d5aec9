//! A stream that seems to end below the position. The broker's statistics of a stream's end are a lower
//! bound: after a failover, or on a slow disk, they may show less than was read before. So the position
//! is not lost, no message is duplicated because of it, and no consumer halts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BufMut;
use rillway::wire::commands::keys;
use rillway::wire::cursor::PutExt;

use super::{FILE, assert_says, consumer, offsets};
use crate::common::Version;
use crate::common::daemon::Home;
use crate::common::scripted::{Chunk, Heard, Say, Scripted, answer, frame};

const SOON: Duration = Duration::from_secs(60);

fn log() -> [Chunk; 2] {
    [Chunk::plain(0, &["a", "b", "c"]), Chunk::plain(3, &["d", "e", "f"])]
}

/// The stream's member is gone, as in a failover.
fn gone() -> bytes::Bytes {
    frame(keys::METADATA_UPDATE, 1, |out| {
        out.put_u16(0x06);
        out.put_string("stream", "s").unwrap();
    })
}

/// Statistics of a leader that knows of the first chunk only.
fn behind(heard: &Heard, version: Version) -> bytes::Bytes {
    let mut figures = vec![("first_chunk_id", 0), ("committed_chunk_id", 0)];
    if version == Version::V4_3 {
        figures.push(("committed_offset", 2));
    }
    answer(heard, 1, |out| {
        out.put_u32(figures.len() as u32);
        for (name, value) in figures {
            out.put_string("name", name).unwrap();
            out.put_i64(value);
        }
    })
}

/// The start of a subscription for the position (kind 4), and its offset.
fn asks_for(heard: &Heard, offset: u64) -> bool {
    let start = &heard.payload[5 + 2 + 1..];
    heard.key == keys::SUBSCRIBE && start[..2] == [0, 4] && start[2..10] == offset.to_be_bytes()
}

/// The statistics are behind, and everything else is correct.
#[tokio::test]
async fn counters_that_are_behind_say_nothing() {
    for version in [Version::V4_0, Version::V4_3] {
        for policy in ["halt", "first", "next"] {
            let broker = Scripted::start(version).await;
            log().into_iter().for_each(|chunk| broker.append(chunk));
            let more = format!("on_offset_lost = \"{policy}\"");
            let home = Home::new(&broker.uri(), &consumer("c", "s", FILE, &more));
            let mut daemon = home.start();
            daemon.until_durable("c", 5).await;
            broker.script(move |heard| match heard.key {
                keys::STREAM_STATS => Say::Frames(vec![behind(heard, version)]),
                _ => Say::Usual,
            });
            broker.say(gone());
            broker.append(Chunk::plain(6, &["g"]));
            daemon.until_durable("c", 6).await;
            daemon.terminate().await;
            assert_eq!(
                home.offsets("out", "s"),
                (0..7).collect::<Vec<_>>(),
                "{version:?} {policy}"
            );
        }
    }
}

/// A leader that has not committed the end again: for a while, no chunk arrives for the position.
#[tokio::test]
async fn a_leader_that_catches_up() {
    for version in Version::ALL {
        let broker = Scripted::start(version).await;
        log().into_iter().for_each(|chunk| broker.append(chunk));
        let more = "on_offset_lost = \"first\"";
        let home = Home::new(&broker.uri(), &consumer("c", "s", FILE, more));
        let mut daemon = home.start();
        daemon.until_durable("c", 5).await;
        let catching_up = Arc::new(AtomicBool::new(true));
        let is_behind = Arc::clone(&catching_up);
        broker.script(move |heard| {
            if !is_behind.load(Ordering::SeqCst) {
                return Say::Usual;
            }
            match heard.key {
                keys::STREAM_STATS if version != Version::V3_10 => {
                    Say::Frames(vec![behind(heard, version)])
                }
                // It is subscribed, and nothing arrives.
                keys::SUBSCRIBE if asks_for(heard, 5) || heard.payload[9] == 2 => {
                    Say::Frames(vec![answer(heard, 1, |_| {})])
                }
                _ => Say::Usual,
            }
        });
        broker.say(gone());
        let waiting = |c: &serde_json::Value| c["state"] == "backoff" && c["reason"].is_string();
        let waits = daemon.until("c", "it says for what it waits", SOON, waiting).await;
        if version != Version::V3_10 {
            let doubts = |c: &serde_json::Value| {
                c["reason"].as_str().is_some_and(|r| r.contains("no chunk comes for it"))
            };
            let waits = daemon.until("c", "it doubts", SOON, doubts).await;
            assert_says(waits["reason"].as_str().unwrap(), &["offset 5", "120 s"]);
        }
        drop(waits);
        catching_up.store(false, Ordering::SeqCst);
        broker.append(Chunk::plain(6, &["g"]));
        daemon.until_durable("c", 6).await;
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), (0..7).collect::<Vec<_>>(), "{version:?}");
    }
}

/// If it lasts, the position finally counts as lost.
#[tokio::test]
async fn a_position_that_stays_away_for_minutes() {
    let broker = Scripted::start(Version::V4_3).await;
    log().into_iter().for_each(|chunk| broker.append(chunk));
    broker.set_stored("c", 500);
    let home = Home::new(&broker.uri(), &consumer("c", "s", FILE, ""));
    let mut daemon = home.start();
    let halted = |c: &serde_json::Value| c["state"] == "halted";
    let halted = daemon.until("c", "it halts", Duration::from_secs(200), halted).await;
    let words = ["position is offset 500", "stream ends at 5", "on_offset_lost"];
    assert_says(halted["reason"].as_str().unwrap(), &words);
    let since = halted["ready_age_seconds"].as_f64();
    assert!(since < Some(20.0) || since > Some(100.0), "{halted}");
    daemon.terminate().await;
    assert_eq!(offsets(&home.lines("out", "s")), [0; 0]);
}
