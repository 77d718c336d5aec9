//! AMQP 1.0 at its limits and beyond. The encodings are written byte by byte, after OASIS AMQP 1.0.

use std::time::Duration;

use serde_json::{Value, json};

use super::{assert_says, consumer, file, lost};
use crate::common::daemon::Home;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Options, Version, streams};

const SOON: Duration = Duration::from_secs(60);

/// What the file must hold of a message.
enum Expected {
    /// This body, in this encoding.
    Body(Value, &'static str),
    /// Also these further sections of the line.
    Section(&'static str, Value, Value),
    /// Nothing: the message is bad, with this reason and these words in the text.
    Bad(&'static str, &'static [&'static str]),
}

use Expected::{Bad, Body, Section};

/// An amqp-value section of this value.
fn value(encoded: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, 0x77], encoded].concat()
}

fn data(body: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, 0x75, 0xa0, body.len() as u8], body].concat()
}

/// A list in a list in a list …
fn nested(depth: usize) -> Vec<u8> {
    let mut encoded = vec![0x45];
    for _ in 0..depth {
        // list32: size (with the count), count 1, the list so far.
        let size = (encoded.len() + 4) as u32;
        encoded = [&[0xd0][..], &size.to_be_bytes(), &1u32.to_be_bytes(), &encoded].concat();
    }
    value(&encoded)
}

fn odd() -> Vec<(Vec<u8>, Expected)> {
    let good = |body: &str| (data(body.as_bytes()), Body(json!(body), "text"));
    let minus_one_property =
        [&[0x00, 0x53, 0x74, 0xc1, 0x06, 0x02, 0xa1, 0x01, b'n', 0x54, 0xff], &data(b"x")[..]];
    let mut deep = json!([]);
    for _ in 0..50 {
        deep = json!([deep]);
    }
    vec![
        good("the first"),
        (nested(50), Body(deep, "amqp")),
        (value(&[0x54, 0xff]), Body(json!(-1), "amqp")),
        (nested(5_000), Bad("over_limit", &["offset 3", "over a limit", "nest"])),
        good("after the deep one"),
        // array8 of three smallints, array32 of one string, an empty array.
        (value(&[0xe0, 0x05, 0x03, 0x54, 0xff, 0x00, 0x7f]), Body(json!([-1, 0, 127]), "amqp")),
        (value(&[0xf0, 0, 0, 0, 8, 0, 0, 0, 1, 0xa1, 2, b'h', b'i']), Body(json!(["hi"]), "amqp")),
        (value(&[0xe0, 0x02, 0x00, 0x54]), Body(json!([]), "amqp")),
        // decimal32 -12.50, decimal64 1E+3, decimal128 0.000001
        (value(&[0x74, 0xb1, 0x80, 0x04, 0xe2]), Body(json!("-12.50"), "amqp")),
        (value(&[0x84, 0x32, 0x20, 0, 0, 0, 0, 0, 1]), Body(json!("1E+3"), "amqp")),
        (
            value(&[0x94, 0x30, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            Body(json!("0.000001"), "amqp"),
        ),
        (
            minus_one_property.concat(),
            Section("application_properties", json!({ "n": -1 }), json!("x")),
        ),
        // A data section of 255 bytes, of which there are three.
        (
            vec![0x00, 0x53, 0x75, 0xb0, 0, 0, 0, 0xff, b'a', b'b', b'c'],
            Bad("undecodable", &["offset 12", "255", "3 are left"]),
        ),
        (b"hello, world".to_vec(), Bad("undecodable", &["offset 13", "AMQP 1.0 at byte 0"])),
        good("after what is no AMQP"),
        (data(b""), Body(json!(""), "text")),
        (Vec::new(), Body(Value::Null, "amqp")),
        (data(b"{\"a\": -1}"), Body(json!({ "a": -1 }), "json")),
        (data(&[0xff, 0x00]), Body(json!("/wA="), "base64")),
        good("the last"),
    ]
}

/// Checks that the lines of a file are those of `odd` from `from` up to `to`, without the bad ones.
#[track_caller]
fn assert_file(home: &Home, name: &str, stream: &str, from: usize, to: usize) {
    let mut lines = home.lines(name, stream).into_iter();
    for (offset, (_, expected)) in odd().iter().enumerate().take(to).skip(from) {
        let mut line = match expected {
            Bad(..) => continue,
            _ => lines.next().unwrap_or_else(|| panic!("{name} ends before offset {offset}")),
        };
        match expected {
            Body(body, encoding) => {
                assert_eq!(line["body"], *body, "{name} at {offset}");
                assert_eq!(line["body_encoding"], *encoding, "{name} at {offset}");
            }
            Section(section, fields, body) => {
                assert_eq!(line[section], *fields, "{name} at {offset}");
                assert_eq!(line["body"], *body, "{name} at {offset}");
            }
            Bad(..) => {}
        }
        assert_eq!(line["offset"].take(), offset, "{name}");
    }
    assert_eq!(lines.next(), None, "{name} ends at offset {to}");
}

/// `compression` puts all of them into one sub-entry batch.
async fn odd_messages(
    version: Version,
    compression: Option<Compression>,
) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "odd").await;
    let messages: Vec<Outgoing> = odd().iter().map(|(raw, _)| Outgoing::raw(raw)).collect();
    match compression {
        None => rstream.publish(&stream, &messages).await,
        Some(codec) => rstream.publish_batches(&stream, codec, messages.len(), &messages).await,
    }
    let count = messages.len();
    let bad: Vec<usize> = odd()
        .iter()
        .enumerate()
        .filter(|(_, (_, e))| matches!(e, Bad(..)))
        .map(|(i, _)| i)
        .collect();
    assert_eq!(bad, [3, 12, 13]);

    // From each bad message to the next, and over all of them.
    let starts = [0, 4, 13, 14];
    let mut consumers: String = starts
        .iter()
        .map(|start| {
            let name = format!("from-{start}");
            let more = format!("start = {{ offset = {start} }}\non_bad_message = \"halt\"");
            consumer(&name, &stream, &file(&name), &more)
        })
        .collect();
    let skip = "on_bad_message = \"skip\"";
    consumers += &consumer("skips", &stream, &file("skips"), skip);
    consumers += &consumer("counts", &stream, "{ type = \"null\" }", "");
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();

    for (start, halted_at) in [(0, 3), (4, 12), (13, 13)] {
        let reason = daemon.until_halted(&format!("from-{start}")).await;
        let Bad(_, words) = odd()[halted_at].1 else { unreachable!() };
        assert_says(&reason, words);
        assert_says(&reason, &["on_bad_message = \"skip\""]);
    }
    let last = (count - 1) as u64;
    for name in ["skips", "counts", "from-14"] {
        daemon.until_durable(name, last).await;
    }
    for kind in ["over_limit", "undecodable", "crc"] {
        let messages = odd().iter().filter(|(_, e)| matches!(e, Bad(k, _) if *k == kind)).count();
        assert_eq!(lost(&daemon, "skips", kind).await, messages as f64, "{kind}");
        assert_eq!(lost(&daemon, "from-0", kind).await, 0.0, "{kind}");
    }
    // Halted consumers delay no other.
    streams::publish(broker, &stream, ["one more"]).await;
    for name in ["skips", "counts", "from-14"] {
        daemon
            .until(name, "it reads on", SOON, |c| c["durable_offset"].as_u64() > Some(last))
            .await;
        let running = daemon.consumer(name).await.unwrap();
        assert_eq!((&running["state"], &running["restarts"]), (&json!("running"), &json!(0)));
    }
    let written = daemon.metric("rillway_written_messages_total", &["\"counts\""]).await;
    assert_eq!(written, Some((count + 1) as f64));
    daemon.terminate().await;

    for (start, end) in [(0, 3), (4, 12), (13, 13)] {
        let name = format!("from-{start}");
        assert_file(&home, &name, &stream, start, end);
        // Everything before the bad one is stored; if nothing was before it, nothing is stored.
        let stored = (end > start).then(|| end as u64 - 1);
        assert_eq!(streams::stored_offset(broker, &stream, &name).await, stored, "{name}");
    }
    for (name, start) in [("skips", 0), ("from-14", 14)] {
        let lines = home.lines(name, &stream);
        assert_eq!(lines.last().unwrap()["body"], "one more");
        let path = home.segments(name, &stream).pop().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let kept = text.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n";
        std::fs::write(path, kept).unwrap();
        assert_file(&home, name, &stream, start, count);
        let stored = streams::stored_offset(broker, &stream, name).await;
        assert_eq!(stored, lines.last().unwrap()["offset"].as_u64(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn odd_messages_on_rabbitmq_3_10() {
    or_skip!(odd_messages(Version::V3_10, None).await);
}

#[tokio::test]
async fn odd_messages_on_rabbitmq_4_0() {
    or_skip!(odd_messages(Version::V4_0, None).await);
}

#[tokio::test]
async fn odd_messages_on_rabbitmq_4_3() {
    or_skip!(odd_messages(Version::V4_3, None).await);
}

#[tokio::test]
async fn odd_messages_in_one_batch() {
    or_skip!(odd_messages(Version::V4_3, Some(Compression::None)).await);
}

#[tokio::test]
async fn odd_messages_in_one_compressed_batch() {
    or_skip!(odd_messages(Version::V4_3, Some(Compression::Zstd)).await);
}

/// Halted for a bad message, then told to skip it: it continues right there.
#[tokio::test]
async fn halted_and_then_told_to_skip() {
    let broker = or_skip!(Broker::shared(Version::V4_3).await);
    let rstream = or_skip!(Rstream::at(broker).await);
    let stream = streams::create(broker, "then-skip").await;
    let messages: Vec<Outgoing> = odd().iter().map(|(raw, _)| Outgoing::raw(raw)).collect();
    rstream.publish(&stream, &messages).await;
    let uri = format!("uri = \"{}\"", broker.uri());
    let home = Home::with_broker(&uri, &consumer("c", &stream, &file("c"), ""));
    for _ in 0..2 {
        let mut daemon = home.start();
        assert_says(&daemon.until_halted("c").await, &["offset 3"]);
        daemon.terminate().await;
    }
    let skipping = consumer("c", &stream, &file("c"), "on_bad_message = \"skip\"");
    home.configure(&uri, &skipping);
    let mut daemon = home.start();
    daemon
        .until("c", "all is read", SOON, |c| c["durable_offset"] == messages.len() as u64 - 1)
        .await;
    assert_eq!(lost(&daemon, "c", "over_limit").await, 1.0);
    assert_eq!(lost(&daemon, "c", "undecodable").await, 2.0);
    daemon.terminate().await;
    assert_file(&home, "c", &stream, 0, messages.len());
}

async fn five_mebibytes(version: Version) -> Result<(), Unavailable> {
    const SIZE: usize = 5 << 20;
    let options = Options::default().conf("stream.frame_max = 16777216");
    let broker = &Broker::private_with(version, options).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "large").await;
    let large: String =
        (0..SIZE).map(|nth| char::from(b'a' + ((nth + (nth >> 18)) % 26) as u8)).collect();
    streams::publish(broker, &stream, ["zero", "one"]).await;
    rstream.publish(&stream, &[Outgoing::body(&large)]).await;
    streams::publish(broker, &stream, ["three"]).await;
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("enough", &stream, &file("enough"), ""),
            consumer("just", &stream, &file("just"), "memory = \"11MiB\""),
            consumer("too-little", &stream, &file("too-little"), "memory = \"8MiB\""),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    for name in ["enough", "just"] {
        daemon.until_durable(name, 3).await;
    }
    let reason = daemon.until_halted("too-little").await;
    assert_says(&reason, &["larger than this consumer's whole budget", "raise `memory`"]);
    daemon.terminate().await;
    for name in ["enough", "just"] {
        let lines = home.lines(name, &stream);
        let bodies: Vec<&str> = lines.iter().map(|line| line["body"].as_str().unwrap()).collect();
        assert_eq!(home.offsets(name, &stream), [0, 1, 2, 3]);
        assert_eq!([bodies[0], bodies[1], bodies[3]], ["zero", "one", "three"]);
        assert!(bodies[2] == large, "{name}: the large body is another");
        assert_eq!(streams::stored_offset(broker, &stream, name).await, Some(3));
    }
    assert_eq!(home.offsets("too-little", &stream), [0, 1]);
    assert_eq!(streams::stored_offset(broker, &stream, "too-little").await, Some(1));
    Ok(())
}

#[tokio::test]
async fn five_mebibytes_on_rabbitmq_3_10() {
    or_skip!(five_mebibytes(Version::V3_10).await);
}

#[tokio::test]
async fn five_mebibytes_on_rabbitmq_4_0() {
    or_skip!(five_mebibytes(Version::V4_0).await);
}

#[tokio::test]
async fn five_mebibytes_on_rabbitmq_4_3() {
    or_skip!(five_mebibytes(Version::V4_3).await);
}
