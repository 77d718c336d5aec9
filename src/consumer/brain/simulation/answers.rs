//! Results of what was begun: openings, connections, questions and stores end late, and sometimes fail.

use std::sync::Arc;

use futures_util::FutureExt;

use super::sink::Task;
use super::world::{Attempt, Flying, ModelLink, ORDERS_MAX, World, refused};
use crate::consumer::brain::{Connect, Event, Link, Linked, Opened, Outcome};
use crate::consumer::resumption::{Resumption, SessionError};
use crate::consumer::session::{self, Outlook};
use crate::flow::beginning::Memory;
use crate::source::ErrorKind;
use crate::types::{Checkpoint, Offset};

impl World {
    pub(super) fn end_opening(&mut self, fails: bool) {
        if self.never_opens || !std::mem::take(&mut self.is_opening) {
            return;
        }
        if fails {
            return self.tell(Event::Opened(Err(Outcome::Failed("away".to_owned()))));
        }
        self.task = Some(Task::new());
        self.opened_at = self.medium.position;
        self.run_began_at = self.medium.rows.len();
        self.tell(Event::Opened(Ok(Opened {
            position: self.medium.position,
            remembered: self.remembered,
            orders_max: ORDERS_MAX,
        })));
    }

    pub(super) fn end_attempt(&mut self, fails: bool) {
        let Some(attempt) = self.attempt.take() else { return };
        let is_cut = self.link.as_ref().is_some_and(|link| link.has_ended);
        let linked = match attempt {
            _ if fails => Err(refused().into()),
            Attempt::Connect(connect) => self.connect(connect),
            Attempt::Resume(_) | Attempt::Verify(_) if is_cut => Err(refused().into()),
            Attempt::Resume(own) => {
                let link = Arc::new(self.source.clone());
                let proof = session::Proof::Chunk;
                let looked = session::look_on(&self.spec, own, link, proof).now_or_never();
                let resumption = self.keep(looked.unwrap());
                if let Ok(resumption) = &resumption {
                    self.ends_deletion_unless_told_by(resumption.plan.verify);
                }
                resumption.map(Linked::Reading)
            }
            Attempt::Verify(position) => self.verify(position),
        };
        if let Err(SessionError::Broker(error)) = &linked {
            self.may_give_up |= error.kind() == ErrorKind::Missing;
        }
        self.tell(Event::Linked(linked));
    }

    fn connect(&mut self, connect: Connect) -> Result<Linked, SessionError> {
        let mut link = ModelLink {
            incarnation: self.source.state().incarnation,
            from: None,
            arrived: Default::default(),
            has_ended: false,
            awaits_answer: false,
            yields_since: None,
            activates_since: None,
            is_stopped: false,
        };
        let linked = match connect {
            Connect::Read(own) => {
                let looked = session::look(&self.spec, own).now_or_never().unwrap();
                let resumption = self.keep(looked)?;
                self.ends_deletion_unless_told_by(resumption.plan.verify);
                link.from = Some(self.source.state().start(resumption.plan.subscribe));
                Linked::Reading(resumption)
            }
            Connect::Wait(prefer) => {
                self.spec.source.connect(prefer).now_or_never().unwrap()?;
                Linked::Passive
            }
            Connect::Store(position) => {
                let stored = session::for_storing(&self.spec, position).now_or_never().unwrap();
                Linked::Storing { is_confirmed: stored?.1 }
            }
        };
        self.link = Some(link);
        Ok(linked)
    }

    /// Only a position in a chunk that the stream held before can tell that retention is deleting
    /// (docs/guarantees.md).
    fn ends_deletion_unless_told_by(&self, position: Option<Checkpoint>) {
        let mut state = self.source.state();
        let position = position.filter(|position| position.chunk.is_some());
        state.lagging =
            state.lagging.filter(|first| position.is_some_and(|p| p.offset.0 >= *first));
    }

    fn verify(&mut self, position: Checkpoint) -> Result<Linked, SessionError> {
        session::confirm(&self.source.clone(), position).now_or_never().unwrap()?;
        Ok(Linked::Storing { is_confirmed: true })
    }

    /// A beginning is stored on the broker and in the state file before anything is read.
    fn keep(
        &mut self,
        looked: Result<Outlook, SessionError>,
    ) -> Result<Box<Resumption>, SessionError> {
        let Outlook { plan, mut stored, bounds, .. } = looked?;
        if let Some(beginning) = plan.begins {
            let is_idle = self.task.as_ref().is_none_or(Task::is_idle) && self.flying.is_none();
            assert!(is_idle, "a beginning is stored before the accepted records are durable");
            let mut state = self.source.state();
            if let Some(mirror) = beginning.mirror().filter(|mirror| stored != Some(*mirror)) {
                state.held = Some(mirror.0);
                stored = Some(mirror);
            }
            self.remembered = Some(Memory::Beginning(beginning));
            // It begins where the configuration or a policy says.
            let before = state.chunks.iter().flat_map(|c| (c.first()..).zip(c.ids.iter().copied()));
            let before = before.filter(|(at, _)| *at < beginning.at.0).map(|(_, id)| id);
            self.exempt.extend(before);
            if beginning.instead_of.is_none() || self.has_new_history {
                let evicted = self.evicted.iter().filter(|(_, at)| **at < beginning.at.0);
                self.exempt.extend(evicted.map(|(id, _)| id));
            }
        }
        // From here on the brain knows it too.
        self.confirmed = self.confirmed.max(stored.map(|offset| offset.0));
        let (node, version) = (String::new(), String::new());
        Ok(Box::new(Resumption { plan, stored, bounds, node, version, is_hearsay: false }))
    }

    pub(super) fn end_asking(&mut self) {
        let Some((from, to)) = self.asking.take() else { return };
        if self.link.as_ref().is_none_or(|link| link.has_ended) {
            return self.tell(Event::Asked(Err(refused())));
        }
        let unconfirmed = match &self.brain.link {
            Link::Up(up) => up.passing.unconfirmed(),
            _ => None,
        };
        let own = self.brain.reading.own.position.map(|(_, position)| position);
        self.ends_deletion_unless_told_by(unconfirmed.or(own));
        let state = self.source.state();
        let first = |at: Offset| state.look(at.0).map(|chunk| chunk.first_offset());
        let there = first(from);
        let again = there.filter(|there| *there != to).and_then(|_| first(to));
        let bounds = Some(state.bounds());
        drop(state);
        let asked =
            crate::consumer::brain::Asked { from, to, bounds, there, is_blind: false, again };
        self.tell(Event::Asked(Ok(asked)));
    }

    pub(super) fn end_passing(&mut self) {
        let Some((question, waiting)) = self.passing.take() else { return };
        if self.link.as_ref().is_none_or(|link| link.has_ended) {
            return self.tell(Event::Passed(Err(refused().into())));
        }
        let own = self.brain.reading.own.position.map(|(_, position)| position);
        self.ends_deletion_unless_told_by(question.position.or(own));
        let source = self.source.clone();
        let passed = session::passed(&source, question, waiting).now_or_never().unwrap();
        self.tell(Event::Passed(passed));
    }

    /// Some chunks arrive, and wait to be taken; returns how many wait.
    pub(super) fn arrive(&mut self) -> usize {
        let some = self.random.usize(0..3);
        let state = self.source.state();
        let Some(link) = self.link.as_mut().filter(|link| !link.has_ended) else { return 0 };
        for _ in 0..some {
            let from = link.from.filter(|_| link.incarnation == state.incarnation);
            let Some(chunk) = from.and_then(|from| state.reaching(from)) else { break };
            link.from = Some(chunk.next());
            link.arrived.push_back(chunk.clone());
        }
        link.arrived.len()
    }

    /// Something is published.
    pub(super) fn grow(&mut self, messages: u64) {
        let mut state = self.source.state();
        let ids = state.publish(messages);
        let is_selected = state.chunks.last().is_none_or(|chunk| chunk.is_selected);
        drop(state);
        if !is_selected {
            self.exempt.extend(ids);
        }
    }

    pub(super) fn end_store(&mut self, trouble: u32) {
        let Some(Flying { checkpoint, is_lost, .. }) = self.flying.take() else { return };
        let is_cut = is_lost || self.link.as_ref().is_none_or(|link| link.has_ended);
        let offset = checkpoint.offset;
        let mut state = self.source.state();
        let arrives = !is_cut && trouble != 1;
        if arrives {
            state.held = Some(offset.0);
            // The broker's own chunk takes an offset.
            state.next += 1;
        }
        let held = state.held.map(Offset);
        drop(state);
        let stored = match is_cut || trouble == 2 {
            true => Err(refused()),
            false => Ok(held),
        };
        if matches!(stored, Ok(held) if held == Some(offset)) {
            self.remembered = Some(Memory::Position(checkpoint));
        }
        self.tell(Event::Stored(stored));
    }
}
