//! The `http` sink: sends records to a web service, several requests at a time, at least once.
//!
//! Why "at least once" holds: [`Sink::write`] returns `Durable` only when every record of the batch was
//! in a request whose answer was 2xx and arrived whole. It returns `Part` with an offset below which that
//! holds. Requests continue between two calls. Any other result (another status, no answer, a broken
//! connection) counts as not written, so the records are sent again. They may have been accepted all the
//! same, with only the answer lost. Hence the headers:
//!
//! - `Idempotency-Key`: `STREAM/FIRST-LAST/TIME`, of the records in the request; TIME is that of the
//!   first one's chunk, so that a re-created stream does not repeat the keys of its old incarnation.
//! - `Rillway-Stream`, `Rillway-First-Offset`, `Rillway-Last-Offset`, `Rillway-Records`.
//!
//! Requests are cut by offset, not by the clock ([`pieces`]): at multiples of `max_records`, and by
//! halving if that is too much. So a repeat has the same keys, except at the edges of a batch, which
//! depend on timing. The receiver has to detect those duplicates itself: it knows every record by its
//! stream and offset.
//!
//! What a service has accepted cannot be taken back. So this sink differs from others when a batch fails
//! in the middle: the accepted records stay, are remembered ([`progress`]), and are not sent again when
//! the same batch returns, with or without its bad records. Only a new process knows nothing of them.
//!
//! Bad records are reported all at once, in order of offset. Those that cannot be encoded are found first
//! and left out of the requests, but are reported only together with those that the service refuses, when
//! all others are accepted. If they were reported earlier, they would become dead letters before a
//! refused record with a lower offset. If there are very many, the batch is sent only up to the last one
//! that can be kept; these are reported, and the batch returns without them.
//!
//! A request that the service refuses for its content is halved until a single record is refused: that is
//! the bad one. A service that refuses everything does not make every record a bad one: see
//! [`HttpOptions::refusals_max`].
//!
//! Knows nothing of metrics, and repeats nothing by itself.

mod answer;
mod client;
mod declaration;
mod examine;
mod options;
mod pieces;
mod progress;
mod settings;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use self::answer::Verdict;
use self::client::Client;
pub use self::examine::examine;
pub use self::options::{BodyFormat, HttpOptions, HttpTls, RequestMethod};
use self::pieces::{Cutter, Piece, Range, Todo};
use self::progress::Progress;
pub use self::settings::HttpSettings;
use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::{
    BAD_RECORDS_MAX, BadReason, BadRecord, Durability, Sink, SinkError, used_after_close,
};
use crate::types::{Checkpoint, Guarantee, Offset, StreamName};

/// How long an accepted part waits to be reported, if no more answers arrive.
const NEWS_WAIT: Duration = Duration::from_millis(100);

/// Time after which `write` returns, whether or not anything was accepted.
const TURN: Duration = Duration::from_secs(1);

/// Sends records to a web service.
pub struct HttpSink {
    /// `None` once closed.
    client: Option<Arc<Client>>,
    cutter: Cutter,
    progress: Progress,
    in_flight: usize,
    in_flight_bytes_max: usize,
    refusals_max: Option<u64>,
    /// Records refused since the last accepted one.
    refusals: u64,
    /// Requests for the batch at hand, between two calls.
    sending: Option<Sending>,
    /// The error that stopped them, to be returned after the part that was accepted before it.
    owed: Option<SinkError>,
}

/// The part of a batch that is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// All of it.
    All,
    /// The records before one that was accepted.
    Gaps,
}

type Answered = (Verdict, Range, usize);

/// Requests under way for one batch.
struct Sending {
    /// The batch, by its last offset.
    last: Offset,
    /// The part that is sent, if more records behind it are bad than can be kept.
    scope: Option<Batch>,
    todo: Todo,
    /// Cut, and not sent yet.
    waiting: Option<Piece>,
    flying: FuturesUnordered<Pin<Box<dyn Future<Output = Answered> + Send>>>,
    flying_bytes: usize,
    /// The error after which nothing more is sent.
    stop: Option<SinkError>,
    /// How many records the service has refused, and the last one of them.
    refused: (usize, Option<Offset>),
    /// Time since which an accepted part was not reported to the caller.
    news: Option<Instant>,
}

impl HttpSink {
    /// A sink for records of `stream`. Does not connect yet.
    ///
    /// # Errors
    /// Fatal if the options cannot work: an invalid URL, header or certificate.
    pub async fn open(options: HttpOptions, stream: StreamName) -> Result<HttpSink, SinkError> {
        Ok(HttpSink {
            client: Some(Arc::new(Client::new(&options, &stream).await?)),
            cutter: Cutter::new(&stream, options.format, options.max_records, options.max_bytes),
            progress: Progress::default(),
            in_flight: options.in_flight.max(1),
            in_flight_bytes_max: options.in_flight.saturating_mul(options.max_bytes),
            refusals_max: options.refusals_max,
            refusals: 0,
            sending: None,
            owed: None,
        })
    }

    /// Sends the records of the batch that are not settled. `Part` if something was accepted that the
    /// caller does not know of, or after a while. Any other `Ok` means that each record was accepted, or
    /// is known to be bad.
    async fn send(&mut self, batch: &Batch, aim: Aim) -> Result<Durability, SinkError> {
        let Some(client) = self.client.clone() else {
            return Err(used_after_close("the http sink"));
        };
        let mut sending = match self.sending.take() {
            Some(sending) if sending.last == batch.last_offset() => sending,
            _ => self.begin(batch),
        };
        let turn_ends = Instant::now() + TURN;
        loop {
            self.fill(&mut sending, &client, batch, aim);
            // The caller learns soon what was accepted, however long the next answer takes.
            let turn_ends = (aim == Aim::All).then_some(turn_ends);
            let due =
                sending.news.map(|since| since + NEWS_WAIT).into_iter().chain(turn_ends).min();
            let answer = match due {
                None => sending.flying.next().await,
                Some(at) => match tokio::time::timeout_at(at.into(), sending.flying.next()).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        sending.news = None;
                        let upto = self.prefix(batch);
                        if upto.is_some() || aim == Aim::All {
                            self.sending = Some(sending);
                            return Ok(Durability::Part(upto));
                        }
                        continue;
                    }
                },
            };
            let Some((verdict, range, bytes)) = answer else { break };
            sending.flying_bytes -= bytes;
            self.take(verdict, &range, &mut sending);
        }
        let complete = sending.stop.is_none() && aim == Aim::All;
        if complete && let Some(last) = sending.enough() {
            self.progress.forget_refused_behind(last);
        }
        match (sending.stop, self.prefix(batch)) {
            (stop, Some(upto)) if !complete => {
                self.owed = stop;
                Ok(Durability::Part(Some(upto)))
            }
            (Some(error), _) => Err(error),
            (None, _) if complete => Ok(Durability::Durable),
            (None, _) => Ok(Durability::Part(None)),
        }
    }

    /// All of the batch is still to be sent.
    fn begin(&mut self, batch: &Batch) -> Sending {
        self.progress.begin(batch);
        let unreadable = self.cutter.unreadable(batch);
        // Nothing behind the last kept bad record was examined.
        let looked_at = unreadable.last().filter(|_| unreadable.len() >= BAD_RECORDS_MAX);
        let looked_at = looked_at.map(|bad| Offset(bad.offset.0.saturating_add(1)));
        let refused = self.progress.refused_but(&unreadable);
        for bad in unreadable {
            self.progress.refused(bad);
        }
        Sending {
            last: batch.last_offset(),
            scope: looked_at.and_then(|end| batch.before(end)),
            todo: self.cutter.start(batch),
            waiting: None,
            flying: FuturesUnordered::new(),
            flying_bytes: 0,
            stop: None,
            refused,
            news: None,
        }
    }

    /// Sends as many requests as may be in flight.
    fn fill(&mut self, sending: &mut Sending, client: &Arc<Client>, batch: &Batch, aim: Aim) {
        while sending.stop.is_none() && sending.flying.len() < self.in_flight {
            let next = match sending.waiting.take() {
                Some(piece) if sending.todo.has_below(&piece.range) => {
                    sending.todo.put_back(&piece.range);
                    None
                }
                waiting => waiting,
            };
            let batch = sending.scope.as_ref().unwrap_or(batch);
            let next = next.or_else(|| self.cutter.next(batch, &mut sending.todo, &self.progress));
            let Some(piece) = next else { break };
            let is_wanted = match aim {
                Aim::All => sending.enough().is_none_or(|last| piece.range.first < last),
                Aim::Gaps => self.progress.highest().is_some_and(|end| piece.range.first < end),
            };
            // A body that is larger than the whole limit waits until it is alone.
            let bytes = piece.body.len();
            let is_crowded = !sending.flying.is_empty()
                && sending.flying_bytes + bytes > self.in_flight_bytes_max;
            if !is_wanted || is_crowded {
                sending.waiting = Some(piece);
                break;
            }
            sending.flying_bytes += bytes;
            let client = Arc::clone(client);
            sending.flying.push(Box::pin(async move {
                let Piece { range, body, .. } = piece;
                (client.send(&range, body).await, range, bytes)
            }));
        }
    }

    /// Handles the result of a request.
    fn take(&mut self, verdict: Verdict, range: &Range, sending: &mut Sending) {
        match verdict {
            Verdict::Accepted => {
                self.progress.accepted(range.first, range.last);
                self.refusals = 0;
                sending.news.get_or_insert_with(Instant::now);
                faults::reach(Point::Written);
            }
            Verdict::Refused(_) | Verdict::TooLarge(_) if range.records > 1 => {
                sending.todo.halve(range);
            }
            Verdict::Refused(detail) => {
                self.refuse(range.first, BadReason::Refused, detail, sending);
            }
            Verdict::TooLarge(detail) => {
                self.refuse(range.first, BadReason::OverLimit, detail, sending);
            }
            Verdict::Later { what, retry_after } => later(&mut sending.stop, what, retry_after),
            Verdict::Never(what) => sending.stop = Some(SinkError::Fatal(what)),
        }
    }

    /// The last of the accepted records at the batch's beginning.
    fn prefix(&self, batch: &Batch) -> Option<Offset> {
        let accepted =
            batch.records().take_while(|record| self.progress.is_accepted(record.offset));
        accepted.last().map(|record| record.offset)
    }

    /// Handles the refusal of a single record.
    fn refuse(&mut self, offset: Offset, reason: BadReason, detail: String, sending: &mut Sending) {
        self.refusals += 1;
        let (count, last) = &mut sending.refused;
        (*count, *last) = (*count + 1, (*last).max(Some(offset)));
        let stop = &mut sending.stop;
        if self.refusals_max.is_some_and(|max| self.refusals >= max)
            && !matches!(stop, Some(SinkError::Fatal(_)))
        {
            *stop = Some(SinkError::Fatal(format!(
                "{detail}. It has refused {} messages in a row and accepted none in between, so the \
                 service is more likely wrong than the messages, and no message of this batch is \
                 left out. Repair the service, or raise refusals_max, and start the consumer again",
                self.refusals
            )));
        }
        self.progress.refused(BadRecord { about: None, offset, reason, detail });
    }
}

impl Sending {
    /// The last refused record, once as many are refused as can be kept: nothing behind it is sent before
    /// these are reported.
    fn enough(&self) -> Option<Offset> {
        let (count, last) = self.refused;
        last.filter(|_| count >= BAD_RECORDS_MAX)
    }
}

/// Merges two errors: a fatal one stays; of two transient ones the longest wait counts.
fn later(stop: &mut Option<SinkError>, what: String, retry_after: Option<Duration>) {
    match stop {
        Some(SinkError::Transient { retry_after: earlier, .. }) => {
            *earlier = (*earlier).max(retry_after);
        }
        Some(_) => {}
        None => *stop = Some(SinkError::Transient { what, retry_after }),
    }
}

#[async_trait]
impl Sink for HttpSink {
    fn kind(&self) -> &'static str {
        HttpSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        HttpSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if let Some(error) = self.owed.take() {
            return Err(error);
        }
        match self.send(batch, Aim::All).await? {
            Durability::Durable => {}
            part => return Ok(part),
        }
        // Complete: every record of the batch that is not in here was accepted.
        let bad = self.progress.take_refused();
        if !bad.is_empty() {
            return Err(SinkError::Poison(bad));
        }
        self.progress.clear();
        faults::reach(Point::Flushed);
        Ok(Durability::Durable)
    }

    /// Waits for the requests under way. Records before an accepted one are sent all the same: otherwise
    /// the accepted one would be repeated.
    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if let Some(error) = self.owed.take() {
            return Err(error);
        }
        if self.sending.is_none() && self.progress.highest() < Some(batch.first_offset()) {
            return Ok(Durability::Part(None));
        }
        match self.send(batch, Aim::Gaps).await? {
            // Only here: a refused record stays known until it is reported, or it would pass for
            // accepted.
            Durability::Part(None) => match self.progress.take_refused_within() {
                bad if bad.is_empty() => Ok(Durability::Part(None)),
                bad => Err(SinkError::Poison(bad)),
            },
            // The whole batch: nothing is left to send.
            Durability::Part(Some(upto)) if upto >= batch.last_offset() => Ok(Durability::Durable),
            part => Ok(part),
        }
    }

    fn joins_batches(&self) -> bool {
        true
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.progress.clear();
        (self.sending, self.owed) = (None, None);
        Ok(())
    }

    /// Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        self.client = None;
        (self.sending, self.owed) = (None, None);
        Ok(())
    }
}
