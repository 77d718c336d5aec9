//! Reads the stream that a `stream` sink publishes to.

use std::sync::Arc;

use async_trait::async_trait;

use super::range::{self, RangeReader, Read};
use crate::sink::SinkError;
use crate::sink::audit::{AuditError, Auditor, Contents, Found, Kept, Order, Page, Sides, Span};
use crate::sink::stream::{StreamAudit, TargetJudge};
use crate::source::{ErrorKind, Prefer, Source, SourceError};
use crate::types::{Checkpoint, Offset};

/// Bytes for chunks of the target.
const MEMORY_BYTES: u64 = 64 << 20;

/// Reads what a `stream` sink has published.
pub struct TargetAuditor {
    audit: StreamAudit,
    target: Arc<dyn Source>,
}

impl TargetAuditor {
    /// An auditor of the stream that `target` reads.
    pub fn new(audit: StreamAudit, target: Arc<dyn Source>) -> TargetAuditor {
        TargetAuditor { audit, target }
    }

    /// A reader of the whole target, up to its end now; `None` if it is empty. The offset is its first one.
    async fn reader(&self) -> Result<Option<(RangeReader, Offset)>, SourceError> {
        let link = self.target.connect(Prefer::Replica).await?;
        let oldest = link.oldest().await;
        let end = range::end_of(&*link).await;
        link.close().await;
        let (Some(oldest), Some(last)) = (oldest?, end?.and_then(Offset::prev)) else {
            return Ok(None);
        };
        let reader = RangeReader::new(Arc::clone(&self.target), oldest, last, MEMORY_BYTES);
        Ok(Some((reader, oldest)))
    }
}

/// The target cannot be read.
fn failed(error: SourceError) -> SinkError {
    match error.kind() {
        ErrorKind::TooLarge | ErrorKind::Unsupported => SinkError::Fatal(error.to_string()),
        _ => SinkError::transient(error.to_string()),
    }
}

#[async_trait]
impl Auditor for TargetAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        (self.audit.look)().await
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        if !self.audit.is_annotated() {
            return Ok(None);
        }
        let Some((mut reader, _)) = self.reader().await.map_err(failed)? else { return Ok(None) };
        let mut contents = Contents::default();
        while let Some(read) = reader.next().await.map_err(failed)? {
            let Read::Records(parts) = read else { continue };
            let mut all = parts.iter().flat_map(|part| part.block.records());
            if let Some(entry) = all.find_map(|record| self.audit.entry(record, &mut contents)) {
                reader.close().await;
                return Ok(Some(entry.offset));
            }
        }
        Ok(None)
    }

    async fn open(&self, span: Span) -> Result<Sides, AuditError> {
        let maker = self.audit.maker();
        let mut notes = Vec::new();
        let reader = self.reader().await.map_err(failed)?;
        let (reader, oldest) = match reader {
            Some((reader, oldest)) => (Some(reader), oldest),
            None => (None, Offset(0)),
        };
        let mut order = Order::ByOffset;
        if !self.audit.is_annotated() {
            order = Order::Alone { lost_beginning: oldest > Offset(0), in_pieces: false };
            notes.push(
                "the messages of the target do not tell their offsets (annotate = false), so they are compared by \
                 their order: what others published there is foreign, and what stands behind the last message is \
                 not compared"
                    .to_owned(),
            );
        } else if oldest > Offset(0) {
            notes.push(format!(
                "the target begins at its offset {oldest}: what its retention has taken before that counts as \
                 missing. Name the first source offset that it still holds with --from"
            ));
        }
        let span = self.audit.is_annotated().then_some(span);
        let contents = Contents::default();
        let kept = Box::new(Target { audit: self.audit.clone(), reader, span, contents });
        Ok(Sides { kept, maker, judge: Box::new(TargetJudge), order, times: Vec::new(), notes })
    }
}

/// The records of the target.
struct Target {
    audit: StreamAudit,
    reader: Option<RangeReader>,
    /// The wanted offsets; `None` if the messages do not tell them.
    span: Option<Span>,
    contents: Contents,
}

#[async_trait]
impl Kept for Target {
    async fn next(&mut self) -> Result<Option<Page>, SinkError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        Ok(match reader.next().await.map_err(failed)? {
            None => {
                reader.close().await;
                self.reader = None;
                None
            }
            Some(Read::Records(parts)) => {
                let records = parts.iter().flat_map(|part| part.block.records());
                let own = records.filter_map(|record| self.audit.entry(record, &mut self.contents));
                let is_wanted = |offset| self.span.is_none_or(|span| span.holds(offset));
                let within = own.filter(|entry| is_wanted(entry.offset));
                Some(within.map(Found::Record).collect())
            }
            Some(Read::Evicted(from, to)) => {
                Some(vec![unreadable(from, to, "retention took them")])
            }
            Some(Read::Damaged(from, to, why)) => Some(vec![unreadable(from, to, &why)]),
        })
    }
}

fn unreadable(from: Offset, to: Offset, why: &str) -> Found {
    Found::Unreadable(format!("offsets {from} to {to} of the target: {why}"))
}
