//! State of a connection that its reader, its writer and its handles share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::budget::CreditQueue;
use super::error::BrokerError;
use super::foreign;
use super::options::Endpoint;
use super::slot::Slot;
use super::window::Window;
use crate::sync::lock;

/// Largest frame before the limits are negotiated.
const FRAME_MAX_FIRST: u32 = 1 << 20;

/// Capacity of the queue of outgoing frames. Requests wait for room; the reader never does.
const OUTGOING_MAX: usize = 64;

/// Most simultaneous probes on one connection. There are 255 ids for them, and an abandoned one
/// keeps its id until the broker answers.
const PROBES_MAX: usize = 200;

/// State of a connection that its reader, its writer and its handles share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    /// True once the peer has sent a frame.
    pub(super) heard: AtomicBool,
    pub(super) pending: Mutex<HashMap<u32, oneshot::Sender<Bytes>>>,
    pub(super) slots: Mutex<HashMap<u8, Slot>>,
    /// Permits for simultaneous probes: fewer than there are ids.
    pub(super) probes: Semaphore,
    /// Window of its publisher; `None` if it has none.
    pub(super) publisher: Mutex<Option<Arc<Window>>>,
    pub(super) out: mpsc::Sender<Bytes>,
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
            pending: Mutex::default(),
            slots: Mutex::default(),
            probes: Semaphore::new(PROBES_MAX),
            publisher: Mutex::default(),
            out,
            credit: Arc::default(),
            tune: Mutex::new(Some(tune_tx)),
            frame_max: AtomicU32::new(FRAME_MAX_FIRST),
            heartbeat: watch::Sender::new(0),
            ended: watch::Sender::new(None),
            correlation: AtomicU32::new(1),
        });
        Beginnings { shared, outgoing, tune }
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
