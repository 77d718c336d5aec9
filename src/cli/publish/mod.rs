//! `rillway publish`: publishes messages to a stream, and waits for each confirmation.
//!
//! The official client publishes; this module adds what it lacks. [`input`] and [`generate`] make
//! messages, [`session`] is one connection of the client with a time limit on every call,
//! [`sender`] keeps unconfirmed messages and resends them over a new connection. So a message may
//! arrive twice, but none is lost unnoticed: exit code 0 means that every message was confirmed.

mod args;
mod elder;
mod envelope;
mod generate;
mod input;
mod sender;
mod session;

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

pub use args::PublishArgs;

use super::exit::Failure;
use super::progress::Progress;
use super::schema::write;
use crate::config::BrokerConfig;
use input::{Feed, InputError};
use sender::{Limits, Sender};
use session::Target;

/// Most groups of messages that wait between input and sender.
const RUNS_WAITING_MAX: usize = 4;

/// Outcome of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PublishCounts {
    /// Number of messages that the broker has confirmed.
    pub confirmed: u64,
    /// Number of messages that the broker has refused.
    pub failed: u64,
    /// Number of messages sent, or about to be sent, without an outcome when the run stopped.
    pub unconfirmed: u64,
    /// Number of times that a message was resent after a lost connection; each may be in the stream
    /// twice.
    pub sent_again: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    stream: &'a str,
    #[serde(flatten)]
    counts: PublishCounts,
    seconds: f64,
}

/// Publishes; returns `Ok` only if every message was confirmed.
pub async fn publish(broker: BrokerConfig, args: PublishArgs, json: bool) -> anyhow::Result<()> {
    let target = Target::new(broker, &args.stream)?;
    let started = Instant::now();
    let mut sender = Sender::new(target, limits(&args));
    let progress = Progress::new(args.generate, "confirmed", args.quiet);
    // Connects before any input is read: the stream exists and can be written to.
    sender.connect(args.create).await?;
    let (to, runs) = mpsc::channel(RUNS_WAITING_MAX);
    let feed = spawn_feed(&args, to);
    let ended = sender.run(runs, &progress).await;
    progress.finish();
    let counts = sender.counts();
    let seconds = started.elapsed().as_secs_f64();
    let report = Report { stream: &args.stream, counts, seconds };
    write(&if json {
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        report.to_string()
    })?;
    ended?;
    match feed.await? {
        Ok(()) => {}
        // The sender has ended, and has reported the reason.
        Err(InputError::NobodyListens) => {}
        Err(error) => return Err(Failure::Usage(error.to_string()).into()),
    }
    if counts.failed > 0 {
        let why = sender.refusal().unwrap_or_default();
        return Err(Failure::Unavailable(format!(
            "the broker refused {} messages for stream {:?}: {why}",
            counts.failed, args.stream
        ))
        .into());
    }
    Ok(())
}

fn limits(args: &PublishArgs) -> Limits {
    Limits {
        batch_messages: args.batch,
        in_flight_messages: args.in_flight,
        per_second: args.rate,
        confirm_within: args.confirm_within.0,
        give_up_after: args.give_up_after.0,
    }
}

/// Reads or generates the messages, on a thread that may block.
fn spawn_feed(
    args: &PublishArgs,
    to: mpsc::Sender<input::Run>,
) -> tokio::task::JoinHandle<Result<(), InputError>> {
    let feed = Feed::new(args, to);
    tokio::task::spawn_blocking(move || feed.run())
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PublishCounts { confirmed, failed, unconfirmed, sent_again } = self.counts;
        let rate = confirmed as f64 / self.seconds.max(f64::MIN_POSITIVE);
        write!(f, "{:?}: {confirmed} confirmed, {failed} failed", self.stream)?;
        if unconfirmed > 0 {
            write!(f, ", {unconfirmed} unconfirmed")?;
        }
        if sent_again > 0 {
            write!(f, ", {sent_again} sent again (they may be there twice)")?;
        }
        writeln!(
            f,
            ", in {:.1} s ({rate:.0} msg/s)",
            Duration::from_secs_f64(self.seconds).as_secs_f64()
        )
    }
}

/// Fuzz target: reads the bytes as a line of NDJSON.
pub(super) fn fuzz_line(data: &[u8]) {
    drop(envelope::message(data, 0));
}
