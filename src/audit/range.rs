//! Reads a range of a stream once, for commands: from one offset to another, over connections that may
//! break. Stores no offset, and takes part in no group of consumers.

use std::sync::Arc;
use std::time::Duration;

use crate::flow::batch::{Part, Permit};
use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::source::{Budget, Event, Link, Prefer, Source, SourceError, Subscription, begin};
use crate::types::Offset;
use crate::wire::chunk::{Chunk, ChunkKind, Piece};
use crate::wire::compression::InflateLimits;

/// Silence after which the end of the stream is asked for.
const SILENCE: Duration = Duration::from_secs(3);

/// Silence at an end that is not known, after which the reading fails.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Attempts to connect in a row.
const ATTEMPTS_MAX: u32 = 8;

/// Wait before the first attempt after a failed one; it doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// Messages, and bytes of them, that are returned together if they have arrived.
const MESSAGES_MAX: u64 = 5_000;
const BYTES_MAX: usize = 1 << 20;

/// Something that was read, in the order of the stream.
pub(super) enum Read {
    /// Records of consecutive chunks.
    Records(Vec<Part>),
    /// Offsets that retention has taken, both included.
    Evicted(Offset, Offset),
    /// Offsets of records that cannot be read, both included, and the reason.
    Damaged(Offset, Offset, String),
}

/// Reads a range of a stream.
pub(super) struct RangeReader {
    source: Arc<dyn Source>,
    budget: Arc<Budget>,
    /// `None` after a failure.
    subscription: Option<Subscription>,
    next: Offset,
    last: Offset,
    /// The error of a chunk that was left out; the next good one shows how far it reached.
    damaged: Option<String>,
    /// What was read after something that is returned first.
    waiting: Vec<Read>,
    failures: u32,
    has_ended: bool,
}

impl RangeReader {
    /// A reader from `from` to `last`, both included. It connects on demand.
    pub(super) fn new(
        source: Arc<dyn Source>,
        from: Offset,
        last: Offset,
        memory_bytes: u64,
    ) -> RangeReader {
        RangeReader {
            source,
            budget: Budget::new(memory_bytes),
            subscription: None,
            next: from,
            last,
            damaged: None,
            waiting: Vec::new(),
            failures: 0,
            has_ended: from > last,
        }
    }

    /// The next offset to be read; everything below it was returned. After the end, it is the one after
    /// the range or, if the stream ends before that, the one after the stream's last record.
    pub(super) fn next_offset(&self) -> Offset {
        self.next
    }

    /// What comes next; `None` at the end of the range, or of the stream. Not cancel-safe.
    ///
    /// # Errors
    /// If the stream cannot be read, also after several attempts.
    pub(super) async fn next(&mut self) -> Result<Option<Read>, SourceError> {
        loop {
            if !self.waiting.is_empty() {
                return Ok(Some(self.waiting.remove(0)));
            }
            if self.has_ended {
                return Ok(None);
            }
            if let Err(error) = self.advance().await {
                self.subscription = None;
                self.failures += 1;
                if error.is_fatal() || error.is_final() || self.failures >= ATTEMPTS_MAX {
                    return Err(error);
                }
                tracing::debug!(%error, "reading the range again from where it broke off");
                tokio::time::sleep(PAUSE * 2_u32.pow(self.failures.min(5) - 1)).await;
            }
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            subscription.link().close().await;
        }
    }

    /// Waits for something, and takes what has arrived with it.
    async fn advance(&mut self) -> Result<(), SourceError> {
        if self.subscription.is_none() {
            let link = self.source.connect(Prefer::Replica).await?;
            let started = begin(&link, Start::Offset(self.next), &self.budget).await?;
            self.subscription = Some(started);
        }
        let Some(subscription) = &mut self.subscription else { return Ok(()) };
        let mut silent = Duration::ZERO;
        let event = loop {
            match tokio::time::timeout(SILENCE, subscription.next()).await {
                Ok(event) => break event,
                Err(_) => {
                    silent += SILENCE;
                    let link = Arc::clone(subscription.link());
                    if self.source.is_filtered() {
                        let ended = link.nothing_selected(self.next).await?;
                        if ended.is_some_and(|chunk| chunk.next_offset() > self.last) {
                            self.end();
                            self.next = self.last.next();
                            return Ok(());
                        }
                    }
                    if let Some(end) = end_of(&*link).await?
                        && end <= self.next
                    {
                        self.end();
                        return Ok(());
                    }
                    if silent >= SILENCE_MAX {
                        return Err(SourceError::given_up(format_args!(
                            "nothing arrived within {SILENCE_MAX:?} from offset {} on",
                            self.next
                        )));
                    }
                }
            }
        };
        let (mut messages, mut bytes, mut parts) = (0, 0, Vec::new());
        let mut event = Some(event);
        while let Some(now) = event.take() {
            if let Err(error) = self.take(now, &mut parts).await {
                // What was taken before it counts.
                if !parts.is_empty() {
                    self.waiting.push(Read::Records(parts));
                }
                return Err(error);
            }
            let Some(Part { block, .. }) = parts.last() else { break };
            messages += u64::from(block.count());
            bytes += block.bytes().len();
            let is_enough = messages >= MESSAGES_MAX || bytes >= BYTES_MAX || self.has_ended;
            if !is_enough && self.waiting.is_empty() {
                let subscription = self.subscription.as_mut();
                event = subscription.and_then(Subscription::try_next).map(Some);
            }
        }
        if !parts.is_empty() {
            self.waiting.push(Read::Records(parts));
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(why) = self.damaged.take() {
            self.waiting.push(Read::Damaged(self.next, self.last, why));
        }
        self.has_ended = true;
    }

    /// Takes one event. What has to be returned before its records goes to `waiting`, behind the records
    /// so far.
    async fn take(
        &mut self,
        event: Option<Event>,
        parts: &mut Vec<Part>,
    ) -> Result<(), SourceError> {
        let Some(subscription) = &self.subscription else { return Ok(()) };
        let link = Arc::clone(subscription.link());
        let delivery = match event {
            Some(Event::Chunk(delivery)) => delivery,
            Some(Event::Unavailable(error)) => return Err(error),
            // It takes part in no group.
            Some(Event::Activation(change)) => {
                change.answer(None);
                return Ok(());
            }
            None => return Err(link.reason()),
        };
        let chunk = match Chunk::decode(delivery.chunk) {
            Ok(chunk) => chunk,
            Err(error) => {
                self.damaged.get_or_insert(error.to_string());
                return Ok(());
            }
        };
        let (first, behind) = (chunk.header().first_offset, chunk.header().next_offset());
        if behind <= self.next || chunk.header().kind != ChunkKind::User {
            return Ok(());
        }
        self.failures = 0;
        if first > self.next {
            self.gap(&*link, first, parts).await?;
        }
        self.records(&chunk, &delivery.permit, parts);
        self.next = self.next.max(behind);
        if self.next > self.last {
            self.has_ended = true;
        }
        Ok(())
    }

    /// Offsets that were not delivered: taken by retention, damaged, or the broker's own.
    async fn gap(
        &mut self,
        link: &dyn Link,
        first: Offset,
        parts: &mut Vec<Part>,
    ) -> Result<(), SourceError> {
        let end = first.prev().unwrap_or(first).min(self.last);
        let oldest = link.oldest().await?.filter(|oldest| *oldest > self.next);
        let found = match (self.damaged.take(), oldest) {
            (Some(why), _) => Some(Read::Damaged(self.next, end, why)),
            (None, Some(oldest)) => {
                Some(Read::Evicted(self.next, oldest.prev().unwrap_or(oldest).min(end)))
            }
            (None, None) => None,
        };
        if !parts.is_empty() {
            self.waiting.push(Read::Records(std::mem::take(parts)));
        }
        self.waiting.extend(found);
        self.next = first;
        Ok(())
    }

    fn records(&mut self, chunk: &Chunk, permit: &Permit, parts: &mut Vec<Part>) {
        let max_bytes = usize::try_from(self.budget.limit()).unwrap_or(usize::MAX);
        for piece in chunk.pieces(&InflateLimits { max_bytes }) {
            match piece {
                Piece::Block(block) => {
                    if block.last_offset() < self.next || block.first_offset() > self.last {
                        continue;
                    }
                    let block = block.starting_at(self.next);
                    let wanted = self.last.0.saturating_sub(block.first_offset().0);
                    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).saturating_add(1);
                    let block = block.split_at(wanted).0;
                    if block.count() > 0 {
                        parts.push(Part { block, chunk: chunk.id(), permit: Arc::clone(permit) });
                    }
                }
                Piece::Unreadable { first, count, error, .. } => {
                    let last = Offset(first.0.saturating_add(u64::from(count)).saturating_sub(1));
                    let (from, to) = (first.max(self.next), last.min(self.last));
                    if from <= to {
                        if !parts.is_empty() {
                            self.waiting.push(Read::Records(std::mem::take(parts)));
                        }
                        self.waiting.push(Read::Damaged(from, to, error.to_string()));
                    }
                }
            }
        }
    }
}

/// The offset at which the stream ends now: nothing was written from there on. `None` if it is unknown.
///
/// # Errors
/// If the broker cannot be asked.
pub(super) async fn end_of(link: &dyn Link) -> Result<Option<Offset>, SourceError> {
    if !link.abilities().bounds {
        return link.resolve(Start::Next).await;
    }
    match link.bounds().await?.map(|bounds| bounds.tail) {
        None => Ok(None),
        Some(Tail::Empty) => Ok(Some(Offset(0))),
        // The last chunk tells where it ends; a damaged one holds at least one record.
        Some(Tail::Offset(_) | Tail::Chunk(_)) => {
            let last = link.chunk_at(Start::Last).await?;
            Ok(last.map(|chunk| chunk.next_offset().max(chunk.first_offset().next())))
        }
    }
}
