//! Sends messages, waits for confirmations, and resends.
//!
//! Invariants: a message is dropped only after the broker has confirmed or refused it; unconfirmed
//! messages (and their bytes) stay within the limits; a new connection first resends, in order, the
//! messages that the old one left unconfirmed. One loop waits in one place, then handles what
//! happened.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rabbitmq_stream_client::types::{Message, ResponseCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::PublishCounts;
use super::input::{Item, Run};
use super::session::{Event, Session, SessionError, Target};
use crate::cli::exit::Failure;
use crate::cli::progress::Progress;

/// Largest frame in bytes, except for a single larger message. Below the usual frame_max.
const FRAME_BYTES_MAX: usize = 512 << 10;
/// Bytes of a message in a frame beyond its body: lengths, ids, AMQP.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Most bytes of unconfirmed bodies, however many messages are allowed (except a single larger
/// one).
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Least number of portions per second when the rate is limited.
const PORTIONS_PER_SECOND: u64 = 20;
/// First and longest pause between two attempts to connect.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(5);

/// Limits of a run.
pub(super) struct Limits {
    pub(super) batch_messages: u32,
    pub(super) in_flight_messages: u32,
    pub(super) per_second: Option<u64>,
    pub(super) confirm_within: Duration,
    pub(super) give_up_after: Duration,
}

/// Sends messages until each is confirmed or refused.
pub(super) struct Sender {
    target: Target,
    limits: Limits,
    session: Option<Session>,
    /// Sent but not confirmed, by id.
    open: BTreeMap<u64, Item>,
    open_bytes: usize,
    /// Waiting to be sent.
    waiting: VecDeque<Item>,
    /// Number of messages sent for the first time.
    sent: u64,
    counts: PublishCounts,
    refusal: Option<ResponseCode>,
    /// Time of the last confirmation, or at which there was nothing to confirm.
    progressed: Instant,
    started: Instant,
    /// Pause before the next attempt to connect.
    pause: Duration,
    /// Reason why the last session ended or could not be opened.
    trouble: String,
}

enum Seen {
    Event(Event),
    Input(Option<Run>),
    /// More messages are due.
    Due,
    /// No confirmation came for too long.
    Silence,
}

impl Sender {
    pub(super) fn new(target: Target, limits: Limits) -> Sender {
        Sender {
            target,
            limits,
            session: None,
            open: BTreeMap::new(),
            open_bytes: 0,
            waiting: VecDeque::new(),
            sent: 0,
            counts: PublishCounts::default(),
            refusal: None,
            progressed: Instant::now(),
            started: Instant::now(),
            pause: RECONNECT_AFTER,
            trouble: String::new(),
        }
    }

    pub(super) fn counts(&self) -> PublishCounts {
        let unconfirmed = (self.open.len() + self.waiting.len()) as u64;
        PublishCounts { unconfirmed, ..self.counts }
    }

    /// The broker's reason for refusing messages; `None` if it refused none.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.as_ref().map(|code| format!("{code:?}"))
    }

    /// First connection: tries each address once, so that a mistake is reported at once.
    pub(super) async fn connect(&mut self, create: bool) -> Result<(), Failure> {
        match self.open_session(create).await {
            Ok(session) => self.session = Some(session),
            Err(error) => return Err(Failure::Unavailable(error.to_string())),
        }
        self.started = Instant::now();
        self.progressed = self.started;
        Ok(())
    }

    /// Tries each address. Returns the last error; a permanent one ends the attempts.
    async fn open_session(&self, create: bool) -> Result<Session, SessionError> {
        let in_flight = self.limits.in_flight_messages as usize;
        let mut last = SessionError::Permanent("there is no address".to_owned());
        for address in &self.target.broker.addresses {
            match Session::open(&self.target, address, create, in_flight).await {
                Ok(session) => return Ok(session),
                Err(error @ SessionError::Permanent(_)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends all messages of the input, and waits until all of them are settled.
    pub(super) async fn run(
        &mut self,
        mut input: mpsc::Receiver<Run>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut more = true;
        loop {
            if self.session.is_none() {
                self.reconnect(progress).await?;
            }
            if let Err(error) = self.send_what_is_due().await {
                self.lose(progress, &error.to_string());
                continue;
            }
            if !more && self.open.is_empty() && self.waiting.is_empty() {
                break;
            }
            match self.wait(&mut input, more).await {
                Seen::Input(Some(run)) => {
                    if self.open.is_empty() {
                        // Until now there was nothing to wait for.
                        self.progressed = Instant::now();
                    }
                    self.waiting.extend(run);
                }
                Seen::Input(None) => more = false,
                Seen::Due => {}
                Seen::Silence => {
                    let within = self.limits.confirm_within;
                    self.lose(progress, &format!("no confirmation within {within:?}"));
                }
                Seen::Event(Event::Confirmed(ids)) => self.confirmed(&ids, progress),
                Seen::Event(Event::Refused(refused)) => self.refused(refused, progress),
                Seen::Event(Event::Lost(why)) => self.lose(progress, why),
            }
        }
        if let Some(session) = self.session.take() {
            session.close().await;
        }
        Ok(())
    }

    /// The only place that waits while there is a session.
    async fn wait(&mut self, input: &mut mpsc::Receiver<Run>, more: bool) -> Seen {
        let take = more && self.waiting.is_empty();
        let due = if self.waiting.is_empty() || self.is_full() { None } else { Some(self.due()) };
        let silent = (!self.open.is_empty()).then(|| self.progressed + self.limits.confirm_within);
        let Some(session) = &mut self.session else { return Seen::Due };
        tokio::select! {
            // Confirmations first: they make room.
            biased;
            event = session.event() => Seen::Event(event),
            () = until(due) => Seen::Due,
            run = input.recv(), if take => Seen::Input(run),
            () = until(silent) => Seen::Silence,
        }
    }

    fn is_full(&self) -> bool {
        self.open.len() >= self.limits.in_flight_messages as usize
            || (self.open_bytes >= IN_FLIGHT_BYTES_MAX && !self.open.is_empty())
    }

    /// Time at which the next message may be sent, by the rate.
    fn due(&self) -> Instant {
        match self.limits.per_second {
            None => self.started,
            Some(rate) => {
                let portion = (rate / PORTIONS_PER_SECOND).clamp(1, self.portion_max() as u64);
                let sent = self.sent.next_multiple_of(portion);
                self.started + Duration::from_secs_f64(sent as f64 / rate as f64)
            }
        }
    }

    fn portion_max(&self) -> usize {
        self.limits.batch_messages as usize
    }

    async fn send_what_is_due(&mut self) -> Result<(), SessionError> {
        while !self.waiting.is_empty() && !self.is_full() && self.due() <= Instant::now() {
            let batch = self.take_batch();
            self.publish(batch).await?;
        }
        Ok(())
    }

    /// Moves the next messages from `waiting` to `open`, as many as fit into one frame.
    fn take_batch(&mut self) -> Vec<Message> {
        let room = self.limits.in_flight_messages as usize - self.open.len();
        let by_rate = self.limits.per_second.map_or(usize::MAX, |rate| {
            // All messages due since the start, so that a late wake-up is made up for.
            let due = (self.started.elapsed().as_secs_f64() * rate as f64) as u64 + 1;
            usize::try_from(due.saturating_sub(self.sent)).unwrap_or(usize::MAX).max(1)
        });
        let most = self.portion_max().min(room).min(by_rate);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < most
            && let Some(item) = self.waiting.pop_front()
        {
            bytes += item.bytes + MESSAGE_OVERHEAD_BYTES;
            if bytes > FRAME_BYTES_MAX && !batch.is_empty() {
                self.waiting.push_front(item);
                break;
            }
            self.sent += 1;
            batch.push(item.message.clone());
            self.open_bytes += item.bytes;
            self.open.insert(item.id, item);
        }
        batch
    }

    async fn publish(&mut self, batch: Vec<Message>) -> Result<(), SessionError> {
        match &self.session {
            Some(session) => session.publish(batch).await,
            None => Err(SessionError::Transient("there is no connection".to_owned())),
        }
    }

    fn settle(&mut self, id: u64) -> bool {
        match self.open.remove(&id) {
            Some(item) => {
                self.open_bytes -= item.bytes;
                true
            }
            // Sent twice and confirmed twice.
            None => false,
        }
    }

    fn confirmed(&mut self, ids: &[u64], progress: &Progress) {
        self.progressed = Instant::now();
        self.pause = RECONNECT_AFTER;
        for id in ids {
            self.counts.confirmed += u64::from(self.settle(*id));
        }
        progress.at(self.counts.confirmed);
    }

    fn refused(&mut self, refused: Vec<(u64, ResponseCode)>, progress: &Progress) {
        for (id, code) in refused {
            match code {
                // This publisher no longer exists; a new connection may get another.
                ResponseCode::PublisherDoesNotExist
                | ResponseCode::StreamNotAvailable
                | ResponseCode::InternalError => {
                    return self.lose(progress, &format!("the broker answered {code:?}"));
                }
                code => {
                    self.progressed = Instant::now();
                    self.counts.failed += u64::from(self.settle(id));
                    self.refusal.get_or_insert(code);
                }
            }
        }
    }

    fn lose(&mut self, progress: &Progress, why: &str) {
        if let Some(session) = self.session.take() {
            let open = self.open.len();
            progress.say(&format!("{why}; reconnecting to send {open} messages again"));
            tokio::spawn(session.close());
        }
        self.trouble = why.to_owned();
    }

    /// Opens a new session, and resends the unconfirmed messages on it. Only a confirmation resets
    /// the pauses and the time limit: a session without one does not count.
    async fn reconnect(&mut self, progress: &Progress) -> Result<(), Failure> {
        while self.session.is_none() {
            if self.progressed.elapsed() >= self.limits.give_up_after {
                return Err(self.given_up());
            }
            tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            self.pause = (self.pause * 2).min(RECONNECT_AFTER_MAX);
            match self.open_session(false).await {
                Ok(session) => {
                    self.session = Some(session);
                    if let Err(error) = self.send_again().await {
                        self.lose(progress, &error.to_string());
                    }
                }
                Err(error) => {
                    self.trouble = error.to_string();
                    if matches!(error, SessionError::Permanent(_)) {
                        return Err(self.given_up());
                    }
                    progress.say(&self.trouble);
                }
            }
        }
        Ok(())
    }

    fn given_up(&self) -> Failure {
        let open = self.open.len() + self.waiting.len();
        let largest = self.open.values().map(|item| item.bytes).max().unwrap_or(0);
        let hint = if largest > FRAME_BYTES_MAX {
            format!(
                ". The largest of them has {largest} bytes: is that more than the broker's \
                 stream.frame_max?"
            )
        } else {
            String::new()
        };
        Failure::Unavailable(format!(
            "{open} messages for stream {:?} are not confirmed; stopped after {:.0} s without \
             progress: {}{hint}",
            self.target.stream,
            self.progressed.elapsed().as_secs_f64(),
            self.trouble
        ))
    }

    async fn send_again(&mut self) -> Result<(), SessionError> {
        let ids: Vec<u64> = self.open.keys().copied().collect();
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for id in rest.iter().take(self.portion_max()) {
                let Some(item) = self.open.get(id) else { continue };
                bytes += item.bytes + MESSAGE_OVERHEAD_BYTES;
                if bytes > FRAME_BYTES_MAX && !batch.is_empty() {
                    break;
                }
                batch.push(item.message.clone());
            }
            rest = &rest[batch.len()..];
            self.counts.sent_again += batch.len() as u64;
            self.publish(batch).await?;
        }
        Ok(())
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
