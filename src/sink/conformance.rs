//! What every sink must do, as plain functions that each sink's tests call.
//!
//! A sink's test implements [`Medium`] and hands a maker of fresh ones to [`all`]. Each question
//! is a function of its own, and ends in `Err` with what went wrong. Compiled into the library so
//! that `tests/` can ask the same questions; nothing else uses it.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use crate::flow::batch::{Batch, Part};
use crate::sink::{Durability, Sink, SinkError};
use crate::types::{Checkpoint, ChunkId, Guarantee, Offset, StreamName, Timestamp};
use crate::wire::block::Block;

/// The stream that all questions are about.
pub const STREAM: &str = "events";

/// Where a sink under test keeps its records.
#[async_trait]
pub trait Medium: Send {
    /// A sink on this medium, for [`STREAM`] and always the same reference.
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError>;

    /// The offsets of the records that are visible, in the medium's order; `None` where nothing
    /// can be read back.
    async fn visible(&mut self) -> Option<Vec<u64>>;

    /// No record has this offset, or a higher one. Columns of numbers may have a sign.
    fn offset_limit(&self) -> u64 {
        u64::MAX
    }

    /// Whether the sink looks into messages, and so can find bad ones.
    fn decodes(&self) -> bool {
        true
    }
}

/// A well-formed message: one data section that holds `body`.
pub fn message(body: &[u8]) -> Vec<u8> {
    let mut message = vec![0x00, 0x53, 0x75];
    match u8::try_from(body.len()) {
        Ok(length) => message.extend([0xA0, length]),
        Err(_) => {
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            message.push(0xB0);
            message.extend(length.to_be_bytes());
        }
    }
    message.extend_from_slice(body);
    message
}

/// A message that no decoder can read.
pub const BAD_MESSAGE: &[u8] = &[0x00, 0x53, 0x75, 0xA0, 200, b'x'];

/// A part whose chunk begins at `first` and holds these messages.
pub fn part(first: u64, messages: &[Vec<u8>]) -> Option<Part> {
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.put_u32(u32::try_from(message.len()).ok()?);
        bytes.put_slice(message);
    }
    let timestamp = Timestamp(1_700_000_000_000 + i64::try_from(first % 1_000_000).ok()?);
    let bytes: Bytes = bytes.freeze();
    let count = u32::try_from(messages.len()).ok()?;
    let crc = crc32fast::hash(&bytes);
    Some(Part {
        block: Block::new(Offset(first), count, timestamp, bytes)?,
        chunk: ChunkId { first_offset: Offset(first), epoch: 1, timestamp, crc },
        permit: Arc::new(()),
    })
}

/// A batch of the messages whose bodies are `offset 7`, `offset 8`, … for the offsets in `range`,
/// without those that `bad` holds: these are [`BAD_MESSAGE`].
///
/// # Panics
/// Where the range is empty: a mistake in the test that asks.
pub fn batch_with_bad(range: Range<u64>, bad: &BTreeSet<u64>) -> Batch {
    let messages: Vec<Vec<u8>> = range
        .clone()
        .map(|offset| match bad.contains(&offset) {
            true => BAD_MESSAGE.to_vec(),
            false => message(format!("offset {offset}").as_bytes()),
        })
        .collect();
    let parts = part(range.start, &messages).into_iter().collect();
    let batch = Batch::new(StreamName::from(STREAM), parts);
    assert!(batch.is_some(), "a batch of no records was asked for: {range:?}");
    batch.unwrap_or_else(|| unreachable!())
}

/// A batch of good messages.
pub fn batch(range: Range<u64>) -> Batch {
    batch_with_bad(range, &BTreeSet::new())
}

type Answer = Result<(), String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Answer {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Asks all questions, each of a fresh medium.
///
/// # Errors
/// The first question that was answered "no", and why.
pub async fn all<M: Medium>(fresh: impl Fn() -> M) -> Answer {
    let named = |name: &'static str| move |why: String| format!("{name}: {why}");
    keeps_what_it_acknowledges(&mut fresh()).await.map_err(named("keeps_what_it_acknowledges"))?;
    takes_gaps(&mut fresh()).await.map_err(named("takes_gaps"))?;
    finds_its_position_again(&mut fresh()).await.map_err(named("finds_its_position_again"))?;
    refuses_repeats(&mut fresh()).await.map_err(named("refuses_repeats"))?;
    names_every_bad_record(&mut fresh()).await.map_err(named("names_every_bad_record"))?;
    covers_excluded_records(&mut fresh()).await.map_err(named("covers_excluded_records"))?;
    survives_abandonment(&mut fresh()).await.map_err(named("survives_abandonment"))?;
    closes_twice(&mut fresh()).await.map_err(named("closes_twice"))
}

async fn open(medium: &mut impl Medium) -> Result<Box<dyn Sink>, String> {
    medium.open().await.map_err(|error| format!("could not open: {error}"))
}

/// Until it is durable.
async fn write(sink: &mut dyn Sink, batch: Batch) -> Answer {
    let what = format!("{batch:?}");
    let written = sink.write(&Arc::new(batch)).await;
    match written.map_err(|error| format!("{what} was not written: {error}"))? {
        Durability::Durable => Ok(()),
        Durability::Held => {
            sink.flush().await.map_err(|error| format!("{what} was not flushed: {error}"))
        }
    }
}

async fn close(mut sink: Box<dyn Sink>) -> Answer {
    sink.close().await.map_err(|error| format!("could not close: {error}"))
}

async fn shows(medium: &mut impl Medium, expected: impl IntoIterator<Item = u64>) -> Answer {
    let expected: Vec<u64> = expected.into_iter().collect();
    match medium.visible().await {
        Some(found) if found != expected => Err(format!("shows {found:?}, not {expected:?}")),
        _ => Ok(()),
    }
}

fn keeps_position(sink: &dyn Sink) -> bool {
    matches!(sink.guarantee(), Guarantee::ExactlyOnce | Guarantee::Idempotent)
}

async fn stands_at(sink: &mut dyn Sink, expected: Option<Checkpoint>) -> Answer {
    let expected = expected.filter(|_| keeps_position(sink));
    let found = sink.position().await.map_err(|error| format!("no position: {error}"))?;
    ensure(found == expected, || format!("stands at {found:?}, not {expected:?}"))
}

/// Every batch that was acknowledged is visible, once, in order, and still is after a reopening.
///
/// # Errors
/// What went wrong; the same for all questions.
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
    shows(medium, 0..502).await
}

/// Offsets grow but are not contiguous, within a batch and between batches.
///
/// # Errors
/// What went wrong.
pub async fn takes_gaps(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    let parts = [part(5, &[message(b"a"), message(b"b")]), part(90, &[message(b"c")])];
    let gappy = Batch::new(StreamName::from(STREAM), parts.into_iter().flatten().collect());
    let Some(gappy) = gappy else { return Err("the question is broken".to_owned()) };
    let reached = gappy.checkpoint();
    write(&mut *sink, gappy).await?;
    stands_at(&mut *sink, Some(reached)).await?;
    let limit = medium.offset_limit();
    write(&mut *sink, batch(limit - 3..limit - 1)).await?;
    close(sink).await?;
    shows(medium, [5, 6, 90, limit - 3, limit - 2]).await
}

/// The position is `None` at first, moves with each batch, chunk included, and is found again.
///
/// # Errors
/// What went wrong.
pub async fn finds_its_position_again(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    stands_at(&mut *sink, None).await?;
    close(sink).await?;
    let mut from = 0; // Offset 0 is a position like any other.
    for to in [1, 7, 8] {
        let mut sink = open(medium).await?;
        let next = batch(from..to);
        let reached = next.checkpoint();
        write(&mut *sink, next).await?;
        stands_at(&mut *sink, Some(reached)).await?;
        close(sink).await?;
        let mut sink = open(medium).await?;
        stands_at(&mut *sink, Some(reached)).await?;
        close(sink).await?;
        from = to;
    }
    shows(medium, 0..8).await
}

/// A sink that is exactly-once does not let a record in twice.
///
/// # Errors
/// What went wrong.
pub async fn refuses_repeats(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    if sink.guarantee() != Guarantee::ExactlyOnce {
        return Ok(());
    }
    write(&mut *sink, batch(0..10)).await?;
    for range in [0..10, 0..20, 9..20] {
        match sink.write(&Arc::new(batch(range.clone()))).await {
            Err(SinkError::Fatal(_)) => {}
            other => return Err(format!("{range:?} after 0..10 came back as {other:?}")),
        }
    }
    write(&mut *sink, batch(10..12)).await?;
    close(sink).await?;
    shows(medium, 0..12).await
}

/// All bad records of a batch are named at once, nothing of the batch is visible, and without them
/// it can be written.
///
/// # Errors
/// What went wrong.
pub async fn names_every_bad_record(medium: &mut impl Medium) -> Answer {
    if !medium.decodes() {
        return Ok(());
    }
    // Large enough that a sink that writes as it goes has written when it meets the bad ones.
    let last = 12_000;
    let bad = BTreeSet::from([10, 11, 6_000, last - 1]);
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..5)).await?;
    let poisoned = batch_with_bad(5..last, &bad);
    let only_the_last = BTreeSet::from([last - 1]);
    for bad in [&only_the_last, &bad] {
        let poisoned = batch_with_bad(5..last, bad);
        let named: BTreeSet<u64> = match sink.write(&Arc::new(poisoned)).await {
            Err(SinkError::Poison(named)) => named.iter().map(|record| record.offset.0).collect(),
            other => return Err(format!("a bad record came back as {other:?}")),
        };
        ensure(named == *bad, || format!("named {named:?} as bad, not {bad:?}"))?;
        shows(medium, 0..5).await?;
    }
    write(&mut *sink, poisoned.without(bad.iter().map(|o| Offset(*o)).collect())).await?;
    write(&mut *sink, batch(last..last + 1)).await?;
    close(sink).await?;
    shows(medium, (0..=last).filter(|offset| !bad.contains(offset))).await
}

/// Records that a policy took out are not written, but the position covers them, even where no
/// other record is left.
///
/// # Errors
/// What went wrong.
pub async fn covers_excluded_records(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    let nothing = batch(0..3).without((0..3).map(Offset).collect());
    let reached = nothing.checkpoint();
    write(&mut *sink, nothing).await?;
    stands_at(&mut *sink, Some(reached)).await?;
    let some = batch(3..6).without(vec![Offset(3), Offset(5)]);
    let reached = some.checkpoint();
    write(&mut *sink, some).await?;
    close(sink).await?;
    let mut sink = open(medium).await?;
    stands_at(&mut *sink, Some(reached)).await?;
    close(sink).await?;
    shows(medium, [4]).await
}

/// A write whose caller went away leaves the medium with the whole batch or nothing of it, as the
/// position says; and nothing is in the way of the next sink.
///
/// # Errors
/// What went wrong.
pub async fn survives_abandonment(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..3)).await?;
    let next = Arc::new(batch(3..8_000));
    {
        let mut writing = sink.write(&next);
        let polled = writing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop((polled, writing));
    }
    drop(sink);
    let mut sink = open(medium).await?;
    if !keeps_position(&*sink) {
        return close(sink).await; // Any part of the batch may have been written.
    }
    let found = sink.position().await.map_err(|error| format!("no position: {error}"))?;
    let to = match found {
        Some(at) if at.offset == Offset(2) => 3,
        Some(at) if at.offset == Offset(7_999) => 8_000,
        other => return Err(format!("stands at {other:?}, which is neither before nor behind")),
    };
    shows(medium, 0..to).await?;
    write(&mut *sink, batch(to..8_001)).await?;
    close(sink).await?;
    shows(medium, 0..8_001).await
}

/// Closing twice is no error.
///
/// # Errors
/// What went wrong.
pub async fn closes_twice(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    for _ in 0..2 {
        match sink.close().await {
            Ok(()) => {}
            Err(error) => return Err(format!("could not close: {error}")),
        }
    }
    Ok(())
}

/// Whether a future is done after one look at it: for tests of what does not block.
pub fn is_ready<F: Future + Unpin>(future: &mut F) -> bool {
    matches!(
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(_)
    )
}
