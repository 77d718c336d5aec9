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
//! - `parts`: batches that are durable part by part
//! - `abandoned`: a caller that goes away in the middle
//! - `trouble`: a medium that breaks off, refuses, vanishes, or takes very long
//! - `owners`: two that write to one medium
//!
//! Retry, time limits around the whole, metrics and the order of calls are the business of whoever
//! owns the sink: `consumer::sinking` has its own tests.

mod abandoned;
mod asking;
mod bad;
mod batches;
mod held;
mod keeps;
mod owners;
mod parts;
mod repeats;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use crate::sink::{Sink, SinkError};

pub use self::abandoned::{
    is_ready, survives_abandonment, survives_being_closed_anywhere, survives_being_dropped_anywhere,
};
use self::asking::{
    attempt, close, ensure, in_short, keeps_position, open, open_again, shows,
    shows_despite_trouble, stands_at, write,
};
pub use self::bad::{names_every_bad_record, names_so_many_at_once};
pub use self::batches::{BAD_MESSAGE, STREAM, batch, batch_with_bad, message, part};
pub use self::held::{gives_up_what_is_held, holds_until_flushed, repeats_a_failed_flush};
pub use self::keeps::{
    closes_twice, covers_excluded_records, finds_its_position_again, flushes_nothing,
    keeps_what_it_acknowledges, takes_a_new_history, takes_gaps,
};
pub use self::owners::{lets_one_owner_write, lets_one_owner_write_the_same};
pub use self::parts::{tells_of_durable_parts_in_order, winds_up_what_it_has_begun};
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

    /// True if the medium takes records one at a time, and its position is the last one's offset:
    /// without the chunk, not moved by records that are left out, and perhaps in mid-batch after a
    /// crash.
    fn takes_records_one_by_one(&self) -> bool {
        false
    }

    /// True if nothing of a batch stays visible when bad records of it were named. Else all the
    /// others are, and are not written again.
    fn takes_back(&self) -> bool {
        true
    }

    /// True if the sink looks into messages, and so can find bad ones.
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

    /// The medium takes what it is given bit by bit, some of it every tenth of a second or so; or all at
    /// once, as usual. For sinks that tell of parts.
    async fn trickle(&mut self, _on: bool) -> bool {
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
        names_so_many_at_once
        holds_until_flushed
        gives_up_what_is_held
        repeats_a_failed_flush
        tells_of_durable_parts_in_order
        winds_up_what_it_has_begun
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
