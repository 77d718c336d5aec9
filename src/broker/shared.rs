//! State of a connection that its reader, its writer and its handles share.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::budget::CreditQueue;
use super::error::BrokerError;
use super::foreign;
use super::options::Endpoint;
use super::replies::Replies;
use super::slot::Slot;
use super::window::Window;
use crate::sync::lock;
use crate::tls;
use crate::wire::commands::{Request, ResponseError, decode_response, encode_request};

/// Largest frame before the limits are negotiated.
const FRAME_MAX_FIRST: u32 = 1 << 20;

/// Capacity of the queue of outgoing frames. Requests wait for room; the reader never does.
const OUTGOING_MAX: usize = 64;

/// Most simultaneous probes on one connection. There are 256 ids, and an abandoned one is taken
/// until the broker answers. A consumer has one probe at a time, so where many share a connection
/// there are no more probes than consumers.
const PROBES_MAX: usize = 200;

/// State of a connection that its reader, its writer and its handles share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    /// True once the peer has sent a frame.
    pub(super) heard: AtomicBool,
    /// True once a request was not answered in time.
    pub(super) overdue: AtomicBool,
    pub(super) pending: Mutex<HashMap<u32, oneshot::Sender<Bytes>>>,
    pub(super) slots: Mutex<HashMap<u8, Slot>>,
    /// Permits for simultaneous probes: fewer than there are ids.
    pub(super) probes: Semaphore,
    /// Window of its publisher; `None` if it has none.
    pub(super) publisher: Mutex<Option<Arc<Window>>>,
    pub(super) out: mpsc::Sender<Bytes>,
    /// Answers to the broker's own requests.
    pub(super) replies: Replies,
    pub(super) credit: Arc<CreditQueue>,
    pub(super) tune: Mutex<Option<oneshot::Sender<(u32, u32)>>>,
    /// Negotiated limit of every frame but Deliver, in bytes; 0: no limit.
    pub(super) frame_max: AtomicU32,
    /// Negotiated heartbeat in seconds; 0: none.
    pub(super) heartbeat: watch::Sender<u32>,
    pub(super) ended: watch::Sender<Option<BrokerError>>,
    pub(super) correlation: AtomicU32,
}

impl Shared {
    /// Initial state of a connection to this address.
    pub(super) fn begin(endpoint: &Endpoint) -> Beginnings {
        let (out, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (tune_tx, tune) = oneshot::channel();
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            heard: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            pending: Mutex::default(),
            slots: Mutex::default(),
            probes: Semaphore::new(PROBES_MAX),
            publisher: Mutex::default(),
            out,
            replies: Replies::default(),
            credit: Arc::default(),
            tune: Mutex::new(Some(tune_tx)),
            frame_max: AtomicU32::new(FRAME_MAX_FIRST),
            heartbeat: watch::Sender::new(0),
            ended: watch::Sender::new(None),
            correlation: AtomicU32::new(1),
        });
        Beginnings { shared, outgoing, tune }
    }

    /// Sends a request and waits for its answer, at most `limit`.
    ///
    /// Cancel-safe: a dropped call leaves nothing behind, though the broker may have acted on it.
    pub(super) async fn call<R: Request>(
        &self,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, BrokerError> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(request, correlation)?;
        let (answer, answered) = oneshot::channel();
        lock(&self.pending).insert(correlation, answer);
        let forget = Forget { shared: self, correlation };
        if let Some(reason) = &*self.ended.borrow() {
            return Err(reason.clone()); // It ended before the answer could be awaited.
        }
        let exchange = async {
            self.out.send(frame).await.map_err(|_| self.reason())?;
            answered.await.map_err(|_| self.reason())
        };
        let endpoint = || self.endpoint.clone();
        let payload = tokio::time::timeout(limit, exchange).await.map_err(|_| {
            self.overdue.store(true, Ordering::Relaxed);
            BrokerError::Timeout { endpoint: endpoint(), command: R::NAME, limit }
        })??;
        drop(forget);
        decode_response::<R>(&payload).map_err(|error| match error {
            ResponseError::Refused { code, .. } => {
                BrokerError::Refused { endpoint: endpoint(), command: R::NAME, code }
            }
            ResponseError::Wire(what) => BrokerError::NotProtocol { endpoint: endpoint(), what },
        })
    }

    /// Sends an answer to a request of the broker. Never waits.
    pub(super) fn reply(&self, frame: &[u8]) {
        if self.replies.add(frame).is_err() {
            // Without an answer, the broker would keep the stream from everyone.
            self.end(self.broken("the broker does not read from the connection"));
        }
    }

    /// Ends the connection with this reason, unless it has ended already. Received events stay
    /// readable; pending requests fail.
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

    /// The error for a broken connection.
    pub(super) fn broken(&self, what: impl ToString) -> BrokerError {
        let (endpoint, what) = (self.endpoint.clone(), what.to_string());
        match self.heard.load(Ordering::Relaxed) {
            true => BrokerError::Broken { endpoint, what: what.into() },
            false => BrokerError::Connect { endpoint, what: foreign::hung_up_plainly(&what) },
        }
    }

    /// The same for an error of the socket, or of TLS.
    pub(super) fn broken_by(&self, error: &io::Error) -> BrokerError {
        match tls::is_of_tls(error) && !self.heard.load(Ordering::Relaxed) {
            // With TLS 1.3, a client certificate is refused after our part of the handshake.
            true => BrokerError::Connect {
                endpoint: self.endpoint.clone(),
                what: foreign::no_handshake(error),
            },
            false => self.broken(tls::in_words(error)),
        }
    }

    pub(super) fn reason(&self) -> BrokerError {
        self.ended.borrow().clone().unwrap_or(BrokerError::Closed)
    }
}

/// A connection's shared part, and the receiving ends of its channels.
pub(super) struct Beginnings {
    pub(super) shared: Arc<Shared>,
    /// For the writer.
    pub(super) outgoing: mpsc::Receiver<Bytes>,
    /// For the handshake.
    pub(super) tune: oneshot::Receiver<(u32, u32)>,
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
