//! One connection: handshake, requests with time limits, heartbeats, and the tasks that read and
//! write.
//!
//! The reader never waits for a consumer: the budget has admitted a message before its body is read, and
//! the queue has room for everything that the budget admits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::acks::Acks;
use super::error::closed;
use super::reader::{Main, Reader};
use crate::broker::{Endpoint, Mechanism, ReadHalf, WriteHalf, dial};
use crate::source::{ConnectOptions, ErrorKind, SourceError};
use crate::sync::lock;
use crate::types::{Offset, StreamName};
use crate::wire::amqp091::{self as amqp, FrameKind, Method, PROTOCOL_HEADER};

/// Largest frame that this client proposes, and accepts before the limits are agreed.
pub(super) const FRAME_MAX: u32 = 128 << 10;

/// Channel of the consumer; probes use those after it.
pub(super) const MAIN: u16 = 1;

/// Time limit of a write if there are no heartbeats.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// Where the answer to a request is sent.
pub(super) type Answer = oneshot::Sender<Result<Method, SourceError>>;

/// A request that waits on a channel.
#[derive(Default)]
pub(super) struct Slot {
    /// Waits for this method.
    pub(super) waiting: Option<(u16, u16, Answer)>,
    /// Waits for the first and last offset that a probe has seen.
    pub(super) seen: Option<watch::Sender<Option<(Offset, Offset)>>>,
    pub(super) main: Option<Main>,
}

/// State of a connection that its tasks and its users share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) options: ConnectOptions,
    pub(super) stream: StreamName,
    pub(super) slots: Mutex<HashMap<u16, Slot>>,
    pub(super) acks: Mutex<Option<Arc<Acks>>>,
    pub(super) wake: Arc<Notify>,
    out: mpsc::Sender<Vec<u8>>,
    ended: watch::Sender<Option<SourceError>>,
}

impl Shared {
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

    /// Queues a frame without waiting. If the queue is full, the socket is stuck, which the writer
    /// notices.
    pub(super) fn send_now(&self, frame: Vec<u8>) {
        self.out.try_send(frame).unwrap_or_default();
    }
}

/// A connection. It ends when it is dropped.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) version: String,
    channels: AtomicU16,
    /// Highest id of a channel.
    channel_max: u16,
    tasks: [AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.end(SourceError::new(ErrorKind::Connection, "the connection was dropped"));
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Connection {
    /// Connects and logs in, within the time limit.
    pub(super) async fn open(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        stream: &StreamName,
    ) -> Result<Connection, SourceError> {
        let limit = options.connect_timeout;
        let opened = tokio::time::timeout(limit, Self::open_slowly(endpoint, options, stream));
        opened.await.unwrap_or_else(|_| {
            let what = format!("broker {endpoint}: no AMQP 0.9.1 connection within {limit:?}");
            Err(SourceError::new(ErrorKind::Connection, what))
        })
    }

    async fn open_slowly(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        stream: &StreamName,
    ) -> Result<Connection, SourceError> {
        let (read, write) = dial(endpoint, options).await?;
        let mut hand = Handshake { read, write, buffer: BytesMut::new(), endpoint };
        hand.send(PROTOCOL_HEADER).await?;
        let version = match hand.next(options, stream).await? {
            Method::Start { version, .. } => version,
            other => return Err(hand.unexpected(&other)),
        };
        let login = match &options.mechanism {
            Mechanism::Plain { username, password } => Some((username.as_str(), password)),
            Mechanism::External => None,
        };
        hand.send(&amqp::start_ok(&options.name, login)).await?;
        let Method::Tune { channels, frame_max, heartbeat } = hand.next(options, stream).await?
        else {
            return Err(hand.error("it asks for a login in several steps, which is not supported"));
        };
        let frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.min(FRAME_MAX) };
        let ours = u16::try_from(options.heartbeat.as_secs()).unwrap_or(u16::MAX);
        let heartbeat = match (ours, heartbeat) {
            (0, theirs) => theirs,
            (ours, 0) => ours,
            (ours, theirs) => ours.min(theirs),
        };
        hand.send(&amqp::tune_ok(channels, frame_max, heartbeat)).await?;
        hand.send(&amqp::open_connection(&options.vhost)).await?;
        match hand.next(options, stream).await? {
            Method::Other(10, 41) => {}
            other => return Err(hand.unexpected(&other)),
        }
        let Handshake { read, write, buffer, .. } = hand;
        let (out, queue) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            options: options.clone(),
            stream: stream.clone(),
            slots: Mutex::default(),
            acks: Mutex::default(),
            wake: Arc::new(Notify::new()),
            out,
            ended: watch::Sender::new(None),
        });
        let silence = (heartbeat > 0).then(|| Duration::from_secs(u64::from(heartbeat) * 2));
        let reader = Reader::new(Arc::clone(&shared), read, buffer, frame_max, silence);
        let writing = write_all(Arc::clone(&shared), write, queue, heartbeat);
        let tasks =
            [tokio::spawn(reader.run()).abort_handle(), tokio::spawn(writing).abort_handle()];
        let channel_max = if channels == 0 { u16::MAX } else { channels };
        Ok(Connection { shared, version, channels: AtomicU16::new(MAIN + 1), channel_max, tasks })
    }

    /// Opens the consumer's channel; once.
    pub(super) async fn main_channel(&self) -> Result<Channel<'_>, SourceError> {
        self.open_channel(MAIN).await
    }

    /// Opens a new channel.
    pub(super) async fn channel(&self) -> Result<Channel<'_>, SourceError> {
        let id = self.channels.fetch_add(1, Ordering::Relaxed);
        if id >= self.channel_max {
            let what = "the connection has used all its channels";
            return Err(self.shared.error(ErrorKind::Connection, what));
        }
        self.open_channel(id).await
    }

    async fn open_channel(&self, id: u16) -> Result<Channel<'_>, SourceError> {
        let channel = Channel { connection: self, id };
        channel.call(amqp::call(id, 20, 10, &[0]), (20, 11)).await?;
        Ok(channel)
    }

    pub(super) async fn ended(&self) -> SourceError {
        let mut ended = self.shared.ended.subscribe();
        // The sender lives as long as this connection.
        drop(ended.wait_for(Option::is_some).await);
        self.shared.reason()
    }

    /// Closes gracefully, within the time limit of a request.
    pub(super) async fn close(&self) {
        let close = amqp::call(0, 10, 50, &[0, 200, 0, 0, 0, 0, 0]);
        drop(self.call(0, close, (10, 51)).await);
        self.shared.end(SourceError::new(ErrorKind::Connection, "the connection was closed"));
    }

    async fn call(
        &self,
        channel: u16,
        frame: Vec<u8>,
        answer: (u16, u16),
    ) -> Result<Method, SourceError> {
        let shared = &self.shared;
        let (sender, answered) = oneshot::channel();
        lock(&shared.slots).entry(channel).or_default().waiting =
            Some((answer.0, answer.1, sender));
        if shared.ended.borrow().is_some() {
            return Err(shared.reason());
        }
        let limit = shared.options.request_timeout;
        let exchange = async {
            shared.out.send(frame).await.map_err(|_| shared.reason())?;
            answered.await.map_err(|_| shared.reason())?
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
            Err(shared.error(ErrorKind::Connection, format_args!("no answer within {limit:?}")))
        })
    }
}

/// An open channel of a connection. The caller closes it.
pub(super) struct Channel<'a> {
    pub(super) connection: &'a Connection,
    pub(super) id: u16,
}

impl Channel<'_> {
    pub(super) async fn call(
        &self,
        frame: Vec<u8>,
        answer: (u16, u16),
    ) -> Result<Method, SourceError> {
        self.connection.call(self.id, frame, answer).await
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        if self.id == MAIN {
            return;
        }
        lock(&self.connection.shared.slots).remove(&self.id);
        self.connection.shared.send_now(amqp::call(self.id, 20, 40, &[0, 200, 0, 0, 0, 0, 0]));
    }
}

struct Handshake<'a> {
    read: ReadHalf,
    write: WriteHalf,
    buffer: BytesMut,
    endpoint: &'a Endpoint,
}

impl Handshake<'_> {
    fn error(&self, what: impl std::fmt::Display) -> SourceError {
        SourceError::new(ErrorKind::Connection, format!("broker {}: {what}", self.endpoint))
    }

    fn unexpected(&self, method: &Method) -> SourceError {
        let what = format!("broker {}: an unexpected answer ({method:?})", self.endpoint);
        SourceError::new(ErrorKind::Violation, what)
    }

    async fn send(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        let sent = self.write.write_all(frame).await;
        sent.map_err(|e| self.error(e))?;
        let flushed = self.write.flush().await;
        flushed.map_err(|e| self.error(e))
    }

    async fn next(
        &mut self,
        options: &ConnectOptions,
        stream: &StreamName,
    ) -> Result<Method, SourceError> {
        loop {
            if self.buffer.starts_with(b"AMQP") {
                return Err(self.error("it speaks another version of AMQP than 0.9.1"));
            }
            let head = amqp::frame(&self.buffer, FRAME_MAX as usize + amqp::FRAME_OVERHEAD);
            match head
                .map_err(|e| self.error(format_args!("it does not speak AMQP 0.9.1 ({e})")))?
            {
                Some(head) if head.kind == FrameKind::Method => {
                    let frame = self.buffer.split_to(head.bytes);
                    let payload = frame.get(head.payload()).unwrap_or_default();
                    let method = Method::parse(payload).map_err(|e| self.error(e))?;
                    return match method {
                        Method::ConnectionClose(why) => Err(closed(&why, options, stream)),
                        other => Ok(other),
                    };
                }
                Some(head) => drop(self.buffer.split_to(head.bytes)),
                None => {
                    let read = self.read.read_buf(&mut self.buffer).await;
                    if read.map_err(|e| self.error(e))? == 0 {
                        return Err(self.error("it closed the connection during the login. Is it the port of AMQP 0.9.1 (5672, or 5671 with TLS)?"));
                    }
                }
            }
        }
    }
}

async fn write_all(
    shared: Arc<Shared>,
    mut write: WriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    heartbeat: u16,
) {
    let every = match heartbeat {
        0 => Duration::from_secs(3600),
        seconds => Duration::from_secs(seconds.into()) / 2,
    };
    let limit = if heartbeat == 0 { WRITE_MAX } else { every * 4 };
    loop {
        let mut bytes = tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => frame,
                None => return,
            },
            () = shared.wake.notified() => Vec::new(),
            () = tokio::time::sleep(every) => amqp::HEARTBEAT.to_vec(),
        };
        while let Ok(frame) = queue.try_recv() {
            bytes.extend(frame);
        }
        let done = lock(&shared.acks).as_ref().and_then(|acks| acks.take());
        if let Some(tag) = done {
            bytes.extend(amqp::ack(MAIN, tag));
        }
        if bytes.is_empty() {
            continue;
        }
        let written = tokio::time::timeout(limit, async {
            write.write_all(&bytes).await?;
            write.flush().await
        });
        let what = match written.await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("the connection broke ({error})"),
            Err(_) => format!("it took nothing for {limit:?}"),
        };
        return shared.end(shared.error(ErrorKind::Connection, what));
    }
}
