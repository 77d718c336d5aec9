//! What an operator does to a consumer, or to one of its streams: pause, resume, restart; and storing its
//! offset.
//!
//! An order edits the desired state, and waits for its effect as long as the caller wants. Whoever does not
//! wait, or goes away, loses nothing but the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desired::Edit;
use super::member::Member;
use super::reconcile::Phase;
use super::roll::Roll;
use super::set::Shared;
use crate::admin::{
    Changed, CommitAnswer, CommitError, ControlError, SkipOrder, StoredOffset, StreamState, Target,
    Verb,
};
use crate::consumer::{Fate, Status};
use crate::telemetry::State;
use crate::types::{ConsumerKey, ConsumerName, StreamName};

/// Time between two looks at what an order has come to. A consumer's state changes without a turn of the
/// set's loop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The streams that an order is for, and the consumer's name.
pub(super) struct Found {
    pub(super) consumer: ConsumerName,
    /// Empty for a consumer of a super stream that has no partitions yet.
    pub(super) keys: Vec<ConsumerKey>,
    /// True if the order is for the whole consumer.
    is_whole: bool,
}

/// Carries out an order, and waits for its effect.
pub(super) async fn change(
    shared: &Shared,
    roll: &Roll,
    verb: Verb,
    target: Target<'_>,
    wait: Duration,
) -> Result<Changed, ControlError> {
    if roll.has_ended() {
        return Err(ControlError::Ending);
    }
    let until = Instant::now() + wait;
    let found = find(shared, roll, target)?;
    for edit in edits(verb, &found) {
        // One that has gone since then needs no order.
        shared.edit(edit).unwrap_or_default();
    }
    let stream = target.stream;
    tracing::info!(consumer = %found.consumer, stream, "by order of an operator: {verb}");
    loop {
        let progress = look(shared, &found, verb);
        if progress != Progress::Going || Instant::now() >= until {
            let finished = progress == Progress::Done;
            let streams = states(shared, roll, &found);
            return Ok(Changed { consumer: found.consumer, verb, finished, note: None, streams });
        }
        tokio::time::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// Leaves out the message at which a consumer has halted, and starts it.
pub(super) async fn skip(
    shared: &Shared,
    roll: &Roll,
    order: SkipOrder<'_>,
    wait: Duration,
) -> Result<Changed, ControlError> {
    let SkipOrder { target, offset, to_dead_letters } = order;
    let found = find(shared, roll, target)?;
    let name = target.consumer;
    let refused = |why: String| ControlError::NotSkipped(format!("consumer {name:?}: {why}"));
    let members = members(shared, &found.keys);
    // In another stream, the same offset is another message.
    let [member] = members.as_slice() else {
        return Err(refused(
            "it reads several streams: name the one whose message is meant".to_owned(),
        ));
    };
    let facts = member.status.facts();
    if facts.state != State::Halted {
        let state = facts.shown_state();
        return Err(refused(format!(
            "it is {state}: only the message at which a consumer has halted can be skipped"
        )));
    }
    if to_dead_letters && member.plan.dead_letters.is_none() {
        return Err(refused(
            "it has no destination for dead letters: configure `dead_letter`".to_owned(),
        ));
    }
    member.status.skips.order(offset, to_dead_letters).map_err(|why| refused(why.to_string()))?;
    let stream = member.plan.spec.stream.clone();
    tracing::warn!(consumer = name, %stream, offset = offset.0, to_dead_letters, "by order of an operator, this message is left out");
    if roll.has_ended() {
        return Err(ControlError::Ending);
    }
    let (key, member) = (member.plan.spec.key(), Arc::clone(member));
    // One that has gone since then needs no order.
    shared.edit(Edit::StartAnew(key.clone())).unwrap_or_default();
    let until = Instant::now() + wait;
    let found = Found { keys: vec![key.clone()], ..found };
    loop {
        // By another plan it is another consumer, and the order is gone.
        let is_gone = !shared.set().member(&key).is_some_and(|now| Arc::ptr_eq(now, &member));
        let is_stuck = look(shared, &found, Verb::Skip) == Progress::Stuck;
        // Read last: it may have passed the message before it halted at the next one.
        let fate = member.status.skips.fate(offset);
        if fate.is_none() && !is_gone && !is_stuck && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(LOOK_EVERY.min(left)).await;
            continue;
        }
        let note = match fate {
            Some(Fate::LeftOut) => None,
            Some(Fate::Written) => {
                Some("the message could be written after all: nothing is left out")
            }
            Some(Fate::Forgotten) => {
                Some("the stream is another one than that of the message: nothing is left out")
            }
            None if is_gone => {
                Some("the configuration was changed meanwhile: the order does not stand any more")
            }
            None => Some("the order stands, and the position has not passed the message yet"),
        };
        let streams = states(shared, roll, &found);
        return Ok(Changed {
            consumer: found.consumer,
            verb: Verb::Skip,
            finished: matches!(fate, Some(Fate::LeftOut | Fate::Written)),
            note: note.map(str::to_owned),
            streams,
        });
    }
}

/// Stores the durable offset of every stream of the target.
pub(super) async fn commit(
    shared: &Shared,
    roll: &Roll,
    target: Target<'_>,
) -> Result<CommitAnswer, CommitError> {
    let name = target.consumer;
    let found = find(shared, roll, target).map_err(|error| match error {
        ControlError::Unknown(name) => CommitError::Unknown(name),
        ControlError::UnknownStream { .. } => CommitError::UnknownStream(error.to_string()),
        ControlError::Ending | ControlError::NotSkipped(_) => {
            CommitError::Unavailable(error.to_string())
        }
    })?;
    if found.keys.is_empty() {
        let row = roll.group(name).and_then(|group| group.row());
        let why = row.and_then(|row| row.facts().why_not_ready());
        return Err(CommitError::Unavailable(format!(
            "consumer {name:?} has no partitions yet: {}",
            why.unwrap_or_else(|| "they are being started".to_owned())
        )));
    }
    let (mut stored, mut failed) = (Vec::new(), None);
    // One that fails does not keep the others from storing.
    for member in members(shared, &found.keys) {
        let stream = &member.plan.spec.stream;
        match member.commit().await {
            Ok(Some(offset)) => stored.push(StoredOffset { stream: stream.clone(), offset }),
            Ok(None) => {}
            Err(error) => drop(failed.get_or_insert(format!("stream {stream}: {error}"))),
        }
    }
    if let Some(why) = failed {
        return Err(CommitError::Unavailable(why));
    }
    if stored.is_empty() {
        return Err(CommitError::Nothing(name.to_owned()));
    }
    Ok(CommitAnswer { name: found.consumer, stored })
}

fn members(shared: &Shared, keys: &[ConsumerKey]) -> Vec<Arc<Member>> {
    let set = shared.set();
    keys.iter().filter_map(|key| set.member(key).cloned()).collect()
}

/// The streams of the target.
pub(super) fn find(
    shared: &Shared,
    roll: &Roll,
    target: Target<'_>,
) -> Result<Found, ControlError> {
    let name = target.consumer;
    let mut keys = shared.set().streams_of(name);
    if keys.is_empty() && roll.group(name).is_none() {
        return Err(ControlError::Unknown(name.to_owned()));
    }
    let Some(stream) = target.stream else {
        return Ok(Found { consumer: ConsumerName::new(name), keys, is_whole: true });
    };
    let known: Vec<StreamName> = keys.iter().map(|key| key.stream.clone()).collect();
    keys.retain(|key| key.stream.as_str() == stream);
    if keys.is_empty() {
        let (consumer, stream) = (name.to_owned(), stream.to_owned());
        return Err(ControlError::UnknownStream { consumer, stream, known });
    }
    Ok(Found { consumer: ConsumerName::new(name), keys, is_whole: false })
}

fn edits(verb: Verb, found: &Found) -> Vec<Edit<super::plan::Plan>> {
    let keys = found.keys.iter().cloned();
    match (verb, found.is_whole) {
        (Verb::Pause, true) => vec![Edit::PauseAll(found.consumer.clone())],
        (Verb::Resume, true) => vec![Edit::ResumeAll(found.consumer.clone())],
        (Verb::Pause, false) => keys.map(Edit::Pause).collect(),
        (Verb::Resume, false) => keys.map(Edit::Resume).collect(),
        (Verb::Restart | Verb::Skip, _) => keys.map(Edit::StartAnew).collect(),
    }
}

/// What an order has come to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Going,
    /// It stays as it is before an operator acts again.
    Stuck,
}

fn look(shared: &Shared, found: &Found, verb: Verb) -> Progress {
    if found.keys.is_empty() {
        return if verb == Verb::Pause { Progress::Done } else { Progress::Stuck };
    }
    let set = shared.set();
    let of = |key: &ConsumerKey| {
        if !set.is_settled(key) {
            return Progress::Going;
        }
        let is_paused = set.is_paused(key);
        let is_ready = || set.member(key).is_some_and(|member| member.status.facts().is_ready());
        match (verb, set.phase(key)) {
            // Removed meanwhile: there is nothing left to do.
            (_, None) => Progress::Done,
            (Verb::Pause, Some(_)) => Progress::Done,
            // It starts anew when it is resumed.
            (Verb::Restart, Some(_)) if is_paused => Progress::Done,
            (Verb::Skip, Some(_)) if is_paused => Progress::Stuck,
            (_, Some(Phase::Halted { .. })) => Progress::Stuck,
            (_, Some(_)) if is_ready() => Progress::Done,
            (_, Some(_)) => Progress::Going,
        }
    };
    let all: Vec<Progress> = found.keys.iter().map(of).collect();
    match all {
        all if all.contains(&Progress::Going) => Progress::Going,
        all if all.contains(&Progress::Stuck) => Progress::Stuck,
        _ => Progress::Done,
    }
}

fn states(shared: &Shared, roll: &Roll, found: &Found) -> Vec<StreamState> {
    if found.keys.is_empty() {
        let group = roll.group(found.consumer.as_str());
        let row = group.as_ref().and_then(|group| Some((group.super_stream(), group.row()?)));
        return row.iter().map(|(stream, status)| state(stream, status)).collect();
    }
    let members = members(shared, &found.keys);
    members.iter().map(|member| state(&member.plan.spec.stream, &member.status)).collect()
}

fn state(stream: &StreamName, status: &Status) -> StreamState {
    let facts = status.facts();
    StreamState {
        stream: stream.clone(),
        state: facts.shown_state(),
        ready: facts.is_ready(),
        reason: facts.why_not_ready(),
        durable_offset: facts.durable,
        stored_offset: facts.stored,
    }
}
