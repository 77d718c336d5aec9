//! A producer that publishes numbered messages continuously with the official client, and a check
//! that each arrived: the bodies are `{"i":0}`, `{"i":1}`, …

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rabbitmq_stream_client::Environment;
use rabbitmq_stream_client::types::Message;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::broker::Broker;
use super::streams::{Failure, RUNTIME, WAIT_MAX};

/// Rate of publishing: this many messages, confirmed, and then this pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) messages: u64,
    pub(crate) pause: Duration,
}

impl Pace {
    /// About five thousand messages per second, in chunks of about twenty.
    pub(crate) const BRISK: Self = Self { messages: 20, pause: Duration::from_millis(4) };
}

/// A running producer. Ends on request, or when dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicU64>,
    publishing: JoinHandle<Result<(), Failure>>,
}

impl Load {
    /// Publishes from now on. Not on RabbitMQ 3.10.
    pub(crate) fn on(broker: &Broker, stream: &str, pace: Pace) -> Load {
        let (stop, confirmed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let is_over = {
            let stop = Arc::clone(&stop);
            move |_| stop.load(Ordering::SeqCst)
        };
        let publishing = RUNTIME.spawn(publish(
            broker.stream_port,
            stream.to_owned(),
            pace,
            body,
            Arc::clone(&confirmed),
            is_over,
        ));
        Load { stop, confirmed, publishing }
    }

    /// Messages confirmed so far.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::SeqCst)
    }

    /// Stops publishing, and returns the number of messages in the stream: their numbers are below
    /// it.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        (&mut self.publishing).await.unwrap().expect("the producer published without a failure");
        self.confirmed()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Publishes `total` messages in chunks of `per_chunk`.
pub(crate) async fn publish_evenly(
    broker: &Broker,
    stream: &str,
    (total, per_chunk): (u64, u64),
    body: fn(u64) -> String,
) {
    assert_eq!(total % per_chunk, 0, "whole chunks");
    let pace = Pace { messages: per_chunk, pause: Duration::ZERO };
    let is_over = move |confirmed| confirmed >= total;
    let (port, stream) = (broker.stream_port, stream.to_owned());
    let publishing = publish(port, stream, pace, body, Arc::default(), is_over);
    RUNTIME.spawn(publishing).await.unwrap().expect("all is published");
}

async fn publish(
    port: u16,
    stream: String,
    pace: Pace,
    body: fn(u64) -> String,
    confirmed: Arc<AtomicU64>,
    is_over: impl Fn(u64) -> bool,
) -> Result<(), Failure> {
    let environment = Environment::builder().host("localhost").port(port).build().await?;
    let per_frame = usize::try_from(pace.messages)?;
    let producer = environment.producer().batch_size(per_frame).build(&stream).await?;
    while !is_over(confirmed.load(Ordering::SeqCst)) {
        let first = confirmed.load(Ordering::SeqCst);
        let messages = (first..first + pace.messages)
            .map(|i| Message::builder().body(body(i)).build())
            .collect();
        let sent = producer.batch_send_with_confirm(messages);
        let confirmations = tokio::time::timeout(WAIT_MAX, sent).await??;
        let all = confirmations.len() as u64 == pace.messages
            && confirmations.iter().all(|confirmation| confirmation.confirmed());
        if !all {
            return Err("a message was not confirmed".into());
        }
        confirmed.fetch_add(pace.messages, Ordering::SeqCst);
        tokio::time::sleep(pace.pause).await;
    }
    tokio::time::timeout(WAIT_MAX, producer.close()).await??;
    Ok(())
}

/// The body of message `i`.
pub(crate) fn body(i: u64) -> String {
    format!("{{\"i\":{i}}}")
}

/// The number in a line of NDJSON.
pub(crate) fn number(line: &Value) -> u64 {
    line["body"]["i"].as_u64().unwrap_or_else(|| panic!("no number in {line}"))
}

/// Checks that these lines are the messages below `total`: none lost or duplicated, in order.
pub(crate) fn assert_exact(what: &str, lines: &[Value], total: u64) {
    let numbers: Vec<u64> = lines.iter().map(number).collect();
    assert_none_lost(what, &numbers, total);
    let twice = numbers.len() as u64 - total;
    assert!(twice == 0, "{what}: {twice} duplicated, and none lost of {total}");
    assert!(numbers.is_sorted(), "{what}: out of order");
    let offsets: Vec<u64> = lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{what}: offsets do not increase");
}

/// Checks that all numbers below `total` are there, each at least once, and no other.
pub(crate) fn assert_none_lost(what: &str, numbers: &[u64], total: u64) {
    let seen: BTreeSet<u64> = numbers.iter().copied().collect();
    let lost: Vec<u64> = (0..total).filter(|i| !seen.contains(i)).collect();
    assert!(
        lost.is_empty(),
        "{what}: {} of {total} lost: {} to {}",
        lost.len(),
        lost[0],
        lost[lost.len() - 1]
    );
    assert!(seen.len() as u64 == total, "{what}: messages that were never confirmed");
}
