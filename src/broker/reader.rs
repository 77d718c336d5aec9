//! The task that reads one connection's socket.
//!
//! The task never waits for anything but the socket. Answers go to their callers, chunks into a queue
//! with room for all that the budget admits, and immediate answers to the writer's queue. A Deliver
//! frame is admitted by its subscription's budget as soon as its first bytes arrive, before memory
//! is reserved for the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;

use super::dial::ReadHalf;
use super::error::BrokerError;
use super::foreign;
use super::shared::Shared;
use super::slot::{Admit, Received};
use crate::sync::lock;
use crate::wire::commands::{self, Metadata, ResponseCode, ServerFrame, decode_server_frame};
use crate::wire::frame::{FrameLimits, peek, split_frame};

/// Bytes reserved for each read.
const READ_BYTES: usize = 256 * 1024;

/// Fewer free bytes than this do not justify a system call.
const READ_BYTES_MIN: usize = 16 * 1024;

/// Least time for an answer to the question for a sign of life, however short heartbeats are: a busy
/// machine may need that.
const ANSWER_MIN: Duration = Duration::from_millis(2500);

/// Correlation id of requests whose answer nobody waits for.
const NO_CORRELATION: u32 = 0;

pub(super) async fn run(read: ReadHalf, shared: Arc<Shared>) {
    let reason = match read_all(read, &shared).await {
        Ok(()) => BrokerError::Closed,
        Err(BrokerError::Protocol(what)) => {
            BrokerError::NotProtocol { endpoint: shared.endpoint.clone(), what }
        }
        Err(reason) => reason,
    };
    shared.end(reason);
}

async fn read_all(mut socket: ReadHalf, shared: &Shared) -> Result<(), BrokerError> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut skip = 0usize;
    // The probe that inspects the discarded frame.
    let mut watching = None;
    let mut heartbeat = shared.heartbeat.subscribe();
    let mut silence = Silence::of(*heartbeat.borrow_and_update());
    loop {
        if skip > 0 {
            let here = skip.min(buffer.len());
            skip -= here;
            if let Some(id) = watching
                && let Some(slot) = lock(&shared.slots).get_mut(&id)
            {
                slot.watch(buffer.get(..here).unwrap_or_default(), skip == 0);
            }
            buffer.advance(here);
        }
        let mut wanted = 0;
        if skip == 0 {
            look_for_strangers(&buffer, shared)?;
            match take_frames(&mut buffer, shared)? {
                Next::Frame { bytes } => wanted = bytes,
                Next::Skip { bytes, subscription } => {
                    (skip, watching) = (bytes, Some(subscription));
                    continue;
                }
                Next::End => return Ok(()),
            }
        }
        make_room(&mut buffer, wanted);
        if heartbeat.has_changed().unwrap_or(false) {
            silence = Silence::of(*heartbeat.borrow_and_update());
        }
        let count = match silence {
            None => socket.read_buf(&mut buffer).await,
            Some(silence) => {
                let read = tokio::time::timeout(silence.asks_after, socket.read_buf(&mut buffer));
                match read.await {
                    Ok(count) => count,
                    Err(_) => {
                        ask_for_a_sign(shared);
                        let read = socket.read_buf(&mut buffer);
                        let read = tokio::time::timeout(silence.ends_after, read).await;
                        read.map_err(|_| silent(shared, silence))?
                    }
                }
            }
        };
        match count {
            Ok(0) => return Err(shared.broken("the broker closed the socket")),
            Ok(_) => {}
            Err(error) => return Err(shared.broken_by(&error)),
        }
    }
}

fn silent(shared: &Shared, silence: Silence) -> BrokerError {
    let limit = silence.asks_after + silence.ends_after;
    BrokerError::Silent { endpoint: shared.endpoint.clone(), limit }
}

/// Sends a request that every broker answers by itself, at once and without looking at any stream. The
/// answer is dropped: any byte is a sign of life.
fn ask_for_a_sign(shared: &Shared) {
    let nothing = Metadata { streams: Vec::new() };
    match commands::encode_request(&nothing, NO_CORRELATION) {
        // Without room in the queue there are other requests that are not answered.
        Ok(frame) => drop(shared.out.try_send(frame)),
        Err(error) => tracing::debug!(%error, "cannot ask for a sign of life"),
    }
}

/// Checks the bytes before the first frame: another protocol is reported as such.
fn look_for_strangers(buffer: &[u8], shared: &Shared) -> Result<(), BrokerError> {
    if shared.heard.load(Ordering::Relaxed) || buffer.len() < foreign::TELLING_BYTES {
        return Ok(());
    }
    if let Some(what) = foreign::what_answers_plainly(buffer) {
        return Err(BrokerError::Connect { endpoint: shared.endpoint.clone(), what });
    }
    shared.heard.store(true, Ordering::Relaxed);
    Ok(())
}

/// Limits for the time without received data.
#[derive(Clone, Copy)]
struct Silence {
    /// Time without data until the peer is asked for a sign of life.
    asks_after: Duration,
    /// Time from that request until a peer that still sends nothing counts as gone.
    ends_after: Duration,
}

impl Silence {
    /// For this heartbeat interval in seconds; `None` for 0, which turns it off. A peer sends
    /// something at least every half interval if it can, so both the heartbeat and the answer are
    /// missing when it is given up, after nine tenths.
    fn of(heartbeat_s: u32) -> Option<Silence> {
        let part_ms = |tenths| Duration::from_millis(u64::from(heartbeat_s) * 100 * tenths);
        (heartbeat_s > 0)
            .then(|| Silence { asks_after: part_ms(4), ends_after: part_ms(5).max(ANSWER_MIN) })
    }
}

/// Reserves memory for the rest of the current frame, or for the next read.
fn make_room(buffer: &mut BytesMut, wanted: usize) {
    let missing = wanted.saturating_sub(buffer.len());
    if missing > READ_BYTES {
        buffer.reserve(missing);
    } else if buffer.capacity() - buffer.len() < missing.max(READ_BYTES_MIN) {
        buffer.reserve(READ_BYTES);
    }
}

enum Next {
    /// More bytes are needed; the current frame has this many in all (0: unknown yet).
    Frame { bytes: usize },
    /// Bytes to discard.
    Skip { bytes: usize, subscription: u8 },
    /// The connection was closed normally.
    End,
}

fn take_frames(buffer: &mut BytesMut, shared: &Shared) -> Result<Next, BrokerError> {
    let limits = FrameLimits {
        frame_max: shared.frame_max.load(Ordering::Relaxed),
        // Admitted one by one, by the budget of the subscription.
        deliver_max: u32::MAX,
    };
    loop {
        let Some(head) = peek(buffer) else {
            return Ok(Next::Frame { bytes: 0 });
        };
        let frame_bytes = usize::try_from(head.frame_bytes).unwrap_or(usize::MAX);
        if head.is_deliver() {
            let Some(subscription) = head.subscription else {
                return Ok(Next::Frame { bytes: 0 });
            };
            let mut slots = lock(&shared.slots);
            match slots.get_mut(&subscription).map(|slot| slot.admit(&head, buffer)) {
                Some(Admit::Read) => {}
                Some(Admit::NeedMore) => return Ok(Next::Frame { bytes: 0 }),
                Some(Admit::Refuse(reason)) => {
                    // Others may use the connection: only this subscription ends.
                    if let Some(slot) = slots.get_mut(&subscription) {
                        slot.conclude(Received::Failed(reason));
                    }
                    return Ok(Next::Skip { bytes: frame_bytes, subscription });
                }
                // A subscription that ended while its chunks were in flight.
                Some(Admit::Skip) | None => {
                    return Ok(Next::Skip { bytes: frame_bytes, subscription });
                }
            }
        }
        let Some(frame) = split_frame(buffer, &limits)? else {
            return Ok(Next::Frame { bytes: frame_bytes });
        };
        let frame_bytes = head.frame_bytes;
        if dispatch(decode_server_frame(frame)?, frame_bytes, shared)? {
            return Ok(Next::End);
        }
    }
}

/// Handles a frame; returns true if the connection has ended.
fn dispatch(frame: ServerFrame, frame_bytes: u64, shared: &Shared) -> Result<bool, BrokerError> {
    match frame {
        ServerFrame::Deliver(deliver) => {
            if let Some(slot) = lock(&shared.slots).get(&deliver.subscription) {
                slot.deliver(deliver, frame_bytes)?;
            }
        }
        ServerFrame::Response { correlation, payload, .. } => {
            // An answer after its time limit has no receiver any more.
            if let Some(waiting) = lock(&shared.pending).remove(&correlation) {
                drop(waiting.send(payload));
            }
        }
        ServerFrame::MetadataUpdate { code, stream } => {
            let mut slots = lock(&shared.slots);
            for slot in slots.values_mut().filter(|slot| slot.stream() == Some(&stream)) {
                slot.conclude(Received::Unavailable(code));
            }
            drop(slots);
            if let Some(publisher) =
                lock(&shared.publisher).as_ref().filter(|p| *p.stream() == stream)
            {
                let detail = "it was deleted, or its leader moved or restarted".to_owned();
                publisher.end(BrokerError::StreamUnavailable { stream, detail });
            }
        }
        ServerFrame::PublishConfirm { ids, .. } => {
            if let Some(publisher) = &*lock(&shared.publisher) {
                publisher.confirm(&ids);
            }
        }
        ServerFrame::PublishError { errors, .. } => {
            if let Some(publisher) = &*lock(&shared.publisher) {
                publisher.refuse(&errors);
            }
        }
        ServerFrame::ConsumerUpdate { correlation, subscription, active } => {
            let mut slots = lock(&shared.slots);
            let told =
                slots.get_mut(&subscription).map_or(Ok(false), |s| s.update(active, correlation));
            drop(slots);
            let is_told = told.map_err(|_| {
                shared.broken("the broker changed the active consumer again and again without waiting for an answer")
            })?;
            if !is_told {
                // One that is gone, or never asked to be a single active consumer.
                let none = commands::consumer_update_response(correlation, ResponseCode::Ok, None);
                shared.reply(&none);
            }
        }
        ServerFrame::CreditError { code, subscription } => {
            tracing::debug!(
                subscription,
                code = code.describe(),
                "credit for a subscription that is gone"
            );
        }
        ServerFrame::Close { correlation, code, reason } => {
            drop(shared.out.try_send(commands::close_response(correlation)));
            let endpoint = shared.endpoint.clone();
            return Err(BrokerError::ClosedByBroker { endpoint, code, reason });
        }
        ServerFrame::Tune { frame_max, heartbeat } => {
            if let Some(waiting) = lock(&shared.tune).take() {
                // A cancelled handshake does not receive it.
                waiting.send((frame_max, heartbeat)).unwrap_or_default();
            }
        }
        ServerFrame::Heartbeat => {}
        ServerFrame::Unknown { key, .. } => tracing::debug!(key, "ignored an unknown frame"),
    }
    Ok(false)
}
