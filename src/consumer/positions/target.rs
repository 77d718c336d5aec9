//! Finds the offset that a target means, and what a move there would read again or skip.

use std::fmt;
use std::sync::Arc;

use super::super::begin;
use super::super::resumption::Anew;
use super::super::spec::Spec;
use super::{Next, Seen, Subject, count, look_at_stream, see};
use crate::flow::beginning::Beginning;
use crate::flow::resume::{Origin, Plan, Start};
use crate::source::{Activation, Bounds, Link, Prefer};
use crate::types::{ChunkId, Offset, Timestamp};

/// Where a position is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// There.
    To(Start),
    /// To the `start` of the configuration.
    Configured,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::To(start) => start.fmt(f),
            Target::Configured => f.write_str("the configured start"),
        }
    }
}

/// A move, before it is made.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The positions now.
    pub seen: Seen,
    /// Where the consumer is to go on.
    pub to: Beginning,
    /// Number of messages that are read again or skipped, if they could be counted.
    pub(super) messages: Option<u64>,
}

impl Planned {
    /// The offsets that would be read again: from the first, up to before the second.
    pub fn again(&self) -> Option<(Offset, Offset)> {
        let from = self.seen.next_offset()?;
        // What was not read yet is not read again.
        (self.to.at < from).then_some((self.to.at, from))
    }

    /// Those, or the ones that would be skipped.
    fn range(&self) -> Option<(Offset, Offset)> {
        self.again().or(self.skipped())
    }

    /// The offsets that would be skipped: from the first, up to before the second.
    pub fn skipped(&self) -> Option<(Offset, Offset)> {
        let from = self.seen.next_offset()?;
        (self.to.at > from).then_some((from, self.to.at))
    }
}

/// Finds the target's offset, checks that the stream has it, and counts the messages in between. Changes nothing.
///
/// # Errors
/// If it does not, or something cannot be read. The text says what to do.
pub async fn plan(subject: &Subject, target: Target) -> anyhow::Result<Planned> {
    plan_from(subject, target, None).await
}

/// The same of a consumer that runs, and has made everything up to `durable` durable: it will store that before
/// it is moved.
///
/// # Errors
/// As [`plan`].
pub async fn plan_from(
    subject: &Subject,
    target: Target,
    durable: Option<Offset>,
) -> anyhow::Result<Planned> {
    let (planned, link) = find_on(subject, target, durable).await?;
    let planned = count_on(subject, planned, &link).await;
    link.close().await;
    Ok(planned)
}

/// The same, of a consumer that is waiting: counted is only what would be skipped, and what `before` has counted
/// is not counted again.
///
/// # Errors
/// As [`plan`].
pub async fn plan_again(
    subject: &Subject,
    target: Target,
    before: &Planned,
) -> anyhow::Result<Planned> {
    let (planned, link) = find_on(subject, target, None).await?;
    let planned = match planned.range() == before.range() {
        true => Planned { messages: before.messages, ..planned },
        false if planned.skipped().is_some() => count_on(subject, planned, &link).await,
        false => planned,
    };
    link.close().await;
    Ok(planned)
}

async fn find_on(
    subject: &Subject,
    target: Target,
    durable: Option<Offset>,
) -> anyhow::Result<(Planned, Arc<dyn Link>)> {
    let mut seen = see(subject).await?;
    if let Some(durable) = durable {
        seen.next = Next::At(durable.next(), Some(Origin::Session));
    }
    let spec = &subject.spec;
    let link = spec.source.connect(Prefer::Leader).await?;
    let found = find(spec, &*link, target).await;
    let to = match found {
        Ok(to) => to,
        Err(error) => {
            link.close().await;
            return Err(error);
        }
    };
    if to.mirror().is_none() && seen.stored.is_some() && is_shared(spec) {
        link.close().await;
        anyhow::bail!(
            "with single_active a consumer that has stored an offset cannot be moved to offset 0: nothing can be \
             stored on the broker for that, and only this state_dir would know. Move it to offset:1, which leaves \
             out the message at offset 0; or give it another `reference`, with which it begins at `start`"
        );
    }
    Ok((Planned { seen, to, messages: None }, link))
}

async fn count_on(subject: &Subject, planned: Planned, link: &Arc<dyn Link>) -> Planned {
    let messages = match planned.range() {
        Some(range) => {
            // Asked again, of the node that found the target: what came since the first look counts too, and
            // that was another node's, which may be behind.
            let looked = look_at_stream(&**link).await;
            let last = looked.ok().and_then(|(_, last)| last);
            count::messages_between(&subject.spec, link, range, last).await
        }
        None => Some(0),
    };
    Planned { messages, ..planned }
}

/// True if other daemons with other state files may go on from the position.
fn is_shared(spec: &Spec) -> bool {
    spec.source.activation() == Activation::ByBroker
}

async fn find(spec: &Spec, link: &dyn Link, target: Target) -> anyhow::Result<Beginning> {
    let bounds = link.bounds().await?;
    let resolved = match target {
        Target::To(Start::Offset(offset)) => return at_offset(spec, link, bounds, offset).await,
        Target::To(start) => anew(spec, link, bounds, start).await?,
        Target::Configured => begin::configured(spec, link, bounds.as_ref()).await?,
    };
    let now = Timestamp::now();
    match (resolved.begins, resolved.subscribe) {
        (Some(beginning), _) => Ok(beginning),
        (None, Start::Offset(offset)) => at_offset(spec, link, bounds, offset).await,
        // Nothing was written since: everything that comes is later.
        (None, Start::Timestamp(time)) if time <= now => {
            let next = anew(spec, link, bounds, Start::Next).await?;
            next.begins.ok_or_else(|| unknown(spec))
        }
        (None, Start::Timestamp(time)) => Err(anyhow::anyhow!(
            "{time} is in the future: move it to \"next\", or to a time that is over"
        )),
        (None, Start::First | Start::Last | Start::Next) => Err(unknown(spec)),
    }
}

async fn anew(
    spec: &Spec,
    link: &dyn Link,
    bounds: Option<Bounds>,
    start: Start,
) -> anyhow::Result<Plan> {
    let anew = Anew { start, from: None, instead_of: None, is_new_history: false };
    Ok(begin::anew(spec, link, bounds.as_ref(), anew).await?)
}

fn unknown(spec: &Spec) -> anyhow::Error {
    anyhow::anyhow!(
        "stream {:?} shows no message from which it is clear what that means now: it may be empty, or its broker \
         slow. Try again, or name an offset",
        spec.stream
    )
}

/// A beginning at exactly this offset, which the stream has, or will give to the next message.
async fn at_offset(
    spec: &Spec,
    link: &dyn Link,
    bounds: Option<Bounds>,
    at: Offset,
) -> anyhow::Result<Beginning> {
    let (first, end) = match bounds.filter(|_| link.abilities().probes) {
        Some(bounds) => {
            let end = begin::end_of(spec, link, &bounds).await?.map(|chunk| chunk.next_offset());
            // The broker's own entries at the end take offsets too.
            (bounds.first, end.max(bounds.tail.at_least().map(Offset::next)))
        }
        None => (link.resolve(Start::First).await?, link.resolve(Start::Next).await?),
    };
    let end = end.unwrap_or(Offset(0));
    let stream = spec.stream.as_str();
    match first {
        Some(first) if at < first => anyhow::bail!(
            "offset {at} is gone: stream {stream:?} begins at offset {first} now. Move it to \"first\", or to \
             {first} or above"
        ),
        _ if at > end && end == Offset(0) => anyhow::bail!(
            "stream {stream:?} is empty: its first message will have offset 0. Move it to \"next\""
        ),
        _ if at > end => anyhow::bail!(
            "offset {at} is beyond the end of stream {stream:?}, whose next message will have offset {end}, or one \
             shortly after it. Move it to \"next\", or to {end} or below"
        ),
        _ => {}
    }
    let behind = identity_before(link, at, first).await?;
    Ok(Beginning { at, behind, instead_of: None, moved: None })
}

/// Identity of what holds the offset before, by which a re-created stream is recognised.
async fn identity_before(
    link: &dyn Link,
    at: Offset,
    first: Option<Offset>,
) -> anyhow::Result<Option<ChunkId>> {
    let Some(before) = at.prev().filter(|before| first.is_some_and(|first| first <= *before))
    else {
        return Ok(None);
    };
    if !link.abilities().probes {
        return Ok(begin::identity_before(link, at).await?);
    }
    let chunk = link.chunk_at(Start::Offset(before)).await?;
    let holds_it = |c: &crate::wire::chunk::ProbedChunk| {
        c.sound && c.first_offset() <= before && before < c.next_offset()
    };
    Ok(chunk.filter(holds_it).map(|chunk| chunk.id()))
}
