//! Do sinks keep their promises? The real daemon, a real broker, the real destination and a running
//! producer; and then everything that can go wrong in the middle:
//!
//! - [`kills`]: `kill -9` at random moments, and between any two steps of a write
//! - [`frozen`]: two daemons with the same configuration, of which one is frozen while the other goes on
//! - [`outage`]: the destination fails for a while, beside a consumer that must not notice
//! - [`rolling`]: three daemons share the partitions of a super stream, and are restarted and killed in turn
//!
//! In the end what was published is compared with what was written: is anything lost, duplicated, or
//! torn? Each sink has an [`oracle::Oracle`] in [`media`], which sets it up, and reads back what was
//! written without the daemon.
//!
//! By default a few kills of each kind, within seconds. One command runs all of them, and prints a table
//! at the end:
//!
//! ```text
//! KILLS=200 make torture
//! ```
//!
//! The moments are random; `SEED=…` repeats those of an earlier run, as far as possible.

mod frozen;
mod kills;
mod media;
mod oracle;
mod outage;
mod rolling;
mod table;

use std::time::{Duration, Instant};

use self::oracle::{Landed, Oracle};
use crate::common::Broker;
use crate::common::daemon::{Daemon, Home};

/// The consumer under torture.
const NAME: &str = "tortured";

/// Time limit for steps that may be slow on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// Small batches and frequent stores, so that many different points of the work are met.
const SMALL: &str = r#"
batch = { max_messages = 40, max_bytes = "1MiB", max_age = "20ms" }
commit = { every_messages = 100, every = "100ms" }
restart = { min_backoff = "10ms", max_backoff = "100ms" }
"#;

/// The consumer under torture, as the configuration has it.
fn consumer(oracle: &impl Oracle, stream: &str) -> String {
    let (sink, lines) = (oracle.sink(stream), oracle.consumer_lines());
    format!(
        "[[consumer]]\nname = \"{NAME}\"\nstream = \"{stream}\"\nstart = \"first\"\nsink = {sink}\n{lines}{SMALL}"
    )
}

/// A daemon's folder, with the consumer under torture and these others.
fn home(broker: &Broker, oracle: &impl Oracle, consumers: &str) -> Home {
    let lines = format!("uri = \"{}\"\nheartbeat = \"30s\"\n", oracle.uri(broker));
    Home::with_broker(&[&lines, oracle.broker_lines()].concat(), consumers)
}

fn durable(consumer: &serde_json::Value) -> Option<u64> {
    consumer["durable_offset"].as_u64()
}

/// Waits until the consumer has made something new durable in this run.
async fn until_progress(daemon: &mut Daemon) {
    let before = daemon.until(NAME, "a position", LONG, |c| {
        c["state"] == "running" && c["received_offset"].is_u64()
    });
    let before = durable(&before.await);
    daemon.until(NAME, "progress", LONG, |c| durable(c) > before).await;
}

/// Waits until the last of this many messages is written, and returns all that are written then. Offsets
/// do not tell: the broker's own chunks take some too.
async fn all_landed(
    daemon: &mut Daemon,
    oracle: &mut impl Oracle,
    home: &Home,
    stream: &str,
    total: u64,
) -> Landed {
    let last = total.checked_sub(1).expect("something was published");
    let within = LONG + Duration::from_millis(total * 2);
    let began = Instant::now();
    daemon
        .until(NAME, "all is durable", within, |c| {
            // If everything was written before, this daemon has made nothing durable. It stores the
            // sink's position once the stream has shown a chunk: a drain before that leaves the stored
            // offset unchanged.
            durable(c).max(c["stored_offset"].as_u64()) >= Some(last)
                && c["received_offset"].is_u64()
        })
        .await;
    let mut pause = Duration::from_millis(50);
    loop {
        let landed = oracle.landed(home, stream).await;
        if landed.records.iter().any(|(_, number)| *number == last) {
            return landed;
        }
        let now = daemon.consumer(NAME).await;
        assert!(began.elapsed() < within, "the last message has not landed: {now:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
