//! The handle to one connection: requests with a time limit, stored offsets, the reason of its end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::error::{BrokerError, Missing};
use super::feature::Feature;
use super::lease::Lease;
use super::options::{ConnectOptions, Endpoint, Mechanism};
use super::shared::Shared;
use super::slot::Slot;
use crate::sync::lock;
use crate::tls::TlsOptions;
use crate::types::{Offset, Reference, StreamName};
use crate::wire::commands::{self, Close, CommandVersions, QueryOffset, Request, ResponseCode};

/// Facts about the broker from the handshake.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// `(major, minor)`.
    pub(super) version: (u32, u32),
    pub(super) version_text: String,
    pub(super) advertised: Option<Endpoint>,
    /// Command versions that the broker supports; empty before 3.11.
    pub(super) commands: Vec<CommandVersions>,
}

struct Inner {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    peer: OnceLock<Peer>,
    vhost: String,
    user: String,
    mechanism: Mechanism,
    tls: Option<TlsOptions>,
    request_timeout: Duration,
    reader: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end(BrokerError::Closed);
        self.reader.abort();
    }
}

/// A connection to one node. Clones share it; it ends when the last one is dropped.
///
/// The second part is its place in a [`Pool`](super::Pool); `None` if no other stream shares it.
#[derive(Clone)]
pub struct Connection(Arc<Inner>, Option<Arc<Lease>>);

/// A connection of which this is no handle: it ends all the same when the last one is dropped.
pub(super) struct Held(Weak<Inner>);

impl Held {
    /// The connection, while it is open.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.0
            .upgrade()
            .map(|inner| Connection(inner, None))
            .filter(|connection| !connection.has_ended())
    }

    /// True while it is open.
    pub(super) fn is_open(&self) -> bool {
        self.connection().is_some()
    }
}

impl Connection {
    /// A connection whose reader is running, before its handshake.
    pub(super) fn new(shared: Arc<Shared>, options: &ConnectOptions, reader: AbortHandle) -> Self {
        let inner = Inner {
            endpoint: shared.endpoint.clone(),
            shared,
            peer: OnceLock::new(),
            vhost: options.vhost.clone(),
            user: options.user().to_owned(),
            mechanism: options.mechanism.clone(),
            tls: options.tls.clone(),
            request_timeout: options.request_timeout,
            reader,
        };
        Connection(Arc::new(inner), None)
    }

    /// A user's view of the connection.
    pub(super) fn leased(&self, lease: Lease) -> Self {
        Connection(Arc::clone(&self.0), Some(Arc::new(lease)))
    }

    /// Number of a shared connection in its pool.
    pub fn number(&self) -> Option<u64> {
        self.1.as_ref().map(|lease| lease.number())
    }

    /// Stores the facts from the handshake; only the first call counts.
    pub(super) fn introduce(&self, peer: Peer) {
        self.0.peer.get_or_init(|| peer);
    }

    /// Stops sharing the connection: it is busy with a request whose answer nobody waits for.
    pub(super) fn give_up(&self) {
        self.0.shared.overdue.store(true, Ordering::Relaxed);
    }

    /// A reference that does not keep it open.
    pub(super) fn held(&self) -> Held {
        Held(Arc::downgrade(&self.0))
    }

    /// Sends a request and waits for its answer, at most `request_timeout`.
    ///
    /// Cancel-safe: a dropped call leaves nothing behind, though the broker may have acted on it.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, BrokerError> {
        let Inner { shared, request_timeout, .. } = &*self.0;
        shared.call(request, *request_timeout).await
    }

    /// Queues a frame without an answer for the writer.
    pub(super) async fn send(&self, frame: Bytes) -> Result<(), BrokerError> {
        let shared = &self.0.shared;
        let limit = self.0.request_timeout;
        tokio::time::timeout(limit, shared.out.send(frame))
            .await
            .map_err(|_| BrokerError::Timeout {
                endpoint: self.0.endpoint.clone(),
                command: "write",
                limit,
            })?
            .map_err(|_| shared.reason())
    }

    /// The offset stored under the reference; `None` only if the broker says that there is none.
    pub async fn query_offset(
        &self,
        stream: &StreamName,
        reference: &Reference,
    ) -> Result<Option<Offset>, BrokerError> {
        let request = QueryOffset { reference: reference.clone(), stream: stream.clone() };
        self.call(&request).await.map_err(|error| self.about(stream, error))
    }

    /// Stores an offset and reads it back, because a store has no answer. Returns the offset that
    /// the broker then holds.
    pub async fn store_offset(
        &self,
        stream: &StreamName,
        reference: &Reference,
        offset: Offset,
    ) -> Result<Option<Offset>, BrokerError> {
        let frame = commands::store_offset(reference, stream, offset)?;
        self.send(frame).await?;
        self.query_offset(stream, reference).await
    }

    /// Adds the stream of the request to the error.
    pub(super) fn about(&self, stream: &StreamName, error: BrokerError) -> BrokerError {
        match error {
            BrokerError::Refused { code: ResponseCode::StreamDoesNotExist, .. } => {
                BrokerError::StreamMissing(Missing {
                    stream: stream.clone(),
                    vhost: self.0.vhost.clone(),
                })
            }
            BrokerError::Refused { code: ResponseCode::StreamNotAvailable, command, .. } => {
                BrokerError::StreamUnavailable {
                    stream: stream.clone(),
                    detail: format!("the broker's answer to {command}"),
                }
            }
            BrokerError::Refused { code: ResponseCode::AccessRefused, .. } => {
                BrokerError::AccessRefused {
                    stream: stream.clone(),
                    user: self.0.user.clone(),
                    vhost: self.0.vhost.clone(),
                }
            }
            other => other,
        }
    }

    /// Waits for the end of the connection and returns the reason. Cancel-safe.
    pub async fn ended(&self) -> BrokerError {
        let mut ended = self.0.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(BrokerError::Closed),
            Err(_) => BrokerError::Closed,
        }
    }

    /// True once the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.0.shared.ended.borrow().is_some()
    }

    /// True if nothing speaks against further use: it has not ended, and the broker has answered every
    /// request in time.
    pub(super) fn is_sound(&self) -> bool {
        !self.has_ended() && !self.0.shared.overdue.load(Ordering::Relaxed)
    }

    /// Reason of its end; [`BrokerError::Closed`] if it has not ended.
    pub fn reason(&self) -> BrokerError {
        self.0.shared.reason()
    }

    /// Closes normally with a Close to the broker; waits at most `request_timeout`. A connection that
    /// others share stays open for them.
    pub async fn close(&self) {
        if self.1.as_ref().is_some_and(|lease| !lease.end()) {
            return;
        }
        let goodbye = Close { code: ResponseCode::Ok, reason: "OK".to_owned() };
        if let Err(error) = self.call(&goodbye).await {
            tracing::debug!(%error, "the broker did not confirm closing the connection");
        }
        self.0.shared.end(BrokerError::Closed);
    }

    /// Address that it is connected to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The broker's version, as reported by it.
    pub fn version(&self) -> &str {
        self.0.peer.get().map_or("", |p| &p.version_text)
    }

    /// An error if the broker is too old for this.
    pub fn require(&self, feature: Feature) -> Result<(), BrokerError> {
        let version = self.0.peer.get().map_or((0, 0), |peer| peer.version);
        match feature.is_in(version) {
            true => Ok(()),
            false => Err(BrokerError::TooOld {
                endpoint: self.0.endpoint.clone(),
                version: self.version().to_owned(),
                feature,
            }),
        }
    }

    /// True if the broker supports this version of this command.
    pub fn supports(&self, key: u16, version: u16) -> bool {
        self.0.peer.get().is_some_and(|p| CommandVersions::supports(&p.commands, key, version))
    }

    /// Time limit of a request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.0.request_timeout
    }

    pub(super) fn user(&self) -> &str {
        &self.0.user
    }

    /// True if it has this identity and virtual host. Names of users alone do not tell: a token or a
    /// certificate has its own.
    pub(super) fn is_of(&self, options: &ConnectOptions) -> bool {
        let Inner { mechanism, tls, vhost, .. } = &*self.0;
        (mechanism, tls, vhost) == (&options.mechanism, &options.tls, &options.vhost)
    }

    /// True if a stream is read from it: then it is neither a publisher's nor one for asking.
    pub(super) fn is_read_from(&self) -> bool {
        lock(&self.0.shared.slots).values().any(|slot| matches!(slot, Slot::Main(_)))
    }

    /// Number of subscriptions and probes on it.
    pub(super) fn users(&self) -> usize {
        lock(&self.0.shared.slots).len()
    }

    pub(super) fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// Largest frame in bytes that both sides accept, without its size field; 0 for no limit.
    pub(super) fn frame_max(&self) -> u32 {
        self.0.shared.frame_max.load(Ordering::Relaxed)
    }

    /// Address that the node advertises; `None` if it does not say.
    pub fn advertised(&self) -> Option<&Endpoint> {
        self.0.peer.get().and_then(|p| p.advertised.as_ref())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}
