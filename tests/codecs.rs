//! Do sub-entry batches of every codec, written by other implementations, arrive with the right offsets
//! and bodies, among plain messages, and from their middle?

use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// Sizes from nothing to more than one block of any codec; some that compress and some that do not.
fn body(nth: u64) -> String {
    let size = [0, 1, 10, 1_000, 70_000][(nth % 5) as usize];
    let mut state = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + 1 + ((state >> 33) % 90) as u8)
    });
    let text =
        if nth.is_multiple_of(2) { noise.take(size).collect() } else { "abc".repeat(size / 3) };
    format!("{nth}: {text}")
}

fn messages(range: std::ops::Range<u64>) -> Vec<Outgoing> {
    range.map(|nth| Outgoing::body(body(nth))).collect()
}

async fn every_codec(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "codecs").await;
    let mut end = 0;
    // The last batch of each codec is not full.
    for compression in Compression::ALL {
        streams::publish(broker, &stream, (end..end + 3).map(body)).await;
        rstream.publish_batches(&stream, compression, 20, &messages(end + 3..end + 50)).await;
        end += 50;
    }
    streams::publish(broker, &stream, (end..end + 5).map(body)).await;
    end += 5;

    // In each codec's first, second and third batch, at the edges and in between.
    let starts =
        [0, 2, 3, 4, 22, 23, 49, 73, 80, 99, 103, 117, 142, 150, 153, 199, 204, 222, 223, 249, 254];
    let consumers: String = starts
        .iter()
        .map(|start| {
            format!(
                r#"
                [[consumer]]
                name = "from-{start}"
                stream = "{stream}"
                start = {{ offset = {start} }}
                commit = {{ every = "1h", every_messages = 1000000000 }}
                batch = {{ max_age = "50ms" }}
                sink = {{ type = "file", dir = "from-{start}" }}
                "#
            )
        })
        .collect();
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    for start in starts {
        let name = format!("from-{start}");
        daemon.until_durable(&name, end - 1).await;
        let label = format!("consumer=\"{name}\"");
        let received = daemon.metric("rillway_received_messages_total", &[&label]).await;
        assert_eq!(received, Some((end - start) as f64), "{name}");
    }
    daemon.terminate().await;
    for start in starts {
        let lines = home.lines(&format!("from-{start}"), &stream);
        assert_eq!(lines.len() as u64, end - start, "from {start}");
        for (line, nth) in lines.iter().zip(start..) {
            assert_eq!(line["offset"], nth, "from {start}");
            // Not with assert_eq: some bodies are long.
            assert!(line["body"] == body(nth).as_str(), "from {start}: the body at {nth}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_codec_on_rabbitmq_3_10() {
    or_skip!(every_codec(Version::V3_10).await);
}

#[tokio::test]
async fn every_codec_on_rabbitmq_4_0() {
    or_skip!(every_codec(Version::V4_0).await);
}

#[tokio::test]
async fn every_codec_on_rabbitmq_4_3() {
    or_skip!(every_codec(Version::V4_3).await);
}

/// Stopped and started again in the middle of batches: a stored offset may lie inside a batch.
#[tokio::test]
async fn resumed_in_the_middle_of_every_batch() {
    let broker = or_skip!(Broker::shared(Version::V4_3).await);
    let rstream = or_skip!(Rstream::at(broker).await);
    let stream = streams::create(broker, "middle").await;
    let (mut end, mut consumers) = (0, String::new());
    for (nth, compression) in Compression::ALL.into_iter().enumerate() {
        rstream.publish_batches(&stream, compression, 10, &messages(end..end + 10)).await;
        end += 10;
        consumers += &format!(
            r#"
            [[consumer]]
            name = "c{nth}"
            stream = "{stream}"
            batch = {{ max_age = "50ms" }}
            sink = {{ type = "file", dir = "c{nth}" }}
            "#
        );
    }
    for nth in 0..5 {
        streams::store_offset(broker, &stream, &format!("c{nth}"), nth * 10 + 4).await;
    }
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    for nth in 0..5 {
        let name = format!("c{nth}");
        daemon
            .until(&name, "all is written", Duration::from_secs(60), |c| {
                c["durable_offset"] == end - 1
            })
            .await;
    }
    daemon.terminate().await;
    for nth in 0..5 {
        let expected: Vec<u64> = (nth * 10 + 5..end).collect();
        assert_eq!(home.offsets(&format!("c{nth}"), &stream), expected, "c{nth}");
    }
}
