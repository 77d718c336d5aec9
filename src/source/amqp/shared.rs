//! What the tasks and the users of a connection share: requests that wait, channels, and how it ended.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::acks::Acks;
use super::channels::Channels;
use super::pack::Pack;
use super::probe::Probe;
use crate::broker::Endpoint;
use crate::source::{ConnectOptions, Delivery, ErrorKind, Event, SourceError};
use crate::sync::lock;
use crate::types::{Offset, StreamName};
use crate::wire::amqp091::Method;

/// Largest frame that this client proposes, and accepts before the limits are agreed.
pub(super) const FRAME_MAX: u32 = 128 << 10;

/// Where the answer to a request is sent.
pub(super) type Answer = oneshot::Sender<Result<Method, SourceError>>;

/// A request that waits on a channel.
#[derive(Default)]
pub(super) struct Slot {
    /// Waits for this method.
    pub(super) waiting: Option<(u16, u16, Answer)>,
    pub(super) probe: Option<Probe>,
    pub(super) main: Option<Main>,
}

/// State of a connection that its tasks and its users share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) options: ConnectOptions,
    pub(super) stream: StreamName,
    pub(super) slots: Mutex<HashMap<u16, Slot>>,
    pub(super) channels: Mutex<Channels>,
    pub(super) acks: Mutex<Option<Arc<Acks>>>,
    pub(super) wake: Arc<Notify>,
    pub(super) out: mpsc::Sender<Vec<u8>>,
    pub(super) ended: watch::Sender<Option<SourceError>>,
    /// It is being closed: nothing else is asked on channel 0.
    pub(super) closing: AtomicBool,
}

impl Shared {
    /// This channel is closed on both sides.
    pub(super) fn freed(&self, channel: u16) {
        lock(&self.channels).freed(channel);
    }

    /// Ends the connection; the first reason counts.
    pub(super) fn end(&self, why: SourceError) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(why);
            is_first
        });
        if let Some(acks) = lock(&self.acks).take() {
            acks.close();
        }
        lock(&self.slots).clear();
    }

    pub(super) fn reason(&self) -> SourceError {
        let ended = self.ended.borrow().clone();
        ended.unwrap_or_else(|| self.error(ErrorKind::Connection, "there is no answer"))
    }

    pub(super) fn error(&self, kind: ErrorKind, what: impl std::fmt::Display) -> SourceError {
        SourceError::new(kind, format!("broker {}: {what}", self.endpoint))
    }

    /// Sends a request and waits for its answer, within the time limit of a request.
    pub(super) async fn call(
        &self,
        channel: u16,
        frame: Vec<u8>,
        answer: (u16, u16),
    ) -> Result<Method, SourceError> {
        let (sender, answered) = oneshot::channel();
        lock(&self.slots).entry(channel).or_default().waiting = Some((answer.0, answer.1, sender));
        if self.ended.borrow().is_some() {
            return Err(self.reason());
        }
        let limit = self.options.request_timeout;
        let exchange = async {
            self.out.send(frame).await.map_err(|_| self.reason())?;
            answered.await.map_err(|_| self.reason())?
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
            Err(self.error(ErrorKind::Connection, format_args!("no answer within {limit:?}")))
        })
    }

    /// Waits for the end of the connection, and returns the reason.
    pub(super) async fn ended(&self) -> SourceError {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this.
        drop(ended.wait_for(Option::is_some).await);
        self.reason()
    }

    /// Queues a frame without waiting. If the queue is full, the socket is stuck, which the writer
    /// notices.
    pub(super) fn send_now(&self, frame: Vec<u8>) {
        self.out.try_send(frame).unwrap_or_default();
    }
}

/// The consumer's subscription.
pub(super) struct Main {
    pub(super) sender: mpsc::Sender<Event>,
    pub(super) pack: Pack,
    pub(super) acks: Arc<Acks>,
    /// Offset from which on it reads, if it is known.
    pub(super) from: Option<Offset>,
    /// The broker leaves chunks out.
    pub(super) is_filtered: bool,
}

impl Main {
    /// The broker has failed. Next time it is asked for one message at a time; if it was already, this is the
    /// offset of the one that it could not deliver.
    pub(super) fn crashed(&self) -> Option<Offset> {
        let was_careful = self.acks.is_careful();
        self.acks.be_careful();
        self.pack.next().or(self.from).filter(|_| was_careful)
    }

    pub(super) fn deliver(&self, delivery: Delivery) -> Result<(), SourceError> {
        match self.sender.try_send(Event::Chunk(delivery)) {
            // The consumer may have dropped the subscription.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SourceError::new(
                ErrorKind::Violation,
                "the broker sent more messages than it was asked for",
            )),
        }
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        self.acks.close();
    }
}
