//! A stream in memory, as a source for tests, with the abilities that a test chooses.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::{
    Abilities, Activation, Bounds, Budget, Delivery, ErrorKind, Event, Feed, Handover, Link,
    Prefer, Source, SourceError,
};
use crate::broker::{Admission, CreditQueue};
use crate::flow::lag::Tail;
use crate::flow::resume::{ChunkExtent, Evidence, Start};
use crate::sync::lock;
use crate::types::{ChunkId, Offset, Timestamp};
use crate::wire::chunk::testing::{Entry, chunk};
use crate::wire::chunk::{ProbedChunk, Watcher};

/// A transport with all abilities.
pub(crate) const ABLE: Abilities =
    Abilities { bounds: true, emptiness: true, probes: true, offsets: true };

/// Capacity of the event queue: more than any test needs.
const EVENTS_MAX: usize = 10_000;

/// A stream in memory.
#[derive(Clone)]
pub(crate) struct Scripted(Arc<Shared>);

struct Shared {
    abilities: Abilities,
    activation: Activation,
    state: Mutex<State>,
    /// Number of changes of the state.
    changed: watch::Sender<u64>,
    /// Number of cuts: links made before the last cut have ended.
    cuts: watch::Sender<u64>,
    /// Whether the subscription is to be the active one, where the broker decides.
    active: watch::Sender<bool>,
    /// Counts subscriptions.
    subscriptions: watch::Sender<u64>,
    /// Counts changes to passive that were answered.
    yields: watch::Sender<u64>,
}

struct State {
    chunks: Vec<(ProbedChunk, Bytes)>,
    /// Offset of the next message.
    next: Offset,
    stored: Option<Offset>,
    is_missing: bool,
}

impl Scripted {
    pub(crate) fn new(abilities: Abilities) -> Scripted {
        Scripted::activated(abilities, Activation::AtOnce)
    }

    /// The same, and the test chooses which subscription is the active one.
    pub(crate) fn activated(abilities: Abilities, activation: Activation) -> Scripted {
        let state = State { chunks: Vec::new(), next: Offset(0), stored: None, is_missing: false };
        let (changed, cuts) = (watch::Sender::new(0), watch::Sender::new(0));
        let state = Mutex::new(state);
        let active = watch::Sender::new(true);
        let (subscriptions, yields) = (watch::Sender::new(0), watch::Sender::new(0));
        let shared =
            Shared { abilities, activation, state, changed, cuts, active, subscriptions, yields };
        Scripted(Arc::new(shared))
    }

    /// A stream that does not exist.
    pub(crate) fn missing() -> Scripted {
        let scripted = Scripted::new(ABLE);
        scripted.0.change(|state| state.is_missing = true);
        scripted
    }

    /// Publishes one chunk, written at this time.
    pub(crate) fn publish(&self, messages: &[Vec<u8>], written: Timestamp) {
        self.0.change(|state| {
            let bytes = chunk_of(messages, state.next, written);
            let mut watcher = Watcher::default();
            watcher.feed(&bytes);
            let probed = watcher.finish().expect("it was built right");
            state.next = probed.next_offset();
            state.chunks.push((probed, bytes));
        });
    }

    /// Drops the first chunks, as retention does.
    pub(crate) fn truncate(&self, chunks: usize) {
        self.0.change(|state| drop(state.chunks.drain(..chunks)));
    }

    /// Sets or removes the stored offset.
    pub(crate) fn set_stored(&self, offset: Option<Offset>) {
        self.0.change(|state| state.stored = offset);
    }

    /// The stored offset, if any.
    pub(crate) fn stored(&self) -> Option<Offset> {
        self.0.state().stored
    }

    /// Has the subscription become active, or passive, where the broker decides.
    pub(crate) fn set_active(&self, active: bool) {
        self.0.active.send_replace(active);
    }

    /// Waits for this many subscriptions.
    pub(crate) async fn subscribed(&self, times: u64) {
        drop(self.0.subscriptions.subscribe().wait_for(|count| *count >= times).await);
    }

    /// Waits until this many changes to passive were answered.
    pub(crate) async fn yielded(&self, times: u64) {
        drop(self.0.yields.subscribe().wait_for(|count| *count >= times).await);
    }

    /// Ends all links.
    pub(crate) fn cut(&self) {
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

fn chunk_of(messages: &[Vec<u8>], first: Offset, written: Timestamp) -> Bytes {
    let entries: Vec<_> = messages.iter().cloned().map(Entry::Simple).collect();
    let bytes = chunk(&entries);
    // The timestamp and the first offset are not the defaults of the test builder.
    let mut out = BytesMut::with_capacity(bytes.len());
    out.put_slice(&bytes[..8]);
    out.put_i64(written.0);
    out.put_slice(&bytes[16..24]);
    out.put_u64(first.0);
    out.put_slice(&bytes[32..]);
    out.freeze()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_modify(|changes| *changes += 1);
    }
}

impl State {
    /// The offset from which on chunks are wanted.
    fn start(&self, start: Start) -> Offset {
        let first = |found: Option<&(ProbedChunk, Bytes)>| {
            found.map_or(self.next, |(probed, _)| probed.first_offset())
        };
        match start {
            Start::First => first(self.chunks.first()),
            Start::Last => first(self.chunks.last()),
            Start::Next => self.next,
            Start::Offset(offset) => offset.min(self.next),
            Start::Timestamp(at) => {
                first(self.chunks.iter().find(|(chunk, _)| chunk.header.timestamp >= at))
            }
        }
    }

    /// The first chunk that reaches this offset.
    fn chunk(&self, from: Offset) -> Option<&(ProbedChunk, Bytes)> {
        self.chunks.iter().find(|(chunk, _)| chunk.next_offset() > from)
    }
}

#[async_trait]
impl Source for Scripted {
    async fn connect(&self, _: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        if self.0.state().is_missing {
            return Err(SourceError::new(ErrorKind::Missing, "there is no such stream"));
        }
        let cut = *self.0.cuts.borrow();
        let overrun = Arc::new(watch::Sender::new(None));
        Ok(Arc::new(ScriptedLink { shared: Arc::clone(&self.0), cut, overrun }))
    }

    fn activation(&self) -> Activation {
        self.0.activation
    }
}

struct ScriptedLink {
    shared: Arc<Shared>,
    /// Number of cuts when it was made.
    cut: u64,
    /// Error for a chunk that did not fit.
    overrun: Arc<watch::Sender<Option<SourceError>>>,
}

impl ScriptedLink {
    fn check(&self) -> Result<(), SourceError> {
        let over = *self.shared.cuts.borrow() > self.cut || self.overrun.borrow().is_some();
        if over { Err(self.reason()) } else { Ok(()) }
    }
}

#[async_trait]
impl Link for ScriptedLink {
    fn abilities(&self) -> Abilities {
        self.shared.abilities
    }

    fn node(&self) -> String {
        "memory".to_owned()
    }

    fn version(&self) -> String {
        "0".to_owned()
    }

    async fn bounds(&self) -> Result<Option<Bounds>, SourceError> {
        self.check()?;
        let state = self.shared.state();
        let bounds = Bounds {
            first: state.chunks.first().map(|(chunk, _)| chunk.first_offset()),
            tail: state.chunks.last().map_or(Tail::Empty, |(chunk, _)| {
                Tail::Offset(chunk.next_offset().prev().unwrap_or(Offset(0)))
            }),
        };
        Ok(self.shared.abilities.bounds.then_some(bounds))
    }

    async fn chunk_at(&self, start: Start) -> Result<Option<ProbedChunk>, SourceError> {
        self.check()?;
        let state = self.shared.state();
        let found = state.chunk(state.start(start)).map(|(probed, _)| *probed);
        Ok(found.filter(|_| self.shared.abilities.probes))
    }

    /// Where a chunk is there for it: an empty stream is slow to answer here.
    async fn resolve(&self, start: Start) -> Result<Option<Offset>, SourceError> {
        self.check()?;
        let state = self.shared.state();
        let known = !state.chunks.is_empty();
        Ok(known.then(|| state.start(start)).filter(|_| !self.shared.abilities.probes))
    }

    /// Record by record, as a source shows them that knows no chunks.
    async fn evidence(&self, position: Offset) -> Result<Evidence, SourceError> {
        self.check()?;
        let state = self.shared.state();
        let Some((chunk, _)) = state.chunk(position) else { return Ok(Evidence::NoChunk(None)) };
        let first_offset = position.max(chunk.first_offset());
        let epoch = ChunkId::epoch_of_record(0);
        let id = ChunkId { first_offset, epoch, ..chunk.id() };
        Ok(Evidence::Chunk(ChunkExtent { id, records: 1 }))
    }

    async fn feed(&self, start: Start, budget: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError> {
        self.check()?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let credit = Arc::new(CreditQueue::default());
        budget.open(1);
        budget.attach(&credit, 0);
        let (shared, budget, cut) = (Arc::clone(&self.shared), Arc::clone(budget), self.cut);
        let overrun = Arc::clone(&self.overrun);
        let from = shared.state().start(start);
        let mut pump =
            Pump { shared, budget: Arc::clone(&budget), credit, sender, from, cut, overrun };
        let task = tokio::spawn(async move { pump.run().await }).abort_handle();
        self.shared.subscriptions.send_modify(|count| *count += 1);
        Ok(Box::new(ScriptedFeed { events, budget, task }))
    }

    async fn stored(&self) -> Result<Option<Offset>, SourceError> {
        self.check()?;
        Ok(self.shared.state().stored.filter(|_| self.shared.abilities.offsets))
    }

    async fn store(&self, offset: Offset) -> Result<Option<Offset>, SourceError> {
        self.check()?;
        if !self.shared.abilities.offsets {
            return Ok(None);
        }
        self.shared.change(|state| state.stored = Some(offset));
        Ok(Some(offset))
    }

    async fn ended(&self) -> SourceError {
        let mut cuts = self.shared.cuts.subscribe();
        let mut overrun = self.overrun.subscribe();
        // The senders live as long as this link.
        tokio::select! {
            _ = cuts.wait_for(|cuts| *cuts > self.cut) => {}
            _ = overrun.wait_for(Option::is_some) => {}
        }
        self.reason()
    }

    fn reason(&self) -> SourceError {
        let cut = || SourceError::new(ErrorKind::Connection, "the connection was cut");
        self.overrun.borrow().clone().unwrap_or_else(cut)
    }

    async fn close(&self) {}
}

/// Delivers chunks as long as there is credit.
struct Pump {
    shared: Arc<Shared>,
    budget: Arc<Budget>,
    credit: Arc<CreditQueue>,
    sender: mpsc::Sender<Event>,
    from: Offset,
    cut: u64,
    overrun: Arc<watch::Sender<Option<SourceError>>>,
}

impl Pump {
    async fn run(&mut self) {
        let mut cuts = self.shared.cuts.subscribe();
        let cut = self.cut;
        tokio::select! {
            () = self.deliver() => {}
            _ = cuts.wait_for(|cuts| *cuts > cut) => {}
        }
        self.budget.close();
    }

    async fn deliver(&mut self) {
        if self.shared.activation == Activation::AtOnce {
            return self.deliver_all().await;
        }
        let mut active = self.shared.active.subscribe();
        loop {
            drop(active.wait_for(|active| *active).await);
            let Some(Some(from)) = self.activate(true).await else { return };
            self.from = from;
            tokio::select! {
                () = self.deliver_all() => return,
                _ = active.wait_for(|active| !*active) => {}
            }
            if self.activate(false).await.is_none() {
                return;
            }
            self.shared.yields.send_modify(|yields| *yields += 1);
        }
    }

    /// Tells the subscription, and waits for the answer: where to begin, where that was said.
    async fn activate(&self, active: bool) -> Option<Option<Offset>> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // What "next" means is decided when the answer is given.
        let turn = Handover::new(active, move |start| {
            let from = start.map(|start| shared.state().start(start));
            answer.send(from).unwrap_or_default();
        });
        drop(self.sender.send(Event::Activation(turn)).await);
        answered.await.ok()
    }

    async fn deliver_all(&mut self) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            while self.budget.has_credit() && self.deliver_one() {}
            if self.overrun.borrow().is_some() {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = self.credit.ready() => drop(self.credit.take()),
            }
        }
    }

    fn deliver_one(&mut self) -> bool {
        let found = self.shared.state().chunk(self.from).cloned();
        let Some((probed, chunk)) = found else { return false };
        let bytes = chunk.len() as u64;
        let refused = match self.budget.admit(bytes) {
            Admission::Granted => None,
            Admission::Overrun => Some(ErrorKind::Overrun),
            Admission::TooLarge => Some(ErrorKind::TooLarge),
        };
        if let Some(kind) = refused {
            let what = format!("a chunk of {bytes} bytes does not fit");
            self.overrun.send_replace(Some(SourceError::new(kind, what)));
            return false;
        }
        self.from = probed.next_offset();
        let permit = self.budget.take(bytes);
        self.sender.try_send(Event::Chunk(Delivery { chunk, committed: None, permit })).is_ok()
    }
}

struct ScriptedFeed {
    events: mpsc::Receiver<Event>,
    budget: Arc<Budget>,
    task: AbortHandle,
}

impl Feed for ScriptedFeed {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }

    fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Drop for ScriptedFeed {
    fn drop(&mut self) {
        self.task.abort();
        self.budget.close();
    }
}
