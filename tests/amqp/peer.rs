//! A peer violates AMQP 0.9.1 in the middle of its messages. The connection is given up with a reason in the log, and
//! the next connection delivers every message once.

use super::{SOON, consumer, into_file};
use crate::common::daemon::Home;
use crate::common::scripted_amqp::{ScriptedAmqp, announced, body_part, frame_of, head, message};

const MESSAGES: u64 = 10;

fn bodies() -> Vec<Vec<u8>> {
    (0..MESSAGES).map(|i| i.to_string().into_bytes()).collect()
}

/// Violations: a name, the bytes that follow one good message, and a part of the logged reason.
fn violations() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut endless = frame_of(3, b"x");
    endless[3..7].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut open = frame_of(3, b"x");
    *open.last_mut().unwrap() = 0;
    let no_offset = frame_of(2, &[&[0, 60, 0, 0][..], &1_u64.to_be_bytes(), &[0, 0]].concat());
    let cut = frame_of(2, &[&[0, 60, 0, 0][..], &1_u64.to_be_bytes(), &[0x20, 0, 0, 0]].concat());
    let far = u64::MAX.to_be_bytes();
    let huge_table = frame_of(
        2,
        &[&[0, 60, 0, 0][..], &1_u64.to_be_bytes(), &[0x20, 0], &far[..4], b"\x01kS"].concat(),
    );
    vec![
        (
            "a body longer than said",
            [announced(2), head(1, 1), body_part(b"12")].concat(),
            "longer",
        ),
        ("a number left out", [announced(3), head(1, 1), body_part(b"1")].concat(), "consecutive"),
        (
            "a message in a message",
            [announced(2), head(1, 9), announced(3), head(2, 1)].concat(),
            "complete",
        ),
        ("a body of nothing", body_part(b"x"), "without its beginning"),
        ("no offset", [announced(2), no_offset].concat(), "x-stream-offset"),
        ("properties cut off", [announced(2), cut].concat(), "properties"),
        ("a table larger than its frame", [announced(2), huge_table].concat(), "properties"),
        ("a frame of 4 GiB", endless, "4294967303 bytes"),
        ("a frame without its end", open, "without its end"),
        ("a frame of no kind", frame_of(77, b""), "unknown kind 77"),
        ("a method cut off", frame_of(1, &[0, 60, 0, 60, 3]), "violates the protocol"),
        (
            "an offset too high",
            [announced(2), head(u64::MAX, 1), body_part(b"1")].concat(),
            "x-stream-offset",
        ),
    ]
}

#[tokio::test]
async fn amqp_gives_up_a_peer_that_violates_the_protocol() {
    for (what, bytes, says) in violations() {
        let broker = ScriptedAmqp::start(bodies(), move |nth| {
            (nth == 0).then(|| [message(1, 0, b"0"), bytes.clone()].concat())
        })
        .await;
        let home = Home::new(&broker.uri(), &consumer("c", "s", "\"first\"", &into_file("c")));
        let mut daemon = home.start();
        daemon.until_durable("c", MESSAGES - 1).await;
        daemon.terminate().await;
        let log = home.log();
        assert!(log.contains(says), "{what}: {says:?} is not in\n{log}");
        assert_eq!(home.offsets("c", "s"), (0..MESSAGES).collect::<Vec<_>>(), "{what}");
    }
}

/// Neither an offset that was delivered before nor an offset that is left out is accepted silently.
#[tokio::test]
async fn amqp_takes_no_offset_twice_and_passes_over_none() {
    let twice = [message(1, 0, b"0"), message(2, 1, b"1"), message(3, 1, b"1")].concat();
    let broker = ScriptedAmqp::start(bodies(), move |nth| (nth == 0).then(|| twice.clone())).await;
    let home = Home::new(&broker.uri(), &consumer("c", "s", "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    daemon.until_durable("c", MESSAGES - 1).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("c", "s"), (0..MESSAGES).collect::<Vec<_>>());

    let skips = [message(1, 0, b"0"), message(2, 3, b"3")].concat();
    let broker = ScriptedAmqp::start(bodies(), move |_| Some(skips.clone())).await;
    let home = Home::new(&broker.uri(), &consumer("c", "s", "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("offsets 1 to 2 were not delivered"), "{reason}");
    daemon.terminate().await;
    assert_eq!(home.offsets("c", "s"), [0]);
}

/// A channel that ends in the middle: a new connection goes on behind what came.
#[tokio::test]
async fn amqp_goes_on_after_a_channel_that_the_peer_closed() {
    let close =
        frame_of(1, &[&[0, 20, 0, 40][..], &541_u16.to_be_bytes(), b"\x05oh no", &[0; 4]].concat());
    let broker = ScriptedAmqp::start(bodies(), move |nth| {
        (nth == 0).then(|| [message(1, 0, b"0"), close.clone()].concat())
    })
    .await;
    let home = Home::new(&broker.uri(), &consumer("c", "s", "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    daemon.until("c", "it reads on", SOON, |c| c["durable_offset"] == MESSAGES - 1).await;
    daemon.terminate().await;
    assert!(home.log().contains("541 oh no"), "{}", home.log_tail());
    assert_eq!(home.offsets("c", "s"), (0..MESSAGES).collect::<Vec<_>>());
}

/// A message that is said to be larger than any memory: nothing is allocated for it.
#[tokio::test]
async fn amqp_halts_at_a_message_that_is_said_to_be_endless() {
    let endless = [announced(2), head(1, u64::MAX)].concat();
    let broker = ScriptedAmqp::start(bodies(), move |_| {
        Some([message(1, 0, b"0"), endless.clone()].concat())
    })
    .await;
    let home = Home::new(&broker.uri(), &consumer("c", "s", "\"first\"", &into_file("c")));
    let mut daemon = home.start();
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("raise `memory`"), "{reason}");
    daemon.terminate().await;
    assert_eq!(home.offsets("c", "s"), [0]);
}
