//! A caller that goes away during a write: a consumer that is stopped, or a process that ends while
//! its other threads still work.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sink::Sink;
use crate::types::{Guarantee, Offset};

use super::{
    Answer, Medium, Outcome, attempt, batch, close, ensure, keeps_position, open, open_again,
    shows, shows_despite_trouble, write,
};

/// Records in a batch whose write is abandoned: more than most destinations get in one piece.
const MESSAGES: u64 = 400;

/// Most polls of a write before it is abandoned.
const POLLS_MAX: usize = 400;

/// An abandoned write leaves the whole batch or nothing of it, as the position says; and nothing
/// disturbs the next sink.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_abandonment(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..3)).await?;
    let next = Arc::new(batch(3..8_000));
    {
        let mut writing = sink.write(&next);
        drop((is_ready(&mut writing), writing));
    }
    drop(sink);
    let mut sink = open_again(medium).await?;
    if !keeps_position(&*sink) {
        close(sink).await?; // Any part of the batch may have been written.
        return Ok(Outcome::Yes);
    }
    let to = found(medium, &mut *sink, 3, 8_000).await?;
    write(&mut *sink, batch(to..8_001)).await?;
    close(sink).await?;
    shows(medium, 0..8_001).await?;
    Ok(Outcome::Yes)
}

/// The same for every point at which the write can be dropped, followed by the sink, as in a
/// process that ends.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_being_dropped_anywhere(medium: &mut impl Medium) -> Answer {
    abandoned_anywhere(medium, false).await
}

/// The same, but the sink is closed during the write.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_being_closed_anywhere(medium: &mut impl Medium) -> Answer {
    abandoned_anywhere(medium, true).await
}

async fn abandoned_anywhere(medium: &mut impl Medium, closes: bool) -> Answer {
    let mut sink = open(medium).await?;
    let guarantee = sink.guarantee();
    write(&mut *sink, batch(0..1)).await?;
    let (mut next, mut polls) = (1, 0);
    loop {
        let to = next + MESSAGES;
        let whole = Arc::new(batch(next..to));
        let done = GiveUp { polls, inner: pin!(attempt(&mut *sink, &whole)) }.await;
        if let Some(Err(error)) = &done {
            return Err(format!("abandoned after {polls} polls, {next}..{to}: {error}"));
        }
        if closes {
            close(sink).await?;
        } else {
            drop(sink);
        }
        sink = open_again(medium).await?;
        let durable = match keeps_position(&*sink) {
            true => found(medium, &mut *sink, next, to).await?,
            // Any part of the batch may have been written: it is given again.
            false => {
                if done.is_some() {
                    to
                } else {
                    next
                }
            }
        };
        ensure(done.is_none() || durable == to, || {
            format!("{next}..{to} was acknowledged; a new sink's position is before {durable}")
        })?;
        if guarantee == Guarantee::ExactlyOnce && !medium.takes_records_one_by_one() {
            let what = shows(medium, 0..durable).await;
            what.map_err(|what| format!("abandoned after {polls} polls, {next}..{to}: {what}"))?;
        }
        next = durable;
        if done.is_some() || polls >= POLLS_MAX {
            break;
        }
        polls += (polls / 8).max(1);
    }
    write(&mut *sink, batch(next..next + 1)).await?;
    close(sink).await?;
    shows_despite_trouble(medium, guarantee, 0..=next).await?;
    Ok(Outcome::Yes)
}

/// The offset after the last durable one: one of the two given or, if the medium accepts records
/// one by one, any between.
async fn found(
    medium: &impl Medium,
    sink: &mut dyn Sink,
    before: u64,
    behind: u64,
) -> Result<u64, String> {
    let by_the_record = medium.takes_records_one_by_one();
    let found = sink.position().await.map_err(|error| format!("no position: {error}"))?;
    match found.map(|at| at.offset) {
        Some(Offset(at)) if at + 1 == before || at + 1 == behind => Ok(at + 1),
        Some(Offset(at)) if by_the_record && (before..behind).contains(&at) => Ok(at + 1),
        _ => Err(format!("the position is {found:?}, neither before {before} nor after {behind}")),
    }
}

/// Drops a future that is not done after this many polls.
struct GiveUp<F> {
    polls: usize,
    inner: F,
}

impl<F: Future + Unpin> Future for GiveUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(left) = self.polls.checked_sub(1) else { return Poll::Ready(None) };
        self.polls = left;
        match Pin::new(&mut self.inner).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // Not polled again: abandoned here.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// True if a future is done after one poll: for tests of non-blocking code.
pub fn is_ready<F: Future + Unpin>(future: &mut F) -> bool {
    matches!(Pin::new(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}
