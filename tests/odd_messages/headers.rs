//! Damaged chunk headers. No checksum covers a header, so each of its numbers counts only as far as its
//! entries and the next chunk confirm it: no offset is stored that is too high, and no good chunk after
//! it counts as read before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use rillway::wire::commands::keys;

use super::chunks::broker_with;
use super::{assert_says, consumer, file, lost};
use crate::common::Version;
use crate::common::daemon::Home;
use crate::common::scripted::{Chunk, Say, Scripted};

const SOON: Duration = Duration::from_secs(60);
const SKIP: &str = "on_bad_message = \"skip\"";
const VERSIONS: [Version; 2] = [Version::V3_10, Version::V4_3];

const KIND: usize = 1;
const ENTRIES: usize = 2;
const RECORDS: usize = 4;
const FIRST: usize = 24;
const DATA_BYTES: usize = 36;

/// The good chunk at offset 2, with one byte of its header changed.
fn odd(at: usize, mask: u8) -> Chunk {
    let mut chunk = Chunk::plain(2, &["c", "d", "e"]);
    chunk.bytes[at] ^= mask;
    chunk
}

/// The count of records with bit 31 flipped, and with a small error; the count of entries; the bytes of
/// data; an invalid magic; a kind that is not delivered.
#[tokio::test]
async fn a_damaged_header_is_left_out_alone() {
    for version in VERSIONS {
        for (at, mask) in [
            (RECORDS, 0x80),
            (RECORDS + 3, 0x07),
            (ENTRIES + 1, 0x01),
            (DATA_BYTES + 3, 0x01),
            (0, 0x10),
            (KIND, 0x01),
        ] {
            let broker = broker_with(version, odd(at, mask)).await;
            let both = [
                consumer("halts", "s", &file("halts"), ""),
                consumer("skips", "s", &file("skips"), SKIP),
            ];
            let home = Home::new(&broker.uri(), &both.concat());
            let mut daemon = home.start();
            daemon.until_durable("skips", 6).await;
            assert_eq!(lost(&daemon, "skips", "undecodable").await, 3.0, "{version:?} {at}");
            let reason = daemon.until_halted("halts").await;
            assert_says(&reason, &["\"s\"", "3 times in a row", "on_bad_message = \"skip\""]);
            broker.append(Chunk::plain(7, &["h"]));
            daemon.until_durable("skips", 7).await;
            daemon.terminate().await;
            assert_eq!(home.offsets("skips", "s"), [0, 1, 5, 6, 7], "{version:?} {at}");
            assert_eq!(home.offsets("halts", "s"), [0, 1], "{version:?} {at}");
            assert_eq!((broker.stored("halts"), broker.stored("skips")), (Some(1), Some(7)));
        }
    }
}

/// As the last chunk of the stream: nothing above what was read is stored until something shows how far
/// the chunk reaches.
#[tokio::test]
async fn a_damaged_header_at_the_end_of_the_stream() {
    let broker = Scripted::start(Version::V4_3).await;
    broker.append(Chunk::plain(0, &["a", "b"]));
    broker.append(odd(RECORDS, 0x80));
    let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), SKIP));
    let mut daemon = home.start();
    daemon.until_durable("c", 1).await;
    daemon.terminate().await;
    assert_eq!(broker.stored("c"), Some(1));
    broker.replace_log([
        Chunk::plain(0, &["a", "b"]),
        odd(RECORDS, 0x80),
        Chunk::plain(5, &["f", "g"]),
    ]);
    let mut daemon = home.start();
    daemon.until_durable("c", 6).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("out", "s"), [0, 1, 5, 6]);
    assert_eq!(broker.stored("c"), Some(6));
}

/// The offset of `next` is read from the last chunk: its header is not trusted either.
#[tokio::test]
async fn next_behind_a_damaged_header() {
    for version in Version::ALL {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(0, &["a", "b"]));
        broker.append(odd(RECORDS, 0x80));
        let more = format!("start = \"next\"\n{SKIP}");
        let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), &more));
        let mut daemon = home.start();
        daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
        assert!(broker.stored("c") < Some(5), "{version:?}: {:?}", broker.stored("c"));
        broker.append(Chunk::plain(5, &["f", "g"]));
        daemon.until_durable("c", 6).await;
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), [5, 6], "{version:?}");
        assert_eq!(broker.stored("c"), Some(6));
    }
}

/// A first offset that is too high, in transit: the second probe shows the right one.
#[tokio::test]
async fn a_first_offset_that_is_wrong_once() {
    for version in VERSIONS {
        let broker = broker_with(version, Chunk::plain(2, &["c", "d", "e"])).await;
        let wrong = AtomicBool::new(true);
        let frame = |chunk: &Chunk| {
            crate::common::scripted::frame(keys::DELIVER, 1, |out: &mut BytesMut| {
                out.extend_from_slice(&[0]);
                out.extend_from_slice(&chunk.bytes);
            })
        };
        let frames = [frame(&Chunk::plain(0, &["a", "b"])), frame(&odd(FIRST + 7, 0x08))].to_vec();
        broker.script(move |heard| {
            if heard.key == keys::SUBSCRIBE
                && heard.payload[4] == 0
                && wrong.swap(false, Ordering::SeqCst)
            {
                let mut all = vec![crate::common::scripted::answer(heard, 1, |_| {})];
                all.extend(frames.clone());
                return Say::Frames(all);
            }
            Say::Usual
        });
        let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), SKIP));
        let mut daemon = home.start();
        daemon.until_durable("c", 6).await;
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), (0..7).collect::<Vec<_>>(), "{version:?}");
    }
}

/// The same on the broker's disk, where every probe sees it: beyond the end of the stream there is no
/// chunk.
#[tokio::test]
async fn a_first_offset_that_is_wrong_for_good() {
    for version in VERSIONS {
        for more in ["", SKIP] {
            let broker = Scripted::start(version).await;
            broker.append(Chunk::plain(0, &["a", "b"]));
            let home = Home::new(&broker.uri(), &consumer("c", "s", &file("out"), more));
            let mut daemon = home.start();
            daemon.until_durable("c", 1).await;
            broker.append(odd(FIRST + 7, 0x08));
            broker.append(Chunk::plain(5, &["f", "g"]));
            let reason = daemon.until_halted("c").await;
            assert_says(&reason, &["\"s\"", "damaged"]);
            daemon.terminate().await;
            assert_eq!(home.offsets("out", "s"), [0, 1], "{version:?}");
            assert_eq!(broker.stored("c"), Some(1), "{version:?}");
        }
    }
}
