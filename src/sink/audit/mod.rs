//! Reads back what a sink holds, and makes what it should hold, for `rillway verify`.
//!
//! Invariants:
//! - nothing is written, locked, claimed or created, and no owner is replaced: a daemon may be writing
//!   at the same time;
//! - what should be there is made by the code with which the sink writes, so that the two cannot
//!   differ in their rules;
//! - records come in pages, so that memory does not depend on how much the sink holds.
//!
//! Knows nothing of brokers, and not which records are missing: it only hands over both sides.

pub(crate) mod cells;
mod contents;
pub(crate) mod lines;
mod pages;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::contents::Contents;
pub use self::pages::Page;
#[cfg(any(feature = "postgres", feature = "object"))]
pub(crate) use self::pages::turning;
pub(crate) use self::pages::{Stop, Turner, turning_blocking};
use super::{BadRecord, SinkError};
use crate::flow::batch::Batch;
use crate::types::column::{Column, Source};
use crate::types::{Checkpoint, Offset};
use crate::wire::block::Record;

/// A record in the form in which two of them are compared, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its offset in the stream.
    pub offset: Offset,
    /// Everything else of it.
    pub content: Bytes,
}

/// Something that the sink holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record.
    Record(Entry),
    /// Something from which no record can be read.
    Unreadable(String),
}

/// Offsets to be compared, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub from: Offset,
    /// The last one.
    pub to: Offset,
}

impl Span {
    /// True if the offset is one of them.
    pub fn holds(&self, offset: Offset) -> bool {
        (self.from..=self.to).contains(&offset)
    }
}

/// A part of a record that is not as it should be, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the column or field.
    pub part: String,
    /// The value that should be there, shortened.
    pub expected: String,
    /// The value that is there, shortened.
    pub found: String,
}

/// Two records of one offset whose contents differ.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Their offset.
    pub offset: Offset,
    /// Content that should be there.
    pub expected: Vec<u8>,
    /// Content that is there.
    pub found: Vec<u8>,
}

/// What a sink can tell for an audit.
#[async_trait]
pub trait Auditor: Send + Sync {
    /// Its durable position; `None` if it has none. Needs no right to write.
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError>;

    /// Offset of the first record that it holds, or may hold; `None` if it holds none.
    async fn first(&self) -> Result<Option<Offset>, SinkError>;

    /// Both sides of an audit of these offsets, which are not above the position.
    async fn open(&self, span: Span) -> Result<Sides, AuditError>;
}

/// Both sides of an audit.
pub struct Sides {
    /// The records that it holds, in its own order.
    pub kept: Box<dyn Kept>,
    /// Makes the records that it should hold.
    pub maker: Box<dyn Maker>,
    /// Says what differs.
    pub judge: Box<dyn Judge>,
    /// How the two belong together.
    pub order: Order,
    /// The parts of a record that hold the time at which its chunk was written.
    pub times: Vec<String>,
    /// Notes for the end of the report, such as limits of this comparison.
    pub notes: Vec<String>,
}

/// How the records of a sink belong to the expected ones.
pub enum Order {
    /// Each tells its offset.
    ByOffset,
    /// Only their order tells it: the offsets of the records are places in the sink.
    Alone {
        /// True if the sink has lost its first records.
        lost_beginning: bool,
        /// True if a place is an offset of the stream: that of the first message of the piece of the sink that the
        /// record is in. It belongs to no earlier message.
        in_pieces: bool,
    },
    /// Each tells its offset, and is the latest of its key. They come in the order of their offsets, whatever
    /// these are, and are those of one moment.
    Latest {
        /// Tells the records apart.
        keys: Box<dyn Keys>,
        /// The sink's position at that moment.
        upto: Offset,
    },
}

/// Tells records apart of which the latest of each key is kept.
pub trait Keys: Send {
    /// Appends the key of a record, in a form in which equal keys are the same bytes. `true`: what should be
    /// there is that the key has no record any more.
    fn read(&self, content: &[u8], key: &mut Vec<u8>) -> bool;
}

/// The records that a sink holds.
#[async_trait]
pub trait Kept: Send {
    /// The next ones; `None` at the end. Offsets ascend, except where the sink's own order is wrong.
    async fn next(&mut self) -> Result<Option<Page>, SinkError>;
}

/// Makes the records that a sink should hold.
pub trait Maker: Send {
    /// Adds those of a batch, in order; `refused` gets the ones that the sink cannot write.
    ///
    /// # Errors
    /// If it failed for another reason than a record.
    fn make(
        &mut self,
        batch: &Batch,
        into: &mut Vec<Entry>,
        refused: &mut Vec<BadRecord>,
    ) -> Result<(), SinkError>;
}

/// Makes the records that a sink should hold, each by itself.
pub(crate) trait MakesEach: Send {
    /// Adds what the sink makes of a record.
    ///
    /// # Errors
    /// If the sink cannot write it.
    fn each(&mut self, record: Record<'_>, into: &mut Vec<Entry>) -> Result<(), BadRecord>;
}

impl<M: MakesEach> Maker for M {
    fn make(
        &mut self,
        batch: &Batch,
        into: &mut Vec<Entry>,
        refused: &mut Vec<BadRecord>,
    ) -> Result<(), SinkError> {
        refused.extend(batch.records().filter_map(|record| self.each(record, into).err()));
        Ok(())
    }
}

/// Compares records whose contents are not the same bytes.
#[async_trait]
pub trait Judge: Send {
    /// What differs in each pair; nothing, if the destination only writes the same value otherwise.
    async fn judge(&mut self, pairs: &[Pair]) -> Result<Vec<Vec<Difference>>, SinkError>;
}

/// Reason why a sink cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// What it holds does not tell enough; with the remedy.
    #[error("{0}")]
    Cannot(String),
    /// It cannot be read.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// How a sink is audited.
pub enum Auditing {
    /// By reading it back.
    By(Box<dyn Auditor>),
    /// By reading the stream that it publishes to.
    Stream(Box<super::stream::StreamAudit>),
    /// Not at all, for this reason.
    Not(String),
}

/// What is to be known where several streams write the latest rows of keys into one table.
pub(crate) const SHARED_TABLE: &str = "the table has rows of other streams as well: a row that another stream has written \
     last counts as missing, unless `stream` is in the key";

/// The columns that hold the time at which a chunk was written: the table's own, and configured ones.
pub(crate) fn times(columns: Option<&[Column]>) -> Vec<String> {
    let configured = columns.unwrap_or_default().iter();
    let configured = configured.filter(|column| column.from == Source::Timestamp);
    let own = std::iter::once("timestamp".to_owned());
    own.chain(configured.map(|column| column.name.clone())).collect()
}

/// Longest value that is shown.
const SHOWN_CHARS_MAX: usize = 60;

/// A value for people: its text, or its bytes in hexadecimal, shortened.
pub(crate) fn shown(value: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(value) else {
        let hex: String =
            value.iter().take(SHOWN_CHARS_MAX / 2).map(|byte| format!("{byte:02x}")).collect();
        let more = if value.len() > SHOWN_CHARS_MAX / 2 { "…" } else { "" };
        return format!("0x{hex}{more} ({} bytes)", value.len());
    };
    let mut chars = text.trim_end_matches('\n').chars();
    let short: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    match chars.next() {
        None => short,
        Some(_) => format!("{short}… ({} bytes)", text.len()),
    }
}
