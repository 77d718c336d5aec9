//! Helpers of the questions: opening, writing, closing, and reading the destination.

use std::sync::Arc;
use std::time::Instant;

use crate::flow::batch::Batch;
use crate::sink::{Durability, Sink, SinkError, write_whole};
use crate::types::{Checkpoint, Guarantee};

use super::{Medium, RECOVERY_MAX, RETRY_EVERY};

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(super) async fn open(medium: &mut impl Medium) -> Result<Box<dyn Sink>, String> {
    medium.open().await.map_err(|error| format!("could not open: {error}"))
}

/// Opens after a failure: the old owner may need a moment to release the destination.
pub(super) async fn open_again(medium: &mut impl Medium) -> Result<Box<dyn Sink>, String> {
    let began = Instant::now();
    loop {
        match medium.open().await {
            Ok(sink) => return Ok(sink),
            Err(SinkError::Transient { .. }) if began.elapsed() < RECOVERY_MAX => {
                tokio::time::sleep(RETRY_EVERY).await;
            }
            Err(error) => return Err(format!("could not open again: {error}")),
        }
    }
}

/// Writes once, until the batch is durable.
pub(super) async fn attempt(sink: &mut dyn Sink, batch: &Arc<Batch>) -> Result<(), SinkError> {
    match write_whole(sink, batch).await? {
        Durability::Durable | Durability::Part(_) => Ok(()),
        Durability::Held => sink.flush().await,
    }
}

pub(super) async fn write(sink: &mut dyn Sink, batch: Batch) -> Result<(), String> {
    let what = format!("{batch:?}");
    let written = attempt(sink, &Arc::new(batch)).await;
    written.map_err(|error| format!("{what} was not written: {error}"))
}

pub(super) async fn close(mut sink: Box<dyn Sink>) -> Result<(), String> {
    match tokio::time::timeout(RECOVERY_MAX, sink.close()).await {
        Ok(closed) => closed.map_err(|error| format!("could not close: {error}")),
        Err(_) => Err(format!("was not closed within {RECOVERY_MAX:?}")),
    }
}

pub(super) async fn shows(
    medium: &mut impl Medium,
    expected: impl IntoIterator<Item = u64>,
) -> Result<(), String> {
    let expected: Vec<u64> = expected.into_iter().collect();
    match medium.visible().await {
        Some(found) if found != expected => {
            Err(format!("shows {}, not {}", in_short(&found), in_short(&expected)))
        }
        _ => Ok(()),
    }
}

/// The same after a failure, when an at-least-once sink may have written some records twice.
pub(super) async fn shows_despite_trouble(
    medium: &mut impl Medium,
    guarantee: Guarantee,
    expected: impl IntoIterator<Item = u64>,
) -> Result<(), String> {
    if matches!(guarantee, Guarantee::ExactlyOnce | Guarantee::EffectivelyOnce) {
        return shows(medium, expected).await;
    }
    let expected: Vec<u64> = expected.into_iter().collect();
    let Some(mut found) = medium.visible().await else { return Ok(()) };
    found.sort_unstable();
    found.dedup();
    ensure(found == expected, || format!("shows {}, not all", in_short(&found)))
}

/// Offsets as ranges, to show where thousands are wrong.
pub(super) fn in_short(offsets: &[u64]) -> String {
    const RANGES_MAX: usize = 20;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*offset) => *last = *offset,
            _ => ranges.push((*offset, *offset)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(RANGES_MAX)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}..={last}"),
        })
        .collect();
    let more = if ranges.len() > RANGES_MAX { ", …" } else { "" };
    format!("[{}{more}] ({} records)", shown.join(", "), offsets.len())
}

pub(super) fn keeps_position(sink: &dyn Sink) -> bool {
    matches!(sink.guarantee(), Guarantee::ExactlyOnce | Guarantee::EffectivelyOnce)
}

pub(super) async fn position_of(sink: &mut dyn Sink) -> Result<Option<Checkpoint>, String> {
    sink.position().await.map_err(|error| format!("no position: {error}"))
}

pub(super) async fn stands_at(
    medium: &impl Medium,
    sink: &mut dyn Sink,
    expected: Option<Checkpoint>,
) -> Result<(), String> {
    let mut expected = expected.filter(|_| keeps_position(sink));
    if let Some(expected) = expected.as_mut().filter(|_| medium.takes_records_one_by_one()) {
        expected.chunk = None;
    }
    let found = position_of(sink).await?;
    ensure(found == expected, || format!("stands at {found:?}, not {expected:?}"))
}
