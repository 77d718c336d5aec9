//! Seeded interleavings of batches, settlements, stores, lost connections, waiters, re-created streams
//! and endings against [`Storing`], with a simulated broker that loses, delays and misreports.
//!
//! Run more of them with `RILLWAY_SIMULATIONS=1000000 cargo test --lib simulation`. A failure prints
//! its seed; `RILLWAY_SEED=SEED` runs that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::consumer::brain::defect::Defect;
use crate::consumer::brain::storing::{Ending, ReadBack, StoreEnd, Storing};
use crate::flow::commit::Policy;
use crate::flow::ledger::Ticket;
use crate::seeds;
use crate::types::{Checkpoint, Offset, Timestamp};

const SIMULATIONS: u64 = 20_000;
/// A planted defect is found within this many seeds.
const SEEDS_TO_FIND_MAX: u64 = 2_000;
const STEPS_MAX: u32 = 60;
/// The consumer ends within this many steps, each of which makes progress or moves the clock.
const ENDING_STEPS_MAX: u32 = 1_000;

const POLICY: Policy = Policy { every_messages: 20, every: Duration::from_secs(5) };

struct Batch {
    ticket: Ticket,
    end: u64,
    settled: bool,
}

/// A running store: the offset, and whether it is of the present incarnation.
struct Flying {
    offset: u64,
    outdated: bool,
}

struct World {
    rng: fastrand::Rng,
    now: Instant,
    brain: Storing<u32>,
    connected: bool,
    /// The offset that the broker holds.
    held: Option<u64>,
    flying: Option<Flying>,
    /// Every batch of this incarnation, in order.
    batches: Vec<Batch>,
    /// Durable part of the oldest open batch.
    part: Option<u64>,
    next: u64,
    /// The offset that the broker holds, as far as the brain was told in this incarnation.
    known: Option<u64>,
    suspended: bool,
    /// The stream was re-created, and nothing of the new incarnation is stored yet.
    superseded: bool,
    /// Another process stored a higher offset.
    foreign: bool,
    ending: Option<Ending>,
    waiting: BTreeMap<u32, Option<u64>>,
    answered: BTreeSet<u32>,
    asked: u32,
}

fn at(offset: u64) -> Checkpoint {
    Checkpoint { offset: Offset(offset), chunk: None }
}

impl World {
    fn new(seed: u64, defect: Option<Defect>) -> World {
        let now = Instant::now();
        let mut brain = Storing::new(POLICY, None, now);
        brain.defect = defect;
        World {
            rng: fastrand::Rng::with_seed(seed),
            now,
            brain,
            connected: false,
            held: None,
            flying: None,
            batches: Vec::new(),
            part: None,
            next: 0,
            known: None,
            suspended: false,
            superseded: false,
            foreign: false,
            ending: None,
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
            asked: 0,
        }
    }

    /// Independent calculation of what is durable: the settled prefix, and a part behind it.
    fn durable(&self) -> Option<u64> {
        let settled = self.batches.iter().take_while(|batch| batch.settled).last();
        settled.map(|batch| batch.end).max(self.part)
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..25 => self.deliver(),
            25..50 => self.settle_one(),
            50..55 => self.settle_part(),
            55..63 => self.connect(),
            63..67 => self.disconnect(),
            67..80 => self.end_store(),
            80..85 => self.ask(),
            85..88 => self.re_create(),
            88..90 => self.lose_faith(),
            90..99 => self.now += Duration::from_millis(self.rng.u64(0..3_000)),
            _ => self.end_somehow(),
        }
        self.turn();
    }

    fn deliver(&mut self) {
        if self.ending.is_some() || !self.connected {
            return;
        }
        let messages = self.rng.u64(1..=10);
        let end = self.next + messages - 1;
        self.next = end + 1;
        let ticket = self.brain.open(at(end), messages, Timestamp(0));
        self.batches.push(Batch { ticket: ticket.unwrap(), end, settled: false });
        // A chunk of the stream has arrived: it confirms the position.
        self.brain.resume();
        self.suspended = false;
    }

    fn settle_one(&mut self) {
        let open: Vec<_> = (0..self.batches.len()).filter(|i| !self.batches[*i].settled).collect();
        let Some(index) = self.rng.choice(open) else { return };
        let before = self.durable();
        self.batches[index].settled = true;
        let moved = self.brain.settle(self.batches[index].ticket).unwrap();
        assert_eq!(moved, before != self.durable(), "the durable offset");
    }

    /// The sink reports a part of the oldest open batch.
    fn settle_part(&mut self) {
        let Some(batch) = self.batches.iter().find(|batch| !batch.settled) else { return };
        let from = self.durable().map_or(0, |durable| durable + 1);
        if from < batch.end {
            let offset = self.rng.u64(from..batch.end);
            self.brain.advance(batch.ticket, at(offset), 1, Timestamp(0)).unwrap();
            self.part = Some(offset);
        }
    }

    fn connect(&mut self) {
        if self.connected || self.brain.is_outdated() {
            return;
        }
        self.connected = true;
        if self.ending.is_none() {
            self.brain.observed(self.held.map(Offset));
            // Until something of the new incarnation is stored, the broker reports the old one.
            if !self.superseded {
                self.known = self.held;
            }
        }
    }

    fn disconnect(&mut self) {
        if !self.connected {
            return;
        }
        self.connected = false;
        if self.ending.is_some() {
            self.brain.connection_lost();
        }
    }

    fn end_store(&mut self) {
        let Some(flying) = self.flying.take() else { return };
        let outcome = self.rng.u32(0..10);
        let arrives = self.connected && outcome < 8 || outcome == 8;
        if arrives {
            self.held = Some(flying.offset);
        }
        if outcome == 7 && !self.foreign {
            self.held = Some(flying.offset + 50);
            self.foreign = true;
        }
        let read_back = match outcome {
            8 | 9 => ReadBack::Failed,
            6 => {
                self.held = self.known;
                ReadBack::Held(self.known.map(Offset))
            }
            _ if !self.connected => ReadBack::Failed,
            _ => ReadBack::Held(self.held.map(Offset)),
        };
        self.brain_stored(flying, read_back);
    }

    fn brain_stored(&mut self, flying: Flying, read_back: ReadBack) {
        let end = self.brain.stored(read_back, self.now);
        if flying.outdated {
            assert_eq!(end, StoreEnd::Outdated, "a store of the old incarnation counted");
            return;
        }
        match (end, read_back) {
            (StoreEnd::Stored(offset), ReadBack::Held(held)) => {
                assert_eq!(held, Some(offset), "a wrong read-back counted as success");
                self.known = Some(offset.0);
                self.superseded = false;
            }
            // After a re-creation, what the broker holds may be of the old incarnation.
            (StoreEnd::Higher { .. }, _) if self.superseded => {}
            (StoreEnd::Higher { theirs, .. }, _) => self.known = Some(theirs.0),
            (StoreEnd::NotArrived { .. }, ReadBack::Held(_))
            | (StoreEnd::Failed, ReadBack::Failed) => {}
            (end, read_back) => panic!("{read_back:?} ended as {end:?}"),
        }
    }

    fn ask(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.asked += 1;
        self.brain.wait(self.asked);
        self.waiting
            .insert(self.asked, self.batches.last().map(|batch| batch.end).max(self.durable()));
    }

    /// The stream is re-created: first everything open settles, then the brain begins anew.
    fn re_create(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.brain.suspend();
        self.suspended = true;
        self.disconnect();
        while self.batches.iter().any(|batch| !batch.settled) {
            self.settle_one();
        }
        self.turn();
        for waiter in self.brain.restart() {
            self.answer(waiter);
        }
        assert!(self.waiting.is_empty(), "a waiter was dropped");
        if let Some(flying) = &mut self.flying {
            flying.outdated = true;
        }
        self.batches.clear();
        (self.part, self.next, self.known, self.suspended) = (None, 0, None, false);
        self.superseded = true;
        // The new beginning replaces the offset that the broker held.
        self.held = None;
    }

    /// The stream is missing: nothing is stored before a chunk arrives.
    fn lose_faith(&mut self) {
        if self.ending.is_none() {
            self.disconnect();
            self.brain.suspend();
            self.suspended = true;
        }
    }

    fn end(&mut self, ending: Ending) {
        self.brain.end(ending);
        self.ending = Some(match self.ending {
            Some(Ending::Fault) => Ending::Fault,
            _ => ending,
        });
    }

    fn end_somehow(&mut self) {
        let ending = if self.rng.bool() { Ending::Drain } else { Ending::Fault };
        self.end(ending);
    }

    fn answer(&mut self, waiter: u32) {
        assert!(self.waiting.remove(&waiter).is_some(), "waiter {waiter} was answered twice");
        assert!(self.answered.insert(waiter));
    }

    /// What the worker does in each turn.
    fn turn(&mut self) {
        let (done, stored) = self.brain.answerable();
        for waiter in done {
            let upto = self.waiting[&waiter];
            assert!(
                stored.map(|o| o.0) >= upto || self.durable() >= upto,
                "waiter {waiter} was answered before its offset {upto:?} was durable"
            );
            self.answer(waiter);
        }
        let Some(checkpoint) = self.brain.next_store(self.now, self.connected) else { return };
        let offset = checkpoint.offset.0;
        assert!(self.connected, "a store without a connection");
        assert!(self.flying.is_none(), "two stores at once");
        assert!(Some(offset) <= self.durable(), "{offset} stored above durable");
        assert!(Some(offset) > self.known, "{offset} stored below {:?}", self.known);
        assert!(!self.suspended, "{offset} stored, which the stream has not confirmed");
        self.flying = Some(Flying { offset, outdated: false });
    }

    /// Either the sink and the broker work again, or the broker stays away: the consumer ends in both
    /// cases.
    fn finish(mut self) {
        if self.ending.is_none() && self.rng.bool() {
            self.quiesce();
        }
        if self.ending.is_none() {
            self.end_somehow();
        }
        let broker_away = self.ending == Some(Ending::Fault) && self.rng.bool();
        if broker_away {
            self.disconnect();
        }
        let sink_alive = true;
        let mut steps = 0;
        while !self.brain.is_finished(sink_alive) {
            steps += 1;
            assert!(steps < ENDING_STEPS_MAX, "the consumer does not end");
            self.settle_one();
            self.turn();
            match self.flying.take() {
                Some(flying) if broker_away => self.brain_stored(flying, ReadBack::Failed),
                Some(flying) => self.store_arrives(flying),
                None if !self.connected && self.brain.needs_connection(sink_alive) => {
                    if broker_away {
                        self.brain.connection_lost();
                    } else {
                        self.connect();
                    }
                }
                None => self.pass_to_deadline(),
            }
            self.turn();
        }
        assert!(self.flying.is_none(), "ended while a store was running");
        let open = self.batches.iter().filter(|batch| !batch.settled).count();
        assert_eq!(open, 0, "ended with batches in flight");
        if self.ending == Some(Ending::Drain) && !self.suspended {
            assert!(self.known >= self.durable(), "drained, but the offset is not stored");
        }
        for waiter in self.brain.take_waiters() {
            self.answer(waiter);
        }
        assert!(self.waiting.is_empty(), "waiters without an answer: {:?}", self.waiting);
    }

    fn store_arrives(&mut self, flying: Flying) {
        self.held = Some(flying.offset);
        self.brain_stored(flying, ReadBack::Held(self.held.map(Offset)));
    }

    fn pass_to_deadline(&mut self) {
        if let Some(deadline) = self.brain.deadline(self.connected) {
            self.now = self.now.max(deadline);
        }
    }

    /// Everything settles, and only deadlines wake the brain: the durable offset gets stored.
    fn quiesce(&mut self) {
        for _ in 0..ENDING_STEPS_MAX {
            self.settle_one();
            self.turn();
            if let Some(flying) = self.flying.take() {
                self.store_arrives(flying);
            }
            self.connect();
            self.pass_to_deadline();
        }
        self.turn();
        if let Some(flying) = self.flying.take() {
            self.store_arrives(flying);
        }
        if !self.suspended {
            assert!(self.known >= self.durable(), "nothing wakes the brain to store");
        }
    }
}

fn simulate(seed: u64, defect: Option<Defect>) {
    let mut world = World::new(seed, defect);
    for _ in 0..world.rng.u32(1..STEPS_MAX) {
        world.step();
    }
    world.finish();
}

#[test]
fn the_promises_hold_in_every_interleaving() {
    seeds::all_pass(SIMULATIONS, "simulation::storing", |seed| simulate(seed, None));
}

#[test]
fn every_planted_defect_is_found() {
    for defect in Defect::STORING {
        let found = seeds::one_fails(SEEDS_TO_FIND_MAX, |seed| simulate(seed, Some(defect)));
        assert!(found, "{defect:?} was not found in {SEEDS_TO_FIND_MAX} seeds");
    }
}
