//! Audits a sink against its stream, for `rillway verify`: what is missing, doubled, altered, or should
//! not be there.
//!
//! The stream is read as the consumer reads it, and each message goes through the consumer's filter and
//! the sink's own code; the result is compared with what the sink holds, offset by offset.
//!
//! Invariants:
//! - nothing is changed: no offset is stored, no owner replaced, no lock taken, no group joined. The
//!   consumer may be running;
//! - only offsets up to the durable position at the start are compared, so that what is being written
//!   does not count;
//! - memory is bounded: both sides come in pages, and what differs is kept as ranges.

mod align;
mod join;
mod keys;
mod latest;
mod merge;
mod queues;
mod range;
pub mod ranges;
mod span;
mod target;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::align::{Align, Skips};
use self::join::{Expected, Join, Need};
pub use self::join::{Letters, Tally};
use self::latest::Latest;
use self::merge::Merge;
use self::range::{RangeReader, Read};
use self::ranges::Ranges;
use self::span::Found;
pub use self::target::TargetAuditor;
use crate::consumer::{Begin, Sieved, Spec};
use crate::flow::batch::{Batch, Part};
use crate::flow::resume::Start;
use crate::sink::SinkError;
use crate::sink::audit::{AuditError, Auditor, Difference, Entry, Maker, Order, Sides, Span};
use crate::sink::discreet::{hide, without_folders};
use crate::source::SourceError;
use crate::types::{Offset, Timestamp};

/// What is to be audited.
pub struct Subject {
    /// The consumer of one stream. Its source takes part in no group.
    pub spec: Spec,
    /// Reads its sink.
    pub auditor: Box<dyn Auditor>,
    /// Reads its dead letters, and says what a reader of the result must know of that. It is asked after the
    /// sink's position, so that every dead letter up to there is among them.
    pub letters: Reading,
    /// True if values may be shown.
    pub show_values: bool,
}

/// Reads the dead letters of a consumer.
pub type Reading = Pin<Box<dyn Future<Output = (Letters, Vec<String>)> + Send>>;

/// What to audit of it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The first message; `None` for the one with which the consumer began.
    pub from: Option<Start>,
    /// The last message; `None` for the sink's durable position.
    pub to: Option<Last>,
    /// Most altered records whose differences are kept.
    pub examples_max: usize,
}

/// The last message that is audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// This one.
    Offset(Offset),
    /// The last one that was written at this time or earlier.
    Time(Timestamp),
}

/// Result of an audit.
#[derive(Debug)]
pub struct Findings {
    /// The offsets that were to be compared.
    pub span: Span,
    /// What was found.
    pub tally: Tally,
    /// Offsets of records that are altered.
    pub altered: Ranges,
    /// What differs in the first of them.
    pub examples: Vec<(Offset, Vec<Difference>)>,
    /// Notes for the end of the report, such as limits of this comparison.
    pub notes: Vec<String>,
    /// True if it was stopped before its end.
    pub was_stopped: bool,
}

impl Findings {
    /// True if the sink holds what it should, as far as it was compared.
    pub fn is_same(&self) -> bool {
        let Tally { missing, doubled, misplaced, extra, unreadable_count, .. } = &self.tally;
        let found = [missing, doubled, misplaced, extra, &self.altered];
        found.iter().all(|found| found.count() == 0)
            && *unreadable_count == 0
            && self.tally.foreign_count == 0
    }
}

/// Reason why an audit could not be made, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The question has no answer; with the remedy.
    #[error("{0}")]
    Cannot(String),
    /// There is nothing to compare, or no room to compare it.
    #[error("{0}")]
    Nothing(String),
    /// The stream cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink cannot be read.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl From<AuditError> for Failed {
    fn from(error: AuditError) -> Failed {
        match error {
            AuditError::Cannot(what) => Failed::Cannot(what),
            AuditError::Sink(error) => Failed::Sink(error),
        }
    }
}

/// Pages of the expected side that are made ahead.
const AHEAD: usize = 4;

/// Audits; `progress` is told the last offset that was compared, of which range. Ends early when `stop` is
/// ready, with what was found so far.
///
/// # Errors
/// If one of the two sides cannot be read, or if there is nothing to compare.
pub async fn audit(
    subject: Subject,
    request: Request,
    mut progress: impl FnMut(Span, Offset),
    stop: impl Future<Output = ()> + Send,
) -> Result<Findings, Failed> {
    let mut notes = Vec::new();
    let mut stop = Box::pin(stop);
    let stopped = || Failed::Nothing("it was stopped before anything was compared".to_owned());
    let finding = or_stop(span::find(&subject, request, &mut notes), &mut stop).await;
    let Found { mut span, begins_later, shows_times } = finding.ok_or_else(stopped)??;
    progress(span, span.from);
    let sides = or_stop(subject.auditor.open(span), &mut stop).await.ok_or_else(stopped)??;
    let Sides { kept: mut found, maker, mut judge, order, times, notes: of_sink } = sides;
    notes.extend(of_sink);
    if !shows_times {
        notes.push(
            "AMQP 0.9.1 does not show when a message was written, so that time is not compared"
                .to_owned(),
        );
    }
    if let Order::Latest { upto, .. } = &order {
        span.to = span::of_latest(request, span.from, *upto)?;
    }
    let Subject { spec, letters, show_values, .. } = subject;
    let (letters, of_letters) = or_stop(letters, &mut stop).await.ok_or_else(stopped)?;
    let mut expecting = Expecting::start(&spec, show_values, span, maker);
    let begins_somewhere =
        request.from.is_none() && !matches!(spec.begin, Begin::At(Start::First | Start::Offset(_)));
    let mut merge: Box<dyn Join> = match order {
        Order::ByOffset => Box::new(Merge::new(letters)),
        Order::Latest { keys, .. } => Box::new(Latest::new(letters, keys, span)),
        Order::Alone { lost_beginning, in_pieces } => {
            // Of pieces it is known where they begin.
            let begins_unknown = begins_somewhere && !in_pieces;
            let skips = match (lost_beginning || begins_unknown, begins_later) {
                (true, _) => Skips::Expected,
                (false, true) => Skips::Found,
                (false, false) => Skips::Nothing,
            };
            Box::new(Align::new(letters, skips, in_pieces))
        }
    };
    let (mut altered, mut examples) = (Ranges::default(), Vec::new());
    let mut was_stopped = false;
    loop {
        let need = merge.run();
        if let Some(trouble) = merge.trouble() {
            return Err(Failed::Nothing(trouble));
        }
        if let Some(reached) = merge.tally().reached {
            progress(span, reached);
        }
        let stopped = match need {
            Need::Nothing => break,
            Need::Expected => match or_stop(expecting.next(), &mut stop).await {
                Some(more) => {
                    merge.expect(more?);
                    false
                }
                None => true,
            },
            Need::Found => match or_stop(found.next(), &mut stop).await {
                Some(more) => {
                    merge.find(more?);
                    false
                }
                None => true,
            },
            Need::Judging => {
                let pairs = merge.take_pairs();
                for (pair, mut differences) in pairs.iter().zip(judge.judge(&pairs).await?) {
                    differences.retain(|one| shows_times || !times.contains(&one.part));
                    if differences.is_empty() {
                        merge.tally().same += 1;
                        continue;
                    }
                    altered.add(pair.offset);
                    if examples.len() < request.examples_max {
                        examples.push((pair.offset, differences));
                    }
                }
                false
            }
        };
        if stopped {
            was_stopped = true;
            break;
        }
    }
    let ended = expecting.ended_at;
    if let Some(ended) = ended.filter(|ended| *ended <= span.to) {
        notes.push(format!(
            "the stream ends before offset {ended}, below the sink's position: it was created again, or \
             its end was lost"
        ));
    }
    if !show_values {
        for (_, differences) in &mut examples {
            for one in differences {
                (one.expected, one.found) = (HIDDEN.to_owned(), HIDDEN.to_owned());
            }
        }
    }
    let mut tally = std::mem::take(merge.tally());
    if !show_values {
        tally.unreadable.iter_mut().for_each(|place| *place = without_folders(place));
    }
    notes.extend(merge.notes());
    notes.extend(of_letters);
    Ok(Findings { span, tally, altered, examples, notes, was_stopped })
}

const HIDDEN: &str = "not shown";

/// The result, or nothing if `stop` is ready first.
async fn or_stop<T>(
    doing: impl Future<Output = T>,
    stop: &mut Pin<Box<impl Future<Output = ()>>>,
) -> Option<T> {
    match select(std::pin::pin!(doing), stop.as_mut()).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// The expected side, made in a task of its own.
struct Expecting {
    pages: mpsc::Receiver<Result<Vec<Expected>, Failed>>,
    making: JoinHandle<Option<Offset>>,
    /// The offset before which the stream ended; `None` before the end.
    ended_at: Option<Offset>,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        self.making.abort();
    }
}

impl Expecting {
    fn start(spec: &Spec, show_values: bool, span: Span, mut maker: Box<dyn Maker>) -> Expecting {
        let (to, pages) = mpsc::channel(AHEAD);
        let spec = spec.clone();
        let source = Arc::clone(&spec.source);
        let mut reader = RangeReader::new(source, span.from, span.to, spec.memory_bytes);
        let making = tokio::spawn(async move {
            loop {
                let page = match reader.next().await {
                    Ok(Some(read)) => expected(&spec, read, &mut *maker, show_values),
                    Ok(None) => {
                        reader.close().await;
                        return Some(reader.next_offset());
                    }
                    Err(error) => Err(error.into()),
                };
                let is_last = page.is_err();
                if to.send(page).await.is_err() || is_last {
                    return None;
                }
            }
        });
        Expecting { pages, making, ended_at: None }
    }

    async fn next(&mut self) -> Result<Option<Vec<Expected>>, Failed> {
        match self.pages.recv().await {
            Some(page) => page.map(Some),
            None => {
                if self.ended_at.is_none() {
                    let ended = (&mut self.making).await;
                    // A panic is no end of the stream.
                    self.ended_at = ended.map_err(|error| {
                        Failed::Sink(SinkError::Fatal(format!("internal error: {error}")))
                    })?;
                }
                Ok(None)
            }
        }
    }
}

/// What the sink should hold of what was read, in order.
fn expected(
    spec: &Spec,
    read: Read,
    maker: &mut dyn Maker,
    show_values: bool,
) -> Result<Vec<Expected>, Failed> {
    let parts: Vec<Part> = match read {
        Read::Records(parts) => parts,
        Read::Evicted(from, to) | Read::Damaged(from, to, _) => {
            return Ok(vec![Expected::Unknown(from, to)]);
        }
    };
    let Some(batch) = Batch::new(spec.stream.clone(), parts) else { return Ok(Vec::new()) };
    let sieved = spec.sieve(batch).map_err(Failed::Cannot)?;
    let Sieved { batch, unwanted, mut bad } = sieved;
    let mut entries: Vec<Entry> =
        Vec::with_capacity(usize::try_from(batch.messages()).unwrap_or(0));
    maker.make(&batch, &mut entries, &mut bad)?;
    let is_mixed = !unwanted.is_empty() || !bad.is_empty();
    let mut all: Vec<Expected> = entries.into_iter().map(Expected::Record).collect();
    all.extend(unwanted.into_iter().map(Expected::Unwanted));
    all.extend(bad.into_iter().map(|bad| {
        let bad = if show_values { bad } else { hide(bad) };
        Expected::Refused(bad.offset, bad.detail)
    }));
    if is_mixed {
        all.sort_unstable_by_key(Expected::offset);
    }
    Ok(all)
}
