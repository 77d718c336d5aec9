//! Reads the committed lines of a file sink back, for `rillway verify`.
//!
//! Takes no lock, and needs the right to read alone.

use async_trait::async_trait;

use super::read::{Segment, segments};
use super::{FileOptions, position, raw, recover, segment};
use crate::sink::SinkError;
use crate::sink::audit::lines::{LineJudge, LineMaker, LineReader};
use crate::sink::audit::{
    AuditError, Auditor, Found, Order, Sides, Span, Stop, times, turning_blocking,
};
use crate::sink::format::Format;
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Reads what a sink with these options has committed.
pub(super) struct FileAuditor {
    pub(super) options: FileOptions,
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
}

impl FileAuditor {
    fn segments(&self) -> Result<Vec<Segment>, SinkError> {
        segments(&self.options.dir, &self.stream)
    }
}

#[async_trait]
impl Auditor for FileAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let folder = self.options.dir.join(segment::folder(&self.stream));
        let Some(state) = position::look(&folder)? else { return Ok(None) };
        let path = folder.join(position::NAME);
        recover::check_owner(&state, &self.stream, &self.reference, &path)?;
        Ok(state.checkpoint)
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        Ok(self.segments()?.first().map(Segment::first_offset))
    }

    async fn open(&self, span: Span) -> Result<Sides, AuditError> {
        let of_span = within(self.segments()?, span);
        let is_raw = matches!(self.options.format, Format::Raw { .. });
        if let Some(other) = of_span.iter().find(|segment| segment.is_ndjson() == is_raw) {
            let (was, is) = if is_raw { ("ndjson", "raw") } else { ("raw", "ndjson") };
            return Err(AuditError::Cannot(format!(
                "{} was written with format = {was:?}, and now it is {is:?}. Verify the offsets of each format by \
                 themselves, with --from and --to",
                other.path().display()
            )));
        }
        if let Format::Raw { delimiter } = &self.options.format {
            return raw::sides(&self.stream, delimiter, of_span);
        }
        let reader = LineReader::new(&self.stream, span);
        let kept = turning_blocking(move |to| {
            for segment in of_span {
                let place = segment.path().display().to_string();
                match segment.open() {
                    Ok(mut lines) => reader.read(&place, &mut *lines, to)?,
                    // Its records count as missing; the other segments are compared all the same.
                    Err(error) => to.push(Found::Unreadable(error.to_string()))?,
                }
            }
            Ok::<(), Stop>(())
        });
        let maker = Box::new(LineMaker::new(&self.stream));
        let times = times(None);
        Ok(Sides {
            kept,
            maker,
            judge: Box::new(LineJudge),
            order: Order::ByOffset,
            times,
            notes: Vec::new(),
        })
    }
}

/// The segments that may hold offsets of the span: each ends where the next one begins.
fn within(segments: Vec<Segment>, span: Span) -> Vec<Segment> {
    let firsts: Vec<Offset> = segments.iter().map(Segment::first_offset).collect();
    let is_within = |nth: usize| {
        let ends_before = firsts.get(nth + 1).is_some_and(|next| *next <= span.from);
        firsts.get(nth).is_some_and(|first| *first <= span.to) && !ends_before
    };
    segments
        .into_iter()
        .enumerate()
        .filter(|(nth, _)| is_within(*nth))
        .map(|(_, one)| one)
        .collect()
}
