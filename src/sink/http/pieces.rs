//! Which records go into one request: a function of their offsets and sizes only.
//!
//! Offsets fall into windows of `max_records`, aligned at its multiples. The records of a batch in one
//! window are one request. If that is larger than `max_bytes`, or the service finds it too large or
//! partly bad, the window is halved at its middle, repeatedly. So wherever a batch begins and ends, the
//! requests inside it are the same when its records are sent again, and have the same `Idempotency-Key`.
//!
//! Invariants: every record of the batch that is not settled is in exactly one request at a time; pieces
//! are made in order of offset, except halves of what was sent before. A piece's memory is its body; the
//! buffer that is kept between pieces has the size of one body.
//!
//! Knows nothing of HTTP.

use bytes::Bytes;

use super::options::BodyFormat;
use super::progress::Progress;
use crate::flow::batch::Batch;
use crate::sink::envelope::Envelope;
use crate::sink::{BAD_RECORDS_MAX, BadRecord};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::amqp::single_data;

/// A range of offsets, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    first: u64,
    last: u64,
}

impl Window {
    /// The window in which an offset lies.
    fn of(offset: Offset, width: u64) -> Window {
        let first = offset.0 - offset.0 % width.max(1);
        Window { first, last: first.saturating_add(width.max(1) - 1) }
    }

    fn halves(self) -> Option<(Window, Window)> {
        let middle = self.first + (self.last - self.first) / 2;
        let left = Window { first: self.first, last: middle };
        let right = Window { first: middle.checked_add(1)?, last: self.last };
        (self.first < self.last).then_some((left, right))
    }

    /// The two halves of the smallest part of this window, got by halving, that holds both offsets.
    /// `None` if they are the same.
    fn halves_around(self, first: Offset, last: Offset) -> Option<(Window, Window)> {
        let mut window = self;
        loop {
            let (left, right) = window.halves()?;
            window = match (last.0 <= left.last, first.0 > left.last) {
                (true, _) => left,
                (_, true) => right,
                _ => return Some((left, right)),
            };
        }
    }
}

/// What a request carries, except its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    window: Window,
    /// The first record.
    pub(super) first: Offset,
    /// The last record.
    pub(super) last: Offset,
    /// How many there are.
    pub(super) records: u64,
    /// When the first one's chunk was written.
    pub(super) timestamp: Timestamp,
}

/// A request to be sent.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) range: Range,
    pub(super) body: Bytes,
}

/// The part of a batch that is still to be cut.
#[derive(Debug)]
pub(super) struct Todo {
    /// Windows to be cut next, the lowest on top.
    windows: Vec<Window>,
    /// The first offset whose window was not opened yet; `None` at the end of all offsets.
    from: Option<Offset>,
}

impl Todo {
    /// Puts a sent range back, to be sent in halves.
    pub(super) fn halve(&mut self, range: &Range) {
        if let Some((left, right)) = range.window.halves_around(range.first, range.last) {
            let place = self.windows.partition_point(|window| window.first > left.first);
            self.windows.splice(place..place, [right, left]);
        }
    }

    /// Whether something lower is to be cut: halves of a range that was sent before this one was cut.
    pub(super) fn has_below(&self, range: &Range) -> bool {
        self.windows.last().is_some_and(|next| next.first < range.window.first)
    }

    /// Puts a range back that was cut and not sent.
    pub(super) fn put_back(&mut self, range: &Range) {
        let place = self.windows.partition_point(|window| window.first > range.window.first);
        self.windows.insert(place, range.window);
    }
}

/// Cuts batches of one stream into bodies.
pub(super) struct Cutter {
    envelope: Envelope,
    format: BodyFormat,
    max_records: u64,
    max_bytes: usize,
    /// The body that is being built.
    plain: Vec<u8>,
    /// The end of each of its records.
    ends: Vec<(Offset, usize)>,
}

impl Cutter {
    pub(super) fn new(
        stream: &StreamName,
        format: BodyFormat,
        max_records: u64,
        max_bytes: usize,
    ) -> Cutter {
        Cutter {
            envelope: Envelope::ndjson(stream),
            format,
            max_records,
            max_bytes,
            plain: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Every record that cannot be encoded, or the first [`BAD_RECORDS_MAX`] of them.
    pub(super) fn unreadable(&mut self, batch: &Batch) -> Vec<BadRecord> {
        let mut bad = Vec::new();
        // A record with only a body can always be encoded, and most are of that kind.
        for record in batch.records().filter(|record| single_data(record.message).is_none()) {
            self.plain.clear();
            bad.extend(self.envelope.append(record, &mut self.plain).err());
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        bad
    }

    /// The whole batch.
    pub(super) fn start(&self, batch: &Batch) -> Todo {
        Todo { windows: Vec::new(), from: Some(batch.first_offset()) }
    }

    /// The next request; `None` if nothing is left to send.
    pub(super) fn next(
        &mut self,
        batch: &Batch,
        todo: &mut Todo,
        progress: &Progress,
    ) -> Option<Piece> {
        loop {
            let window = match todo.windows.pop() {
                Some(window) => window,
                None => {
                    let mut records = batch.records_from(todo.from?);
                    let next = records.find(|record| !progress.is_settled(record.offset))?;
                    let window = Window::of(next.offset, self.max_records);
                    todo.from = window.last.checked_add(1).map(Offset);
                    window
                }
            };
            if let Some(piece) = self.cut(batch, window, todo, progress) {
                return Some(piece);
            }
        }
    }

    /// The records of the window, or as many as fit into a body.
    fn cut(
        &mut self,
        batch: &Batch,
        mut window: Window,
        todo: &mut Todo,
        progress: &Progress,
    ) -> Option<Piece> {
        self.plain.clear();
        self.ends.clear();
        let mut timestamp = None;
        let within = |record: &crate::wire::block::Record<'_>| record.offset.0 <= window.last;
        for record in batch.records_from(Offset(window.first)).take_while(within) {
            if progress.is_settled(record.offset) {
                continue;
            }
            timestamp.get_or_insert(record.timestamp);
            self.push(record);
            if self.plain.len() > self.max_bytes && self.ends.len() > 1 {
                break;
            }
        }
        let (first, _) = *self.ends.first()?;
        // Halves until it fits. What is left out comes next, including records that were not even
        // examined.
        while self.plain.len() > self.max_bytes && self.ends.len() > 1 {
            let Some((left, right)) = window.halves() else { break };
            if first.0 > left.last {
                window = right;
                continue;
            }
            todo.windows.push(right);
            window = left;
            let keep = self.ends.partition_point(|(offset, _)| offset.0 <= left.last);
            self.ends.truncate(keep);
            self.plain.truncate(self.ends.last()?.1);
        }
        let (last, _) = *self.ends.last()?;
        let records = self.ends.len() as u64;
        let range = Range { window, first, last, records, timestamp: timestamp? };
        if self.format == BodyFormat::Json
            && let Some(end) = self.plain.last_mut()
        {
            *end = b']';
        }
        let body = Bytes::copy_from_slice(&self.plain);
        self.plain.clear();
        self.plain.shrink_to(self.max_bytes.saturating_mul(2));
        Some(Piece { range, body })
    }

    /// Appends a record: behind `[` or `,` in an array, and with a `,` behind it.
    fn push(&mut self, record: crate::wire::block::Record<'_>) {
        if self.format == BodyFormat::Json && self.plain.is_empty() {
            self.plain.push(b'[');
        }
        // It could be encoded a moment ago, and a record that can be encoded once always can.
        if self.envelope.append(record, &mut self.plain).is_ok() {
            if self.format == BodyFormat::Json
                && let Some(end) = self.plain.last_mut()
            {
                *end = b',';
            }
            self.ends.push((record.offset, self.plain.len()));
        }
    }
}

#[cfg(test)]
mod tests;
