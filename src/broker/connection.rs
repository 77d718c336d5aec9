//! The handle to one connection: requests with a time limit, stored offsets, the reason of its end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::error::{BrokerError, Missing};
use super::options::{ConnectOptions, Endpoint};
use super::shared::Shared;
use crate::sync::lock;
use crate::types::{Offset, Reference, StreamName};
use crate::wire::commands::{
    self, Close, CommandVersions, QueryOffset, Request, ResponseCode, ResponseError,
    decode_response, encode_request,
};

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
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

impl Connection {
    /// A connection whose reader is running, before its handshake.
    pub(super) fn new(shared: Arc<Shared>, options: &ConnectOptions, reader: AbortHandle) -> Self {
        Connection(Arc::new(Inner {
            endpoint: shared.endpoint.clone(),
            shared,
            peer: OnceLock::new(),
            vhost: options.vhost.clone(),
            user: options.user().to_owned(),
            request_timeout: options.request_timeout,
            reader,
        }))
    }

    /// Stores the facts from the handshake; only the first call counts.
    pub(super) fn introduce(&self, peer: Peer) {
        self.0.peer.get_or_init(|| peer);
    }

    /// Sends a request and waits for its answer, at most `request_timeout`.
    ///
    /// Cancel-safe: a dropped call leaves nothing behind, though the broker may have acted on it.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, BrokerError> {
        let shared = &self.0.shared;
        let correlation = shared.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(request, correlation)?;
        let (answer, answered) = oneshot::channel();
        lock(&shared.pending).insert(correlation, answer);
        let forget = Forget { shared, correlation };
        if let Some(reason) = &*shared.ended.borrow() {
            return Err(reason.clone()); // It ended before the answer could be awaited.
        }
        let limit = self.0.request_timeout;
        let exchange = async {
            shared.out.send(frame).await.map_err(|_| shared.reason())?;
            answered.await.map_err(|_| shared.reason())
        };
        let payload = tokio::time::timeout(limit, exchange).await.map_err(|_| {
            BrokerError::Timeout { endpoint: self.0.endpoint.clone(), command: R::NAME, limit }
        })??;
        drop(forget);
        decode_response::<R>(&payload).map_err(|error| match error {
            ResponseError::Refused { code, .. } => {
                BrokerError::Refused { endpoint: self.0.endpoint.clone(), command: R::NAME, code }
            }
            ResponseError::Wire(what) => {
                BrokerError::NotProtocol { endpoint: self.0.endpoint.clone(), what }
            }
        })
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

    /// Reason of its end; [`BrokerError::Closed`] if it has not ended.
    pub fn reason(&self) -> BrokerError {
        self.0.shared.reason()
    }

    /// Closes normally with a Close to the broker; waits at most `request_timeout`.
    pub async fn close(&self) {
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

    /// True if the broker supports this version of this command.
    pub fn supports(&self, key: u16, version: u16) -> bool {
        self.0.peer.get().is_some_and(|p| CommandVersions::supports(&p.commands, key, version))
    }

    pub(super) fn user(&self) -> &str {
        &self.0.user
    }

    pub(super) fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// Largest frame in bytes that both sides accept, without its size field; 0 for no limit.
    pub(super) fn frame_max(&self) -> u32 {
        self.0.shared.frame_max.load(Ordering::Relaxed)
    }

    pub(super) fn advertised(&self) -> Option<&Endpoint> {
        self.0.peer.get().and_then(|p| p.advertised.as_ref())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

/// Removes a pending request when its caller is dropped.
struct Forget<'a> {
    shared: &'a Shared,
    correlation: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.pending).remove(&self.correlation);
    }
}
