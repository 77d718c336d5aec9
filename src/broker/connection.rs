//! The handle to one connection, and what its reader and writer share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::budget::CreditQueue;
use super::dial::dial;
use super::error::{BrokerError, Missing};
use super::foreign;
use super::handshake;
use super::options::{ConnectOptions, Endpoint};
use super::publishing::Window;
use super::subscription::Slot;
use super::{reader, writer};
use crate::sync::lock;
use crate::types::{Offset, Reference, StreamName};
use crate::wire::commands::{
    self, Close, CommandVersions, QueryOffset, Request, ResponseCode, ResponseError,
    decode_response, encode_request,
};

/// Frames of ours that wait to be written. Requests wait for room; the reader never does.
const OUTGOING_MAX: usize = 64;

/// What the reader, the writer and the handles share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    /// Whether the peer has said anything in the protocol.
    pub(super) heard: AtomicBool,
    pub(super) pending: Mutex<HashMap<u32, oneshot::Sender<Bytes>>>,
    pub(super) slots: Mutex<HashMap<u8, Slot>>,
    /// What its publisher, if it has one, waits for.
    pub(super) publisher: Mutex<Option<Arc<Window>>>,
    pub(super) out: mpsc::Sender<Bytes>,
    pub(super) credit: Arc<CreditQueue>,
    pub(super) tune: Mutex<Option<oneshot::Sender<(u32, u32)>>>,
    /// Negotiated: no frame but Deliver may be larger. 0: no limit of the broker's.
    pub(super) frame_max: AtomicU32,
    /// Negotiated, in seconds; 0: none.
    pub(super) heartbeat: watch::Sender<u32>,
    pub(super) ended: watch::Sender<Option<BrokerError>>,
    correlation: AtomicU32,
}

impl Shared {
    /// Ends the connection for this reason, unless it has ended already. What was received stays
    /// readable; requests under way fail.
    pub(super) fn end(&self, reason: BrokerError) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(reason);
            }
            first
        });
        lock(&self.pending).clear();
        for (_, slot) in lock(&self.slots).drain() {
            slot.close();
        }
        if let Some(publisher) = &*lock(&self.publisher) {
            publisher.end(self.reason());
        }
    }

    /// The connection broke.
    pub(super) fn broken(&self, what: impl ToString) -> BrokerError {
        let (endpoint, what) = (self.endpoint.clone(), what.to_string());
        match self.heard.load(Ordering::Relaxed) {
            true => BrokerError::Broken { endpoint, what: what.into() },
            false => BrokerError::Connect { endpoint, what: foreign::hung_up_plainly(&what) },
        }
    }

    pub(super) fn reason(&self) -> BrokerError {
        self.ended.borrow().clone().unwrap_or(BrokerError::Closed)
    }
}

/// What the handshake learned.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// `(major, minor)`.
    pub(super) version: (u32, u32),
    pub(super) version_text: String,
    pub(super) advertised: Option<Endpoint>,
    /// What the broker takes; empty before 3.11.
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
    /// Connects to one address: TCP, TLS, login, virtual host, and what the broker can do.
    pub async fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self, BrokerError> {
        let limit = options.connect_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let failed = |what: String| BrokerError::Connect { endpoint: endpoint.clone(), what };
        let dialled = tokio::time::timeout_at(deadline, dial(endpoint, options)).await;
        let (read, write) =
            dialled.map_err(|_| failed(format!("no connection within {limit:?}")))??;
        let (out, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (tune_tx, tune) = oneshot::channel();
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            heard: AtomicBool::new(false),
            pending: Mutex::default(),
            slots: Mutex::default(),
            publisher: Mutex::default(),
            out,
            credit: Arc::default(),
            tune: Mutex::new(Some(tune_tx)),
            frame_max: AtomicU32::new(handshake::FRAME_MAX_FIRST),
            heartbeat: watch::Sender::new(0),
            ended: watch::Sender::new(None),
            correlation: AtomicU32::new(1),
        });
        let reader =
            tokio::spawn(reader::run(read, Arc::clone(&shared)).in_current_span()).abort_handle();
        tokio::spawn(writer::run(write, outgoing, Arc::clone(&shared)).in_current_span());
        let connection = Connection(Arc::new(Inner {
            shared,
            endpoint: endpoint.clone(),
            peer: OnceLock::new(),
            vhost: options.vhost.clone(),
            user: options.user().to_owned(),
            request_timeout: options.request_timeout,
            reader,
        }));
        let shaken =
            tokio::time::timeout_at(deadline, handshake::shake(&connection, options, tune)).await;
        let peer = shaken.map_err(|_| {
            failed(match connection.shared().heard.load(Ordering::Relaxed) {
                true => format!("the login was not over within {limit:?}"),
                false => foreign::silent(limit),
            })
        })??;
        tracing::debug!(%endpoint, version = peer.version_text, "connected");
        connection.0.peer.get_or_init(|| peer);
        Ok(connection)
    }

    /// Sends a request and waits for its answer, for `request_timeout` at the most.
    ///
    /// Cancel-safe in that a dropped call leaves nothing behind; the broker may have acted on it.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, BrokerError> {
        let shared = &self.0.shared;
        let correlation = shared.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(request, correlation)?;
        let (answer, answered) = oneshot::channel();
        lock(&shared.pending).insert(correlation, answer);
        let forget = Forget { shared, correlation };
        if let Some(reason) = &*shared.ended.borrow() {
            return Err(reason.clone()); // It ended before the answer could be waited for.
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

    /// Hands a frame without an answer to the writer.
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

    /// The offset stored under the reference; `None` only where the broker says that there is none.
    pub async fn query_offset(
        &self,
        stream: &StreamName,
        reference: &Reference,
    ) -> Result<Option<Offset>, BrokerError> {
        let request = QueryOffset { reference: reference.clone(), stream: stream.clone() };
        self.call(&request).await.map_err(|error| self.about(stream, error))
    }

    /// Stores an offset and reads it back, since a store has no answer. Returns what the broker
    /// holds afterwards.
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

    /// Says the error in terms of the stream that the request was about.
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
                    detail: format!("the broker answered {command} so"),
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

    /// Waits for the end and says why. Cancel-safe.
    pub async fn ended(&self) -> BrokerError {
        let mut ended = self.0.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(BrokerError::Closed),
            Err(_) => BrokerError::Closed,
        }
    }

    /// Why it ended; [`BrokerError::Closed`] where it has not.
    pub fn reason(&self) -> BrokerError {
        self.0.shared.reason()
    }

    /// Closes in good order: says so to the broker, and does not wait longer than a request may.
    pub async fn close(&self) {
        let goodbye = Close { code: ResponseCode::Ok, reason: "OK".to_owned() };
        if let Err(error) = self.call(&goodbye).await {
            tracing::debug!(%error, "the connection could not be closed in good order");
        }
        self.0.shared.end(BrokerError::Closed);
    }

    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The broker's version, as it says it.
    pub fn version(&self) -> &str {
        self.0.peer.get().map_or("", |p| &p.version_text)
    }

    /// Whether the broker takes this version of this command.
    pub fn supports(&self, key: u16, version: u16) -> bool {
        self.0.peer.get().is_some_and(|p| CommandVersions::supports(&p.commands, key, version))
    }

    pub(super) fn user(&self) -> &str {
        &self.0.user
    }

    pub(super) fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// The largest frame that either side takes, its size field not counted; 0 for no limit.
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

/// Removes a request that nobody waits for any more.
struct Forget<'a> {
    shared: &'a Shared,
    correlation: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.pending).remove(&self.correlation);
    }
}
