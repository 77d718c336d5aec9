//! Applies a filter and programs to the messages of a batch, piece by piece.

use std::sync::Arc;

use super::filter::Filter;
use super::transform::{Made, Transform, Verdict};
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
    made: Made,
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
        for record in batch.records_from(done.map_or(Offset(0), Offset::next)) {
            if sifted.bad.len() >= BAD_RECORDS_MAX
                || sifted.made.bytes() >= MADE_BYTES_MAX
                || ends()
            {
                return sifted;
            }
            sifted.done = Some(record.offset);
            let is_wanted = self.filter.as_ref().map_or(Ok(true), |filter| filter.wants(record));
            let verdict = match (is_wanted, &self.transform) {
                (Ok(false), _) => {
                    sifted.by_filter += 1;
                    Ok(Verdict::Dropped)
                }
                (Ok(true), Some(transform)) => transform.judge(record, &mut sifted.made),
                (Ok(true), None) => Ok(Verdict::Kept),
                (Err(bad), _) => Err(bad),
            };
            match verdict {
                Ok(Verdict::Kept | Verdict::Made) => {}
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
            let rewritten = changed.rewritten(made.messages());
            changed = rewritten.ok_or("internal error: a message that `map` made is too long")?;
        }
        Ok(Some(changed))
    }
}

#[cfg(all(test, feature = "transform"))]
mod tests {
    use super::*;
    use crate::sink::conformance::{message, part};
    use crate::transform::{Program, on_large_stack};
    use crate::types::StreamName;

    #[test]
    fn made_messages_stand_where_theirs_stood() {
        let long = "x".repeat(300);
        let bodies = [
            format!(r#"{{"keep":true,"is":"{long}"}}"#),
            r#"{"keep":false,"is":1}"#.to_owned(),
            r#"{"keep":true,"is":2}"#.to_owned(),
            r#"{"keep":true,"is":3}"#.to_owned(),
            r#"{"keep":true,"is":4}"#.to_owned(),
            r#"{"keep":true,"is":1.50}"#.to_owned(),
        ];
        let messages = bodies.each_ref().map(|body| message(body.as_bytes()));
        let parts = messages.chunks(4).zip([10, 14]).map(|(some, at)| part(at, some).unwrap());
        let stream = StreamName::new("s");
        let batch = Batch::new(stream.clone(), parts.collect()).unwrap();
        let program = |text| Some(Program::compile(text).unwrap());
        let map = program("select(.is != 4) | if .is == 3 then error(\"no\") else {is} end");
        let transform = Transform::new(stream, program(".keep"), map, true).map(Arc::new);
        let sifter = Sifter { filter: None, transform };
        let mut sifted = on_large_stack(|| sifter.sift(&batch, None, || false)).unwrap();
        assert_eq!(sifted.unwanted, [Offset(11), Offset(14)]);
        let bad: Vec<_> = sifted.bad.iter().map(|bad| bad.offset).collect();
        assert_eq!(bad, [Offset(13)]);
        let batch = sifted.apply(&batch).unwrap().unwrap();
        for batch in [batch.clone(), batch.without(bad)] {
            let records: Vec<_> = batch.records().collect();
            for (offset, body) in [
                (10, format!(r#"{{"is":"{long}"}}"#)),
                (12, r#"{"is":2}"#.to_owned()),
                (15, r#"{"is":1.50}"#.to_owned()),
            ] {
                let record = records.iter().find(|record| record.offset.0 == offset).unwrap();
                assert_eq!(record.message, message(body.as_bytes()), "{offset}");
            }
            assert_eq!(batch.messages(), records.len() as u64);
            let bytes: usize = records.iter().map(|record| 4 + record.message.len()).sum();
            assert_eq!(batch.bytes(), bytes as u64);
        }
    }
}
