//! The `http` sink: records to a web service, several requests at a time, at least once.
//!
//! Why "at least once" holds: [`Sink::write`] answers `Durable` only when every record of the batch
//! stood in a request that was answered with 2xx, to the end of the answer; and `Part` with an offset
//! below which that holds. The requests fly on between two calls. Whatever else comes
//! back (another status, silence, a connection that breaks off) counts as not written, so it is sent
//! again: it may have been taken all the same, and only the answer was lost. Hence the headers:
//!
//! - `Idempotency-Key`: `STREAM/FIRST-LAST/TIME`, of the records in the request; TIME is that of the
//!   first one's chunk, so that a stream created anew does not repeat the keys of the former one.
//! - `Rillway-Stream`, `Rillway-First-Offset`, `Rillway-Last-Offset`, `Rillway-Records`.
//!
//! Requests are cut by the offsets, not by the clock ([`pieces`]): at multiples of `max_records`, and
//! by halving where that is too much. So a repeat has the same keys, but for those at the edges of a
//! batch, which are where time put them. That rest is the receiver's: it knows every record by its
//! stream and offset.
//!
//! What a service has taken cannot be taken back. So this sink differs from others where a batch
//! fails in the middle: what was accepted stays, is remembered ([`progress`]), and is not sent again
//! when the same batch comes back, nor when it comes back without its bad records. Only a new
//! process knows nothing of it.
//!
//! Bad records are named all at once, in order of offset: those that cannot be encoded are found
//! first and are left out of the requests, but are named only with those that the service refuses,
//! when all others are accepted. Named before, they would be set aside before a refused one that
//! stands in front of them. Where they are very many, the batch is sent up to the last one that is
//! still kept; these are named, and the batch comes back without them.
//!
//! A request that the service refuses for its content is halved until the refusal is of a single
//! record: that is the bad one. A service that refuses everything is not taken for a stream of
//! nothing but bad records: see [`HttpOptions::refusals_max`].
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
pub use self::options::{BodyFormat, HttpOptions, HttpTls, Method};
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

/// What was accepted is told to the caller after so long, if no more answers come.
const NEWS_WAIT: Duration = Duration::from_millis(100);

/// After so long the caller gets its turn, whether or not anything was accepted.
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
    /// Records refused since one was accepted.
    refusals: u64,
    /// Requests for the batch at hand, between two calls.
    sending: Option<Sending>,
    /// What stopped them, to be told after what was accepted before.
    owed: Option<SinkError>,
}

/// What is sent of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// All of it.
    All,
    /// What lies before a record that was accepted.
    Gaps,
}

type Answered = (Verdict, Range, usize);

/// Requests under way for one batch.
struct Sending {
    /// Which batch: its last offset.
    last: Offset,
    /// The part of it that is sent, where behind that more records are bad than are kept.
    scope: Option<Batch>,
    todo: Todo,
    /// Cut, and not sent yet.
    waiting: Option<Piece>,
    flying: FuturesUnordered<Pin<Box<dyn Future<Output = Answered> + Send>>>,
    flying_bytes: usize,
    /// Why nothing more is sent.
    stop: Option<SinkError>,
    /// How many records the service has refused, and the last one of them.
    refused: (usize, Option<Offset>),
    /// Since when something is accepted that the caller was not told of.
    news: Option<Instant>,
}

impl HttpSink {
    /// A sink for records of `stream`. Connects to nothing yet.
    ///
    /// # Errors
    /// Fatal where the options cannot work: a URL, a header or a certificate that is none.
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

    /// Sends what of the batch is not settled. `Part` where something was accepted that the caller does
    /// not know of, or after a while; an `Ok` else says that each record was accepted, or is known as bad.
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
            // What was accepted becomes known soon, however long the next answer takes.
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
        // What lies behind the last of so many was not looked at.
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

    /// Has as many requests fly as may.
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
            // One that is larger than all may be waits until it is alone.
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

    /// Takes in what became of a request.
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

    /// The last record of those at the batch's beginning that were all accepted.
    fn prefix(&self, batch: &Batch) -> Option<Offset> {
        let accepted =
            batch.records().take_while(|record| self.progress.is_accepted(record.offset));
        accepted.last().map(|record| record.offset)
    }

    /// A record was refused, and it was alone.
    fn refuse(&mut self, offset: Offset, reason: BadReason, detail: String, sending: &mut Sending) {
        self.refusals += 1;
        let (count, last) = &mut sending.refused;
        (*count, *last) = (*count + 1, (*last).max(Some(offset)));
        let stop = &mut sending.stop;
        if self.refusals_max.is_some_and(|max| self.refusals >= max)
            && !matches!(stop, Some(SinkError::Fatal(_)))
        {
            *stop = Some(SinkError::Fatal(format!(
                "{detail}. It has refused {} messages one after the other and accepted none in \
                 between, so this is hardly the messages' fault, and none of this batch is given \
                 up for it. Put the service right, or raise refusals_max, and start the consumer \
                 again",
                self.refusals
            )));
        }
        self.progress.refused(BadRecord { about: None, offset, reason, detail });
    }
}

impl Sending {
    /// The last record that the service refused, once it has refused as many as are kept: nothing behind
    /// it is sent before these are named.
    fn enough(&self) -> Option<Offset> {
        let (count, last) = self.refused;
        last.filter(|_| count >= BAD_RECORDS_MAX)
    }
}

/// Something did not work that may work later. Fatal errors stay; the longest wait counts.
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
        // Complete: whatever of the batch is not in here was accepted.
        let bad = self.progress.take_refused();
        if !bad.is_empty() {
            return Err(SinkError::Poison(bad));
        }
        self.progress.clear();
        faults::reach(Point::Flushed);
        Ok(Durability::Durable)
    }

    /// Requests under way are waited for. What lies before an accepted record is sent all the same:
    /// else that one would be repeated.
    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if let Some(error) = self.owed.take() {
            return Err(error);
        }
        if self.sending.is_none() && self.progress.highest() < Some(batch.first_offset()) {
            return Ok(Durability::Part(None));
        }
        match self.send(batch, Aim::Gaps).await? {
            // Only here: what was refused stays known until it is named, or it would pass for accepted.
            Durability::Part(None) => match self.progress.take_refused_within() {
                bad if bad.is_empty() => Ok(Durability::Part(None)),
                bad => Err(SinkError::Poison(bad)),
            },
            // All of it: what is left has nothing to send.
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
