//! Reads frames, and passes on their content.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncReadExt;

use super::channels::MAIN;
use super::error::{closed, unanswerable, undeliverable};
use super::shared::{FRAME_MAX, Shared, Slot};
use crate::broker::{Admission, ReadHalf};
use crate::source::{ErrorKind, Event, SourceError};
use crate::sync::lock;
use crate::wire::amqp091::{self as amqp, Delivered, FrameHead, FrameKind, Method};

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
        let shared = Arc::clone(&self.shared);
        let violation = |what: &dyn std::fmt::Display| {
            shared.error(ErrorKind::Violation, format_args!("it violates the protocol: {what}"))
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        // Once for all frames that are there: there are three to a message.
        let mut slots = lock(&shared.slots);
        let mut taken = 0;
        loop {
            let rest = buffer.get(taken..).unwrap_or_default();
            let head = amqp::frame(rest, self.frame_max);
            let Some(head) = head.map_err(|e| violation(&e))? else { break };
            taken += head.bytes;
            let payload = rest.get(head.payload()).unwrap_or_default();
            match head.kind {
                FrameKind::Heartbeat => {}
                FrameKind::Method => {
                    let method = Method::parse(payload);
                    self.method(&mut slots, head, method.map_err(|e| violation(&e))?)?;
                }
                FrameKind::Header => self.header(&mut slots, head, payload)?,
                FrameKind::Body => match slots.get_mut(&head.channel) {
                    Some(Slot { main: Some(main), .. }) => {
                        let done = main.pack.body(payload)?;
                        done.into_iter().flatten().try_for_each(|d| main.deliver(d))?;
                    }
                    Some(Slot { probe: Some(probe), .. }) => probe.body(payload),
                    Some(_) | None => {}
                },
            }
        }
        if let Some(Slot { main: Some(main), .. }) = slots.get_mut(&MAIN)
            && let Some(delivery) = main.pack.flush()
        {
            main.deliver(delivery)?;
        }
        buffer.advance(taken);
        self.buffer = buffer;
        Ok(())
    }

    fn method(
        &mut self,
        slots: &mut HashMap<u16, Slot>,
        head: FrameHead,
        method: Method,
    ) -> Result<(), SourceError> {
        let shared = &self.shared;
        let channel = head.channel;
        match method {
            Method::ConnectionClose(why) => {
                shared.send_now(amqp::call(0, 10, 51, &[]));
                let mut main = slots.get_mut(&MAIN).and_then(|slot| slot.main.as_mut());
                if let Some(main) = &mut main
                    && let Some(delivery) = main.pack.flush()
                {
                    main.deliver(delivery)?;
                }
                let main = main.filter(|_| why.code == amqp::INTERNAL_ERROR);
                let crashed = main.and_then(|main| Some((main.crashed()?, main.is_filtered)));
                let is_asked = slots.values().any(|slot| slot.probe.is_some());
                Err(match crashed {
                    // With one message at a time nothing else comes while a chunk waits for an answer.
                    Some(_) if is_asked => unanswerable(&why, &shared.stream),
                    Some((at, filtered)) => undeliverable(at, filtered, &why, &shared.stream),
                    None => closed(&why, &shared.options, &shared.stream),
                })
            }
            Method::ChannelClose(why) => {
                shared.send_now(amqp::call(channel, 20, 41, &[]));
                end_channel(slots, channel, closed(&why, &shared.options, &shared.stream));
                Ok(())
            }
            Method::Cancel => {
                let what = "the broker ended the subscription: the stream was deleted, or its member on this node went away";
                end_channel(slots, channel, SourceError::unavailable(&shared.stream, what));
                Ok(())
            }
            Method::Deliver(delivered) => {
                if channel == MAIN {
                    self.announced = Some(delivered);
                } else if let Some(probe) = slots.get_mut(&channel).and_then(|s| s.probe.as_mut()) {
                    probe.announce(delivered);
                }
                Ok(())
            }
            Method::Other(20, 41) => {
                shared.freed(channel);
                Ok(())
            }
            Method::Other(60, 31) if channel == MAIN => self.cancelled(slots),
            other => {
                let code = match &other {
                    Method::Declared { .. } => (50, 11),
                    Method::Consuming { .. } => (60, 21),
                    Method::Other(class, method) => (*class, *method),
                    _ => return Ok(()),
                };
                let Some(slot) = slots.get_mut(&channel) else { return Ok(()) };
                if let (Some(main), Method::Consuming { tag }) = (&slot.main, &other) {
                    main.acks.confirmed(tag);
                }
                let waited = slot.waiting.take_if(|(class, method, _)| (*class, *method) == code);
                if let Some((_, _, waiting)) = waited {
                    // The caller may have stopped waiting.
                    drop(waiting.send(Ok(other)));
                }
                Ok(())
            }
        }
    }

    /// The consumer has ended, and another one begins where it was.
    fn cancelled(&self, slots: &HashMap<u16, Slot>) -> Result<(), SourceError> {
        let Some(main) = slots.get(&MAIN).and_then(|slot| slot.main.as_ref()) else {
            return Ok(());
        };
        let Some((at, first)) = main.pack.ahead() else {
            let what = "it ended a consumer within a message, or before the first one";
            return Err(self.shared.error(ErrorKind::Violation, what));
        };
        main.acks.cancelled(at, first);
        Ok(())
    }

    fn header(
        &mut self,
        slots: &mut HashMap<u16, Slot>,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), SourceError> {
        let shared = &self.shared;
        let read = amqp::content_header(payload);
        let (body, properties) = read.map_err(|e| shared.error(ErrorKind::Violation, e))?;
        let Some(slot) = slots.get_mut(&head.channel) else { return Ok(()) };
        if let Some(probe) = &mut slot.probe {
            return probe.header(properties, body);
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

fn end_channel(slots: &mut HashMap<u16, Slot>, channel: u16, why: SourceError) {
    let Some(mut slot) = slots.remove(&channel) else { return };
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
