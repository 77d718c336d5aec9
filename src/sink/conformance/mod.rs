//! What every sink must do, as plain functions that each sink's tests call.
//!
//! A sink's test implements [`Medium`] and hands a maker of fresh ones to [`all`]. Each question
//! is a function of its own, and ends in `Err` with what went wrong. Some can be asked only of a
//! medium that a test can break, slow down or take away, or of a sink that keeps a position:
//! [`all`] returns which were asked and which not, for the test to state what it expects. Compiled
//! into the library so that `tests/` can ask the same questions; nothing else uses it.
//!
//! - `keeps`: what is acknowledged is there, and the position with it
//! - `repeats`: nothing comes in twice, or out of order
//! - `bad`: records that can never be written
//! - `held`: batches that are taken and not yet durable
//! - `abandoned`: a caller that goes away in the middle
//! - `trouble`: a medium that breaks off, refuses, vanishes, or takes very long
//! - `owners`: two that write to one medium
//!
//! Retry, time limits around the whole, metrics and the order of calls are the business of whoever
//! owns the sink: `consumer::sinking` has its own tests.

mod abandoned;
mod bad;
mod batches;
mod held;
mod keeps;
mod owners;
mod repeats;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::flow::batch::Batch;
use crate::sink::{Durability, Sink, SinkError};
use crate::types::{Checkpoint, Guarantee};

pub use self::abandoned::{
    is_ready, survives_abandonment, survives_being_closed_anywhere, survives_being_dropped_anywhere,
};
pub use self::bad::names_every_bad_record;
pub use self::batches::{BAD_MESSAGE, STREAM, batch, batch_with_bad, message, part};
pub use self::held::{gives_up_what_is_held, holds_until_flushed, repeats_a_failed_flush};
pub use self::keeps::{
    closes_twice, covers_excluded_records, finds_its_position_again, flushes_nothing,
    keeps_what_it_acknowledges, takes_a_new_history, takes_gaps,
};
pub use self::owners::{lets_one_owner_write, lets_one_owner_write_the_same};
pub use self::repeats::{refuses_repeats, refuses_repeats_after_a_reopening};
pub use self::trouble::{
    survives_a_refusing_medium, survives_a_slow_medium, survives_a_torn_write,
    survives_a_torn_write_and_a_reopening, survives_a_vanishing_medium,
};

/// No question takes longer, whatever the medium.
const QUESTION_MAX: Duration = Duration::from_secs(600);

/// How long a medium may take to be itself again after it was in trouble, and a former owner to
/// let go of it.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

const RETRY_EVERY: Duration = Duration::from_millis(20);

/// Where a sink under test keeps its records.
///
/// What can be done to a medium to trouble it answers `false` where this medium cannot be troubled
/// so: the question is then not asked.
#[async_trait]
pub trait Medium: Send {
    /// A sink on this medium, for [`STREAM`] and always the same reference.
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError>;

    /// The offsets of the records that are visible, in the medium's order; `None` where nothing
    /// can be read back.
    async fn visible(&mut self) -> Option<Vec<u64>>;

    /// No record has this offset, or a higher one. Many media have numbers with a sign.
    fn offset_limit(&self) -> u64 {
        i64::MAX as u64
    }

    /// Whether the medium takes records one at a time, and its position is the last one's offset:
    /// without the chunk, not moved by records that are left out, and perhaps in mid-batch after a
    /// crash.
    fn takes_records_one_by_one(&self) -> bool {
        false
    }

    /// Whether the sink looks into messages, and so can find bad ones.
    fn decodes(&self) -> bool {
        true
    }

    /// What keeps two from writing to this medium at the same time.
    fn owners(&self) -> Owners {
        Owners::Unstated
    }

    /// How long one call may take while the medium is in trouble: above the sink's own time limits.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Has the next write break off in the middle, after some of its bytes; once.
    async fn break_next(&mut self) -> bool {
        false
    }

    /// From now on the medium answers every write with an error that passes; or works again.
    async fn refuse(&mut self, _on: bool) -> bool {
        false
    }

    /// The medium is gone (a server that is stopped, a folder that is not mounted); or is back, with
    /// what was on it.
    async fn vanish(&mut self, _on: bool) -> bool {
        false
    }

    /// The medium takes very long for everything, or for ever; or is as fast as usual again.
    async fn slow(&mut self, _on: bool) -> bool {
        false
    }
}

/// What keeps two from writing to one medium at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Any of these that fits what the sink promises: an exactly-once sink has one owner.
    Unstated,
    /// Nothing does.
    Many,
    /// A lock: a second cannot open while the first lives.
    OneByLock,
    /// A fence: whoever came last, or wrote last, has taken over, and the former cannot write.
    LastByFence,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink did as it must.
    Yes,
    /// The question could not be asked, for this reason.
    NotAsked(&'static str),
}

/// What came of a question, or what went wrong.
pub type Answer = Result<Outcome, String>;

/// Which questions were asked, and which could not be. All that were asked were answered well.
#[derive(Debug, Default)]
pub struct Told {
    asked: Vec<&'static str>,
    not_asked: BTreeMap<&'static str, &'static str>,
}

impl Told {
    /// The names of the questions that were asked.
    pub fn asked(&self) -> &[&'static str] {
        &self.asked
    }

    /// The names of those that could not be, in alphabetical order.
    pub fn not_asked(&self) -> Vec<&'static str> {
        self.not_asked.keys().copied().collect()
    }

    /// Why it could not be asked.
    pub fn why(&self, question: &str) -> Option<&'static str> {
        self.not_asked.get(question).copied()
    }

    async fn note(
        &mut self,
        question: &'static str,
        asking: impl Future<Output = Answer>,
    ) -> Result<(), String> {
        match tokio::time::timeout(QUESTION_MAX, asking).await {
            Ok(Ok(Outcome::Yes)) => self.asked.push(question),
            Ok(Ok(Outcome::NotAsked(why))) => drop(self.not_asked.insert(question, why)),
            Ok(Err(why)) => return Err(format!("{question}: {why}")),
            Err(_) => return Err(format!("{question}: no answer within {QUESTION_MAX:?}")),
        }
        Ok(())
    }
}

/// Asks all questions, each of a fresh medium, and tells which those were.
///
/// # Errors
/// The first question that was answered "no", and why.
pub async fn all<M: Medium>(fresh: impl Fn() -> M) -> Result<Told, String> {
    let mut told = Told::default();
    macro_rules! ask {
        ($($question:ident)*) => {
            $(told.note(stringify!($question), $question(&mut fresh())).await?;)*
        };
    }
    ask! {
        keeps_what_it_acknowledges
        takes_gaps
        finds_its_position_again
        covers_excluded_records
        takes_a_new_history
        flushes_nothing
        closes_twice
        refuses_repeats
        refuses_repeats_after_a_reopening
        names_every_bad_record
        holds_until_flushed
        gives_up_what_is_held
        repeats_a_failed_flush
        survives_abandonment
        survives_being_dropped_anywhere
        survives_being_closed_anywhere
        survives_a_torn_write
        survives_a_torn_write_and_a_reopening
        survives_a_refusing_medium
        survives_a_vanishing_medium
        survives_a_slow_medium
        lets_one_owner_write
        lets_one_owner_write_the_same
    }
    Ok(told)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

async fn open(medium: &mut impl Medium) -> Result<Box<dyn Sink>, String> {
    medium.open().await.map_err(|error| format!("could not open: {error}"))
}

/// After something went wrong: a former owner may need a moment to let go.
async fn open_again(medium: &mut impl Medium) -> Result<Box<dyn Sink>, String> {
    let began = Instant::now();
    loop {
        match medium.open().await {
            Ok(sink) => return Ok(sink),
            Err(SinkError::Transient { .. }) if began.elapsed() < RECOVERY_MAX => {
                tokio::time::sleep(RETRY_EVERY).await;
            }
            Err(error) => return Err(format!("could not open again: {error}")),
        }
    }
}

/// Once, until it is durable.
async fn attempt(sink: &mut dyn Sink, batch: &Arc<Batch>) -> Result<(), SinkError> {
    match sink.write(batch).await? {
        Durability::Durable => Ok(()),
        Durability::Held => sink.flush().await,
    }
}

async fn write(sink: &mut dyn Sink, batch: Batch) -> Result<(), String> {
    let what = format!("{batch:?}");
    let written = attempt(sink, &Arc::new(batch)).await;
    written.map_err(|error| format!("{what} was not written: {error}"))
}

async fn close(mut sink: Box<dyn Sink>) -> Result<(), String> {
    match tokio::time::timeout(RECOVERY_MAX, sink.close()).await {
        Ok(closed) => closed.map_err(|error| format!("could not close: {error}")),
        Err(_) => Err(format!("was not closed within {RECOVERY_MAX:?}")),
    }
}

async fn shows(
    medium: &mut impl Medium,
    expected: impl IntoIterator<Item = u64>,
) -> Result<(), String> {
    let expected: Vec<u64> = expected.into_iter().collect();
    match medium.visible().await {
        Some(found) if found != expected => {
            Err(format!("shows {}, not {}", in_short(&found), in_short(&expected)))
        }
        _ => Ok(()),
    }
}

/// The same after something went wrong, when a sink that is at-least-once may have written some
/// more than once.
async fn shows_despite_trouble(
    medium: &mut impl Medium,
    guarantee: Guarantee,
    expected: impl IntoIterator<Item = u64>,
) -> Result<(), String> {
    if matches!(guarantee, Guarantee::ExactlyOnce | Guarantee::Idempotent) {
        return shows(medium, expected).await;
    }
    let expected: Vec<u64> = expected.into_iter().collect();
    let Some(mut found) = medium.visible().await else { return Ok(()) };
    found.sort_unstable();
    found.dedup();
    ensure(found == expected, || format!("shows {}, not all", in_short(&found)))
}

/// Offsets as ranges: whoever reads that thousands are wrong wants to know where.
fn in_short(offsets: &[u64]) -> String {
    const RANGES_MAX: usize = 20;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*offset) => *last = *offset,
            _ => ranges.push((*offset, *offset)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(RANGES_MAX)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}..={last}"),
        })
        .collect();
    let more = if ranges.len() > RANGES_MAX { ", …" } else { "" };
    format!("[{}{more}] ({} records)", shown.join(", "), offsets.len())
}

fn keeps_position(sink: &dyn Sink) -> bool {
    matches!(sink.guarantee(), Guarantee::ExactlyOnce | Guarantee::Idempotent)
}

async fn stands_at(
    medium: &impl Medium,
    sink: &mut dyn Sink,
    expected: Option<Checkpoint>,
) -> Result<(), String> {
    let mut expected = expected.filter(|_| keeps_position(sink));
    if let Some(expected) = expected.as_mut().filter(|_| medium.takes_records_one_by_one()) {
        expected.chunk = None;
    }
    let found = sink.position().await.map_err(|error| format!("no position: {error}"))?;
    ensure(found == expected, || format!("stands at {found:?}, not {expected:?}"))
}
