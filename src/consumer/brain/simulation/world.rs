//! One consumer among failures: carries out the brain's actions late, lets some of them fail, and checks
//! the invariants at each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::broker::{Id, ModelSource, Stored, WALL};
use super::sink::{Kind, Medium, Task};
use crate::consumer::brain::defect::Defect;
use crate::consumer::brain::{
    Action, Brain, Connect, Event, Moment, Note, Question, StoreEnd, Surroundings,
};
use crate::consumer::intake::Inflated;
use crate::consumer::orders::Message;
use crate::consumer::resumption::Own;
use crate::consumer::spec::{Begin, OnBad, Spec, testing};
use crate::flow::beginning::Memory;
use crate::flow::resume::{Lost, OnLost, Start};
use crate::flow::{commit, cutter};
use crate::source::{Activation, ErrorKind, SourceError};
use crate::types::{Checkpoint, Offset};

pub(super) const ORDERS_MAX: usize = 3;
const BUDGET_BYTES: u64 = 600;

/// A damaged chunk must be read at least this often before it is given up.
const READS_WANTED: usize = 3;

/// A running operation.
pub(super) enum Attempt {
    Connect(Connect),
    Resume(Own),
    Verify(Checkpoint),
}

pub(super) struct ModelLink {
    pub(super) incarnation: u64,
    /// The offset from which chunks arrive.
    pub(super) from: Option<u64>,
    /// Chunks that have arrived.
    pub(super) arrived: VecDeque<Stored>,
    pub(super) has_ended: bool,
    /// The broker waits for an answer.
    pub(super) awaits_answer: bool,
    /// Time since which it waits for a consumer that is to become passive.
    pub(super) yields_since: Option<Instant>,
    /// Since when it waits for one that is to become active.
    pub(super) activates_since: Option<Instant>,
    /// The brain wants no more events of it.
    pub(super) is_stopped: bool,
}

/// If the broker waits longer than this for an answer, it closes the connection after 60 s, and the next
/// active consumer begins that late.
const ANSWER_MAX: Duration = Duration::from_secs(50);

pub(super) struct Flying {
    pub(super) checkpoint: Checkpoint,
    pub(super) incarnation: u64,
    pub(super) is_lost: bool,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) now: Instant,
    pub(super) source: ModelSource,
    pub(super) spec: Arc<Spec>,
    pub(super) brain: Brain<u32>,
    pub(super) medium: Medium,
    pub(super) task: Option<Task>,
    pub(super) is_opening: bool,
    /// The state file.
    pub(super) remembered: Option<Memory>,
    pub(super) attempt: Option<Attempt>,
    pub(super) asking: Option<(Offset, Offset)>,
    /// A question about the filter, and how many chunks had arrived.
    pub(super) passing: Option<(Question, usize)>,
    pub(super) flying: Option<Flying>,
    pub(super) link: Option<ModelLink>,
    pub(super) waiting: BTreeSet<u32>,
    asked: u32,
    held_bytes: Arc<AtomicU64>,
    /// The sink fails at times.
    pub(super) is_troubled: bool,
    /// The sink is stuck.
    pub(super) is_stuck: bool,
    /// Nor does it open.
    pub(super) never_opens: bool,
    /// The sink's position when it was opened.
    pub(super) opened_at: Option<Checkpoint>,
    /// Rows before this one were written by an earlier run.
    pub(super) run_began_at: usize,
    /// Dropped by retention before they were durable.
    pub(super) evicted: BTreeMap<Id, u64>,
    /// Chunks that were delivered damaged and not taken since, one entry for each delivery: first offset, and
    /// the one after the last.
    pub(super) damaged: Vec<(u64, u64)>,
    /// These need not arrive: they were left out by policy, or their stream was deleted.
    pub(super) exempt: BTreeSet<Id>,
    pub(super) has_truncated: bool,
    pub(super) was_behind: bool,
    /// A policy had the stream read from its first message, which may have been read before.
    pub(super) has_new_history: bool,
    /// The highest offset that the brain knows to be stored in this run.
    pub(super) confirmed: Option<u64>,
    /// A store may be needless: nothing new is durable.
    pub(super) may_give_up: bool,
    /// No offset of the new beginning is stored yet.
    may_store_lower: bool,
    defect: Option<Defect>,
    /// Every event and action is printed.
    pub(super) is_traced: bool,
}

struct Permit {
    held: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

pub(super) fn refused() -> SourceError {
    SourceError::new(ErrorKind::Connection, "the connection broke")
}

impl World {
    pub(super) fn new(seed: u64, defect: Option<Defect>) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let activation =
            [Activation::AtOnce, Activation::AtOnce, Activation::ByBroker][random.usize(0..3)];
        let source = ModelSource::new(activation);
        (source.state().exists, source.state().incarnation) = (true, 1);
        source.state().is_filtered = random.u32(0..3) == 0;
        let second = Duration::from_secs(1);
        let spec = Arc::new(Spec {
            begin: Begin::At([Start::First, Start::First, Start::Next][random.usize(0..3)]),
            on_lost: [OnLost::First, OnLost::First, OnLost::Halt][random.usize(0..3)],
            on_bad: OnBad::Skip,
            commit: commit::Policy { every_messages: 10, every: 5 * second },
            batch: cutter::BatchLimits { max_messages: 6, max_bytes: 1 << 20, max_age: second },
            wind_up_after: 10 * second,
            backoff_max: 4 * second,
            source: Arc::new(source.clone()),
            ..testing::spec(Path::new("/nowhere"))
        });
        let kind = [Kind::KeepsPosition, Kind::AtLeastOnce, Kind::Holds][random.usize(0..3)];
        let now = Instant::now();
        World {
            brain: brain_of(&spec, seed, now, defect),
            random,
            now,
            source,
            spec,
            medium: Medium { kind, rows: Vec::new(), position: None, skipped: BTreeSet::new() },
            task: None,
            is_opening: false,
            remembered: None,
            attempt: None,
            asking: None,
            passing: None,
            flying: None,
            link: None,
            waiting: BTreeSet::new(),
            asked: 0,
            held_bytes: Arc::default(),
            is_troubled: false,
            is_stuck: false,
            never_opens: false,
            opened_at: None,
            run_began_at: 0,
            evicted: BTreeMap::new(),
            damaged: Vec::new(),
            has_new_history: false,
            confirmed: None,
            may_give_up: false,
            may_store_lower: false,
            exempt: BTreeSet::new(),
            has_truncated: false,
            was_behind: false,
            defect,
            is_traced: std::env::var("RILLWAY_TRACE").is_ok(),
        }
    }

    /// Begins a new run, after the end or a crash of the one before.
    pub(super) fn run_anew(&mut self) {
        (self.task, self.attempt, self.asking, self.link) = (None, None, None, None);
        (self.flying, self.passing) = (None, None);
        (self.may_give_up, self.opened_at) = (false, self.medium.position);
        self.confirmed = None;
        self.damaged.clear();
        self.is_opening = false;
        self.waiting.clear();
        let seed = self.random.u64(..);
        self.brain = brain_of(&self.spec, seed, self.now, self.defect);
        assert_eq!(self.held_bytes.load(Ordering::Relaxed), 0, "memory is held after a run");
    }

    pub(super) fn durable(&self) -> BTreeSet<Id> {
        self.medium.rows.iter().map(|(_, id)| *id).collect()
    }

    /// Whether something of this incarnation is durable, or the stream is the first of its name.
    pub(super) fn has_read_this_incarnation(&self) -> bool {
        let durable = self.durable();
        let state = self.source.state();
        let mut ids = state.chunks.iter().flat_map(|chunk| &chunk.ids);
        state.incarnation == 1 || ids.any(|id| durable.contains(id))
    }

    pub(super) fn is_exempt(&self, id: Id) -> bool {
        self.exempt.contains(&id) || self.medium.skipped.contains(&id)
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    fn has_credit(&self) -> bool {
        self.held_bytes() < BUDGET_BYTES
    }

    fn next_chunk(&self) -> Option<u64> {
        let link = self.link.as_ref().filter(|link| !link.has_ended)?;
        let from = link.from?;
        if let Some(arrived) = link.arrived.front() {
            return Some(arrived.first()).filter(|_| self.has_credit());
        }
        let state = self.source.state();
        let found = state.reaching(from).filter(|_| state.incarnation == link.incarnation);
        found.filter(|_| self.has_credit()).map(|chunk| chunk.first())
    }

    /// One turn of the loop around the brain.
    pub(super) fn due(&mut self) {
        let waiting = self.next_chunk().is_some();
        self.tell(Event::Due(Surroundings { credit: self.has_credit(), waiting }));
        let since = self.link.as_ref().and_then(|link| link.yields_since.or(link.activates_since));
        if let Some(since) = since {
            assert!(self.now - since < ANSWER_MAX, "the broker waits for an answer");
        }
    }

    pub(super) fn tell(&mut self, event: Event<u32>) {
        let now = Moment { at: self.now, wall: WALL };
        if self.is_traced && !matches!(event, Event::Due(_)) {
            eprintln!("{}", super::trace::event(&event));
        }
        let mut actions = Vec::new();
        self.brain.apply(event, now, &mut actions);
        for action in actions {
            if self.is_traced {
                eprintln!("    {}", super::trace::action(&action));
            }
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action<u32>) {
        match action {
            Action::OpenSink => {
                assert!(self.task.is_none() && !self.is_opening, "two sinks are open");
                let by_broker = self.spec.source_is_by_broker();
                let active = self.link.as_ref().is_some_and(|link| link.awaits_answer);
                assert!(!by_broker || active, "a passive consumer opens its sink");
                self.is_opening = true;
            }
            Action::AbortOpening => self.is_opening = false,
            Action::CloseSink => {
                let task = self.task.as_mut().expect("a sink that is closed is open");
                task.is_closing = true;
            }
            Action::AbortSink => {
                assert!(self.task.take().is_some(), "a sink that is aborted is there");
            }
            Action::Write(order) => {
                let task = self.task.as_mut().expect("a batch is for a sink that is open");
                assert!(!task.is_closing, "a batch for a sink that closes");
                assert!(task.orders() < ORDERS_MAX, "more batches than the sink takes");
                task.queue.push_back(Message::Write(order));
            }
            Action::Flush => self.task.as_mut().unwrap().queue.push_back(Message::Flush),
            Action::Restart => {
                let task = self.task.as_mut().unwrap();
                assert!(task.is_idle(), "a new history while batches are under way");
                task.queue.push_back(Message::Restart);
            }
            Action::StopSink => self.task.iter_mut().for_each(Task::stop),
            Action::Connect(connect) => {
                self.disconnect();
                self.attempt = Some(Attempt::Connect(*connect));
            }
            Action::Resume(own) => self.attempt = Some(Attempt::Resume(*own)),
            Action::Verify(position) => self.attempt = Some(Attempt::Verify(position)),
            Action::StopReading => {
                (self.asking, self.passing) = (None, None);
                if let Some(link) = &mut self.link {
                    (link.from, link.is_stopped) = (None, true);
                }
            }
            Action::Disconnect => self.disconnect(),
            Action::AnswerActivation(start) => self.on_answer(start),
            Action::Ask { from, to } => self.asking = Some((from, to)),
            Action::Pass(question) => {
                let waiting = self.arrive();
                self.passing = Some((question, waiting));
            }
            Action::Store(checkpoint) => self.begin_store(checkpoint),
            Action::Answer(caller, _) => {
                assert!(self.waiting.remove(&caller), "caller {caller} was answered twice");
            }
            Action::Note(note) => self.on_note(note),
        }
    }

    fn disconnect(&mut self) {
        (self.attempt, self.asking, self.link) = (None, None, None);
        self.passing = None;
        let Some(flying) = self.flying.as_mut().filter(|flying| !flying.is_lost) else { return };
        flying.is_lost = true;
        let mut state = self.source.state();
        if flying.incarnation == state.incarnation && state.exists && self.random.bool() {
            // It was already sent.
            state.held = Some(flying.checkpoint.offset.0);
        }
    }

    fn on_answer(&mut self, start: Option<Start>) {
        let link = self.link.as_mut().expect("an answer is for a connection");
        assert!(link.awaits_answer, "an answer that nobody waits for");
        (link.awaits_answer, link.is_stopped) = (false, false);
        (link.yields_since, link.activates_since) = (None, None);
        match start {
            Some(start) => link.from = Some(self.source.state().start(start)),
            None => {
                assert!(self.task.is_none(), "another one becomes active while the sink is open");
                assert!(self.flying.is_none(), "another one becomes active during a store");
            }
        }
    }

    /// Everything up to the offset is durable, or need not arrive.
    fn begin_store(&mut self, checkpoint: Checkpoint) {
        assert!(self.flying.is_none(), "two stores at once");
        let link = self.link.as_ref().expect("an offset is stored on a connection");
        let durable = self.durable();
        let state = self.source.state();
        if link.incarnation == state.incarnation && !link.has_ended {
            let offset = checkpoint.offset.0;
            // The same offset again is allowed after a missing answer.
            let is_higher = Some(offset) >= state.held || self.may_store_lower;
            assert!(is_higher, "{offset} is stored over {:?}", state.held);
            let chunks = state.chunks.iter().take_while(|chunk| chunk.first() <= offset);
            for (chunk, index) in chunks.flat_map(|c| (0..c.ids.len()).map(move |i| (c, i))) {
                let (at, id) = (chunk.first() + index as u64, chunk.ids[index]);
                let is_settled = durable.contains(&id) || self.is_exempt(id);
                assert!(at > offset || is_settled, "{offset} is stored, but {at} is not durable");
            }
        }
        drop(state);
        let incarnation = link.incarnation;
        self.flying = Some(Flying { checkpoint, incarnation, is_lost: false });
    }

    fn on_note(&mut self, note: Note) {
        let state = self.source.state();
        let offsets = |from: u64, to: u64| {
            let chunks = state.chunks.iter();
            let ids = chunks.flat_map(|c| (c.first()..c.next()).zip(c.ids.iter().copied()));
            ids.filter(|(at, _)| (from..to).contains(at)).map(|(_, id)| id).collect::<Vec<_>>()
        };
        match note {
            Note::GoingOn { lost: Lost::Evicted { .. }, .. } | Note::Truncated { .. } => {
                self.exempt.extend(self.evicted.keys());
            }
            Note::GoingOn { .. } | Note::ReCreatedUnread(_) => {
                self.exempt.extend(self.evicted.keys());
                (self.has_new_history, self.may_store_lower) = (true, true);
                self.may_give_up = true;
            }
            Note::Unconfirmed => self.may_give_up = true,
            Note::Restarted => self.run_began_at = self.medium.rows.len(),
            Note::LeftOut { from, to, .. } => {
                // Where the filter leaves out what follows, nothing tells how far the damaged chunk reached.
                let within = self.damaged.iter().filter(|(a, b)| *a < to.0 && *b >= from.0);
                let mut reads = BTreeMap::new();
                within.for_each(|(first, _)| *reads.entry(*first).or_insert(0) += 1);
                let fewest = reads.values().min().copied().unwrap_or(0);
                assert!(fewest >= READS_WANTED, "{from} to {to} left out after {reads:?} reads");
                // The reads of a chunk behind it still count.
                self.damaged.retain(|(first, _)| *first >= to.0);
                self.exempt.extend(offsets(from.0, to.0));
                let evicted = self.evicted.iter().filter(|(_, at)| (from.0..to.0).contains(at));
                self.exempt.extend(evicted.map(|(id, _)| id));
            }
            Note::Store(StoreEnd::Stored(offset), _) => {
                (self.may_store_lower, self.confirmed) = (false, Some(offset.0));
            }
            Note::Store(StoreEnd::Higher { ours, theirs }, _) => {
                panic!("{theirs} is stored, which is not of the same stream as {ours}")
            }
            Note::Taken { last, .. } => self.damaged.retain(|(_, next)| *next > last.0 + 1),
            Note::Internal(what) => panic!("{what}"),
            _ => {}
        }
    }

    pub(super) fn deliver(&mut self) {
        if self.next_chunk().is_none() || !self.brain.takes_events() {
            return;
        }
        let link = self.link.as_mut().unwrap();
        let chunk = match link.arrived.pop_front() {
            Some(chunk) => chunk,
            None => {
                let chunk = self.source.state().reaching(link.from.unwrap()).unwrap().clone();
                link.from = Some(chunk.next());
                chunk
            }
        };
        let mut bytes = chunk.bytes.to_vec();
        // A damaged chunk cannot confirm which stream this is.
        let may_be_damaged = self.is_troubled && self.has_read_this_incarnation();
        if chunk.is_rotten || may_be_damaged && self.random.u32(0..20) == 0 {
            // Damages the last byte of the last message, which the CRC detects.
            *bytes.last_mut().unwrap() ^= 1;
            self.damaged.push((chunk.first(), chunk.next()));
            if self.random.u32(0..4) == 0 {
                let mut state = self.source.state();
                let same = state.chunks.iter_mut().find(|c| c.first() == chunk.first());
                same.into_iter().for_each(|chunk| chunk.is_rotten = true);
            }
        }
        let size = bytes.len() as u64;
        self.held_bytes.fetch_add(size, Ordering::Relaxed);
        let permit = Arc::new(Permit { held: Arc::clone(&self.held_bytes), bytes: size });
        let (chunk, committed) = (bytes.into(), None);
        self.tell(Event::Delivered(crate::source::Delivery { chunk, committed, permit }));
        self.check_rows();
    }

    pub(super) fn sink_step(&mut self) {
        let Some(task) = self.task.as_mut().filter(|_| !self.is_stuck) else { return };
        if let Some(report) = task.step(&mut self.medium, &mut self.random, self.is_troubled) {
            self.tell(Event::Reported(report));
        } else if task.is_closing {
            self.task = None;
            self.tell(Event::SinkClosed);
        }
        self.check_rows();
    }

    /// Within one run each record is written once, in order.
    fn check_rows(&self) {
        let rows = &self.medium.rows[self.run_began_at..];
        let tail = &rows[rows.len().saturating_sub(20)..];
        assert!(tail.is_sorted_by(|a, b| a.1 < b.1), "out of order or twice in one run: {tail:?}");
    }

    pub(super) fn ask_for_commit(&mut self) {
        self.asked += 1;
        self.waiting.insert(self.asked);
        self.tell(Event::Commit(self.asked));
    }

    /// The brain is told of an ended connection when it listens to it.
    pub(super) fn notice_end(&mut self) {
        if self.attempt.is_none()
            && let Some(link) = &self.link
            && link.has_ended
            && (self.brain.takes_events() || link.from.is_none() || self.spec.source_is_by_broker())
        {
            self.tell(Event::LinkEnded(refused()));
        }
    }
}

fn brain_of(spec: &Arc<Spec>, seed: u64, now: Instant, defect: Option<Defect>) -> Brain<u32> {
    let random = fastrand::Rng::with_seed(seed);
    let now = Moment { at: now, wall: WALL };
    let inflated = Arc::new(Inflated::default());
    let mut brain = Brain::new(Arc::clone(spec), "state".into(), inflated, random, now);
    brain.defect = defect;
    brain
}

impl Spec {
    pub(super) fn source_is_by_broker(&self) -> bool {
        self.source.activation() == Activation::ByBroker
    }
}
