//! The stream protocol as a source: all abilities of the trait, for brokers from 3.10 on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::sync::watch;

use super::moving::{Found, Moving};
use super::{
    Abilities, Activation, Creating, ErrorKind, Event, Feed, Foreseen, Handover, Link, Selection,
    Source, SourceError,
};
use crate::broker::{
    self, Authority, Bounds, BrokerError, Budget, ConnectOptions, Connection, Desk, Feature,
    Layout, Pool, Prefer, SINGLE_ACTIVE, chunk_at, connect_to_authority, connect_to_stream,
    explain_loss, nothing_selected, stream_bounds,
};
use crate::flow::resume::Start;
use crate::types::{Offset, Reference, StreamName};
use crate::wire::chunk::ProbedChunk;
use crate::wire::commands::{ResponseCode, keys};

/// One stream under one reference.
#[derive(Clone, Debug)]
pub struct StreamSource {
    options: ConnectOptions,
    stream: StreamName,
    reference: Reference,
    single_active: Option<SingleActive>,
    /// What the broker's filter selects; `None` for all.
    selection: Option<Selection>,
    /// Connections shared with other streams; kept as long as anyone may use it.
    pool: Option<Arc<Pool>>,
    /// Number of the last shared connection; 0 for none.
    last: Arc<AtomicU64>,
    /// Creates the stream if it is absent; `None` if it is never created.
    creating: Option<Arc<Creating>>,
    /// A connection to a replica that was found while the leader was read from.
    found: Found,
    /// False if no offset is stored under the reference, or asked for.
    stores_offsets: bool,
}

/// The broker chooses one active consumer among those with the same reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SingleActive {
    /// The super stream that the stream is a partition of: the broker then spreads the active
    /// consumers of all partitions over the group.
    pub super_stream: Option<StreamName>,
}

impl StreamSource {
    /// A source that connects on demand, with a connection of its own.
    pub fn new(options: ConnectOptions, stream: StreamName, reference: Reference) -> StreamSource {
        StreamSource {
            options,
            stream,
            reference,
            single_active: None,
            selection: None,
            pool: None,
            last: Arc::default(),
            creating: None,
            found: Found::default(),
            stores_offsets: true,
        }
    }

    /// The same for a reader that leaves no offset behind on the broker.
    #[must_use]
    pub fn without_offsets(self) -> StreamSource {
        StreamSource { stores_offsets: false, ..self }
    }

    /// The same, but with connections that are shared with the other streams of the pool.
    #[must_use]
    pub fn sharing(mut self, pool: &Arc<Pool>) -> StreamSource {
        self.options.sharing = Some(pool.sharing());
        self.pool = Some(Arc::clone(pool));
        self
    }

    /// The same for one of several instances, of which the broker makes one active.
    #[must_use]
    pub fn single_active(self, group: SingleActive) -> StreamSource {
        StreamSource { single_active: Some(group), ..self }
    }

    /// The same, but the stream is created if it is absent when the consumer first starts.
    #[must_use]
    pub fn creating(self, layout: Layout) -> StreamSource {
        let creating = Some(Arc::new(Creating::new(self.options.clone(), layout)));
        StreamSource { creating, ..self }
    }

    /// The same with the broker's filter.
    #[must_use]
    pub fn selecting(self, selection: Selection) -> StreamSource {
        StreamSource { selection: Some(selection), ..self }
    }

    /// Properties of a filtered subscription.
    fn filter_properties(&self) -> Vec<(String, String)> {
        let Some(Selection { values, match_unfiltered }) = &self.selection else {
            return Vec::new();
        };
        let values = values.iter().enumerate();
        let mut properties: Vec<_> =
            values.map(|(nth, value)| (format!("filter.{nth}"), value.clone())).collect();
        properties.push(("match-unfiltered".to_owned(), match_unfiltered.to_string()));
        properties
    }

    fn subscription_properties(&self) -> Vec<(String, String)> {
        let Some(SingleActive { super_stream }) = &self.single_active else { return Vec::new() };
        let mut properties = vec![
            (SINGLE_ACTIVE.to_owned(), "true".to_owned()),
            ("name".to_owned(), self.reference.as_str().to_owned()),
        ];
        properties.extend(
            super_stream.iter().map(|name| ("super-stream".to_owned(), name.as_str().to_owned())),
        );
        properties
    }

    /// A connection to read from, or to the node whose answer counts.
    async fn authority(&self, prefer: Prefer) -> Result<Authority, BrokerError> {
        let mut options = self.options.clone();
        if let Some(sharing) = &mut options.sharing {
            sharing.avoid = Some(self.last.load(Ordering::Relaxed));
        }
        let certain = |connection| Authority { connection, no_leader: None };
        match (prefer, self.found.take()) {
            (Prefer::Replica, Some(found)) => Ok(certain(found)),
            (Prefer::Replica, None) => {
                connect_to_stream(&options, &self.stream, prefer).await.map(certain)
            }
            // Also with shared connections: no other node may be taken for the leader.
            (Prefer::Leader, _) => connect_to_authority(&options, &self.stream).await,
        }
    }

    /// An older broker ignores these properties: it would have every consumer active, and send
    /// everything.
    fn check_version(&self, connection: &Connection) -> Result<(), SourceError> {
        if self.single_active.is_some() {
            connection.require(Feature::SingleActive)?;
        }
        // Messages are published with filter values by version 2 of Publish.
        match self.selection.is_none() || connection.supports(keys::PUBLISH, 2) {
            true => Ok(()),
            false => Err(no_filter(connection.endpoint(), connection.version())),
        }
    }
}

#[async_trait]
impl Source for StreamSource {
    async fn connect(&self, prefer: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        let authority = self.authority(prefer).await;
        let Authority { connection, no_leader } =
            authority.map_err(|error| match (error, &self.creating) {
                // It was there, or was created, before.
                (BrokerError::StreamMissing(_), Some(creating)) if creating.is_settled() => {
                    creating.gone()
                }
                (error, _) => error.into(),
            })?;
        self.creating.iter().for_each(|creating| creating.settle());
        self.check_version(&connection)?;
        self.last.store(connection.number().unwrap_or(0), Ordering::Relaxed);
        let (stream, reference) = (self.stream.clone(), self.reference.clone());
        let (failed, filter) = (watch::Sender::new(None), self.filter_properties());
        let properties = [self.subscription_properties(), filter.clone()].concat();
        let node = node_name(&connection, &self.options);
        // Who wanted the leader stays there.
        let found = (prefer == Prefer::Replica).then(|| self.found.clone());
        let desk = Desk::new(connection.clone(), &self.options, stream.clone(), reference);
        Ok(Arc::new(StreamLink {
            connection,
            desk,
            node,
            no_leader,
            stream,
            properties,
            filter,
            is_single_active: self.single_active.is_some(),
            failed,
            options: self.options.clone(),
            found,
            stores_offsets: self.stores_offsets,
        }))
    }

    fn is_filtered(&self) -> bool {
        self.selection.is_some()
    }

    async fn prepare(&self, has_begun: bool) -> Result<(), SourceError> {
        match &self.creating {
            Some(creating) => creating.prepare(has_begun).await,
            None => Ok(()),
        }
    }

    fn creates(&self) -> bool {
        self.creating.is_some()
    }

    async fn foresee(&self, has_begun: bool) -> Result<Foreseen, SourceError> {
        match &self.creating {
            Some(creating) => creating.foresee(has_begun).await,
            None => Ok(Foreseen::Nothing),
        }
    }

    fn activation(&self) -> Activation {
        match self.single_active {
            Some(_) => Activation::ByBroker,
            None => Activation::AtOnce,
        }
    }
}

/// A connection for one stream and reference. Other streams may share it.
struct StreamLink {
    connection: Connection,
    /// Where its offset is stored.
    desk: Desk,
    /// The node, for the log.
    node: String,
    /// Why this is not the leader, although that was wanted.
    no_leader: Option<String>,
    stream: StreamName,
    /// Properties of a subscription.
    properties: Vec<(String, String)>,
    /// Those of them that filter.
    filter: Vec<(String, String)>,
    is_single_active: bool,
    /// Reason of the end of its subscription, if that ended before the connection.
    failed: watch::Sender<Option<SourceError>>,
    options: ConnectOptions,
    /// For what the look for a replica finds; `None` if the leader was wanted.
    found: Option<Found>,
    stores_offsets: bool,
}

impl StreamLink {
    fn explain(&self, error: BrokerError) -> SourceError {
        if let BrokerError::Refused { code: ResponseCode::PreconditionFailed, .. } = &error
            && self.is_single_active
        {
            let what = format!(
                "{error}, for a single active consumer. A broker that was upgraded from before 3.11 needs: rabbitmqctl enable_feature_flag stream_single_active_consumer. Where the partitions of a super stream were bound anew, in another order, consumers that subscribed before and after cannot share one: it passes when all daemons of this reference have been restarted, or the old order is bound again"
            );
            return SourceError::new(ErrorKind::Refused, what);
        }
        error.into()
    }
}

#[async_trait]
impl Link for StreamLink {
    fn abilities(&self) -> Abilities {
        Abilities {
            bounds: true,
            emptiness: has_statistics(&self.connection),
            probes: true,
            offsets: self.stores_offsets,
        }
    }

    fn node(&self) -> String {
        self.node.clone()
    }

    fn version(&self) -> String {
        self.connection.version().to_owned()
    }

    fn no_leader(&self) -> Option<&str> {
        self.no_leader.as_deref()
    }

    async fn bounds(&self) -> Result<Option<Bounds>, SourceError> {
        Ok(Some(stream_bounds(&self.connection, &self.stream).await?))
    }

    async fn chunk_at(&self, start: Start) -> Result<Option<ProbedChunk>, SourceError> {
        match chunk_at(&self.connection, &self.stream, start).await {
            Ok(chunk) => Ok(chunk),
            Err(error) => Err(explain_loss(&self.options, &self.connection, error).await.into()),
        }
    }

    async fn nothing_selected(&self, from: Offset) -> Result<Option<ProbedChunk>, SourceError> {
        Ok(nothing_selected(&self.connection, &self.stream, from, &self.filter).await?)
    }

    async fn feed(&self, start: Start, budget: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError> {
        let properties = self.properties.clone();
        let subscribed = self.connection.subscribe(&self.stream, start, budget, properties).await;
        let subscription = match subscribed {
            Ok(subscription) => subscription,
            Err(error) => {
                let error = explain_loss(&self.options, &self.connection, error).await;
                return Err(self.explain(error));
            }
        };
        let (stream, failed) = (self.stream.clone(), self.failed.clone());
        let moving = self
            .found
            .as_ref()
            .and_then(|found| Moving::begin(&self.options, &self.stream, &self.connection, found));
        Ok(Box::new(StreamFeed { subscription, stream, failed, moving }))
    }

    async fn stored(&self) -> Result<Option<Offset>, SourceError> {
        if !self.stores_offsets {
            return Ok(None);
        }
        Ok(self.desk.stored().await?)
    }

    async fn store(&self, offset: Offset) -> Result<Option<Offset>, SourceError> {
        if !self.stores_offsets {
            return Ok(None);
        }
        Ok(self.desk.store(offset).await?)
    }

    async fn ended(&self) -> SourceError {
        let mut failed = self.failed.subscribe();
        tokio::select! {
            // The sender lives as long as `self`.
            () = async { drop(failed.wait_for(Option::is_some).await) } => self.reason(),
            reason = self.connection.ended() => reason.into(),
        }
    }

    fn reason(&self) -> SourceError {
        self.failed.borrow().clone().unwrap_or_else(|| self.connection.reason().into())
    }

    async fn close(&self) {
        self.desk.close().await;
        self.connection.close().await;
    }
}

struct StreamFeed {
    subscription: broker::Subscribed,
    stream: StreamName,
    failed: watch::Sender<Option<SourceError>>,
    moving: Option<Moving>,
}

impl StreamFeed {
    /// The end of a subscription to the leader: a replica can be read from.
    fn moved(&mut self) -> Event {
        self.moving = None;
        let what = format!("stream {:?} is read from a replica again", self.stream.as_str());
        Event::Unavailable(SourceError::new(ErrorKind::Moved, what))
    }

    /// `None` if the link ends by this.
    fn event(&self, event: broker::Received) -> Option<Event> {
        match event {
            broker::Received::Chunk(delivery) => Some(Event::Chunk(delivery)),
            broker::Received::Unavailable(code) => {
                let detail = format_args!("the broker ended the subscription: {code}");
                Some(Event::Unavailable(SourceError::unavailable(&self.stream, detail)))
            }
            broker::Received::Update { active, correlation } => {
                let answer = self.subscription.answer(correlation);
                Some(Event::Activation(Handover::new(active, answer)))
            }
            broker::Received::Failed(error) => {
                self.failed.send_replace(Some(error.into()));
                None
            }
        }
    }
}

impl Feed for StreamFeed {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.moving.as_mut().is_some_and(|moving| moving.poll(context)) {
            return Poll::Ready(Some(self.moved()));
        }
        let event = self.subscription.poll_next(context);
        event.map(|event| event.and_then(|event| self.event(event)))
    }

    fn try_next(&mut self) -> Option<Event> {
        if self.moving.as_mut().is_some_and(Moving::has_found) {
            return Some(self.moved());
        }
        let event = self.subscription.try_next()?;
        self.event(event)
    }

    fn waiting(&self) -> usize {
        self.subscription.waiting()
    }
}

/// A broker without filters would send everything.
pub(super) fn no_filter(at: impl std::fmt::Display, version: &str) -> SourceError {
    SourceError::new(ErrorKind::Unsupported, Feature::Filter.missing(&at, version))
}

/// The address of the node; behind a load balancer also its own.
fn node_name(connection: &Connection, options: &ConnectOptions) -> String {
    match connection.advertised() {
        Some(node) if options.routing.load_balancer => {
            format!("{} ({node})", connection.endpoint())
        }
        _ => connection.endpoint().to_string(),
    }
}

/// True if the broker reports statistics of a stream; for older ones chunks are read instead.
pub(super) fn has_statistics(connection: &Connection) -> bool {
    connection.supports(keys::STREAM_STATS, 1)
}

impl From<BrokerError> for SourceError {
    fn from(error: BrokerError) -> SourceError {
        let kind = match &error {
            BrokerError::Connect { .. }
            | BrokerError::Tls(_)
            | BrokerError::NoToken(_)
            | BrokerError::Silent { .. }
            | BrokerError::Broken { .. }
            | BrokerError::NoNode(_)
            | BrokerError::Lost(_)
            | BrokerError::Closed
            | BrokerError::Unconfirmed { .. } => ErrorKind::Connection,
            BrokerError::Timeout { .. } => ErrorKind::Overdue,
            BrokerError::Login { .. }
            | BrokerError::TokenRefused { .. }
            | BrokerError::VirtualHost { .. }
            | BrokerError::Refused { .. }
            | BrokerError::AccessRefused { .. }
            | BrokerError::WriteRefused { .. }
            | BrokerError::NotPublished { .. }
            | BrokerError::ClosedByBroker { .. }
            | BrokerError::NotCreated { .. }
            | BrokerError::Alarm { .. } => ErrorKind::Refused,
            BrokerError::TooOld { .. } => ErrorKind::Unsupported,
            BrokerError::StreamMissing(_)
            | BrokerError::NotAStream { .. }
            | BrokerError::SuperStreamMissing { .. } => ErrorKind::Missing,
            BrokerError::ConnectionLimit { .. } => ErrorKind::Full,
            BrokerError::StreamUnavailable { .. } | BrokerError::LeaderOutOfReach { .. } => {
                ErrorKind::Unavailable
            }
            BrokerError::Overrun { .. } => ErrorKind::Overrun,
            BrokerError::ChunkTooLarge { .. } => ErrorKind::TooLarge,
            BrokerError::Protocol(_) => ErrorKind::Unreadable,
            BrokerError::NotProtocol { .. } | BrokerError::CreditExceeded => ErrorKind::Violation,
        };
        SourceError::new(kind, error.to_string())
    }
}
