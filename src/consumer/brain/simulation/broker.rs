//! The simulated broker: one stream that grows, is truncated, deleted and re-created, and one stored
//! offset. The consumer's real search for its position runs on it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::source::{
    Abilities, Activation, Bounds, Budget, ErrorKind, Feed, Link, Prefer, Source, SourceError,
};
use crate::sync::lock;
use crate::types::{Offset, Timestamp};
use crate::wire::chunk::testing::{Entry, chunk};
use crate::wire::chunk::{ProbedChunk, Watcher};

/// Unique to this message.
pub(super) type Id = u64;

/// A chunk, and its messages.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) probed: ProbedChunk,
    pub(super) bytes: Bytes,
    pub(super) ids: Vec<Id>,
    /// It is damaged on the broker's disk, and so each time that it is delivered.
    pub(super) is_rotten: bool,
    /// The broker's filter selects it.
    pub(super) is_selected: bool,
}

impl Stored {
    pub(super) fn first(&self) -> u64 {
        self.probed.first_offset().0
    }

    pub(super) fn next(&self) -> u64 {
        self.probed.next_offset().0
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) chunks: Vec<Stored>,
    /// Offset of the next published message.
    pub(super) next: u64,
    pub(super) held: Option<u64>,
    pub(super) exists: bool,
    /// Number of times the stream was created.
    pub(super) incarnation: u64,
    /// Messages of all incarnations.
    pub(super) published: Id,
    /// No node can be reached.
    pub(super) is_away: bool,
    /// The answering node lacks the last chunks.
    pub(super) is_behind: bool,
    /// The first offset while retention deletes: it moves afterwards, and until then readers that are
    /// under way find nothing behind a deleted chunk.
    pub(super) lagging: Option<u64>,
    /// Subscriptions get some of the chunks only.
    pub(super) is_filtered: bool,
}

impl State {
    pub(super) fn publish(&mut self, messages: u64) -> Vec<Id> {
        let ids: Vec<Id> = (self.published..self.published + messages).collect();
        self.published += messages;
        let entries: Vec<_> =
            ids.iter().map(|id| Entry::Simple(id.to_be_bytes().to_vec())).collect();
        let bytes = with_header(&chunk(&entries), self.incarnation, self.next);
        let mut watcher = Watcher::default();
        watcher.feed(&bytes);
        let probed = watcher.finish().unwrap();
        self.next += messages;
        let is_selected = !self.is_filtered || self.published.is_multiple_of(3);
        let stored = Stored { probed, bytes, ids: ids.clone(), is_rotten: false, is_selected };
        self.chunks.push(stored);
        ids
    }

    /// The first chunk that reaches this offset, and that a subscription gets.
    pub(super) fn reaching(&self, from: u64) -> Option<&Stored> {
        let first = self.chunks.first().map_or(0, Stored::first);
        if self.lagging.is_some_and(|lagging| (lagging..first).contains(&from)) {
            return None;
        }
        self.chunks.iter().find(|chunk| chunk.next() > from && chunk.is_selected)
    }

    fn seen(&self) -> &[Stored] {
        let hidden = if self.is_behind { 2 } else { 0 };
        &self.chunks[..self.chunks.len().saturating_sub(hidden)]
    }

    pub(super) fn bounds(&self) -> Bounds {
        let seen = self.seen();
        let last = seen.last().map(|chunk| Offset(chunk.next() - 1));
        Bounds {
            first: seen.first().map(|chunk| Offset(self.lagging.unwrap_or(chunk.first()))),
            tail: last.map_or(Tail::Empty, Tail::Offset),
        }
    }

    /// The offset from which a subscription gets chunks.
    pub(super) fn start(&self, start: Start) -> u64 {
        let first = |found: Option<&Stored>| found.map_or(self.next, Stored::first);
        match start {
            Start::First => first(self.chunks.first()),
            Start::Last => first(self.chunks.last()),
            Start::Next => self.next,
            Start::Offset(offset) => offset.0.max(first(self.chunks.first())).min(self.next),
            Start::Timestamp(at) => {
                first(self.chunks.iter().find(|c| c.probed.header.timestamp >= at))
            }
        }
    }

    /// The answer to a probe at this offset.
    pub(super) fn look(&self, from: u64) -> Option<ProbedChunk> {
        self.seen().iter().find(|chunk| chunk.next() > from).map(|chunk| chunk.probed)
    }
}

/// The test chunks all have one epoch and one first offset: sets others.
fn with_header(built: &Bytes, incarnation: u64, first: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(built.len());
    out.put_slice(&built[..8]);
    out.put_i64(i64::try_from(incarnation).unwrap());
    out.put_u64(incarnation);
    out.put_u64(first);
    out.put_slice(&built[32..]);
    out.freeze()
}

#[derive(Clone)]
pub(super) struct ModelSource {
    state: Arc<Mutex<State>>,
    activation: Activation,
}

impl ModelSource {
    pub(super) fn new(activation: Activation) -> ModelSource {
        ModelSource { state: Arc::default(), activation }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn check(&self) -> Result<MutexGuard<'_, State>, SourceError> {
        let state = self.state();
        match (state.is_away, state.exists) {
            (true, _) => Err(SourceError::new(ErrorKind::Connection, "no node answers")),
            (_, false) => Err(SourceError::new(ErrorKind::Missing, "there is no such stream")),
            _ => Ok(state),
        }
    }
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelSource")
    }
}

#[async_trait]
impl Source for ModelSource {
    async fn connect(&self, _: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        drop(self.check()?);
        Ok(Arc::new(self.clone()))
    }

    fn activation(&self) -> Activation {
        self.activation
    }

    fn is_filtered(&self) -> bool {
        self.state().is_filtered
    }
}

#[async_trait]
impl Link for ModelSource {
    fn abilities(&self) -> Abilities {
        Abilities { bounds: true, emptiness: true, probes: true, offsets: true }
    }

    fn node(&self) -> String {
        String::new()
    }

    fn version(&self) -> String {
        String::new()
    }

    async fn bounds(&self) -> Result<Option<Bounds>, SourceError> {
        Ok(Some(self.check()?.bounds()))
    }

    async fn chunk_at(&self, start: Start) -> Result<Option<ProbedChunk>, SourceError> {
        let state = self.check()?;
        let from = match start {
            Start::Last => state.seen().last().map_or(state.next, Stored::first),
            start => state.start(start),
        };
        Ok(state.look(from))
    }

    async fn nothing_selected(&self, from: Offset) -> Result<Option<ProbedChunk>, SourceError> {
        let state = self.check()?;
        let mut selected = state.seen().iter().filter(|chunk| chunk.is_selected);
        let is_selected = selected.any(|chunk| chunk.next() > from.0);
        Ok(state.seen().last().filter(|_| !is_selected).map(|chunk| chunk.probed))
    }

    async fn feed(&self, _: Start, _: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError> {
        unreachable!("the simulation delivers")
    }

    async fn stored(&self) -> Result<Option<Offset>, SourceError> {
        Ok(self.check()?.held.map(Offset))
    }

    async fn store(&self, _: Offset) -> Result<Option<Offset>, SourceError> {
        unreachable!("the simulation stores")
    }

    async fn ended(&self) -> SourceError {
        unreachable!("the simulation says so")
    }

    fn reason(&self) -> SourceError {
        unreachable!("the simulation says so")
    }

    async fn close(&self) {}
}

/// The time of the whole simulation.
pub(super) const WALL: Timestamp = Timestamp(0);
