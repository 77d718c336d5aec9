//! Super streams: is each partition a stream of its own, in every respect, on one connection?

mod checks;
mod connections;
mod moving;
mod sinks;
pub(crate) mod spread;

use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Daemon;
use crate::common::{Broker, eventually, reading, streams};

pub(crate) const LONG: Duration = Duration::from_secs(90);

/// Small batches, so that there is progress at once.
const SMALL: &str = "batch = { max_messages = 100, max_age = \"20ms\" }\n\
                     restart = { min_backoff = \"20ms\", max_backoff = \"500ms\" }";

/// A consumer of a super stream.
fn consumer(name: &str, super_stream: &str, rest: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nsuper_stream = \"{super_stream}\"\n{SMALL}\n{rest}\n")
}

/// The admin server's view of one consumer: a row for each partition, by the stream.
pub(crate) async fn rows(daemon: &Daemon, name: &str) -> Vec<Value> {
    let Some((_, body)) = daemon.http("GET", "/api/v1/consumers").await else { return Vec::new() };
    let all: Value = serde_json::from_str(&body).unwrap();
    let all = all["consumers"].as_array().unwrap().iter();
    all.filter(|row| row["name"] == name).cloned().collect()
}

async fn row(daemon: &Daemon, name: &str, stream: &str) -> Option<Value> {
    rows(daemon, name).await.into_iter().find(|row| row["stream"] == stream)
}

/// Waits until a row meets the condition.
async fn until_row(
    daemon: &Daemon,
    (name, stream): (&str, &str),
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let what = format!("{name} on {stream}: {what}");
    let seen = std::cell::Cell::new(String::new());
    eventually(&what, LONG, || async {
        let found = row(daemon, name, stream).await;
        // Shown where it is waited for in vain.
        let state = found
            .as_ref()
            .map_or_else(String::new, |row| format!("{} {}", row["state"], row["reason"]));
        if seen.replace(state.clone()) != state {
            println!("{what}: {state}");
        }
        found.filter(|row| wanted(row))
    })
    .await
}

/// Waits until everything that the partition holds now is durable; returns the last offset. Nobody
/// may be publishing. Not every offset belongs to a message, so they are not counted.
async fn until_written(broker: &Broker, daemon: &Daemon, name: &str, stream: &str) -> u64 {
    let end = *reading::offsets(broker, stream).await.last().unwrap();
    until_row(daemon, (name, stream), "all is written", |row| {
        row["durable_offset"].as_u64() >= Some(end)
    })
    .await;
    end
}

fn bodies(from: u64, to: u64) -> impl Iterator<Item = String> {
    (from..to).map(crate::common::load::body)
}

async fn publish(broker: &Broker, stream: &str, from: u64, to: u64) {
    streams::publish(broker, stream, bodies(from, to)).await;
}
