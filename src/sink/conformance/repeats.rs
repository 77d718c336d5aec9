//! Nothing is written twice, or out of order.

use std::ops::Range;
use std::sync::Arc;

use crate::sink::{Sink, SinkError};

use super::{
    Answer, Medium, Outcome, attempt, batch, close, keeps_position, open, shows, stands_at, write,
};

const NO_POSITION: Answer = Ok(Outcome::NotAsked("the sink keeps no position"));

/// An exactly-once sink refuses a record that it already has, or one before others, because its
/// caller lost count. A destination that recognises repeated records may accept it, and do nothing.
///
/// # Errors
/// The reason of a failure.
pub async fn refuses_repeats(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    if !keeps_position(&*sink) {
        return NO_POSITION;
    }
    write(&mut *sink, batch(5..10)).await?;
    for range in [5..10, 5..20, 9..20, 0..3, 3..6] {
        refuses(&mut *sink, medium.takes_records_one_by_one(), range).await?;
        shows(medium, 5..10).await?;
    }
    write(&mut *sink, batch(10..12)).await?;
    close(sink).await?;
    shows(medium, 5..12).await?;
    Ok(Outcome::Yes)
}

/// The same for a sink that reads its position from the destination.
///
/// # Errors
/// The reason of a failure.
pub async fn refuses_repeats_after_a_reopening(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    if !keeps_position(&*sink) {
        return NO_POSITION;
    }
    let first = batch(0..10);
    let reached = first.checkpoint();
    write(&mut *sink, first).await?;
    close(sink).await?;
    for range in [0..10, 0..9, 9..10] {
        let mut sink = open(medium).await?;
        refuses(&mut *sink, medium.takes_records_one_by_one(), range).await?;
        shows(medium, 0..10).await?;
        stands_at(medium, &mut *sink, Some(reached)).await?;
        close(sink).await?;
    }
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(10..12)).await?;
    close(sink).await?;
    shows(medium, 0..12).await?;
    Ok(Outcome::Yes)
}

async fn refuses(sink: &mut dyn Sink, one_by_one: bool, range: Range<u64>) -> Result<(), String> {
    if one_by_one && range.end > 10 {
        return Ok(()); // The new records of it are written, as they should be.
    }
    match attempt(sink, &Arc::new(batch(range.clone()))).await {
        Err(SinkError::Fatal(_)) => Ok(()),
        Ok(()) if one_by_one => Ok(()),
        other => Err(format!("{range:?} after offset 9 returned {other:?}")),
    }
}
