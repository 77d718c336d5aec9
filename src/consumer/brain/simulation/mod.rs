//! Seeded interleavings of everything that can happen to a consumer, with the promises as invariants.
//!
//! [`world`] drives the whole brain: a stream that grows, is truncated, deleted and re-created; a sink
//! that fails, holds batches back and gets stuck; lost connections, commands, crashes and ends at every
//! step. [`storing`] drives the part that stores offsets alone, because that meets more cases in less
//! time.
//!
//! Run more of them with `RILLWAY_SIMULATIONS=1000000 cargo test --lib simulation`. A failure prints
//! its seed; `RILLWAY_SEED=SEED` runs that one alone, and with
//! `RILLWAY_TRACE=1` prints every event and action.

mod answers;
mod broker;
mod sink;
mod storing;
mod trace;
mod world;

use std::time::Duration;

use self::broker::Stored;
use self::world::{ModelLink, World};
use super::defect::Defect;
use super::linking::Link;
use super::{Caller, Event, Outcome, TICK};
use crate::flow::beginning::Memory;
use crate::flow::resume::OnLost;
use crate::seeds;
use crate::source::{Activation, ErrorKind, SourceError};

const SIMULATIONS: u64 = 6_000;
const STEPS_MAX: u32 = 250;
/// The consumer ends within this many steps, each of which makes progress or moves the clock.
const SETTLING_STEPS_MAX: u32 = 3_000;
const STUCK_STEPS: u32 = 100;

impl Caller for u32 {
    fn is_gone(&self) -> bool {
        false
    }
}

impl World {
    fn step(&mut self) {
        match self.random.u32(0..1_000) {
            0..120 => self.publish(),
            120..320 => self.deliver(),
            320..520 => self.sink_step(),
            520..600 => {
                let fails = self.is_troubled && self.random.u32(0..4) == 0;
                self.end_attempt(fails);
            }
            600..660 => {
                let fails = self.is_troubled && self.random.u32(0..8) == 0;
                self.end_opening(fails);
            }
            660..720 => {
                self.end_asking();
                self.end_passing();
            }
            720..790 => {
                let trouble = if self.is_troubled { self.random.u32(0..6) } else { 0 };
                self.end_store(trouble);
            }
            790..830 => self.notice_end(),
            830..900 => {
                self.now += Duration::from_millis(self.random.u64(0..2_000));
                if self.random.bool() {
                    self.source.state().lagging = None;
                }
            }
            900..910 => self.cut(),
            910..918 => self.source.state().is_away ^= true,
            918..926 => self.fall_behind(),
            926..936 => self.truncate(),
            936..944 => self.delete_or_create(),
            944..950 => self.unavailable(),
            950..958 => self.ask_for_commit(),
            958..966 => self.is_troubled ^= true,
            966..986 => self.activate(),
            986..989 => self.run_anew(),
            989..991 => self.tell(Event::Drain),
            991..995 => self.get_stuck(),
            995..997 => self.is_taken_over(),
            _ => self.another_consumes(),
        }
        self.due();
        self.begin_again_after_an_end();
    }

    /// The sink does nothing any more, or works again.
    fn get_stuck(&mut self) {
        self.is_stuck = self.spec.source_is_by_broker() && !self.is_stuck;
        self.never_opens = self.is_stuck && self.random.u32(0..3) == 0;
    }

    fn publish(&mut self) {
        let messages = self.random.u64(1..=5);
        if self.source.state().exists {
            self.grow(messages);
        }
    }

    fn cut(&mut self) {
        self.link.iter_mut().for_each(|link| link.has_ended = true);
    }

    /// The broker ends the subscription to this stream; the connection remains.
    fn unavailable(&mut self) {
        let is_heard = self.brain.takes_events() || self.spec.source_is_by_broker();
        if self.link.as_ref().is_some_and(|link| !link.has_ended) && is_heard {
            let error = SourceError::new(ErrorKind::Unavailable, "an election");
            self.tell(Event::Unavailable(error));
        }
    }

    fn fall_behind(&mut self) {
        let mut state = self.source.state();
        state.is_behind ^= true;
        self.was_behind |= state.is_behind;
    }

    /// Retention drops the oldest chunks. Not of a re-created stream of which nothing is durable: if that
    /// began right behind the old position, it could not be told from the old incarnation.
    fn truncate(&mut self) {
        if !self.has_read_this_incarnation() {
            return;
        }
        let durable = self.durable();
        let mut state = self.source.state();
        let most = state.chunks.len().saturating_sub(1);
        let some = if self.random.bool() { most } else { self.random.usize(0..3).min(most) };
        self.has_truncated |= some > 0;
        let lags = some > 0 && self.random.bool();
        let first = state.chunks.first().map(Stored::first);
        state.lagging = state.lagging.or(first).filter(|_| lags);
        for chunk in state.chunks.drain(..some) {
            let rows = chunk.ids.iter().copied().zip(chunk.first()..);
            self.evicted.extend(rows.filter(|(id, _)| !durable.contains(id)));
        }
        drop(state);
        if self.random.bool() {
            self.cut();
        }
    }

    /// Not before the position has the identity of a chunk: without one, a re-created stream cannot be
    /// told from its old incarnation (docs/guarantees.md).
    fn delete_or_create(&mut self) {
        let is_identified = match self.remembered {
            None => self.medium.rows.is_empty() && self.brain.view().durable.is_none(),
            Some(Memory::Beginning(beginning)) => beginning.at.0 == 0,
            Some(Memory::Position(position)) => position.chunk.is_some(),
        };
        let is_identified = is_identified && self.brain.reading.own.anew.is_none();
        let mut state = self.source.state();
        if state.exists && !is_identified {
            return;
        }
        if state.exists {
            // Nobody can read what was in it any more.
            self.exempt.extend(state.chunks.drain(..).flat_map(|chunk| chunk.ids));
            self.exempt.extend(self.evicted.keys());
            (state.exists, state.held, state.next, state.lagging) = (false, None, 0, None);
            drop(state);
            self.cut();
            return;
        }
        state.exists = true;
        state.incarnation += 1;
        drop(state);
        for _ in 0..self.random.usize(0..8) {
            self.grow(5);
        }
    }

    /// The broker makes this consumer active or passive.
    fn activate(&mut self) {
        let by_broker = self.spec.source_is_by_broker();
        let is_subscribed =
            |link: &&mut ModelLink| !(link.has_ended || link.is_stopped && link.awaits_answer);
        let Some(link) = self.link.as_mut().filter(|_| by_broker).filter(is_subscribed) else {
            return;
        };
        // The broker may change its mind before it has an answer.
        let active = match (link.awaits_answer, link.yields_since) {
            // One that is ending has been the active one.
            (false, _) => link.from.is_none() && !link.is_stopped,
            (true, None) => false,
            (true, Some(_)) => return,
        };
        link.awaits_answer = true;
        link.yields_since = Some(self.now).filter(|_| !active);
        link.activates_since = Some(self.now).filter(|_| active);
        // As a subscription does with chunks that wait before a change.
        link.arrived.clear();
        self.tell(Event::Activation { active });
    }

    /// While this consumer is passive, another instance reads on, writes to the same sink and stores.
    fn another_consumes(&mut self) {
        let is_passive = self.link.as_ref().is_some_and(|l| !l.awaits_answer && l.from.is_none());
        let is_idle = self.task.is_none() && !self.is_opening && self.attempt.is_none();
        if self.spec.source_is_by_broker() && is_passive && is_idle {
            self.another_writes();
        }
    }

    /// The connection is lost without notice, as when the process is frozen: another instance takes over
    /// the sink, and reads on.
    fn is_taken_over(&mut self) {
        let is_active = self.link.as_ref().is_some_and(|l| l.from.is_some() && !l.has_ended);
        let has_sink = self.task.as_ref().is_some_and(|task| !task.is_over && !task.is_closing);
        let by_broker = self.spec.source_is_by_broker();
        if by_broker && is_active && has_sink && self.flying.is_none() && self.another_writes() {
            self.task.iter_mut().for_each(|task| task.is_fenced = true);
            self.cut();
        }
    }

    /// Another instance writes one chunk to the same sink, and stores.
    fn another_writes(&mut self) -> bool {
        let mut state = self.source.state();
        if !(state.exists && self.medium.keeps_position()) {
            return false;
        }
        let Some(at) = self.medium.position else { return false };
        let known = state.chunks.iter().any(|c| Some(c.probed.id()) == at.chunk);
        let Some(next) = state.reaching(at.offset.0 + 1).cloned() else { return false };
        if !known || next.first() > at.offset.0 + 1 {
            return false;
        }
        let rows = (next.first()..).zip(next.ids.iter().copied());
        self.medium.rows.extend(rows.filter(|(offset, _)| *offset > at.offset.0));
        let offset = crate::types::Offset(next.next() - 1);
        let checkpoint = crate::types::Checkpoint { offset, chunk: Some(next.probed.id()) };
        self.medium.position = Some(checkpoint);
        state.held = Some(offset.0);
        state.next += 1;
        true
    }

    /// What the supervisor, or an operator, does.
    fn begin_again_after_an_end(&mut self) {
        let Some(outcome) = self.brain.finished().cloned() else { return };
        let at_once = self.spec.source.activation() == Activation::AtOnce;
        let held = self.source.state().held.max(self.confirmed);
        let durable = self.brain.view().durable;
        if outcome == Outcome::Drained && at_once && !self.may_give_up && durable != self.opened_at
        {
            let is_stored = held >= durable.map(|checkpoint| checkpoint.offset.0);
            assert!(
                is_stored || !self.source.state().exists,
                "drained, but {durable:?} is not stored"
            );
        }
        self.check_end(&outcome);
        self.run_anew();
    }

    fn check_end(&mut self, outcome: &Outcome) {
        assert!(self.flying.is_none(), "ended while a store was running");
        for caller in self.brain.take_waiters() {
            assert!(self.waiting.remove(&caller), "caller {caller} was answered twice");
        }
        assert!(self.waiting.is_empty(), "no answer for {:?}", self.waiting);
        if let Outcome::Halted(reason) = outcome {
            let is_for_the_sink = reason.starts_with("full");
            // Missing offsets at the beginning may have been the broker's own: nobody can tell.
            let is_for_a_loss =
                self.has_truncated || self.source.state().incarnation > 1 || self.was_behind;
            let is_damage = reason.contains("times in a row");
            assert!(is_for_the_sink || is_for_a_loss || is_damage, "halted without need: {reason}");
        }
    }

    /// Everything works from now on.
    fn heal(&mut self) {
        let mut state = self.source.state();
        (state.is_away, state.is_behind, state.lagging) = (false, false, None);
        if !state.exists {
            state.exists = true;
            state.incarnation += 1;
        }
        drop(state);
        (self.is_troubled, self.is_stuck, self.never_opens) = (false, false, false);
    }

    /// One step in which every running operation succeeds, or the time moves to the next deadline.
    fn settle_step(&mut self) {
        let before = self.now;
        self.notice_end();
        self.end_opening(false);
        self.end_attempt(false);
        self.end_asking();
        self.end_passing();
        self.deliver();
        self.sink_step();
        self.end_store(0);
        let passive = self.link.as_ref().is_some_and(|l| l.from.is_none() && !l.awaits_answer);
        if passive {
            self.activate();
        }
        let due = self.brain.deadline().map_or(self.now + TICK, |due| due.min(self.now + TICK));
        self.now = self.now.max(due).max(before);
        self.due();
    }

    /// Messages that the stream holds, that must arrive, and that are not in the sink.
    fn missing(&self) -> Option<u64> {
        let durable = self.durable();
        let state = self.source.state();
        let there = state.chunks.iter().flat_map(|chunk| chunk.ids.iter().copied());
        let wanted = there.chain(self.evicted.keys().copied());
        wanted.filter(|id| !durable.contains(id) && !self.is_exempt(*id)).min()
    }

    /// The broker and the sink work again: everything arrives, and a drain ends with all of it stored.
    fn finish(mut self) {
        if self.is_stuck {
            // Long enough for every time limit.
            for _ in 0..STUCK_STEPS {
                self.now += TICK;
                self.settle_step();
            }
        }
        self.heal();
        // How far a repeatedly damaged chunk reached is known only with the next one that is delivered.
        let reading = &self.brain.reading;
        let is_rotten = self.source.state().chunks.iter().any(|chunk| chunk.is_rotten);
        let is_in_vain = reading.unreadable.is_any_in_vain();
        if is_rotten || is_in_vain || reading.position_unreadable.is_any_in_vain() {
            self.publish();
            while self.source.state().chunks.last().is_some_and(|chunk| !chunk.is_selected) {
                self.publish();
            }
        }
        self.due();
        let may_halt = self.spec.on_lost == OnLost::Halt;
        for _ in 0..SETTLING_STEPS_MAX {
            self.settle_step();
            if let Some(outcome) = self.brain.finished().cloned() {
                self.check_end(&outcome);
                if matches!(outcome, Outcome::Halted(_)) && may_halt {
                    return; // An operator has to act.
                }
                self.run_anew();
            }
            let is_idle = self.flying.is_none() && self.waiting.is_empty();
            if self.missing().is_none() && is_idle && self.brain.view().is_reading {
                break;
            }
        }
        assert_eq!(self.missing(), None, "a message is not in the sink");
        assert!(self.brain.view().is_reading, "the consumer does not connect again");
        assert!(self.waiting.is_empty(), "no answer for {:?}", self.waiting);
        if self.medium.keeps_position() && !self.has_new_history {
            let rows = &self.medium.rows;
            assert_eq!(self.durable().len(), rows.len(), "a message is in the sink twice");
        }
        (0..20).for_each(|_| self.settle_step());
        self.check_passed();
        // Something is still accepted and not written.
        self.publish();
        self.deliver();
        let accepted = self.brain.reading.own.position.map(|(_, position)| position.offset);
        self.task.iter_mut().for_each(|task| task.holds_until_asked = true);
        let incarnation = self.source.state().incarnation;
        let is_here =
            self.link.as_ref().is_some_and(|l| !l.has_ended && l.incarnation == incarnation);
        let is_sure = is_here && self.brain.view().is_reading;
        self.tell(Event::Drain);
        for _ in 0..SETTLING_STEPS_MAX {
            if let Some(outcome) = self.brain.finished().cloned() {
                let durable = self.brain.view().durable.map(|checkpoint| checkpoint.offset);
                assert!(durable >= accepted, "drained, and {accepted:?} is not durable");
                return self.check_drained(&outcome, is_sure);
            }
            self.settle_step();
        }
        panic!("the drain does not end");
    }

    /// The position is at the end of the stream, also behind what the broker's filter leaves out.
    fn check_passed(&self) {
        let state = self.source.state();
        let Link::Up(up) = &self.brain.link else { return };
        let Some(end) = state.chunks.last().map(Stored::next) else { return };
        let is_there = up.intake.wanted().is_none_or(|wanted| wanted.0 >= end);
        assert!(is_there || up.intake.damaged().is_some(), "the position does not reach {end}");
    }

    fn check_drained(&mut self, outcome: &Outcome, is_sure: bool) {
        self.check_end(outcome);
        let durable = self.brain.view().durable;
        if *outcome == Outcome::Drained && is_sure {
            let held = self.source.state().held;
            let is_news = durable != self.opened_at;
            let is_stored = held >= durable.map(|checkpoint| checkpoint.offset.0);
            assert!(is_stored || !is_news, "drained, but the offset is not stored");
        }
        assert_eq!(self.held_bytes(), 0, "memory is held after the end");
    }
}

fn simulate(seed: u64, defect: Option<Defect>) {
    let mut world = World::new(seed, defect);
    world.due();
    for _ in 0..world.random.u32(1..STEPS_MAX) {
        world.step();
    }
    world.finish();
}

#[test]
fn the_whole_consumer_keeps_its_promises_in_every_interleaving() {
    seeds::all_pass(SIMULATIONS, "the_whole_consumer", |seed| simulate(seed, None));
}

#[test]
fn every_defect_planted_in_the_consumer_is_found() {
    for defect in Defect::WHOLE {
        let found = seeds::one_fails(SIMULATIONS, |seed| simulate(seed, Some(defect)));
        assert!(found, "{defect:?} was not found in {SIMULATIONS} seeds");
    }
}
