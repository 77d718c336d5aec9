//! Replays dead letters through the consumer's sink.
//!
//! The sink is opened under a separate reference, `REFERENCE.replay-ROUND`, because its position
//! under the consumer's own reference is already past these offsets. Records keep their offsets. If
//! the sink keeps a position, each dead letter of a round is written once, however often the replay
//! is interrupted; other sinks may get the records in flight again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::letters::{Letter, Source, Summary};
use super::progress::{Progress, Rounds};
use crate::cli::exit::Failure;
use crate::config::{Config, ConsumerConfig};
use crate::consumer::{Sifter, Transform};
use crate::flow::backoff::Backoff;
use crate::flow::batch::{Batch, Part};
use crate::sink::{BadRecord, Durability, Sink, SinkError, write_whole};
use crate::supervisor;
use crate::transform::on_large_stack;
use crate::types::{ChunkId, Offset, StreamName};
use crate::wire::block::Block;

/// Most dead letters, and bytes, of one batch.
const BATCH_MESSAGES: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;

/// Failures of the sink in a row after which the replay stops. It can be continued later.
const FAILURES_MAX: u32 = 8;

/// Result of a replay.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    consumer: String,
    /// Number of messages written to the sink.
    replayed: u64,
    /// Number of dead letters that an earlier, interrupted run of this round had written.
    done_before: u64,
    /// Offsets of the messages that the sink still refuses.
    pub(super) still_bad: Vec<u64>,
    /// Reason for the first of them.
    first_error: Option<String>,
    /// Number of dead letters that are skipped because they belong to an old incarnation of the
    /// stream.
    of_former_histories: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} messages replayed through the sink of {:?}", self.replayed, self.consumer)?;
        if self.done_before > 0 {
            writeln!(f, "  {} were replayed before an interruption", self.done_before)?;
        }
        if self.of_former_histories > 0 {
            writeln!(
                f,
                "  {} dead letters skipped: they are from before the stream was re-created",
                self.of_former_histories
            )?;
        }
        if !self.still_bad.is_empty() {
            let error = self.first_error.as_deref().unwrap_or("refused before");
            writeln!(
                f,
                "  {} are still bad and stay among the dead letters ({error}), at offsets:",
                self.still_bad.len()
            )?;
            for offset in &self.still_bad {
                writeln!(f, "    {offset}")?;
            }
        }
        Ok(())
    }
}

/// Replays the dead letters that earlier rounds have not settled.
pub(super) async fn replay(
    config: &Config,
    consumer: &ConsumerConfig,
    source: &Source,
    summary: &Summary,
) -> Result<Done, Failure> {
    let (name, stream) = (&consumer.name, &consumer.stream);
    let opened = Progress::open(&config.state_dir, name, stream, &consumer.reference)?;
    let (progress, mut rounds) = opened;
    rounds.look_at(summary);
    let mut done = Done {
        consumer: name.to_string(),
        replayed: 0,
        done_before: 0,
        still_bad: Vec::new(),
        first_error: None,
        of_former_histories: summary.former,
    };
    // The round is on disk before the sink uses it.
    progress.write(&rounds)?;
    let mut round = Round {
        rounds,
        progress,
        stream: stream.clone(),
        sifter: sifter(consumer),
        sink: None,
        found: None,
        done: &mut done,
    };
    let factory = supervisor::replay_sink(config, consumer, round.rounds.round);
    let mut letters = source.read();
    let (mut seen, mut last, mut batch, mut bytes) = (0, None, Vec::new(), 0);
    while let Some(letter) = letters.recv().await {
        let letter = letter?;
        seen += 1;
        if seen <= summary.former || last.is_some_and(|last| letter.offset <= last) {
            continue; // From an old incarnation, or repeated.
        }
        last = Some(letter.offset);
        if !round.rounds.wants(letter.offset) {
            continue;
        }
        if round.sink.is_none() {
            let mut sink = open(&factory).await?;
            round.found = sink.position().await.map_err(Failure::unavailable)?.map(|c| c.offset);
            // What an interrupted run has claimed counts, and nothing of it is written again.
            if sink.flush_at().is_some() {
                sink.flush().await.map_err(|error| stopped(&error))?;
            }
            round.sink = Some(sink);
        }
        if round.found.is_some_and(|found| letter.offset <= found) {
            if !round.rounds.bad.contains(&letter.offset) {
                round.done.done_before += 1;
            }
            continue;
        }
        bytes += letter.message.len();
        batch.push(letter);
        if batch.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES {
            round.write(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    round.write(batch).await?;
    round.finish(last).await?;
    Ok(done)
}

fn sifter(consumer: &ConsumerConfig) -> Sifter {
    let (keep, reshape) = (consumer.keep.clone(), consumer.reshape.clone());
    let transform = Transform::new(consumer.stream.clone(), keep, reshape, consumer.show_values);
    Sifter { filter: None, transform: transform.map(Arc::new) }
}

async fn open(factory: &supervisor::SinkFactory) -> Result<Box<dyn Sink>, Failure> {
    factory().await.map_err(|error| {
        Failure::Unavailable(format!("the sink cannot be opened for the replay: {error}"))
    })
}

/// The current round.
struct Round<'a> {
    rounds: Rounds,
    progress: Progress,
    stream: StreamName,
    /// The consumer's programs: a dead letter is the message as it was before them.
    sifter: Sifter,
    /// Opened with the first dead letter.
    sink: Option<Box<dyn Sink>>,
    /// Position of an interrupted run of this round; `None` if there was none.
    found: Option<Offset>,
    done: &'a mut Done,
}

impl Round<'_> {
    /// Writes the messages of these dead letters, without those that are still bad.
    async fn write(&mut self, letters: Vec<Letter>) -> Result<(), Failure> {
        let parts = letters.iter().filter_map(part).collect();
        let Some(batch) = Batch::new(self.stream.clone(), parts) else { return Ok(()) };
        // A message that was bad in an interrupted run may be good now; then no later round must
        // write it again.
        let known = self.rounds.bad.len();
        self.rounds.bad.retain(|bad| !letters.iter().any(|letter| letter.offset == *bad));
        if self.rounds.bad.len() < known {
            self.progress.write(&self.rounds)?;
        }
        let mut rest = Some(batch);
        while let Some(mut batch) = rest.take() {
            let sifter = &self.sifter;
            let sifted = on_large_stack(|| sifter.sift(&batch, None, || false));
            let mut sifted = sifted.map_err(Failure::unavailable)?;
            if let Some(changed) = sifted.apply(&batch).map_err(Failure::unavailable)? {
                batch = changed;
            }
            if !sifted.is_complete
                && let Some(done) = sifted.done
            {
                rest = batch.after(done);
                batch = batch.before(done.next()).unwrap_or(batch);
            }
            if !sifted.bad.is_empty() {
                batch = self.leave_out(batch, &sifted.bad)?;
            }
            self.write_sifted(batch).await?;
        }
        Ok(())
    }

    /// The batch without these, which are noted first: before the sink's position can pass them.
    fn leave_out(&mut self, batch: Batch, bad: &[BadRecord]) -> Result<Batch, Failure> {
        let first = bad.first().map(|bad| bad.detail.clone());
        self.done.first_error = self.done.first_error.take().or(first);
        self.rounds.bad.extend(bad.iter().map(|bad| bad.offset));
        self.progress.write(&self.rounds)?;
        Ok(batch.without(bad.iter().map(|bad| bad.offset).collect()))
    }

    async fn write_sifted(&mut self, mut batch: Batch) -> Result<(), Failure> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        // After a failed flush the sink still has the batch, and is not given it again.
        let mut is_held = false;
        loop {
            let shared = Arc::new(batch.clone());
            let Some(sink) = self.sink.as_mut() else { return Ok(()) };
            let mut written = Ok(());
            if !is_held {
                match write_whole(&mut **sink, &shared).await {
                    Ok(durability) => is_held = durability == Durability::Held,
                    Err(error) => written = Err(error),
                }
            }
            if is_held {
                written = sink.flush().await;
            }
            match written {
                Ok(()) => break,
                Err(SinkError::Poison(bad)) if !bad.is_empty() => {
                    batch = self.leave_out(batch, &bad)?;
                }
                Err(SinkError::Transient { what, retry_after })
                    if backoff.failures() < FAILURES_MAX =>
                {
                    let wait = backoff.next(fastrand::f64()).max(retry_after.unwrap_or_default());
                    eprintln!("{what}; retrying in {wait:?}");
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(stopped(&error)),
            }
        }
        self.done.replayed += batch.messages();
        Ok(())
    }

    /// Ends the round: the next one begins after it.
    async fn finish(mut self, last: Option<Offset>) -> Result<(), Failure> {
        if let Some(sink) = &mut self.sink {
            sink.close().await.map_err(Failure::unavailable)?;
            self.progress.write(&self.rounds.next(last))?;
        }
        let bad = if self.sink.is_some() { &self.rounds.bad } else { &self.rounds.pending };
        self.done.still_bad = bad.iter().map(|offset| offset.0).collect();
        Ok(())
    }
}

fn stopped(error: &SinkError) -> Failure {
    Failure::Unavailable(format!("the replay stopped; start it again to continue: {error}"))
}

/// The message as a record at its original offset.
fn part(letter: &Letter) -> Option<Part> {
    let mut bytes = BytesMut::with_capacity(letter.message.len() + 4);
    bytes.put_u32(u32::try_from(letter.message.len()).ok()?);
    bytes.put_slice(&letter.message);
    let (first_offset, timestamp) = (letter.offset, letter.timestamp);
    let crc = crc32fast::hash(&bytes);
    Some(Part {
        block: Block::new(first_offset, 1, timestamp, bytes.freeze())?,
        chunk: ChunkId { first_offset, epoch: 0, timestamp, crc },
        permit: Arc::new(()),
    })
}
