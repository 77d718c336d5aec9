//! Where points in time lie in a stream, as offsets of messages that it holds now.

use super::{Link, SourceError};
use crate::flow::resume::Start;
use crate::types::{Offset, Timestamp};

/// Milliseconds of a second, the unit in which AMQP 0.9.1 has times.
const SECOND_MS: i64 = 1000;

/// Offset of the stream's last message; `None` if it holds none.
///
/// # Errors
/// If the broker cannot say.
pub async fn last(link: &dyn Link) -> Result<Option<Offset>, SourceError> {
    if !link.abilities().probes {
        return match link.resolve(Start::Next).await? {
            Some(next) => Ok(next.prev()),
            None => Err(unknown("no message came that shows where it ends")),
        };
    }
    let Some(first) = link.bounds().await?.and_then(|bounds| bounds.first) else { return Ok(None) };
    match link.chunk_at(Start::Last).await? {
        // Only the first offset of a damaged chunk is sure.
        Some(chunk) if chunk.sound => Ok(chunk.next_offset().prev()),
        Some(chunk) => Ok(Some(chunk.first_offset().max(first))),
        None => Err(unknown("its last chunk did not come in time")),
    }
}

/// Offset of the stream's first message; `None` if it holds none, or none can be found.
///
/// # Errors
/// If the broker cannot say.
pub async fn first(link: &dyn Link) -> Result<Option<Offset>, SourceError> {
    link.oldest().await
}

/// Offset of the first message that reading from there would begin with, of those that the stream holds
/// now, or the one behind its last. `None` for a time after which nothing was written.
///
/// # Errors
/// If the broker cannot say.
pub async fn begins(link: &dyn Link, start: Start) -> Result<Option<Offset>, SourceError> {
    let behind_last = |last: Option<Offset>| last.map_or(Offset(0), Offset::next);
    Ok(Some(match start {
        Start::Offset(offset) => offset,
        Start::Timestamp(at) => return since(link, at).await,
        Start::Next => behind_last(last(link).await?),
        Start::First => match first(link).await? {
            Some(first) => first,
            None => behind_last(last(link).await?),
        },
        Start::Last => {
            let found = match link.abilities().probes {
                true => link.chunk_at(start).await?.map(|chunk| chunk.first_offset()),
                false => link.resolve(start).await?,
            };
            match found {
                Some(first) => first,
                None => behind_last(last(link).await?),
            }
        }
    }))
}

/// First offset of the first chunk that was written at this time or later; `None` if there is none.
/// Over AMQP 0.9.1 times are whole seconds, rounded down.
///
/// # Errors
/// If the broker cannot say.
pub async fn since(link: &dyn Link, at: Timestamp) -> Result<Option<Offset>, SourceError> {
    if !link.abilities().probes {
        return link.resolve(Start::Timestamp(at)).await;
    }
    if link.bounds().await?.is_none_or(|bounds| bounds.first.is_none()) {
        return Ok(None);
    }
    // For a time after the end, the broker gives the next chunk, or the last one.
    let chunk = link.chunk_at(Start::Timestamp(at)).await?;
    Ok(chunk.filter(|chunk| chunk.header.timestamp >= at).map(|chunk| chunk.first_offset()))
}

/// Offset of the last message that was written at this time or earlier; `None` if there is none.
///
/// # Errors
/// If the broker cannot say.
pub async fn upto(link: &dyn Link, at: Timestamp) -> Result<Option<Offset>, SourceError> {
    let after = match link.abilities().probes {
        true => at.0.saturating_add(1),
        // The next whole second: nothing of this one is left out.
        false => at.0.div_euclid(SECOND_MS).saturating_add(1).saturating_mul(SECOND_MS),
    };
    match since(link, Timestamp(after)).await? {
        Some(next) => Ok(next.prev()),
        None => last(link).await,
    }
}

fn unknown(why: &str) -> SourceError {
    SourceError::new(
        super::ErrorKind::Unavailable,
        format!("where the stream ends is not known: {why}"),
    )
}
