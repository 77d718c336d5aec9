//! Reads frames, and passes on their content.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::acks::Acks;
use super::connection::{FRAME_MAX, MAIN, Shared, Slot};
use super::error::closed;
use super::pack::Pack;
use crate::broker::{Admission, ReadHalf};
use crate::source::{Delivery, ErrorKind, Event, SourceError};
use crate::sync::lock;
use crate::wire::amqp091::{self as amqp, Delivered, FrameHead, FrameKind, Method};

/// The consumer's subscription.
pub(super) struct Main {
    pub(super) sender: mpsc::Sender<Event>,
    pub(super) pack: Pack,
    pub(super) acks: Arc<Acks>,
}

impl Drop for Main {
    fn drop(&mut self) {
        self.acks.close();
    }
}

pub(super) struct Reader {
    shared: Arc<Shared>,
    read: ReadHalf,
    buffer: BytesMut,
    frame_max: usize,
    silence: Option<Duration>,
    /// A message that was announced on the main channel and has not begun.
    announced: Option<Delivered>,
}

/// Also runs after a panic, so that nobody waits for a reader that has ended.
impl Drop for Reader {
    fn drop(&mut self) {
        self.shared
            .end(self.shared.error(ErrorKind::Connection, "the connection is not read any more"));
    }
}

impl Reader {
    pub(super) fn new(
        shared: Arc<Shared>,
        read: ReadHalf,
        buffer: BytesMut,
        frame_max: u32,
        silence: Option<Duration>,
    ) -> Reader {
        let frame_max = frame_max.min(FRAME_MAX) as usize + amqp::FRAME_OVERHEAD;
        Reader { shared, read, buffer, frame_max, silence, announced: None }
    }

    pub(super) async fn run(mut self) {
        let why = loop {
            if let Err(why) = self.take_frames() {
                break why;
            }
            match self.fill().await {
                Ok(()) => {}
                Err(why) => break why,
            }
        };
        self.shared.end(why);
    }

    async fn fill(&mut self) -> Result<(), SourceError> {
        self.buffer.reserve(self.frame_max);
        let reading = self.read.read_buf(&mut self.buffer);
        let read = match self.silence {
            None => reading.await,
            Some(limit) => match tokio::time::timeout(limit, reading).await {
                Ok(read) => read,
                Err(_) => {
                    let what = format!("it sent nothing for {limit:?}, not even a heartbeat");
                    return Err(self.shared.error(ErrorKind::Connection, what));
                }
            },
        };
        match read {
            Ok(0) => Err(self.shared.error(ErrorKind::Connection, "it closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => {
                let what = format!("the connection broke ({error})");
                Err(self.shared.error(ErrorKind::Connection, what))
            }
        }
    }

    /// Takes all complete frames, and delivers the messages that they complete.
    fn take_frames(&mut self) -> Result<(), SourceError> {
        let violation = |shared: &Shared, what: &dyn std::fmt::Display| {
            shared.error(ErrorKind::Violation, format_args!("it violates the protocol: {what}"))
        };
        loop {
            let head = amqp::frame(&self.buffer, self.frame_max);
            let Some(head) = head.map_err(|e| violation(&self.shared, &e))? else { break };
            let frame = self.buffer.split_to(head.bytes);
            let payload = frame.get(head.payload()).unwrap_or_default();
            match head.kind {
                FrameKind::Heartbeat => {}
                FrameKind::Method => {
                    let method = Method::parse(payload);
                    self.method(head, method.map_err(|e| violation(&self.shared, &e))?)?;
                }
                FrameKind::Header => self.header(head, payload)?,
                FrameKind::Body => {
                    if let Some(main) = main_of(&mut lock(&self.shared.slots), head.channel) {
                        let done = main.pack.body(payload)?;
                        done.into_iter().flatten().try_for_each(|d| main.deliver(d))?;
                    }
                }
            }
        }
        if let Some(main) = main_of(&mut lock(&self.shared.slots), MAIN)
            && let Some(delivery) = main.pack.flush()
        {
            main.deliver(delivery)?;
        }
        Ok(())
    }

    fn method(&mut self, head: FrameHead, method: Method) -> Result<(), SourceError> {
        let shared = Arc::clone(&self.shared);
        let channel = head.channel;
        match method {
            Method::ConnectionClose(why) => {
                shared.send_now(amqp::call(0, 10, 51, &[]));
                Err(closed(&why, &shared.options, &shared.stream))
            }
            Method::ChannelClose(why) => {
                shared.send_now(amqp::call(channel, 20, 41, &[]));
                self.end_channel(channel, closed(&why, &shared.options, &shared.stream));
                Ok(())
            }
            Method::Cancel => {
                let what = "the broker ended the subscription: the stream was deleted, or its member on this node went away";
                self.end_channel(channel, SourceError::unavailable(&shared.stream, what));
                Ok(())
            }
            Method::Deliver(delivered) => {
                if channel == MAIN {
                    self.announced = Some(delivered);
                }
                Ok(())
            }
            other => {
                let code = match &other {
                    Method::Declared { .. } => (50, 11),
                    Method::Other(class, method) => (*class, *method),
                    _ => return Ok(()),
                };
                let mut slots = lock(&shared.slots);
                let Some(slot) = slots.get_mut(&channel) else { return Ok(()) };
                let waited = slot.waiting.take_if(|(class, method, _)| (*class, *method) == code);
                if let Some((_, _, waiting)) = waited {
                    // The caller may have stopped waiting.
                    drop(waiting.send(Ok(other)));
                }
                Ok(())
            }
        }
    }

    fn end_channel(&self, channel: u16, why: SourceError) {
        let Some(mut slot) = lock(&self.shared.slots).remove(&channel) else { return };
        if let Some((_, _, waiting)) = slot.waiting.take() {
            drop(waiting.send(Err(why.clone())));
        }
        if let Some(mut main) = slot.main.take() {
            if let Some(delivery) = main.pack.flush() {
                drop(main.deliver(delivery));
            }
            // There is always a slot for this event; the consumer may be gone.
            drop(main.sender.try_send(Event::Unavailable(why)));
        }
    }

    fn header(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), SourceError> {
        let shared = Arc::clone(&self.shared);
        let read = amqp::content_header(payload);
        let (body, properties) = read.map_err(|e| shared.error(ErrorKind::Violation, e))?;
        let mut slots = lock(&shared.slots);
        let Some(slot) = slots.get_mut(&head.channel) else { return Ok(()) };
        if let Some(seen) = &slot.seen {
            let offset =
                amqp::offset_of(properties).map_err(|e| shared.error(ErrorKind::Violation, e))?;
            seen.send_modify(|seen| {
                *seen = Some(seen.map_or((offset, offset), |(first, _)| (first, offset)));
            });
            return Ok(());
        }
        let (Some(main), Some(delivered)) = (&mut slot.main, self.announced.take()) else {
            return Ok(());
        };
        let cost = amqp::bound(body, properties.len(), &delivered);
        match main.pack.budget.admit(cost) {
            Admission::Granted => {}
            Admission::Overrun => {
                let what = format!(
                    "a message of {cost} bytes does not fit into the free memory; fewer are asked for from here on"
                );
                return Err(shared.error(ErrorKind::Overrun, what));
            }
            Admission::TooLarge => {
                let what = format!(
                    "a message of {cost} bytes is larger than the memory for messages ({} bytes): raise `memory`",
                    main.pack.budget.limit()
                );
                return Err(shared.error(ErrorKind::TooLarge, what));
            }
        }
        let held = main.pack.budget.reserve(cost);
        let before = main.pack.begin(&delivered, properties, body, cost, held)?;
        before.into_iter().try_for_each(|d| main.deliver(d))?;
        if body == 0 {
            main.pack.complete().into_iter().flatten().try_for_each(|d| main.deliver(d))?;
        }
        Ok(())
    }
}

fn main_of(slots: &mut std::collections::HashMap<u16, Slot>, channel: u16) -> Option<&mut Main> {
    slots.get_mut(&channel)?.main.as_mut()
}

impl Main {
    fn deliver(&self, delivery: Delivery) -> Result<(), SourceError> {
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
