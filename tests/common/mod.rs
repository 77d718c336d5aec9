//! What tests stand on: real brokers, streams, second opinions, and networks that fail.
//!
//! - [`broker`]: RabbitMQ nodes, shared or private, of each version that matters
//! - [`daemon`]: the built binary, started, asked, signalled and killed
//! - [`s3`]: an S3 server, and a gate before it for bad days; [`duckdb`]: a second reader of files
//! - [`streams`]: streams of a test's own; publishing and reading stored offsets by the official client
//! - [`reading`]: what is in a stream, byte for byte
//! - [`rstream`]: the same by a client of another make, and what the official one cannot do
//! - [`load`]: a producer that publishes numbered messages all the while, and what became of them
//! - [`postgres`]: PostgreSQL servers, shared or private
//! - [`prometheus`]: Prometheus itself, as a reader of metrics and a judge of rules
//! - [`proxy`]: a TCP proxy that cuts or silences connections
//! - [`scripted`]: a broker by script, for answers that no real one gives
//! - [`web`]: a web service whose answers a script gives
//! - [`small_disk`]: a file system that can be filled
//! - [`skip`]: what a test does when this machine cannot have what it needs
#![allow(dead_code, reason = "a toolbox: not every tool is in use at every time")]

pub(crate) mod amqp091;
pub(crate) mod broker;
pub(crate) mod daemon;
pub(crate) mod duckdb;
pub(crate) mod load;
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod reading;
pub(crate) mod rstream;
pub(crate) mod s3;
pub(crate) mod scripted;
pub(crate) mod skip;
pub(crate) mod small_disk;
pub(crate) mod streams;
pub(crate) mod web;

pub(crate) use broker::{Broker, Options, Version};

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;

/// Asks again and again until the answer is `Some`, and panics when that takes too long. Tests wait
/// with this, for something they can name, and never for a time.
pub(crate) async fn eventually<T, F>(what: &str, within: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The metrics of this process: of every supervisor that a test runs in it.
pub(crate) static METRICS: LazyLock<PrometheusHandle> =
    LazyLock::new(|| rillway::telemetry::install().unwrap());

/// A number from the environment, for the long form of a test.
pub(crate) fn env_or(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")),
        Err(_) => default,
    }
}
