//! Conformance suite of sinks, as plain functions that each sink's tests call.
//!
//! A sink's test implements [`Medium`] and passes a function that makes fresh ones to [`all`]. Each
//! question is a function of its own that returns `Err` with the reason of a failure. Some apply
//! only to a medium that a test can break, slow down or take away, or to a sink that keeps a
//! position: [`all`] returns which questions were asked and which not, so that the test can check
//! it. Compiled into the library so that `tests/` can ask the same questions; nothing else uses it.
//!
//! - `keeps`: acknowledged batches are stored, with the position
//! - `repeats`: nothing is written twice, or out of order
//! - `bad`: records that can never be written
//! - `held`: batches that are accepted and not yet durable
//! - `parts`: batches that become durable part by part
//! - `abandoned`: a caller that goes away during a write
//! - `trouble`: a medium that breaks off, refuses, vanishes, or is very slow
//! - `owners`: two owners of one medium
//! - `keyed`: tables of the latest row of each key, asked by themselves
//!
//! Retries, time limits around the calls, metrics and the order of calls belong to the sink's
//! owner: `consumer::sinking` has its own tests.

mod abandoned;
mod asking;
mod bad;
mod batches;
mod held;
mod keeps;
mod keyed;
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
    attempt, close, ensure, in_short, keeps_position, open, open_again, position_of, shows,
    shows_despite_trouble, stands_at, write,
};
pub use self::bad::{names_every_bad_record, names_so_many_at_once};
pub use self::batches::{BAD_MESSAGE, STREAM, batch, batch_of, batch_with_bad, message, part};
pub use self::held::{gives_up_what_is_held, holds_until_flushed, repeats_a_failed_flush};
pub use self::keeps::{
    closes_twice, covers_excluded_records, finds_its_position_again, flushes_nothing,
    keeps_what_it_acknowledges, moves_where_it_is_told, takes_a_new_history, takes_gaps,
};
pub use self::keyed::{KeyedMedium, begins_anew, keeps_the_latest_of_each_key, never_goes_back};
pub use self::owners::{lets_one_owner_write, lets_one_owner_write_the_same};
pub use self::parts::{tells_of_durable_parts_in_order, winds_up_what_it_has_begun};
pub use self::repeats::{refuses_repeats, refuses_repeats_after_a_reopening};
pub use self::trouble::{
    survives_a_refusing_medium, survives_a_slow_medium, survives_a_torn_write,
    survives_a_torn_write_and_a_reopening, survives_a_vanishing_medium,
};

/// Time limit of each question.
const QUESTION_MAX: Duration = Duration::from_secs(600);

/// Longest time for a medium to recover after trouble, and for an old owner to release it.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The destination of a sink under test.
///
/// The methods that cause trouble return `false` if this medium does not support it: the question
/// is then not asked.
#[async_trait]
pub trait Medium: Send {
    /// A sink on this medium, for [`STREAM`] and always with the same reference.
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError>;

    /// Offsets of the visible records, in the medium's order; `None` if nothing can be read back.
    async fn visible(&mut self) -> Option<Vec<u64>>;

    /// Offsets are below this limit. Many destinations have signed numbers.
    fn offset_limit(&self) -> u64 {
        i64::MAX as u64
    }

    /// True if the medium accepts records one at a time, and its position is the offset of the last
    /// one: without the chunk, not moved by excluded records, and possibly within a batch after a
    /// crash.
    fn takes_records_one_by_one(&self) -> bool {
        false
    }

    /// True if nothing of a batch stays visible after its bad records were reported. Otherwise all
    /// good ones stay, and are not written again.
    fn takes_back(&self) -> bool {
        true
    }

    /// True if the sink looks into messages, and so can find bad ones.
    fn decodes(&self) -> bool {
        true
    }

    /// Mechanism that keeps two owners from writing at the same time.
    fn owners(&self) -> Owners {
        Owners::Unstated
    }

    /// Longest time of a call while the medium is in trouble: above the sink's own time limits.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Makes the next write break off after some of its bytes; once.
    async fn break_next(&mut self) -> bool {
        false
    }

    /// Makes the medium answer every write with a transient error; or ends that.
    async fn refuse(&mut self, _on: bool) -> bool {
        false
    }

    /// Makes the medium accept its input in small pieces, one about every tenth of a second; or
    /// ends that. For sinks that report parts.
    async fn trickle(&mut self, _on: bool) -> bool {
        false
    }

    /// Makes the medium unavailable (a stopped server, an unmounted folder); or available again,
    /// with its content.
    async fn vanish(&mut self, _on: bool) -> bool {
        false
    }

    /// Makes the medium very slow, or hang; or ends that.
    async fn slow(&mut self, _on: bool) -> bool {
        false
    }
}

/// Mechanism that keeps two owners from writing at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Any that fits the sink's guarantee: an exactly-once sink has one owner.
    Unstated,
    /// None.
    Many,
    /// A lock: a second sink cannot open while the first lives.
    OneByLock,
    /// A fence: the last one to open, or to write, takes over, and the old one cannot write.
    LastByFence,
}

/// Outcome of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink passed.
    Yes,
    /// The question does not apply, for this reason.
    NotAsked(&'static str),
}

/// Outcome of a question, or the reason of a failure.
pub type Answer = Result<Outcome, String>;

/// The questions that were asked and passed, and those that do not apply.
#[derive(Debug, Default)]
pub struct Told {
    asked: Vec<&'static str>,
    not_asked: BTreeMap<&'static str, &'static str>,
}

impl Told {
    /// Names of the questions that were asked.
    pub fn asked(&self) -> &[&'static str] {
        &self.asked
    }

    /// Names of the others, in alphabetical order.
    pub fn not_asked(&self) -> Vec<&'static str> {
        self.not_asked.keys().copied().collect()
    }

    /// Reason why a question was not asked; `None` if it was.
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

/// Asks all questions, each of a fresh medium, and returns which those were.
///
/// # Errors
/// The first failed question, with the reason.
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
        moves_where_it_is_told
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
