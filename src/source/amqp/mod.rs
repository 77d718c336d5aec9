//! AMQP 0.9.1 as a source: streams as queues that are consumed from an offset
//! ([ADR 18](../../../docs/adr/0018-amqp-091.md)).
//!
//! AMQP 0.9.1 stores no offsets, shows no chunks, and does not tell where a stream begins or ends. When
//! the consumer needs to know, short consumers on channels of their own find out; their messages are
//! discarded as they arrive.
//!
//! Invariants: the budget admits a message's size before its body is read; a delivery is acknowledged,
//! which asks for another one, only after its memory was given back; a subscription begins exactly where
//! the caller says, and never falls back to an earlier start.

mod acks;
mod channels;
mod connection;
mod encoding;
mod error;
mod pack;
mod probe;
mod reader;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use self::acks::Acks;
use self::channels::MAIN;
use self::connection::{Channel, Connection};
use self::encoding::Encoding;
use self::pack::Pack;
use self::probe::{Probe, Seen};
use self::shared::Main;
use super::stream::no_filter;
use super::{
    Abilities, Bounds, Budget, ConnectOptions, ErrorKind, Event, Feed, Link, Prefer, Selection,
    Source, SourceError,
};
use crate::broker::{Feature, queue_max};
use crate::flow::resume::{ChunkExtent, Evidence, Start};
use crate::sync::lock;
use crate::types::{ChunkId, Offset, StreamName, Timestamp};
use crate::wire::amqp091::{self as amqp, Method, StartAt};
use crate::wire::chunk::ProbedChunk;

/// Longest wait for a message that the stream holds.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// Silence after which the last message is assumed to have arrived, in a search for the end of the
/// stream.
const END_SILENCE: Duration = Duration::from_millis(300);

/// Longest search for the end of a stream to which publishers keep writing.
const END_WAIT: Duration = Duration::from_secs(3);

/// Time after which a count of 0 is asked for again: the broker counts anew every 5 seconds.
const COUNT_AGE_MAX: Duration = Duration::from_secs(6);

/// Most messages on the way in that search, after which the broker waits for acknowledgements.
const END_PREFETCH: u16 = 20_000;

/// Longest name of a queue.
const NAME_BYTES_MAX: usize = 255;

/// One stream.
#[derive(Clone, Debug)]
pub struct AmqpSource {
    options: ConnectOptions,
    stream: StreamName,
    /// Index of the address that was connected to last; any other number at first.
    last: Arc<AtomicUsize>,
    /// See [`Acks::is_careful`].
    careful: Arc<AtomicBool>,
    /// What the broker's filter selects; `None` for all.
    selection: Option<Selection>,
}

impl AmqpSource {
    /// A source that connects on demand.
    pub fn new(options: ConnectOptions, stream: StreamName) -> AmqpSource {
        let last = Arc::new(AtomicUsize::new(usize::MAX));
        AmqpSource { options, stream, last, careful: Arc::default(), selection: None }
    }

    /// The same with the broker's filter.
    #[must_use]
    pub fn selecting(self, selection: Selection) -> AmqpSource {
        AmqpSource { selection: Some(selection), ..self }
    }

    /// A broker without filters ignores the argument, and sends everything.
    fn check_version(&self, connection: &Connection) -> Result<(), SourceError> {
        match self.selection.is_none() || Feature::Filter.is_in_version(&connection.version) {
            true => Ok(()),
            false => Err(no_filter(&connection.shared.endpoint, &connection.version)),
        }
    }
}

#[async_trait]
impl Source for AmqpSource {
    /// Nothing here tells the leader. Where its word is wanted, another node than the one before is asked
    /// if there is one: in repeated attempts, all of them.
    async fn connect(&self, prefer: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        let mut seeds: Vec<_> = self.options.seeds.iter().enumerate().collect();
        fastrand::shuffle(&mut seeds);
        if prefer == Prefer::Leader {
            let last = self.last.load(Ordering::Relaxed);
            seeds.sort_by_key(|(index, _)| *index == last);
        }
        let mut failed =
            SourceError::new(ErrorKind::Connection, "there is no address to connect to");
        for (index, seed) in seeds {
            match Connection::open(seed, &self.options, &self.stream).await {
                Ok(connection) => {
                    self.check_version(&connection)?;
                    self.last.store(index, Ordering::Relaxed);
                    let (connection, careful) = (Arc::new(connection), Arc::clone(&self.careful));
                    let selection = self.selection.clone();
                    return Ok(Arc::new(AmqpLink { connection, careful, selection }));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn is_observable(&self) -> bool {
        false
    }

    fn is_filtered(&self) -> bool {
        self.selection.is_some()
    }
}

struct AmqpLink {
    connection: Arc<Connection>,
    careful: Arc<AtomicBool>,
    selection: Option<Selection>,
}

impl AmqpLink {
    fn queue(&self) -> Result<&str, SourceError> {
        let name = self.connection.shared.stream.as_str();
        match name.len() <= NAME_BYTES_MAX {
            true => Ok(name),
            false => Err(SourceError::new(
                ErrorKind::Missing,
                format!("AMQP 0.9.1 has no names longer than {NAME_BYTES_MAX} bytes, as {name:?}"),
            )),
        }
    }

    /// Begins to consume from there, and waits for what comes first.
    async fn probe(
        &self,
        start: StartAt,
        prefetch: u16,
        wait: Duration,
    ) -> Result<Option<Probing<'_>>, SourceError> {
        let shared = &self.connection.shared;
        let channel = self.connection.channel().await?;
        channel.call(amqp::qos(channel.id, prefetch), (60, 11)).await?;
        let (seen, watching) = watch::channel(None);
        let probe = Probe::new(seen, Encoding::new(self.queue()?, &self.connection.version));
        lock(&shared.slots).entry(channel.id).or_default().probe = Some(probe);
        let consume = amqp::consume(channel.id, self.queue()?, start, (&[], false));
        channel.call(consume, (60, 21)).await?;
        let mut probing = Probing { _channel: channel, watching };
        let found = tokio::time::timeout(wait, probing.watching.wait_for(Option::is_some)).await;
        match found.map(|found| found.is_ok()) {
            Err(_) => Ok(None),
            Ok(false) => Err(shared.reason()), // The channel or the connection is gone.
            Ok(true) => Ok(Some(probing)),
        }
    }

    /// Offset of the first message that is delivered from there; `None` if none comes in time.
    async fn first_from(&self, start: StartAt) -> Result<Option<Offset>, SourceError> {
        Ok(self.probe(start, 1, PROBE_WAIT).await?.and_then(|probing| Some(probing.seen()?.first)))
    }

    /// First and last offset of what is delivered from the last chunk on, until there is silence.
    async fn end(&self) -> Result<Option<(Offset, Offset)>, SourceError> {
        let Some(mut probing) = self.probe(StartAt::Word("last"), END_PREFETCH, PROBE_WAIT).await?
        else {
            return Ok(None);
        };
        let until = tokio::time::Instant::now() + END_WAIT;
        while tokio::time::Instant::now() < until {
            probing.watching.mark_unchanged();
            if tokio::time::timeout(END_SILENCE, probing.watching.changed()).await.is_err() {
                break;
            }
        }
        Ok(probing.seen().map(|seen| (seen.first, seen.last)))
    }

    /// Number of messages that the broker counts in the stream, records of its own included.
    async fn count(&self) -> Result<u64, SourceError> {
        let channel = self.connection.channel().await?;
        let declare = amqp::passive_declare(channel.id, self.queue()?);
        match channel.call(declare, (50, 11)).await? {
            Method::Declared { messages } => Ok(messages.into()),
            other => {
                let what = format_args!("an unexpected answer ({other:?})");
                Err(self.connection.shared.error(ErrorKind::Violation, what))
            }
        }
    }

    /// Whether there is no message in the stream. The broker also counts 0 while its leader is away, and
    /// until the first count after a restart (`rabbit_stream_queue:stat`, `rabbit_osiris_metrics`), so one
    /// count is not believed.
    async fn is_empty(&self) -> Result<bool, SourceError> {
        let first = StartAt::Word("first");
        Ok(self.count().await? == 0
            && self.probe(first, 1, COUNT_AGE_MAX).await?.is_none()
            && self.count().await? == 0)
    }

    /// Whether the stream may reach this offset, although nothing is delivered from there.
    async fn may_reach(&self, offset: Offset) -> Result<bool, SourceError> {
        let first = self.first_from(StartAt::Word("first")).await?;
        let count = self.count().await?;
        // What begins the stream may be undeliverable too. The count has 32 bits.
        let end = |first: Offset| first.0.saturating_add(count);
        let is_countable = |first: Offset| offset.0.saturating_sub(first.0) < u64::from(u32::MAX);
        Ok(count > 0 && first.is_none_or(|first| !is_countable(first) || end(first) > offset.0))
    }
}

/// A short consumer, which ends when it is dropped.
struct Probing<'a> {
    _channel: Channel<'a>,
    watching: watch::Receiver<Option<Seen>>,
}

impl Probing<'_> {
    fn seen(&self) -> Option<Seen> {
        *self.watching.borrow()
    }

    /// The first message, if all of it comes in time.
    async fn record(&mut self, limit: Duration) -> Option<ChunkExtent> {
        let whole = |seen: &Option<Seen>| seen.is_some_and(|seen| seen.id.is_some());
        drop(tokio::time::timeout(limit, self.watching.wait_for(whole)).await);
        self.seen().and_then(|seen| seen.record())
    }
}

fn start_at(start: Start) -> StartAt {
    match start {
        Start::First => StartAt::Word("first"),
        Start::Last => StartAt::Word("last"),
        Start::Next => StartAt::Word("next"),
        Start::Offset(offset) => StartAt::Offset(offset),
        Start::Timestamp(at) => StartAt::Seconds(u64::try_from(at.0 / 1000).unwrap_or(0)),
    }
}

#[async_trait]
impl Link for AmqpLink {
    fn abilities(&self) -> Abilities {
        Abilities { bounds: false, emptiness: false, probes: false, offsets: false }
    }

    fn node(&self) -> String {
        self.connection.shared.endpoint.to_string()
    }

    fn version(&self) -> String {
        self.connection.version.clone()
    }

    async fn check(&self) -> Result<(), SourceError> {
        self.count().await.map(drop)
    }

    async fn bounds(&self) -> Result<Option<Bounds>, SourceError> {
        Ok(None)
    }

    async fn chunk_at(&self, _: Start) -> Result<Option<ProbedChunk>, SourceError> {
        Ok(None)
    }

    async fn resolve(&self, start: Start) -> Result<Option<Offset>, SourceError> {
        let found = match start {
            Start::Next => self.end().await?.map(|(_, last)| last.next()),
            other => self.first_from(start_at(other)).await?,
        };
        match (found, start) {
            (None, Start::First | Start::Last | Start::Next) if self.is_empty().await? => {
                Ok(Some(Offset(0)))
            }
            (found, _) => Ok(found),
        }
    }

    async fn evidence(&self, position: Offset) -> Result<Evidence, SourceError> {
        // Past the end the broker would wait for this offset, and pass over all below it in silence.
        let limit = self.connection.shared.options.request_timeout;
        if let Some(mut probing) = self.probe(StartAt::Offset(position), 1, PROBE_WAIT).await? {
            // A large one that is slow to come: the subscription looks at it too.
            let record = probing.record(limit).await;
            return Ok(record.map_or(Evidence::Nothing, Evidence::Chunk));
        }
        if self.may_reach(position).await? {
            let what = format!(
                "no message comes from its position (offset {position}) on, but the broker counts messages up to there. Either the broker is slow, or these messages are in compressed batches, which AMQP 0.9.1 does not deliver. Reading goes on with the next message that it delivers; rabbitmq-stream:// reads all of them"
            );
            return Err(SourceError::unavailable(&self.connection.shared.stream, what));
        }
        let end = self.end().await?;
        Ok(Evidence::NoChunk(end.map(|(first, last)| {
            let id = ChunkId {
                first_offset: first,
                epoch: ChunkId::epoch_of_record(0),
                timestamp: Timestamp(0),
                crc: 0,
            };
            let records = u32::try_from(last.0 - first.0 + 1).unwrap_or(u32::MAX);
            ChunkExtent { id, records }
        })))
    }

    async fn oldest(&self) -> Result<Option<Offset>, SourceError> {
        self.first_from(StartAt::Word("first")).await
    }

    async fn feed(&self, start: Start, budget: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError> {
        let shared = &self.connection.shared;
        let (channel, queue) = (self.connection.main_channel().await?, self.queue()?);
        let prefetch = match self.careful.load(Ordering::Relaxed) {
            true => 1,
            false => u16::try_from(budget.affordable()).unwrap_or(u16::MAX),
        };
        channel.call(amqp::qos(MAIN, prefetch), (60, 11)).await?;
        let name = queue.to_owned();
        let selection = self.selection.clone();
        let consume = move |start| {
            let filter = match &selection {
                Some(selection) => (selection.values.as_slice(), selection.match_unfiltered),
                None => (&[] as &[String], false),
            };
            amqp::consume(MAIN, &name, start, filter)
        };
        let acks = Acks::new(budget, &shared.wake, prefetch, &self.careful, Box::new(consume));
        let request = acks.request(start_at(start));
        let (bytes, most) = (request.len(), self.connection.frame_max);
        if bytes > most {
            let what = format!(
                "filter.values do not fit into a frame: the request has {bytes} bytes, and the broker takes {most} (frame_max). Give fewer values, raise frame_max, or set filter.client_side = true"
            );
            return Err(SourceError::new(ErrorKind::Unsupported, what));
        }
        let (sender, events) = mpsc::channel(queue_max(budget));
        let encoding = Encoding::new(queue, &self.connection.version);
        let pack = Pack::new(Arc::clone(budget), Arc::clone(&acks), encoding);
        // The first message may overtake the answer.
        budget.open(prefetch);
        *lock(&shared.acks) = Some(Arc::clone(&acks));
        let from = match start {
            Start::Offset(offset) => Some(offset),
            Start::First | Start::Last | Start::Next | Start::Timestamp(_) => None,
        };
        let is_filtered = self.selection.is_some();
        let main = Main { sender, pack, acks, from, is_filtered };
        lock(&shared.slots).entry(MAIN).or_default().main = Some(main);
        let feed = AmqpFeed { connection: Arc::clone(&self.connection), events };
        channel.call(request, (60, 21)).await?;
        Ok(Box::new(feed))
    }

    async fn stored(&self) -> Result<Option<Offset>, SourceError> {
        Ok(None)
    }

    async fn store(&self, _: Offset) -> Result<Option<Offset>, SourceError> {
        Ok(None)
    }

    async fn ended(&self) -> SourceError {
        self.connection.ended().await
    }

    fn reason(&self) -> SourceError {
        self.connection.shared.reason()
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

struct AmqpFeed {
    connection: Arc<Connection>,
    events: mpsc::Receiver<Event>,
}

impl Feed for AmqpFeed {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }

    fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    fn waiting(&self) -> usize {
        self.events.len()
    }
}

impl Drop for AmqpFeed {
    fn drop(&mut self) {
        lock(&self.connection.shared.slots).remove(&MAIN);
    }
}
