//! `rillway publish`: messages into a stream, each of them confirmed.
//!
//! Publishing is the official client's work; this is what stands around it. [`input`] and
//! [`generate`] make messages, [`session`] is one connection of the client with every call under a
//! time limit, [`sender`] keeps what is not yet confirmed and sends it again over a new connection
//! when one is lost. So a message may arrive twice, and none is lost unnoticed: exit code 0 means
//! that every single one was confirmed.

mod args;
mod elder;
mod envelope;
mod generate;
mod input;
mod progress;
mod sender;
mod session;

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

pub use args::PublishArgs;

use super::exit::Failure;
use super::schema::write;
use crate::config::BrokerConfig;
use input::{Feed, InputError};
use progress::Progress;
use sender::{Limits, Sender};
use session::Target;

/// Runs of messages that wait between input and sender.
const RUNS_WAITING_MAX: usize = 4;

/// What became of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages that the broker has confirmed.
    pub confirmed: u64,
    /// Messages that the broker has refused.
    pub failed: u64,
    /// Messages that were sent, or about to be, when it was given up.
    pub unconfirmed: u64,
    /// How many times a message was sent again because a connection was lost; each may be in the
    /// stream twice.
    pub sent_again: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    stream: &'a str,
    #[serde(flatten)]
    counts: Counts,
    seconds: f64,
}

/// Publishes, and returns `Ok` only when every message was confirmed.
pub async fn publish(broker: BrokerConfig, args: PublishArgs, json: bool) -> anyhow::Result<()> {
    let target = Target::new(broker, &args.stream)?;
    let started = Instant::now();
    let mut sender = Sender::new(target, limits(&args));
    let progress = Progress::new(args.generate, args.quiet);
    // The stream is there, and can be written to, before any input is read.
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
        // The sender has gone: it has told why.
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

/// Reads or makes the messages, on a thread that may block.
fn spawn_feed(
    args: &PublishArgs,
    to: mpsc::Sender<input::Run>,
) -> tokio::task::JoinHandle<Result<(), InputError>> {
    let feed = Feed::new(args, to);
    tokio::task::spawn_blocking(move || feed.run())
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { confirmed, failed, unconfirmed, sent_again } = self.counts;
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

/// Takes the bytes for a line of NDJSON.
pub(super) fn fuzz_line(data: &[u8]) {
    drop(envelope::message(data, 0));
}
