//! Acknowledged batches are stored, with the position.

use crate::flow::batch::Batch;
use crate::types::{Checkpoint, Offset, StreamName};

use super::{
    Answer, Medium, Outcome, STREAM, batch, close, ensure, in_short, keeps_position, message, open,
    part, position_of, shows, stands_at, write,
};

/// Every acknowledged batch is visible, once, in order, and still is after a reopening.
///
/// # Errors
/// The reason of a failure; the same for all questions.
pub async fn keeps_what_it_acknowledges(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    for (from, to) in [(0, 1), (1, 10), (10, 11), (11, 500)] {
        write(&mut *sink, batch(from..to)).await?;
        shows(medium, 0..to).await?;
    }
    close(sink).await?;
    let mut sink = open(medium).await?;
    shows(medium, 0..500).await?;
    write(&mut *sink, batch(500..502)).await?;
    close(sink).await?;
    shows(medium, 0..502).await?;
    Ok(Outcome::Yes)
}

/// Offsets grow but are not contiguous, within a batch and between batches.
///
/// # Errors
/// The reason of a failure.
pub async fn takes_gaps(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    let parts = [part(5, &[message(b"a"), message(b"b")]), part(90, &[message(b"c")])];
    let gappy = Batch::new(StreamName::from(STREAM), parts.into_iter().flatten().collect());
    let Some(gappy) = gappy else { return Err("the question is broken".to_owned()) };
    let reached = gappy.checkpoint();
    write(&mut *sink, gappy).await?;
    stands_at(medium, &mut *sink, Some(reached)).await?;
    let limit = medium.offset_limit();
    write(&mut *sink, batch(limit - 3..limit - 1)).await?;
    close(sink).await?;
    shows(medium, [5, 6, 90, limit - 3, limit - 2]).await?;
    Ok(Outcome::Yes)
}

/// The position is `None` at first, advances with each batch, including the chunk, and is found
/// again.
///
/// # Errors
/// The reason of a failure.
pub async fn finds_its_position_again(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    stands_at(medium, &mut *sink, None).await?;
    close(sink).await?;
    let mut from = 0; // Offset 0 is a position like any other.
    for to in [1, 7, 8] {
        let mut sink = open(medium).await?;
        let next = batch(from..to);
        let reached = next.checkpoint();
        write(&mut *sink, next).await?;
        stands_at(medium, &mut *sink, Some(reached)).await?;
        close(sink).await?;
        let mut sink = open(medium).await?;
        stands_at(medium, &mut *sink, Some(reached)).await?;
        close(sink).await?;
        from = to;
    }
    shows(medium, 0..8).await?;
    Ok(Outcome::Yes)
}

/// Records excluded by a policy are not written, but the position covers them, even if no other
/// record is left.
///
/// # Errors
/// The reason of a failure.
pub async fn covers_excluded_records(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    let nothing = batch(0..3).without((0..3).map(Offset).collect());
    let reached = nothing.checkpoint();
    write(&mut *sink, nothing).await?;
    stands_at(medium, &mut *sink, Some(reached)).await?;
    let some = batch(3..6).without(vec![Offset(3), Offset(5)]);
    let mut reached = some.checkpoint();
    write(&mut *sink, some).await?;
    close(sink).await?;
    if medium.takes_records_one_by_one() {
        reached.offset = Offset(4);
    }
    let mut sink = open(medium).await?;
    stands_at(medium, &mut *sink, Some(reached)).await?;
    close(sink).await?;
    shows(medium, [4]).await?;
    Ok(Outcome::Yes)
}

/// Closing twice is no error.
///
/// # Errors
/// The reason of a failure.
pub async fn closes_twice(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    for _ in 0..2 {
        match sink.close().await {
            Ok(()) => {}
            Err(error) => return Err(format!("could not close: {error}")),
        }
    }
    Ok(Outcome::Yes)
}

/// Flushing nothing is no error, also after everything was made durable.
///
/// # Errors
/// The reason of a failure.
pub async fn flushes_nothing(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    for to in [0, 3] {
        if to > 0 {
            write(&mut *sink, batch(0..to)).await?;
        }
        ensure(sink.flush_at().is_none(), || format!("a flush is due after 0..{to}"))?;
        sink.flush().await.map_err(|error| format!("flushing nothing failed: {error}"))?;
        shows(medium, 0..to).await?;
    }
    close(sink).await?;
    Ok(Outcome::Yes)
}

/// After a restart the next batch may start at any offset, and the position follows it. Existing
/// data is not overwritten.
///
/// # Errors
/// The reason of a failure.
pub async fn takes_a_new_history(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(10..20)).await?;
    sink.restart().await.map_err(|error| format!("could not restart: {error}"))?;
    let next = batch(2..5);
    let reached = next.checkpoint();
    write(&mut *sink, next).await?;
    stands_at(medium, &mut *sink, Some(reached)).await?;
    close(sink).await?;
    let mut sink = open(medium).await?;
    stands_at(medium, &mut *sink, Some(reached)).await?;
    write(&mut *sink, batch(5..15)).await?;
    close(sink).await?;
    // Existing records may be visible, or set aside; a table shows them in any order.
    let new = Vec::from_iter(2..15);
    let mut with_former = Vec::from_iter((2..15).chain(10..20));
    with_former.sort_unstable();
    match medium.visible().await {
        Some(mut found) if !found.ends_with(&new) => {
            found.sort_unstable();
            ensure(found == with_former, || {
                format!("shows {} of two incarnations", in_short(&found))
            })?;
            Ok(Outcome::Yes)
        }
        _ => Ok(Outcome::Yes),
    }
}

/// An operator moves the position: back, forward, and before the first message. What is written next begins
/// there, though the sink had some of it; and so it is after it was closed.
///
/// # Errors
/// The reason of a failure.
pub async fn moves_where_it_is_told(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(10..20)).await?;
    for (to, next) in [(Some(14), 15..22), (Some(40), 41..43), (None, 0..3), (Some(1), 2..4)] {
        let position = to.map(|offset| Checkpoint { offset: Offset(offset), chunk: None });
        let before = position_of(&mut *sink).await?;
        let is_forward = before.map(|before| before.offset) < to.map(Offset);
        let moved = sink.move_to(position).await.map_err(|error| format!("to {to:?}: {error}"))?;
        let keeps = keeps_position(&*sink);
        // A sink whose position follows from its data has none, or its former, lower one.
        let follows = moved.is_none() || (moved == before && is_forward);
        ensure(if keeps { moved == position || follows } else { moved.is_none() }, || {
            format!("moved to {to:?}, and is at {moved:?}")
        })?;
        close(sink).await?;
        sink = open(medium).await?;
        let again = position_of(&mut *sink).await?;
        ensure(again == moved, || format!("moved to {to:?}: at {moved:?}, then at {again:?}"))?;
        let next = batch(next);
        let reached = next.checkpoint();
        write(&mut *sink, next).await?;
        stands_at(medium, &mut *sink, Some(reached)).await?;
        close(sink).await?;
        sink = open(medium).await?;
        stands_at(medium, &mut *sink, Some(reached)).await?;
    }
    close(sink).await?;
    let found = medium.visible().await;
    ensure(found.is_none_or(|found| (0..4).all(|offset| found.contains(&offset))), || {
        "what was written after a move is not shown".to_owned()
    })?;
    Ok(Outcome::Yes)
}
