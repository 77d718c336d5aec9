//! Dead letters: bad records, each made a message of its own that any sink can take.
//!
//! A letter is a record at the bad one's offset and chunk timestamp. Its message annotations say why
//! it is here and where it comes from; its body is the bad message as its publisher encoded it.
//!
//! Invariants:
//! - a letter is durable before its record is left out of the batch, so a record is settled only
//!   when its letter is;
//! - letters go out in the stream's order. One that is at or below the position that their sink had
//!   when it was opened was written by an earlier run, and is not written again: what is bad is
//!   found anew, and found the same, when a batch is read again. One below a letter of *this* run
//!   would be missed by such a sink, so it is an error;
//! - letters take little memory, however many records of a batch are bad: they are written in
//!   pieces.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::spec::Spec;
use crate::flow::batch::{Batch, Part};
use crate::sink::{BadRecord, Sink};
use crate::types::{Offset, Timestamp};
use crate::wire::amqp::{Annotation, carrying};
use crate::wire::block::Block;

/// A batch of letters is written as soon as it holds so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// An error's text is cut behind so many bytes: it may quote the message.
const ERROR_BYTES_MAX: usize = 2048;

/// Where the letters of one consumer go, and how far.
pub(super) struct Letters {
    pub(super) sink: Box<dyn Sink>,
    spec: Arc<Spec>,
    /// The position that the sink had when it was opened.
    found: Option<Offset>,
    /// The last letter of this run.
    last: Option<Offset>,
}

impl Letters {
    pub(super) fn new(sink: Box<dyn Sink>, spec: Arc<Spec>, found: Option<Offset>) -> Letters {
        Letters { sink, spec, found, last: None }
    }

    /// Begins anew with the stream's new history.
    pub(super) fn restart(&mut self) {
        (self.found, self.last) = (None, None);
    }

    /// The letters for these records of the batch that are not written yet, in pieces.
    ///
    /// # Errors
    /// Where one comes too late for the order, or its record is not in the batch.
    pub(super) fn pieces(&self, batch: &Batch, bad: &[BadRecord]) -> Result<Vec<Piece>, String> {
        let mut wanted: HashMap<Offset, &BadRecord> = bad
            .iter()
            .filter(|bad| self.found.is_none_or(|found| bad.offset > found))
            .map(|bad| (bad.offset, bad))
            .collect();
        if let Some(late) = wanted.keys().find(|offset| self.last.is_some_and(|l| **offset <= l)) {
            return Err(format!(
                "internal error: the message at offset {late} was found bad only after a later one; \
                 please report it"
            ));
        }
        let (mut pieces, mut piece) = (Vec::new(), Piece::default());
        for part in batch.parts() {
            if wanted.is_empty() {
                break;
            }
            for record in part.block.records() {
                if let Some(bad) = wanted.remove(&record.offset) {
                    piece.add(record.offset, bad.clone(), part.clone(), record.message.len());
                    if piece.bytes >= PIECE_BYTES {
                        pieces.push(std::mem::take(&mut piece));
                    }
                }
            }
        }
        if let Some(offset) = wanted.keys().next() {
            return Err(format!(
                "internal error: the sink refused offset {offset}, which is not in the batch; \
                 please report it"
            ));
        }
        pieces.push(piece);
        pieces.retain(|piece| !piece.records.is_empty());
        Ok(pieces)
    }

    /// The letters of a piece, as a batch.
    pub(super) fn batch(&self, piece: &Piece) -> Option<Batch> {
        let parts = piece.records.iter().filter_map(|(bad, part)| {
            let block = part.block.clone().starting_at(bad.offset).split_at(1).0;
            let record = block.records().next()?;
            let encoded = self.letter(bad, record.timestamp, record.message);
            let mut bytes = BytesMut::with_capacity(encoded.len() + 4);
            bytes.put_u32(u32::try_from(encoded.len()).ok()?);
            bytes.put_slice(&encoded);
            let bytes: Bytes = bytes.freeze();
            let block = Block::new(bad.offset, 1, record.timestamp, bytes)?;
            Some(Part { block, ..part.clone() })
        });
        let batch = Batch::new(self.spec.stream.clone(), parts.collect())?;
        (batch.messages() == piece.records.len() as u64).then_some(batch)
    }

    /// The letters up to this one are durable.
    pub(super) fn written(&mut self, last: Offset) {
        self.last = Some(last);
    }

    fn letter(&self, bad: &BadRecord, timestamp: Timestamp, message: &[u8]) -> Vec<u8> {
        let mut end = bad.detail.len().min(ERROR_BYTES_MAX);
        while !bad.detail.is_char_boundary(end) {
            end -= 1;
        }
        carrying(
            &[
                ("x-rillway-reason", Annotation::Text(bad.reason.label())),
                ("x-rillway-error", Annotation::Text(bad.detail.get(..end).unwrap_or_default())),
                ("x-rillway-consumer", Annotation::Text(self.spec.name.as_str())),
                ("x-rillway-stream", Annotation::Text(self.spec.stream.as_str())),
                ("x-rillway-offset", Annotation::Number(bad.offset.0)),
                ("x-rillway-timestamp", Annotation::Timestamp(timestamp.0)),
            ],
            message,
        )
    }
}

/// Letters that are written at once.
#[derive(Default)]
pub(super) struct Piece {
    records: Vec<(BadRecord, Part)>,
    bytes: usize,
}

impl Piece {
    fn add(&mut self, offset: Offset, bad: BadRecord, part: Part, bytes: usize) {
        debug_assert_eq!(offset, bad.offset);
        self.records.push((bad, part));
        self.bytes += bytes + 512;
    }
}
