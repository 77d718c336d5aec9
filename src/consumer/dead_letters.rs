//! Dead letters: each bad record becomes a message that any sink can write.
//!
//! A dead letter is a record at the bad one's offset and chunk timestamp. Its message annotations
//! give the reason and the origin; its body is the bad message as its publisher encoded it.
//!
//! Invariants:
//! - a dead letter is durable before its record is left out of the batch, so a record is settled
//!   only when its dead letter is;
//! - dead letters are written in the stream's order, because their sink drops everything at or
//!   below its position. So a bad record below it is left out without a new dead letter only if
//!   [`DeadLetterIndex`] proves that it has one. Otherwise it was found bad only after a later one
//!   (the columns were changed, a service refuses other messages than before): an error, which
//!   halts the consumer;
//! - dead letters take little memory, however many records of a batch are bad: they are written in
//!   pieces.
//!   pieces.

use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};

use super::dead_letter_index::DeadLetterIndex;
use super::spec::Spec;
use crate::flow::batch::{Batch, Part};
use crate::sink::{BadRecord, Sink};
use crate::sync::lock;
use crate::types::{Offset, Timestamp};
use crate::wire::amqp::{Annotation, carrying};
use crate::wire::block::Block;

/// Bytes from which a piece of dead letters is written.
const PIECE_BYTES: usize = 1 << 20;

/// Most bytes of an error's text, which may quote the message.
const ERROR_BYTES_MAX: usize = 2048;

/// The dead letters' sink of one consumer, and its position.
pub(super) struct DeadLetters {
    pub(super) sink: Box<dyn Sink>,
    spec: Arc<Spec>,
    /// Position of the sink: when it was opened, or the last dead letter since.
    at: Option<Offset>,
    index: Arc<Mutex<DeadLetterIndex>>,
}

impl DeadLetters {
    /// Dead letters for this sink, whose position is `at`, with the index of those that it holds.
    pub(super) fn new(
        sink: Box<dyn Sink>,
        spec: Arc<Spec>,
        at: Option<Offset>,
        index: DeadLetterIndex,
    ) -> DeadLetters {
        DeadLetters { sink, spec, at, index: Arc::new(Mutex::new(index)) }
    }

    /// Starts anew after the stream was re-created.
    pub(super) fn restart(&mut self) {
        self.at = None;
        lock(&self.index).restart();
    }

    /// Those of the bad records that have no dead letter yet, in the stream's order.
    ///
    /// # Errors
    /// If one is out of order and not in the index.
    pub(super) fn wanted<'b>(&self, bad: &'b [BadRecord]) -> Result<Vec<&'b BadRecord>, String> {
        let mut wanted: Vec<&BadRecord> = {
            let index = lock(&self.index);
            bad.iter().filter(|bad| !index.knows(bad.offset)).collect()
        };
        wanted.sort_unstable_by_key(|bad| bad.offset);
        wanted.dedup_by_key(|bad| bad.offset);
        match (self.at, wanted.first()) {
            (Some(at), Some(first)) if first.offset <= at => Err(self.too_late(first.offset, at)),
            _ => Ok(wanted),
        }
    }

    /// Takes the next piece of dead letters off the front of `wanted`.
    ///
    /// # Errors
    /// If a record is not in the batch.
    pub(super) fn piece(&self, batch: &Batch, wanted: &mut &[&BadRecord]) -> Result<Piece, String> {
        let mut piece = Piece::default();
        for part in batch.parts() {
            while let Some((bad, rest)) = wanted.split_first()
                && bad.offset <= part.block.last_offset()
                && piece.bytes < PIECE_BYTES
            {
                // As it came, whatever a program made of it.
                let from = part.block.original().starting_at(bad.offset);
                match from.records().next().filter(|record| record.offset == bad.offset) {
                    Some(record) => {
                        let bytes = record.message.len();
                        piece.add(bad.offset, (*bad).clone(), part.clone(), bytes);
                    }
                    None => return Err(not_in_batch(bad.offset)),
                }
                *wanted = rest;
            }
        }
        match wanted.first() {
            Some(bad) if piece.records.is_empty() => Err(not_in_batch(bad.offset)),
            _ => Ok(piece),
        }
    }

    /// The dead letters of a piece, as a batch.
    pub(super) fn batch(&self, piece: &Piece) -> Option<Batch> {
        let parts = piece.records.iter().filter_map(|(bad, part)| {
            let block = part.block.original().starting_at(bad.offset).split_at(1).0;
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

    fn too_late(&self, late: Offset, at: Offset) -> String {
        let index = lock(&self.index);
        let file = index.path().display();
        format!(
            "the message at offset {late} was found bad only after a later one: the dead letters' \
             sink is at offset {at} and would drop its dead letter, and {file} does not list \
             it. The rules for bad messages have changed since (`columns`, or what a service \
             refuses), or that file was lost. Undo the change; or give dead_letter a new destination (a \
             directory, a stream), to which all dead letters from here on are written; or, if the dead letter of \
             {late} exists, add a line \"{late}\" to that file. Then restart the consumer"
        )
    }

    /// Stores the offsets of the next piece on disk, which must precede writing it.
    pub(super) async fn note(&mut self, piece: &Piece) -> Result<(), String> {
        let offsets: Vec<Offset> = piece.records.iter().map(|(bad, _)| bad.offset).collect();
        let (index, path) = (Arc::clone(&self.index), lock(&self.index).path().to_owned());
        // A disk that hangs delays this consumer only.
        let added = tokio::task::spawn_blocking(move || lock(&index).add(&offsets)).await;
        let failed = |what: &dyn std::fmt::Display| {
            format!("{}: the index of dead letters cannot be written: {what}", path.display())
        };
        match added {
            Ok(added) => added.map_err(|error| failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Records that the dead letters up to this one are durable.
    pub(super) fn written(&mut self, last: Offset) {
        self.at = Some(last);
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

fn not_in_batch(offset: Offset) -> String {
    format!(
        "internal error: the sink refused offset {offset}, which is not in the batch; please report it"
    )
}

/// Dead letters that are written together.
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
