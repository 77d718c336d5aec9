//! Applies a filter and programs to the messages of a batch, piece by piece.

use std::sync::Arc;

use super::filter::Filter;
use super::transform::{Transform, Verdict};
use crate::flow::batch::Batch;
use crate::sink::{BAD_RECORDS_MAX, BadRecord};
use crate::transform::MADE_BYTES_MAX;
use crate::types::Offset;

/// Decides which messages are wanted, and what becomes of their bodies.
#[derive(Clone, Default)]
pub struct Sifter {
    /// The filter by a value.
    pub filter: Option<Arc<Filter>>,
    /// The programs.
    pub transform: Option<Arc<Transform>>,
}

/// Result of looking through messages.
#[derive(Debug, Default)]
pub struct Sifted {
    /// Messages that are not wanted, in order.
    pub unwanted: Vec<Offset>,
    /// How many of them the filter left out; the others were left out by a program.
    pub by_filter: u64,
    /// New messages, in order.
    made: Vec<(Offset, Vec<u8>)>,
    /// Messages that cannot be judged, in order.
    pub bad: Vec<BadRecord>,
    /// The last message that was looked at.
    pub done: Option<Offset>,
    /// True if the whole batch was looked through.
    pub is_complete: bool,
}

impl Sifter {
    /// Processes the messages of a batch behind `done`. It stops when the new messages fill [`MADE_BYTES_MAX`], which
    /// bounds the memory; when it has found as many bad messages as one report may have; or when `ends`.
    pub fn sift(&self, batch: &Batch, done: Option<Offset>, ends: impl Fn() -> bool) -> Sifted {
        let mut sifted = Sifted { done, ..Sifted::default() };
        let mut made_bytes = 0;
        for record in batch.records_from(done.map_or(Offset(0), Offset::next)) {
            if sifted.bad.len() >= BAD_RECORDS_MAX || made_bytes >= MADE_BYTES_MAX || ends() {
                return sifted;
            }
            sifted.done = Some(record.offset);
            let is_wanted = self.filter.as_ref().map_or(Ok(true), |filter| filter.wants(record));
            let verdict = match (is_wanted, &self.transform) {
                (Ok(false), _) => {
                    sifted.by_filter += 1;
                    Ok(Verdict::Dropped)
                }
                (Ok(true), Some(transform)) => transform.judge(record),
                (Ok(true), None) => Ok(Verdict::Kept),
                (Err(bad), _) => Err(bad),
            };
            match verdict {
                Ok(Verdict::Kept) => {}
                Ok(Verdict::Made(message)) => {
                    made_bytes += message.len();
                    sifted.made.push((record.offset, message));
                }
                Ok(Verdict::Dropped) => sifted.unwanted.push(record.offset),
                Err(bad) => sifted.bad.push(bad),
            }
        }
        sifted.is_complete = true;
        sifted
    }
}

impl Sifted {
    /// The batch without unwanted messages, and with the new bodies. `None` if nothing changes.
    ///
    /// # Errors
    /// If a new message is too long for a batch.
    pub fn apply(&mut self, batch: &Batch) -> Result<Option<Batch>, String> {
        let (unwanted, made) = (std::mem::take(&mut self.unwanted), std::mem::take(&mut self.made));
        if unwanted.is_empty() && made.is_empty() {
            return Ok(None);
        }
        let mut changed = batch.clone();
        if !unwanted.is_empty() {
            changed = changed.without(unwanted);
        }
        if !made.is_empty() {
            let rewritten = changed.rewritten(&made);
            changed = rewritten.ok_or("internal error: a message that `map` made is too long")?;
        }
        Ok(Some(changed))
    }
}
