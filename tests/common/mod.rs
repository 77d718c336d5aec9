//! Tools for tests: real brokers, streams, other clients, and failing networks.
//!
//! - [`balancer`]: a load balancer in front of several nodes
//! - [`broker`]: RabbitMQ nodes, shared or private, of each relevant version
//! - [`cluster`]: three nodes that are one broker
//! - [`daemon`]: the built binary, started, queried, signalled and killed; [`dying`]: one with a fault that it
//!   may not reach
//! - [`s3`]: an S3 server, with a gate that injects failures; [`duckdb`]: a second reader of files
//! - [`streams`]: a test's own streams; publishing and reading stored offsets with the official
//!   client
//! - [`reading`]: the content of a stream, byte for byte
//! - [`rstream`]: the same with another client, and features that the official one lacks
//! - [`load`]: a producer that publishes numbered messages continuously, and checks of the result
//! - [`postgres`]: PostgreSQL servers, shared or private
//! - [`ports`]: ports for servers that start later, or never
//! - [`prometheus`]: Prometheus, to read metrics and evaluate rules
//! - [`plain`]: finds Rust's Debug forms in texts for people
//! - [`proxy`]: a TCP proxy that cuts or silences connections
//! - [`scripted`]: a scripted broker, for answers that no real one gives; [`scripted_amqp`]: one that
//!   speaks AMQP 0.9.1
//! - [`stage`]: a stream on a broker, for the contract of sources
//! - [`web`]: a web service with scripted answers
//! - [`small_disk`]: a file system that can be filled
//! - [`skip`]: skips a test whose requirements are missing on this machine
#![allow(dead_code, reason = "a toolbox: not every tool is in use at every time")]

pub(crate) mod amqp091;
pub(crate) mod balancer;
pub(crate) mod broker;
pub(crate) mod cluster;
pub(crate) mod daemon;
pub(crate) mod duckdb;
mod dying;
pub(crate) mod load;
pub(crate) mod plain;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod reading;
pub(crate) mod rstream;
pub(crate) mod s3;
pub(crate) mod scripted;
pub(crate) mod scripted_amqp;
pub(crate) mod skip;
pub(crate) mod small_disk;
pub(crate) mod stage;
pub(crate) mod streams;
pub(crate) mod web;

pub(crate) use broker::{Broker, Options, Version};

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use rillway::sink::SinkError;

/// Calls the function repeatedly until it returns `Some`; panics after the time limit. Tests wait
/// with this for a named condition, never for a fixed time.
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

/// A time after everything that was published before it, and before everything behind it: the broker's times are in
/// milliseconds.
pub(crate) async fn next_millisecond() -> jiff::Timestamp {
    let now =
        || jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond()).unwrap();
    let later = async |than: jiff::Timestamp| {
        let is_later = || async { Some(now()).filter(|now| *now > than) };
        eventually("the clock moves on", std::time::Duration::from_secs(60), is_later).await
    };
    let at = later(now()).await;
    later(at).await;
    at
}

/// What the sink answers, asked again while it says that it may work later, as its consumer does. RabbitMQ
/// closes the socket, without a word, of a connection whose question the stream's writer does not answer
/// within 5 s, as happens on a busy machine (`query_writers` in `osiris_writer.erl`).
pub(crate) async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, SinkError>) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(SinkError::Transient { .. }) if began.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The metrics of this process: of all supervisors that a test runs in it.
pub(crate) static METRICS: LazyLock<PrometheusHandle> =
    LazyLock::new(|| rillway::telemetry::install().unwrap());

/// A number from the environment, for the long form of a test.
pub(crate) fn env_or(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")),
        Err(_) => default,
    }
}
