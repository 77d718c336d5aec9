//! From a chunk to records: verified, numbered, checked for gaps, without records below the wanted
//! offset.
//!
//! Synchronous and without I/O. If the broker has to be asked (about a gap), or a policy has to decide
//! (about something unreadable), that is returned as a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::batch::{Part, Permit};
use crate::flow::continuity::{Continuity, Succession};
use crate::flow::resume::{self, ChunkExtent, Lost, Plan};
use crate::source::Delivery;
use crate::types::{Checkpoint, Offset, Timestamp};
use crate::wire::chunk::{Chunk, ChunkError, ChunkHeader, ChunkKind, Piece};

/// Memory per piece, if a chunk has several, beyond its bytes: its entry in a batch.
const PIECE_OVERHEAD_BYTES: u64 = 256;

/// Bytes inflated and not yet durable, of one consumer.
#[derive(Default)]
pub(super) struct Inflated(AtomicU64);

impl Inflated {
    fn hold(self: &Arc<Self>, bytes: u64, chunk: Permit) -> Permit {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Hold { inflated: Arc::clone(self), bytes, _chunk: chunk })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Hold {
    inflated: Arc<Inflated>,
    bytes: u64,
    _chunk: Permit,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inflated.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A checked chunk, and how much of it was taken.
pub(super) struct Checked {
    chunk: Chunk,
    permit: Permit,
    next_piece: usize,
}

impl Checked {
    pub(super) fn header(&self) -> &ChunkHeader {
        self.chunk.header()
    }
}

/// Result of checking a chunk.
pub(super) enum Examined {
    /// Take it.
    Good(Checked),
    /// Offsets are missing before it: ask the broker why, then take it or not.
    Gap { from: Offset, to: Offset, checked: Checked },
    /// It shows that the position is lost.
    Lost(Lost),
    /// It cannot be read. How far it reaches is unknown, because no checksum covers its header.
    Unreadable { error: ChunkError, at_position: bool },
    /// It begins below the end of the one before it, so one of the two has a damaged header.
    Backwards { first: Offset, reached: Offset },
    /// It was written before the time to begin with; this is its last offset.
    TooEarly(Offset),
    /// It is the first chunk after a beginning that waited for later messages.
    Begins,
}

/// One step through a chunk.
pub(super) enum Step {
    /// Records, in order.
    Records(Part),
    /// A sub-entry batch that cannot be read, at or above the wanted offset.
    Unreadable { first: Offset, records: u32, error: ChunkError },
    /// This many bytes must be free before the next batch can be inflated.
    NeedsRoom,
    /// All of it was taken.
    Done,
}

/// The state of one subscription's intake.
pub(super) struct Intake {
    continuity: Continuity,
    verify: Option<Checkpoint>,
    awaits: Option<Option<Timestamp>>,
    /// Where the chunk before it ended.
    reached: Offset,
    /// Errors of the chunks that were left out, until the next good one shows how far they reached.
    damaged: Option<Damaged>,
}

/// A chunk that was left out, and whose end is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Damaged {
    pub(super) error: ChunkError,
    /// It arrived for the position, so all of it may have been read before.
    pub(super) at_position: bool,
    /// Number of chunks left out in a row.
    pub(super) chunks: u32,
}

impl Intake {
    pub(super) fn new(plan: &Plan) -> Intake {
        Intake {
            continuity: Continuity::starting_at(plan.wanted),
            verify: plan.verify,
            awaits: plan.awaits,
            reached: Offset(0),
            damaged: None,
        }
    }

    /// Checks a chunk: CRC, lengths, the position, and the gap before it.
    pub(super) fn examine(&mut self, delivery: Delivery, now: Timestamp) -> Examined {
        let chunk = match Chunk::decode(delivery.chunk) {
            Ok(chunk) => chunk,
            // Its header has the time at which it was written.
            Err(_) if self.awaits.is_some() => return Examined::Begins,
            Err(error) => return Examined::Unreadable { error, at_position: self.is_first() },
        };
        let header = chunk.header();
        let (first, records) = (header.first_offset, header.records);
        if header.kind != ChunkKind::User {
            // The broker delivers no other kinds.
            let error = ChunkError::NotMessages { first_offset: first };
            return Examined::Unreadable { error, at_position: self.is_first() };
        }
        if first < self.reached {
            return Examined::Backwards { first, reached: self.reached };
        }
        self.reached = header.next_offset();
        // Without chunks there is only the message's own time, which its publisher chose. So everything
        // that arrives now counts as written now.
        let written = if chunk.id().is_of_record() { now } else { header.timestamp };
        match self.awaits {
            Some(Some(time)) if written < time => {
                return Examined::TooEarly(last_of(header));
            }
            Some(_) => return Examined::Begins,
            None => {}
        }
        if let Some(position) = self.verify.take()
            && let Err(lost) = resume::verify(position, ChunkExtent { id: chunk.id(), records })
        {
            return Examined::Lost(lost);
        }
        let checked = Checked { chunk, permit: delivery.permit, next_piece: 0 };
        match self.continuity.judge(first, records) {
            Succession::InOrder | Succession::Behind { .. } => {
                // The damaged chunk before it ended below the position: all of it was read before.
                self.damaged = None;
                Examined::Good(checked)
            }
            Succession::Gap { from, to } => Examined::Gap { from, to, checked },
        }
    }

    /// Takes the next piece of a checked chunk: records at or above the wanted offset, in order. A batch
    /// is inflated when its turn comes and there is room for it: at most `limit` bytes may be inflated
    /// and not yet durable.
    pub(super) fn step(
        &mut self,
        checked: &mut Checked,
        inflated: &Arc<Inflated>,
        limit: u64,
    ) -> Step {
        let wanted = self.continuity.next().unwrap_or(Offset(0));
        while checked.next_piece < checked.chunk.piece_count() {
            let index = checked.next_piece;
            let extra = match checked.chunk.piece_count() {
                1 => checked.chunk.piece_inflated_bytes(index),
                // Many small batches cost more than their bytes.
                _ => checked.chunk.piece_inflated_bytes(index) + PIECE_OVERHEAD_BYTES,
            };
            let held = inflated.bytes();
            if extra > 0 && held > 0 && held.saturating_add(extra) > limit {
                return Step::NeedsRoom;
            }
            checked.next_piece += 1;
            let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
            match checked.chunk.piece(index, &mut left) {
                Some(Piece::Block(block)) => {
                    let block = block.starting_at(wanted);
                    if block.count() > 0 {
                        let permit = match extra {
                            0 => Arc::clone(&checked.permit),
                            _ => inflated.hold(extra, Arc::clone(&checked.permit)),
                        };
                        return Step::Records(Part { block, chunk: checked.chunk.id(), permit });
                    }
                }
                Some(Piece::Unreadable { first, count, error, .. }) => {
                    let skip = u32::try_from(wanted.0.saturating_sub(first.0)).unwrap_or(u32::MAX);
                    if skip < count {
                        let first = Offset(first.0 + u64::from(skip));
                        return Step::Unreadable { first, records: count - skip, error };
                    }
                }
                None => {}
            }
        }
        let header = checked.chunk.header();
        self.continuity.advance(header.first_offset, header.records);
        Step::Done
    }

    /// The first wanted offset; `None` if any is accepted.
    pub(super) fn wanted(&self) -> Option<Offset> {
        self.continuity.next()
    }

    /// Everything below this offset is accounted for: a gap was explained.
    pub(super) fn explained(&mut self, to: Offset) {
        self.continuity.advance(to, 0);
    }

    /// The stream holds nothing that is wanted before this offset. A chunk that begins below it would
    /// contradict that.
    pub(super) fn passed(&mut self, to: Offset) {
        self.explained(to);
        self.reached = self.reached.max(to);
    }

    /// Leaves out the last chunk, which cannot be read.
    pub(super) fn leave_out(&mut self, error: ChunkError, at_position: bool) {
        let damaged = self.damaged.get_or_insert(Damaged { error, at_position, chunks: 0 });
        damaged.chunks = damaged.chunks.saturating_add(1);
    }

    /// Whether the chunk that holds the position has not arrived yet.
    fn is_first(&self) -> bool {
        self.verify.is_some() && self.damaged.is_none()
    }

    /// Why chunks were left out since the last good one.
    pub(super) fn damaged(&self) -> Option<&Damaged> {
        self.damaged.as_ref()
    }

    /// The chunks that were left out are accounted for.
    pub(super) fn take_damaged(&mut self) -> Option<Damaged> {
        self.damaged.take()
    }
}

/// The last offset of a chunk that was checked.
pub(super) fn last_of(header: &ChunkHeader) -> Offset {
    header.next_offset().prev().unwrap_or(Offset(0))
}
