//! One connection: handshake, requests with time limits, heartbeats, and the tasks that read and
//! write.
//!
//! The reader never waits for a consumer: the budget has admitted a message before its body is read, and
//! the queue has room for everything that the budget admits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::channels::{Channels, MAIN};
use super::error::{closed, login_refused};
use super::reader::Reader;
use super::shared::{FRAME_MAX, Shared};
use crate::broker::{Endpoint, Identity, ReadHalf, WriteHalf, dial};
use crate::oauth::Renewals;
use crate::source::{ConnectOptions, ErrorKind, SourceError};
use crate::sync::lock;
use crate::tls;
use crate::types::StreamName;
use crate::wire::amqp091::{self as amqp, Closed, FrameKind, Method, PROTOCOL_HEADER};

/// Time limit of a write if there are no heartbeats.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// A connection. It ends when it is dropped.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) version: String,
    /// Most bytes of a frame, in both directions.
    pub(super) frame_max: usize,
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
        // Before the time limit of the connection begins: it has one of its own.
        let identity = Identity::of(options).await?;
        let limit = options.connect_timeout;
        let opening = Self::open_slowly(endpoint, options, &identity, stream);
        let opened = tokio::time::timeout(limit, opening);
        opened.await.unwrap_or_else(|_| {
            let what = format!("broker {endpoint}: no AMQP 0.9.1 connection within {limit:?}");
            Err(SourceError::new(ErrorKind::Connection, what))
        })
    }

    async fn open_slowly(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        identity: &Identity<'_>,
        stream: &StreamName,
    ) -> Result<Connection, SourceError> {
        let (read, write) = dial(endpoint, options).await?;
        let mut hand = Handshake { read, write, buffer: BytesMut::new(), endpoint };
        hand.send(PROTOCOL_HEADER).await?;
        let version = match hand.next(options, stream).await? {
            Method::Start { version, .. } => version,
            other => return Err(hand.unexpected(&other)),
        };
        hand.send(&amqp::start_ok(&options.name, identity.plain())).await?;
        let answer = match hand.next_or_closed().await? {
            Ok(answer) => answer,
            Err(why) => return Err(login_refused(&why, endpoint, identity, options, stream)),
        };
        let Method::Tune { channels, frame_max, heartbeat } = answer else {
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
            channels: Mutex::new(Channels::new(if channels == 0 { u16::MAX } else { channels })),
            acks: Mutex::default(),
            wake: Arc::new(Notify::new()),
            out,
            ended: watch::Sender::new(None),
            closing: AtomicBool::new(false),
        });
        let silence = (heartbeat > 0).then(|| Duration::from_secs(u64::from(heartbeat) * 2));
        let reader = Reader::new(Arc::clone(&shared), read, buffer, frame_max, silence);
        let writing = write_all(Arc::clone(&shared), write, queue, heartbeat);
        let tasks = [
            tokio::spawn(reader.run().in_current_span()).abort_handle(),
            tokio::spawn(writing.in_current_span()).abort_handle(),
        ];
        if let Some(renewals) = identity.renewals() {
            // It ends with the connection.
            tokio::spawn(renew(renewals, Arc::clone(&shared)).in_current_span());
        }
        Ok(Connection { shared, version, frame_max: frame_max as usize, tasks })
    }

    /// Opens the consumer's channel; once.
    pub(super) async fn main_channel(&self) -> Result<Channel<'_>, SourceError> {
        self.open_channel(MAIN).await
    }

    /// Opens a new channel.
    pub(super) async fn channel(&self) -> Result<Channel<'_>, SourceError> {
        let unused = lock(&self.shared.channels).take();
        let Some(id) = unused else {
            let what = "all channels of the connection are in use";
            return Err(self.shared.error(ErrorKind::Connection, what));
        };
        self.open_channel(id).await
    }

    async fn open_channel(&self, id: u16) -> Result<Channel<'_>, SourceError> {
        let channel = Channel { connection: self, id };
        channel.call(amqp::call(id, 20, 10, &[0]), (20, 11)).await?;
        Ok(channel)
    }

    pub(super) async fn ended(&self) -> SourceError {
        self.shared.ended().await
    }

    /// Closes gracefully, within the time limit of a request.
    pub(super) async fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let close = amqp::call(0, 10, 50, &[0, 200, 0, 0, 0, 0, 0]);
        drop(self.shared.call(0, close, (10, 51)).await);
        self.shared.end(SourceError::new(ErrorKind::Connection, "the connection was closed"));
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
        self.connection.shared.call(self.id, frame, answer).await
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        if self.id == MAIN {
            return;
        }
        if lock(&self.connection.shared.slots).remove(&self.id).is_none() {
            // The broker has closed it, or the connection.
            self.connection.shared.freed(self.id);
            return;
        }
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
        sent.map_err(|e| self.broken(&e))?;
        let flushed = self.write.flush().await;
        flushed.map_err(|e| self.broken(&e))
    }

    async fn next(
        &mut self,
        options: &ConnectOptions,
        stream: &StreamName,
    ) -> Result<Method, SourceError> {
        self.next_or_closed().await?.map_err(|why| closed(&why, options, stream))
    }

    /// The next method; the inner error if it is the broker's Close.
    async fn next_or_closed(&mut self) -> Result<Result<Method, Closed>, SourceError> {
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
                    return Ok(match method {
                        Method::ConnectionClose(why) => Err(why),
                        other => Ok(other),
                    });
                }
                Some(head) => drop(self.buffer.split_to(head.bytes)),
                None => {
                    let read = self.read.read_buf(&mut self.buffer).await;
                    if read.map_err(|e| self.broken(&e))? == 0 {
                        return Err(self.error("it closed the connection during the login. Is it the port of AMQP 0.9.1 (5672, or 5671 with TLS)?"));
                    }
                }
            }
        }
    }

    fn broken(&self, error: &std::io::Error) -> SourceError {
        match tls::is_of_tls(error) {
            true => self.error(format_args!("TLS handshake: {}", tls::in_words(error))),
            false => self.error(error),
        }
    }
}

/// Gives the broker each newer token, until the connection ends.
async fn renew(mut renewals: Renewals, shared: Arc<Shared>) {
    loop {
        let token = tokio::select! {
            _ = shared.ended() => return renewals.ended(),
            token = renewals.newer() => token,
        };
        if shared.closing.load(Ordering::Relaxed) {
            return;
        }
        let frame = amqp::update_secret(token.secret());
        match shared.call(0, frame, (10, 71)).await {
            Ok(_) => {
                tracing::debug!(node = %shared.endpoint, "the broker has the new access token");
            }
            // Close took its place on channel 0.
            Err(_) if shared.closing.load(Ordering::Relaxed) => return,
            Err(error) => {
                // It closes the connection where it refuses a token.
                let what = match error.kind() {
                    ErrorKind::Refused => format!("{error}: {}", renewals.refused()),
                    _ => error.to_string(),
                };
                tracing::warn!(node = %shared.endpoint, what, "the access token was not renewed");
                return shared.end(error);
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
    let answer_max = shared.options.request_timeout;
    // So often, too, it is asked whether an answer is overdue.
    let every = every.min(answer_max);
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
        let acks = lock(&shared.acks).clone();
        if let Some(acks) = acks {
            if acks.is_overdue(answer_max) {
                let what = format!("no answer to a consumer within {answer_max:?}");
                return shared.end(shared.error(ErrorKind::Connection, what));
            }
            acks.put_due(&mut bytes);
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
