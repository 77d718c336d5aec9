//! Finds the offset that a start means. Asked once, when a reference first connects, or after a loss that
//! a policy accepted. Nothing is stored here; see [`session`](super::session).
//!
//! Some sources do not show single chunks, or where the stream begins and ends. Such a source is asked
//! what the start means now. Without an answer nothing is read: a later attempt would begin later, and
//! skip the messages published in between.

use super::spec::{Begin, Spec};
use crate::flow::beginning::Beginning;
use crate::flow::lag::Tail;
use crate::flow::resume::{Evidence, Lost, Plan, Start};
use crate::source::{Bounds, Link, SourceError};
use crate::types::{ChunkId, Offset, Timestamp};
use crate::wire::chunk::ProbedChunk;

use super::resumption::{Anew, SessionError};

/// The start in the configuration.
pub(super) async fn configured(
    spec: &Spec,
    link: &dyn Link,
    bounds: Option<&Bounds>,
) -> Result<Plan, SessionError> {
    let Some(bounds) = bounds.filter(|_| link.abilities().probes) else {
        return blindly(spec, link, spec.begin.resolve(Timestamp::now())).await;
    };
    match spec.begin {
        Begin::At(Start::Offset(wanted)) => match bounds.first {
            Some(first) if first > wanted => {
                Err(SessionError::Lost { lost: Lost::Evicted { wanted, first }, of: None })
            }
            // It means the same at any time.
            _ => Ok(Plan::at(Start::Offset(wanted))),
        },
        Begin::At(start) => Ok(resolve(spec, link, bounds, start, false).await?),
        Begin::Ago(_) => {
            let start = spec.begin.resolve(Timestamp::now());
            Ok(resolve(spec, link, bounds, start, true).await?)
        }
    }
}

/// Plan for a start on a source that shows no chunks: begins at the offset that the source gives, or else
/// at the start itself.
async fn blindly(spec: &Spec, link: &dyn Link, start: Start) -> Result<Plan, SessionError> {
    let now = Timestamp::now();
    let found = match start {
        Start::Offset(_) => None,
        Start::Timestamp(time) if time <= now => match link.resolve(start).await? {
            Some(at) => Some(at),
            // Nothing was written since that time: everything published from now on is later.
            None => link.resolve(Start::Next).await?,
        },
        Start::Timestamp(_) => None,
        Start::First | Start::Last | Start::Next => link.resolve(start).await?,
    };
    Ok(match found {
        Some(at) => {
            let behind = identity_before(link, at).await?;
            Plan::begin(Beginning { at, behind, instead_of: None, moved: None })
        }
        None => match start {
            Start::Timestamp(time) if time > now => Plan::awaiting(start, Some(time)),
            Start::Offset(_) => Plan::at(start),
            // A later attempt would begin later, and skip the messages published in between.
            Start::First | Start::Last | Start::Next | Start::Timestamp(_) => {
                let why = "no message came that shows where to begin. The broker is slow, or delivers nothing from there over AMQP 0.9.1, as from compressed batches: begin at an offset then, or use rabbitmq-stream://";
                return Err(SourceError::unavailable(&spec.stream, why).into());
            }
        },
    })
}

/// Identity of the record before a beginning, by which a re-created stream is recognised before
/// anything was read. `None` if there is no such record, or if it is not shown.
pub(super) async fn identity_before(
    link: &dyn Link,
    at: Offset,
) -> Result<Option<ChunkId>, SourceError> {
    let Some(before) = at.prev() else { return Ok(None) };
    Ok(match link.evidence(before).await? {
        Evidence::Chunk(chunk) if chunk.id.first_offset == before => Some(chunk.id),
        Evidence::Chunk(_) | Evidence::NoChunk(_) | Evidence::Nothing => None,
    })
}

/// The start that a policy chooses.
pub(super) async fn anew(
    spec: &Spec,
    link: &dyn Link,
    bounds: Option<&Bounds>,
    anew: Anew,
) -> Result<Plan, SessionError> {
    let Some(bounds) = bounds.filter(|_| link.abilities().probes) else {
        let plan = blindly(spec, link, anew.start).await?;
        return Ok(match plan.begins {
            Some(b) => Plan::begin(Beginning { instead_of: anew.instead_of, ..b }),
            None => plan,
        });
    };
    let plan = match anew.from {
        Some(at) => {
            let at = at.min(first_unread(link, bounds, &anew));
            Plan::begin(Beginning { at, behind: None, instead_of: None, moved: None })
        }
        None => resolve(spec, link, bounds, anew.start, false).await?,
    };
    Ok(match plan.begins {
        Some(beginning) => Plan::begin(Beginning { instead_of: anew.instead_of, ..beginning }),
        None => plan,
    })
}

/// The first offset that still exists and was not read: the stream's first offset, or the one after the
/// lost position if that is higher. If the first offset is lower than at the time of the loss, the stream
/// was re-created, or this node retains more.
fn first_unread(link: &dyn Link, bounds: &Bounds, anew: &Anew) -> Offset {
    let of_empty = if link.abilities().emptiness { Offset(0) } else { Offset(u64::MAX) };
    let behind = anew.instead_of.map_or(Offset(0), |position| position.offset.next());
    bounds.first.unwrap_or(of_empty).max(behind)
}

/// `is_past`: the time is in the past, so everything published from now on is later.
async fn resolve(
    spec: &Spec,
    link: &dyn Link,
    bounds: &Bounds,
    start: Start,
    is_past: bool,
) -> Result<Plan, SourceError> {
    let begin =
        |at, behind| Ok(Plan::begin(Beginning { at, behind, instead_of: None, moved: None }));
    match (start, bounds.first) {
        (Start::Offset(at), _) | (Start::First, Some(at)) => begin(at, None),
        (Start::First, None) if link.abilities().emptiness => begin(Offset(0), None),
        // No chunk arrived in time: the stream may be empty, or slow.
        (Start::First, None) => Ok(Plan::awaiting(start, None)),
        (Start::Timestamp(time), _) => {
            let found = match bounds.first {
                Some(_) => link.chunk_at(start).await?,
                None => None,
            };
            // Also a damaged one: it is read, and left to `on_bad_message`.
            match found.filter(|chunk| chunk.header.timestamp >= time) {
                Some(chunk) => begin(steady(spec, link, chunk).await?.first_offset(), None),
                None if is_past => {
                    let end = end_of(spec, link, bounds).await?;
                    begin(end.map_or(Offset(0), |c| c.next_offset()), identity(end))
                }
                // For an offset beyond the end the broker would begin with the next written message.
                None => Ok(Plan::awaiting(start, Some(time))),
            }
        }
        (Start::Last, _) => {
            let end = end_of(spec, link, bounds).await?;
            begin(end.map_or(Offset(0), |c| c.first_offset()), None)
        }
        (Start::Next, _) => {
            let end = end_of(spec, link, bounds).await?;
            begin(end.map_or(Offset(0), |c| c.next_offset()), identity(end))
        }
    }
}

/// The chunk that holds the offset before the stream's end, if it is whole.
fn identity(end: Option<ProbedChunk>) -> Option<ChunkId> {
    end.filter(|chunk| chunk.sound).map(|chunk| chunk.id())
}

/// The last chunk; `None` if the stream is empty. Of a damaged one only the first offset is used: it is
/// read, and left to `on_bad_message`.
pub(super) async fn end_of(
    spec: &Spec,
    link: &dyn Link,
    bounds: &Bounds,
) -> Result<Option<ProbedChunk>, SourceError> {
    let mut bounds = *bounds;
    if bounds.first.is_none() && !link.abilities().emptiness {
        bounds = link.bounds().await?.unwrap_or(bounds);
    }
    if bounds.first.is_none() {
        return Ok(None);
    }
    if bounds.tail == Tail::Empty {
        let detail = "its end is not known on this node yet (after a restart or an election)";
        return Err(unavailable(spec, detail));
    }
    match link.chunk_at(Start::Last).await? {
        Some(chunk) => steady(spec, link, chunk).await.map(Some),
        None => Err(unavailable(spec, "its last chunk did not come in time")),
    }
}

/// The same chunk, if it is also delivered when its own offset is requested: only that confirms its first
/// offset.
async fn steady(
    spec: &Spec,
    link: &dyn Link,
    chunk: ProbedChunk,
) -> Result<ProbedChunk, SourceError> {
    let there = link.chunk_at(Start::Offset(chunk.first_offset())).await?;
    match there {
        Some(there) if there == chunk => Ok(chunk),
        _ => Err(unavailable(spec, "two looks at the same chunk saw different headers")),
    }
}

fn unavailable(spec: &Spec, detail: &str) -> SourceError {
    SourceError::unavailable(&spec.stream, detail)
}
