//! Putting letters through the consumer's sink again.
//!
//! The sink is opened under a reference of its own, `REFERENCE.replay-ROUND`: what it keeps under
//! the consumer's own is past these offsets. Records have the offsets that they had. Where the sink
//! keeps a position, each letter of a round is written once, however often the replay is
//! interrupted; other sinks may get again what was under way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::letters::{Letter, Source, Summary};
use super::progress::{Progress, Rounds};
use crate::cli::exit::Failure;
use crate::config::{Config, ConsumerConfig};
use crate::flow::backoff::Backoff;
use crate::flow::batch::{Batch, Part};
use crate::sink::{Durability, Sink, SinkError, write_whole};
use crate::supervisor;
use crate::types::{ChunkId, Offset, StreamName};
use crate::wire::block::Block;

/// Letters that are written at once, and their bytes.
const BATCH_MESSAGES: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;

/// How often in a row the sink may fail before the replay is given up, to be taken up later.
const FAILURES_MAX: u32 = 8;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    consumer: String,
    /// Messages that are in the sink now.
    replayed: u64,
    /// Letters that an earlier, interrupted run of the same replay had done.
    done_before: u64,
    /// The offsets of those that the sink still refuses.
    pub(super) still_bad: Vec<u64>,
    /// Why it refuses the first of them.
    first_error: Option<String>,
    /// Letters that are left alone, for they are of a history that was replaced.
    of_former_histories: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} messages replayed through the sink of {:?}", self.replayed, self.consumer)?;
        if self.done_before > 0 {
            writeln!(f, "  {} had been, before an interruption", self.done_before)?;
        }
        if self.of_former_histories > 0 {
            writeln!(
                f,
                "  {} letters left alone: they are from before the stream was created again",
                self.of_former_histories
            )?;
        }
        if !self.still_bad.is_empty() {
            let error = self.first_error.as_deref().unwrap_or("refused before");
            writeln!(
                f,
                "  {} are still bad and stay ({error}), at offsets:",
                self.still_bad.len()
            )?;
            for offset in &self.still_bad {
                writeln!(f, "    {offset}")?;
            }
        }
        Ok(())
    }
}

/// Replays what earlier rounds have not settled.
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
    // The round is on disk before the sink knows of it.
    progress.write(&rounds)?;
    let mut round = Round {
        rounds,
        progress,
        stream: stream.clone(),
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
            continue; // Of a former history, or one that came twice.
        }
        last = Some(letter.offset);
        if !round.rounds.wants(letter.offset) {
            continue;
        }
        if round.sink.is_none() {
            let mut sink = open(&factory).await?;
            round.found = sink.position().await.map_err(Failure::unavailable)?.map(|c| c.offset);
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

async fn open(factory: &supervisor::SinkFactory) -> Result<Box<dyn Sink>, Failure> {
    factory().await.map_err(|error| {
        Failure::Unavailable(format!("the sink cannot be opened for the replay: {error}"))
    })
}

/// A round under way.
struct Round<'a> {
    rounds: Rounds,
    progress: Progress,
    stream: StreamName,
    /// Opened with the first letter.
    sink: Option<Box<dyn Sink>>,
    /// How far an interrupted run of this round had come.
    found: Option<Offset>,
    done: &'a mut Done,
}

impl Round<'_> {
    /// Writes these letters' messages, without those that are still bad.
    async fn write(&mut self, letters: Vec<Letter>) -> Result<(), Failure> {
        let parts = letters.iter().filter_map(part).collect();
        let (Some(mut batch), Some(sink)) =
            (Batch::new(self.stream.clone(), parts), self.sink.as_mut())
        else {
            return Ok(());
        };
        // What an interrupted run found bad may be good by now; then no later round may have it.
        let known = self.rounds.bad.len();
        self.rounds.bad.retain(|bad| !letters.iter().any(|letter| letter.offset == *bad));
        if self.rounds.bad.len() < known {
            self.progress.write(&self.rounds)?;
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let shared = Arc::new(batch.clone());
            let written = match write_whole(&mut **sink, &shared).await {
                Ok(Durability::Held) => sink.flush().await,
                Ok(Durability::Durable | Durability::Part(_)) => Ok(()),
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => break,
                Err(SinkError::Poison(bad)) if !bad.is_empty() => {
                    self.done.first_error =
                        self.done.first_error.take().or_else(|| Some(bad.first()?.detail.clone()));
                    self.rounds.bad.extend(bad.iter().map(|bad| bad.offset));
                    // Before the sink's position can pass them by.
                    self.progress.write(&self.rounds)?;
                    batch = batch.without(bad.iter().map(|bad| bad.offset).collect());
                }
                Err(SinkError::Transient { what, retry_after })
                    if backoff.failures() < FAILURES_MAX =>
                {
                    let wait = backoff.next(fastrand::f64()).max(retry_after.unwrap_or_default());
                    eprintln!("{what}; trying again in {wait:?}");
                    tokio::time::sleep(wait).await;
                }
                Err(error) => {
                    return Err(Failure::Unavailable(format!(
                        "the replay is interrupted, and goes on when it is started again: {error}"
                    )));
                }
            }
        }
        self.done.replayed += batch.messages();
        Ok(())
    }

    /// Ends the round: the next one begins behind it.
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

/// The message as a record of its own, where it stood.
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
