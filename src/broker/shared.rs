//! The state of one connection that its reader, its writer and its handles share.

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

/// Before the limits are negotiated, no frame may be larger.
const FRAME_MAX_FIRST: u32 = 1 << 20;

/// Frames of ours that wait to be written. Requests wait for room; the reader never does.
const OUTGOING_MAX: usize = 64;

/// Probes that may be under way on one connection. There are 255 ids for them, and one that was given up keeps
/// its own for as long as the broker takes to say so.
const PROBES_MAX: usize = 200;

/// The state of a connection that its reader, its writer and its handles share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    /// True once the peer has sent a frame.
    pub(super) heard: AtomicBool,
    pub(super) pending: Mutex<HashMap<u32, oneshot::Sender<Bytes>>>,
    pub(super) slots: Mutex<HashMap<u8, Slot>>,
    /// Permits for probes that are under way at the same time: fewer than there are ids.
    pub(super) probes: Semaphore,
    /// The confirmations that its publisher, if it has one, waits for.
    pub(super) publisher: Mutex<Option<Arc<Window>>>,
    pub(super) out: mpsc::Sender<Bytes>,
    pub(super) credit: Arc<CreditQueue>,
    pub(super) tune: Mutex<Option<oneshot::Sender<(u32, u32)>>>,
    /// Negotiated: no frame but Deliver may be larger. 0: no limit of the broker's.
    pub(super) frame_max: AtomicU32,
    /// Negotiated, in seconds; 0: none.
    pub(super) heartbeat: watch::Sender<u32>,
    pub(super) ended: watch::Sender<Option<BrokerError>>,
    pub(super) correlation: AtomicU32,
}

impl Shared {
    /// The state with which a connection to this address begins.
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

/// A connection's shared part, and the ends of its channels.
pub(super) struct Beginnings {
    pub(super) shared: Arc<Shared>,
    /// The writer's.
    pub(super) outgoing: mpsc::Receiver<Bytes>,
    /// The handshake's.
    pub(super) tune: oneshot::Receiver<(u32, u32)>,
}
