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
mod connection;
mod error;
mod pack;
mod reader;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use self::acks::Acks;
use self::connection::{Connection, MAIN};
use self::pack::Pack;
use self::reader::Main;
use super::{
    Abilities, Bounds, Budget, ConnectOptions, ErrorKind, Event, Feed, Link, Prefer, Source,
    SourceError,
};
use crate::broker::queue_max;
use crate::flow::resume::Start;
use crate::sync::lock;
use crate::types::{Offset, StreamName};
use crate::wire::amqp091::{self as amqp, Method, StartAt};
use crate::wire::chunk::ProbedChunk;

/// Longest wait for a message that the stream holds.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// Silence after which the last message is assumed to have arrived, in a search for the end of the
/// stream.
const END_SILENCE: Duration = Duration::from_millis(300);

/// Longest search for the end of a stream to which publishers keep writing.
const END_WAIT: Duration = Duration::from_secs(3);

/// Most unacknowledged messages in that search.
const END_PREFETCH: u16 = 20_000;

/// Longest name of a queue.
const NAME_BYTES_MAX: usize = 255;

/// One stream.
#[derive(Clone, Debug)]
pub struct AmqpSource {
    options: ConnectOptions,
    stream: StreamName,
}

impl AmqpSource {
    /// A source that connects on demand.
    pub fn new(options: ConnectOptions, stream: StreamName) -> AmqpSource {
        AmqpSource { options, stream }
    }
}

#[async_trait]
impl Source for AmqpSource {
    async fn connect(&self, _: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        let mut seeds: Vec<_> = self.options.seeds.iter().collect();
        fastrand::shuffle(&mut seeds);
        let mut failed =
            SourceError::new(ErrorKind::Connection, "there is no address to connect to");
        for seed in seeds {
            match Connection::open(seed, &self.options, &self.stream).await {
                Ok(connection) => {
                    return Ok(Arc::new(AmqpLink { connection: Arc::new(connection) }));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn is_observable(&self) -> bool {
        false
    }
}

struct AmqpLink {
    connection: Arc<Connection>,
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

    /// First and last offset of the messages delivered from there: of one message, or of all until no
    /// more arrive. `None` if nothing arrives in time.
    async fn probe(
        &self,
        start: StartAt,
        all: bool,
    ) -> Result<Option<(Offset, Offset)>, SourceError> {
        let shared = &self.connection.shared;
        let channel = self.connection.channel().await?;
        let prefetch = if all { END_PREFETCH } else { 1 };
        channel.call(amqp::qos(channel.id, prefetch), (60, 11)).await?;
        let (seen, mut watching) = watch::channel(None);
        lock(&shared.slots).entry(channel.id).or_default().seen = Some(seen);
        let consume = amqp::consume(channel.id, self.queue()?, start);
        channel.call(consume, (60, 21)).await?;
        let wait = if all { END_WAIT } else { PROBE_WAIT };
        let found = tokio::time::timeout(wait, watching.wait_for(Option::is_some)).await;
        match found.map(|found| found.map(|seen| *seen)) {
            Err(_) => return Ok(None),
            Ok(Err(_)) => return Err(shared.reason()), // The channel or the connection has ended.
            Ok(Ok(_)) => {}
        }
        let until = tokio::time::Instant::now() + END_WAIT;
        while all && tokio::time::Instant::now() < until {
            watching.mark_unchanged();
            if tokio::time::timeout(END_SILENCE, watching.changed()).await.is_err() {
                break;
            }
        }
        let seen = *watching.borrow();
        Ok(seen)
    }

    /// Whether the broker counts no message in the stream.
    async fn is_empty(&self) -> Result<bool, SourceError> {
        let channel = self.connection.channel().await?;
        let declare = amqp::passive_declare(channel.id, self.queue()?);
        Ok(matches!(channel.call(declare, (50, 11)).await?, Method::Declared { messages: 0 }))
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

    async fn bounds(&self) -> Result<Option<Bounds>, SourceError> {
        Ok(None)
    }

    async fn chunk_at(&self, _: Start) -> Result<Option<ProbedChunk>, SourceError> {
        Ok(None)
    }

    async fn resolve(&self, start: Start) -> Result<Option<Offset>, SourceError> {
        let found = match start {
            Start::Next => {
                let end = self.probe(StartAt::Word("last"), true).await?;
                end.map(|(_, last)| last.next())
            }
            other => self.probe(start_at(other), false).await?.map(|(first, _)| first),
        };
        match (found, start) {
            (None, Start::First | Start::Last | Start::Next) if self.is_empty().await? => {
                Ok(Some(Offset(0)))
            }
            (found, _) => Ok(found),
        }
    }

    async fn reaches(&self, offset: Offset) -> Result<bool, SourceError> {
        // Past the end the broker would wait for this offset, and silently skip everything below it.
        Ok(self.probe(StartAt::Offset(offset), false).await?.is_some())
    }

    async fn oldest(&self) -> Result<Option<Offset>, SourceError> {
        Ok(self.probe(StartAt::Word("first"), false).await?.map(|(first, _)| first))
    }

    async fn feed(&self, start: Start, budget: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError> {
        let shared = &self.connection.shared;
        let (channel, queue) = (self.connection.main_channel().await?, self.queue()?);
        let prefetch = u16::try_from(budget.affordable()).unwrap_or(u16::MAX);
        channel.call(amqp::qos(MAIN, prefetch), (60, 11)).await?;
        let acks = Acks::new(budget, &shared.wake);
        let (sender, events) = mpsc::channel(queue_max(budget));
        let version = &self.connection.version;
        let pack = Pack::new(Arc::clone(budget), Arc::clone(&acks), queue.to_owned(), version);
        // The first message may arrive before the answer.
        budget.open(prefetch);
        *lock(&shared.acks) = Some(Arc::clone(&acks));
        let main = Main { sender, pack, acks };
        lock(&shared.slots).entry(MAIN).or_default().main = Some(main);
        let feed = AmqpFeed { connection: Arc::clone(&self.connection), events };
        channel.call(amqp::consume(MAIN, queue, start_at(start)), (60, 21)).await?;
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
}

impl Drop for AmqpFeed {
    fn drop(&mut self) {
        lock(&self.connection.shared.slots).remove(&MAIN);
    }
}
