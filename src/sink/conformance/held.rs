//! Batches that are held: accepted but not yet durable.

use std::sync::Arc;

use crate::sink::{Durability, Sink, SinkError, write_whole};

use super::{
    Answer, Medium, Outcome, batch, close, ensure, open, open_again, shows, stands_at, write,
};

const NEVER_HOLDS: Answer = Ok(Outcome::NotAsked("the sink makes every batch durable at once"));

/// True if a small batch after the durable ones is held.
async fn holds(sink: &mut dyn Sink, range: std::ops::Range<u64>) -> Result<bool, String> {
    let written = write_whole(sink, &Arc::new(batch(range.clone()))).await;
    match written.map_err(|error| format!("{range:?} was not written: {error}"))? {
        Durability::Held => {
            ensure(sink.flush_at().is_some(), || {
                format!("{range:?} is held, and no flush is due")
            })?;
            Ok(true)
        }
        Durability::Durable | Durability::Part(_) => {
            ensure(sink.flush_at().is_none(), || format!("{range:?} is durable, a flush is due"))?;
            Ok(false)
        }
    }
}

/// A held batch counts only after the flush; then all of it does.
///
/// # Errors
/// The reason of a failure.
pub async fn holds_until_flushed(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    if !holds(&mut *sink, 0..3).await? {
        return NEVER_HOLDS;
    }
    shows(medium, []).await?;
    stands_at(medium, &mut *sink, None).await?;
    // The second batch may complete a piece: then both are durable.
    if holds(&mut *sink, 3..6).await? {
        shows(medium, []).await?;
        stands_at(medium, &mut *sink, None).await?;
    }
    sink.flush().await.map_err(|error| format!("was not flushed: {error}"))?;
    ensure(sink.flush_at().is_none(), || "a flush is due after a flush".to_owned())?;
    shows(medium, 0..6).await?;
    stands_at(medium, &mut *sink, Some(batch(3..6).checkpoint())).await?;
    close(sink).await?;
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(6..9)).await?;
    close(sink).await?;
    shows(medium, 0..9).await?;
    Ok(Outcome::Yes)
}

/// Batches held when a sink is closed or dropped are given again, and leave nothing that disturbs.
///
/// # Errors
/// The reason of a failure.
pub async fn gives_up_what_is_held(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..3)).await?;
    let reached = batch(0..3).checkpoint();
    for in_good_order in [true, false] {
        if !holds(&mut *sink, 3..6).await? {
            return NEVER_HOLDS;
        }
        if in_good_order {
            close(sink).await?;
        } else {
            drop(sink);
        }
        sink = open_again(medium).await?;
        shows(medium, 0..3).await?;
        stands_at(medium, &mut *sink, Some(reached)).await?;
    }
    write(&mut *sink, batch(3..7)).await?;
    close(sink).await?;
    shows(medium, 0..7).await?;
    Ok(Outcome::Yes)
}

/// After a failed flush everything is still held, and a later flush makes it durable.
///
/// # Errors
/// The reason of a failure.
pub async fn repeats_a_failed_flush(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..3)).await?;
    if !holds(&mut *sink, 3..6).await? {
        return NEVER_HOLDS;
    }
    if !medium.refuse(true).await {
        return Ok(Outcome::NotAsked("the medium cannot be made to refuse"));
    }
    for _ in 0..3 {
        match tokio::time::timeout(medium.patience(), sink.flush()).await {
            Ok(Err(SinkError::Transient { .. })) => {}
            other => return Err(format!("a flush on a refusing medium returned {other:?}")),
        }
        ensure(sink.flush_at().is_some(), || "nothing is due after a failed flush".to_owned())?;
    }
    medium.refuse(false).await;
    super::trouble::flush_until_it_works(&mut *sink).await?;
    shows(medium, 0..6).await?;
    stands_at(medium, &mut *sink, Some(batch(3..6).checkpoint())).await?;
    close(sink).await?;
    shows(medium, 0..6).await?;
    Ok(Outcome::Yes)
}
