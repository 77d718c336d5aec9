//! The task that owns a consumer's sink: writes batches in order, retries, and handles bad records.
//!
//! It is separate from the consumer's loop so that a sink that is stuck for an hour delays nothing
//! else. It settles a batch only when the sink reports it as durable, or when a policy excluded its
//! bad records and the rest is durable. After it has stopped, it writes nothing more.
//!
//! A sink that joins batches gets all waiting ones as one batch. Its tickets are settled together;
//! if a bad record ends it, those before that record are settled completely, and the one with it in
//! part.
//!
//! Under the dead-letter policy the task owns a second sink. Bad records are durable there, with
//! the same retries, before the batch without them is written again.
//!
//! A sink may report parts of a batch while it writes: they are settled at once, and the rest is
//! given to it again. When the time of a graceful shutdown runs short ([`Stop`]), no batch is
//! started any more, and the current one is settled as far as the sink has written it.
//!
//! Held batches are settled when they are flushed: at the time that the sink sets, when the
//! consumer asks, and before a halt.

mod retry;
mod sieve;
mod stop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::retry::{GONE, Refusal, Retry};
pub(super) use self::sieve::{Counted, Sieve};
use self::sieve::{Next, Sieving};
pub(super) use self::stop::Stop;
use super::concluding;
use super::dead_letters::DeadLetters;
use super::joined::{Joined, Members};
use super::orders::{Message, Report, Stopped, Written};
use super::skips::Skips;
use super::spec::OnBad;
use crate::faults::{self, Point};
use crate::flow::backoff::Backoff;
use crate::flow::batch::Batch;
use crate::flow::ledger::Ticket;
use crate::sink::{BAD_RECORDS_MAX, BadRecord, Durability, Sink};
use crate::telemetry::operations::{Load, Operations};
use crate::types::Offset;

/// What is left out of batches, and how.
pub(super) struct Rules {
    pub(super) on_bad: OnBad,
    /// The last offset whose message is wanted; `None` for all.
    pub(super) upto: Option<Offset>,
    /// `None` if every message is wanted.
    pub(super) sieve: Option<Sieve>,
    /// One message that is left out by order.
    pub(super) skips: Skips,
    pub(super) operations: Operations,
}

impl From<OnBad> for Rules {
    fn from(on_bad: OnBad) -> Rules {
        let nameless = Operations::of(&"".into(), &"".into(), &"".into());
        Rules { on_bad, upto: None, sieve: None, skips: Skips::default(), operations: nameless }
    }
}

/// Writes orders until they end, or the sink stops; then closes the sink.
pub(super) async fn run(
    mut sink: Box<dyn Sink>,
    mut letters: Option<DeadLetters>,
    mut orders: mpsc::Receiver<Message>,
    reports: mpsc::Sender<Report>,
    rules: impl Into<Rules>,
    (backoff, stop): (Backoff, Stop),
) {
    let rules = rules.into();
    let (joins, kind) = (sink.joins_batches(), sink.kind());
    let mut held = Held::default();
    let mut ahead = None;
    if let Some(ones) = letters.as_mut() {
        let retry = Retry { reports: &reports, backoff, stop: &stop, retries: 0 };
        if !finish(ones, retry).await {
            return close(sink, letters).await;
        }
    }
    loop {
        let next = match ahead.take() {
            Some(message) => Some(message),
            None => next_of(&mut orders, sink.flush_at()).await,
        };
        let Some(message) = next else { break };
        let retry = Retry { reports: &reports, backoff, stop: &stop, retries: 0 };
        let letters_sink = letters.as_mut();
        let mut job =
            Job { sink: &mut *sink, letters: letters_sink, held: &mut held, rules: &rules, retry };
        let report = match message {
            Message::Write(_) if stop.is_set() => Report::WoundUp,
            Message::Write(order) => {
                let mut joined = Joined::of(order);
                while joins && ahead.is_none() && joined.has_room() {
                    match orders.try_recv() {
                        Ok(Message::Write(order)) => joined.add(order),
                        Ok(other) => ahead = Some(other),
                        Err(_) => break,
                    }
                }
                let operation = joined.operation(&rules.operations, kind);
                let report = job.carry_out(joined).await;
                concluding::by_report(operation, &report, job.retry.retries);
                report
            }
            Message::Flush => {
                let Held { tickets, messages, bytes } = &*job.held;
                let load = Load { batches: tickets.len(), records: *messages, bytes: *bytes };
                let operation = rules.operations.flush(kind, load);
                let report = job.flush().await;
                concluding::by_report(operation, &report, job.retry.retries);
                report
            }
            Message::Restart => job.restart().await,
        };
        let stopped = matches!(report, Report::Stopped(_) | Report::WoundUp);
        if reports.send(report).await.is_err() || stopped {
            break;
        }
    }
    close(sink, letters).await;
}

async fn close(sink: Box<dyn Sink>, letters: Option<DeadLetters>) {
    for sink in [Some(sink), letters.map(|letters| letters.sink)].iter_mut().flatten() {
        if let Err(error) = sink.close().await {
            tracing::warn!(sink = sink.kind(), %error, "closing the sink failed");
        }
    }
}

/// Has dead letters that an earlier process claimed and did not finish be finished: they count already, so nothing
/// asks for them again. False if that cannot be done, which is told.
async fn finish(letters: &mut DeadLetters, mut retry: Retry<'_>) -> bool {
    if letters.sink.flush_at().is_none() {
        return true;
    }
    let Err(what) = retry.flush(&mut *letters.sink).await else { return true };
    let what = format!("dead letters of an earlier run cannot be finished: {what}");
    // Nobody may be left to be told: then it ends all the same.
    drop(retry.reports.send(Report::Stopped(Stopped::by_itself(what))).await);
    false
}

/// The next message, or a flush if that is due first.
async fn next_of(
    orders: &mut mpsc::Receiver<Message>,
    flush_at: Option<Instant>,
) -> Option<Message> {
    let Some(at) = flush_at else { return orders.recv().await };
    if at <= Instant::now() {
        return Some(Message::Flush);
    }
    tokio::select! {
        biased;
        () = tokio::time::sleep_until(at.into()) => Some(Message::Flush),
        message = orders.recv() => message,
    }
}

/// Batches that the sink has accepted but not made durable.
#[derive(Default)]
struct Held {
    tickets: Vec<Ticket>,
    messages: u64,
    bytes: u64,
}

struct Job<'a> {
    sink: &'a mut dyn Sink,
    letters: Option<&'a mut DeadLetters>,
    held: &'a mut Held,
    rules: &'a Rules,
    retry: Retry<'a>,
}

impl Job<'_> {
    async fn carry_out(&mut self, joined: Joined) -> Report {
        let (mut members, batch) = joined.into_parts();
        let mut skipped = Vec::new();
        // Before anything looks at them: what is not wanted is not bad either.
        let mut batch = Arc::new(match self.rules.upto {
            Some(upto) if batch.last_offset() > upto => {
                let behind = batch.records().map(|record| record.offset);
                let behind: Vec<Offset> = behind.filter(|offset| *offset > upto).collect();
                members.leave_out(behind.iter().copied());
                batch.without(behind)
            }
            _ => batch,
        });
        let (sieve, on_bad) = (self.rules.sieve.as_ref(), self.rules.on_bad);
        let mut sieving = Sieving::default();
        self.retry.backoff.reset();
        loop {
            let started = Instant::now();
            let stop = self.retry.stop;
            let next = sieving.next(sieve, &mut batch, &mut members, on_bad, stop).await;
            let (messages, bytes) = (batch.messages(), batch.bytes());
            let is_of_sieve = matches!(next, Next::Poison(_));
            let written = match next {
                // A batch without remaining records is still written: it moves the position.
                Next::Write => self.retry.write(self.sink, &batch).await,
                Next::WriteBefore(before) => self.write_before(before).await,
                Next::Poison(bad) => Err(Refusal::Poison(bad)),
                Next::WoundUp => Err(Refusal::WoundUp),
                Next::Failed(reason) => Err(Refusal::Fatal(reason)),
            };
            match written {
                Ok(Durability::Part(upto)) => {
                    let Some(upto) = upto else { continue };
                    let (Some(done), Some(rest)) =
                        (batch.before(Offset(upto.0.saturating_add(1))), batch.after(upto))
                    else {
                        let reason = format!(
                            "internal error: the sink reports that it has written up to offset {upto} of \
                             {batch:?} and has more to write; please report it"
                        );
                        return Report::Stopped(Stopped::by_itself(reason));
                    };
                    let report = Report::Part {
                        written: members.take(done.checkpoint(), done.messages()),
                        bytes: done.bytes(),
                        oldest: rest.oldest(),
                        skipped: std::mem::take(&mut skipped),
                    };
                    batch = Arc::new(rest);
                    self.retry.backoff.reset();
                    if self.retry.reports.send(report).await.is_err() {
                        return Report::Stopped(Stopped::by_itself(GONE.to_owned()));
                    }
                }
                Err(Refusal::WoundUp) => return Report::WoundUp,
                Ok(durability) => {
                    self.held.tickets.extend(members.tickets());
                    self.held.messages += messages;
                    self.held.bytes += bytes;
                    return match durability {
                        Durability::Durable | Durability::Part(_) => {
                            self.settled(skipped, started.elapsed())
                        }
                        Durability::Held => Report::Held { batches: members.len(), skipped },
                    };
                }
                Err(Refusal::Fatal(reason)) => {
                    return Report::Stopped(Stopped::by_itself(reason));
                }
                Err(Refusal::Poison(mut bad)) => {
                    let mut on_bad = on_bad;
                    if let Some((offset, ordered)) = self.rules.skips.ordered(&bad) {
                        let rest = bad.extract_if(.., |bad| bad.offset != offset).collect();
                        // The sink finds its own again.
                        if is_of_sieve {
                            sieving.put_back(rest);
                        }
                        on_bad = ordered;
                    }
                    match on_bad {
                        OnBad::Halt => {
                            // One that was left out by order is told before the halt at the next one.
                            if !skipped.is_empty() {
                                let report = Report::Held { batches: 0, skipped };
                                if self.retry.reports.send(report).await.is_err() {
                                    return Report::Stopped(Stopped::by_itself(GONE.to_owned()));
                                }
                            }
                            let reason = describe(&bad);
                            return self.halt_at(members, &batch, bad, reason).await;
                        }
                        OnBad::Skip => {}
                        OnBad::DeadLetter => {
                            if let Err(reason) = self.write_dead_letters(&batch, &bad).await {
                                let reason = format!("{}; {reason}", describe(&bad));
                                return self.halt_at(members, &batch, bad, reason).await;
                            }
                        }
                    }
                    batch = Arc::new(leave_out(batch, &bad));
                    if batch.messages() == messages {
                        let reason = format!("{}; but it is not in the batch", describe(&bad));
                        return Report::Stopped(Stopped::by_itself(reason));
                    }
                    members.leave_out(bad.iter().map(|bad| bad.offset));
                    // A batch may have many: not all are kept in memory until it is durable.
                    if skipped.len() + bad.len() > BAD_RECORDS_MAX {
                        let skipped = std::mem::take(&mut skipped);
                        let report = Report::Held { batches: 0, skipped };
                        if self.retry.reports.send(report).await.is_err() {
                            return Report::Stopped(Stopped::by_itself(GONE.to_owned()));
                        }
                    }
                    skipped.extend(bad);
                    self.retry.backoff.reset();
                }
            }
        }
    }

    /// Writes the part of a batch that ends right before a bad message. It is durable then, with
    /// everything that was held.
    async fn write_before(&mut self, before: Batch) -> Result<Durability, Refusal> {
        let last = before.last_offset();
        if self.retry.write_whole(self.sink, &Arc::new(before)).await? == Durability::Held {
            self.retry.flush(self.sink).await.map_err(Refusal::Fatal)?;
            if !self.held.tickets.is_empty() {
                // Without the time of it: that is the time of both.
                let report = self.settled(Vec::new(), Duration::ZERO);
                let sent = self.retry.reports.send(report).await;
                sent.map_err(|_| Refusal::Fatal(GONE.to_owned()))?;
            }
        }
        Ok(Durability::Part(Some(last)))
    }

    /// Everything that was held is durable.
    fn settled(&mut self, skipped: Vec<BadRecord>, took: Duration) -> Report {
        faults::reach(Point::Committed);
        let Held { tickets, messages, bytes } = std::mem::take(self.held);
        Report::Settled { tickets, messages, bytes, skipped, took }
    }

    async fn flush(&mut self) -> Report {
        let started = Instant::now();
        match self.retry.flush(self.sink).await {
            Ok(()) => self.settled(Vec::new(), started.elapsed()),
            Err(reason) => Report::Stopped(Stopped::by_itself(reason)),
        }
    }

    async fn restart(&mut self) -> Report {
        self.rules.skips.forget();
        if let Some(letters) = &mut self.letters {
            // First: the old position would hide the dead letters of the re-created stream.
            if let Err(reason) = self.retry.restart(&mut *letters.sink).await {
                return Report::Stopped(Stopped::by_itself(reason));
            }
            letters.restart();
        }
        match self.retry.restart(self.sink).await {
            Ok(()) => Report::Restarted,
            Err(reason) => Report::Stopped(Stopped::by_itself(reason)),
        }
    }

    /// Makes the dead letters of these records durable.
    async fn write_dead_letters(&mut self, batch: &Batch, bad: &[BadRecord]) -> Result<(), String> {
        let Some(letters) = &mut self.letters else {
            return Err("internal error: there is no sink for dead letters".to_owned());
        };
        let wanted = letters.wanted(bad)?;
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let piece = letters.piece(batch, &mut rest)?;
            let batch = letters.batch(&piece).ok_or("internal error: a dead letter is missing")?;
            let (last, batch) = (batch.last_offset(), Arc::new(batch));
            self.retry.note(letters, &piece).await?;
            let refused = |what: &str| format!("and its dead letter cannot be written: {what}");
            match self.retry.write_whole(&mut *letters.sink, &batch).await {
                Ok(Durability::Durable | Durability::Part(_)) => {}
                Ok(Durability::Held) => {
                    self.retry.flush(&mut *letters.sink).await.map_err(|what| refused(&what))?;
                }
                Err(Refusal::Fatal(what)) => return Err(refused(&what)),
                Err(Refusal::WoundUp) => return Err(refused(GONE)),
                Err(Refusal::Poison(bad)) => return Err(refused(&describe(&bad))),
            }
            letters.written(last);
        }
        Ok(())
    }

    /// Writes the records before the first bad one, so that the position is right before it: they do not
    /// wait for the operator, and what the operator decides is about that record alone.
    async fn halt_at(
        &mut self,
        mut members: Members,
        batch: &Batch,
        bad: Vec<BadRecord>,
        mut reason: String,
    ) -> Report {
        let mut share = Written::default();
        let before = bad.iter().map(|b| b.offset).min().and_then(|first| batch.before(first));
        if let Some(before) = before {
            let (checkpoint, messages) = (before.checkpoint(), before.messages());
            match self.retry.write_whole(self.sink, &Arc::new(before)).await {
                Err(Refusal::WoundUp) => {}
                Ok(_) => share = members.take(checkpoint, messages),
                Err(Refusal::Fatal(error)) => reason = format!("{reason}; and then: {error}"),
                Err(Refusal::Poison(more)) => {
                    reason = format!("{reason}; and then: {}", describe(&more));
                }
            }
        }
        let written = match self.retry.flush(self.sink).await {
            Ok(()) => {
                let mut held = std::mem::take(self.held);
                held.tickets.append(&mut share.tickets);
                let messages = held.messages + share.messages;
                Written { messages, tickets: held.tickets, part: share.part }
            }
            Err(error) => {
                reason = format!("{reason}; and then: {error}");
                Written::default()
            }
        };
        self.rules.skips.halts(&bad);
        Report::Stopped(Stopped { written, bad, reason })
    }
}

fn leave_out(batch: Arc<Batch>, bad: &[BadRecord]) -> Batch {
    let batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| (*shared).clone());
    batch.without(bad.iter().map(|b| b.offset).collect())
}

fn describe(bad: &[BadRecord]) -> String {
    match bad.iter().min_by_key(|b| b.offset) {
        Some(first) => {
            format!("the message at offset {} cannot be written: {}", first.offset, first.detail)
        }
        None => "a message cannot be written".to_owned(),
    }
}

#[cfg(test)]
mod dead_letter_tests;
#[cfg(test)]
mod held_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod part_tests;
#[cfg(test)]
#[cfg(feature = "transform")]
mod program_tests;
#[cfg(test)]
mod tests;
