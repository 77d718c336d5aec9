//! A search with a regular expression that counts what it does.
//!
//! The `regex` crate is faster, and does not tell how far it has looked. One search takes it time in proportion to the
//! text, but each search for another match may look through all that is left, so all matches may take the
//! square ([its documentation](https://docs.rs/regex/latest/regex/#untrusted-input)). Here each state that is
//! visited counts ([`budget`](super::budget)).
//!
//! This is the simulation of a Thompson NFA by Pike: all states in which a match may be are followed at the
//! same time, in order of preference, each with the places of its groups. The NFA is the one of the `regex` crate, so
//! the syntax is the same. A property test compares the matches.

use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::primitives::StateID;

use super::budget::take;

/// What a visit of a state counts for.
const VISIT_BYTES: u64 = 2;

/// Place of a group that takes no part in a match.
const NONE: u32 = u32::MAX;

/// Begin and end of the match and of each group.
pub(super) type Groups = Vec<Option<(usize, usize)>>;

/// Nothing is left of the budget.
#[derive(Debug)]
pub(super) struct Spent;

/// States in order of preference, with the places of their groups.
struct Threads {
    states: Vec<StateID>,
    /// Those of all states, one after the other.
    places: Vec<u32>,
    /// For each state of the NFA, the last round in which it was here.
    seen: Vec<u32>,
    round: u32,
}

/// What the search for states without reading a byte has to do next.
enum Job {
    Visit(StateID),
    /// Puts the place of a group back.
    Restore(usize, u32),
}

/// Searches one text.
pub(super) struct Search<'s> {
    nfa: &'s NFA,
    text: &'s str,
    /// Threads at the byte that is read, and at the next one.
    now: Threads,
    next: Threads,
    jobs: Vec<Job>,
    /// Places of the thread that is followed.
    here: Vec<u32>,
}

impl<'s> Search<'s> {
    pub(super) fn new(nfa: &'s NFA, text: &'s str) -> Result<Search<'s>, Spent> {
        let (states, slots) = (nfa.states().len(), nfa.group_info().slot_len());
        // Places are 32 bits long.
        if text.len() >= NONE as usize || !take(8 * (states + slots) as u64) {
            return Err(Spent);
        }
        let (now, next) = (Threads::new(states), Threads::new(states));
        Ok(Search { nfa, text, now, next, jobs: Vec::new(), here: vec![NONE; slots] })
    }

    /// The first match that begins at this byte or later.
    pub(super) fn find(&mut self, from: usize) -> Result<Option<Groups>, Spent> {
        let mut found: Option<Vec<u32>> = None;
        self.now.clear();
        for at in from..=self.text.len() {
            let may_begin = found.is_none() && (at == from || !self.nfa.is_always_start_anchored());
            if self.now.states.is_empty() && !may_begin {
                break;
            }
            // Between the bytes of a character only an empty match could begin, and that is none.
            if may_begin && self.text.is_char_boundary(at) {
                // What it takes to begin, with all places of groups.
                if !take(1 + self.here.len() as u64 / 8) {
                    return Err(Spent);
                }
                self.here.fill(NONE);
                follow(
                    self.nfa,
                    self.text,
                    &mut self.jobs,
                    &mut self.here,
                    &mut self.now,
                    (self.nfa.start_anchored(), at),
                )?;
            }
            if let Some(places) = self.step(at)? {
                found = Some(places);
            }
            std::mem::swap(&mut self.now, &mut self.next);
        }
        Ok(found.map(|places| groups(&places)))
    }

    /// Follows all threads over a byte. The places of the match that ends before it, if there is one.
    fn step(&mut self, at: usize) -> Result<Option<Vec<u32>>, Spent> {
        let (text, slots) = (self.text.as_bytes(), self.here.len());
        self.next.clear();
        for (nth, state) in self.now.states.iter().enumerate() {
            let places = self.now.places.get(nth * slots..(nth + 1) * slots).unwrap_or_default();
            let to = match self.nfa.state(*state) {
                State::ByteRange { trans } => trans.matches(text, at).then_some(trans.next),
                State::Sparse(sparse) => sparse.matches(text, at),
                State::Dense(dense) => dense.matches(text, at),
                // What is less preferred is given up.
                State::Match { .. } => return Ok(Some(places.to_vec())),
                _ => None,
            };
            if !take(VISIT_BYTES) {
                return Err(Spent);
            }
            if let Some(to) = to {
                self.here.copy_from_slice(places);
                follow(
                    self.nfa,
                    self.text,
                    &mut self.jobs,
                    &mut self.here,
                    &mut self.next,
                    (to, at + 1),
                )?;
            }
        }
        Ok(None)
    }
}

fn groups(places: &[u32]) -> Groups {
    // The whole match comes first in the `regex` crate's order of slots too.
    let pairs = places.chunks_exact(2).map(|pair| match pair {
        [from, to] if *from != NONE && *to != NONE => Some((*from as usize, *to as usize)),
        _ => None,
    });
    pairs.collect()
}

impl Threads {
    fn new(states: usize) -> Threads {
        Threads { states: Vec::new(), places: Vec::new(), seen: vec![0; states], round: 1 }
    }

    fn clear(&mut self) {
        self.states.clear();
        self.places.clear();
        // One for each byte of a text, and each match.
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.seen.fill(0);
            self.round = 1;
        }
    }

    fn add(&mut self, state: StateID, places: &[u32]) -> Result<(), Spent> {
        let length = self.places.len() + places.len();
        // It doubles.
        let grows = if length > self.places.capacity() { 8 * length } else { 0 };
        if !take(VISIT_BYTES + (places.len() / 2 + grows) as u64) {
            return Err(Spent);
        }
        self.states.push(state);
        self.places.extend_from_slice(places);
        Ok(())
    }
}

/// Adds the states that can be reached from this one, at this byte, without reading it.
fn follow(
    nfa: &NFA,
    text: &str,
    jobs: &mut Vec<Job>,
    here: &mut [u32],
    threads: &mut Threads,
    (from, at): (StateID, usize),
) -> Result<(), Spent> {
    jobs.clear();
    jobs.push(Job::Visit(from));
    while let Some(job) = jobs.pop() {
        let state = match job {
            Job::Visit(state) => state,
            Job::Restore(slot, place) => {
                here[slot] = place;
                continue;
            }
        };
        if !take(VISIT_BYTES) {
            return Err(Spent);
        }
        let seen = &mut threads.seen[state.as_usize()];
        if *seen == threads.round {
            continue;
        }
        *seen = threads.round;
        match nfa.state(state) {
            State::Look { look, next } => {
                if nfa.look_matcher().matches(*look, text.as_bytes(), at) {
                    jobs.push(Job::Visit(*next));
                }
            }
            State::Union { alternates } => {
                jobs.extend(alternates.iter().rev().map(|state| Job::Visit(*state)));
            }
            State::BinaryUnion { alt1, alt2 } => {
                jobs.extend([Job::Visit(*alt2), Job::Visit(*alt1)]);
            }
            State::Capture { next, slot, .. } => {
                let slot = slot.as_usize();
                jobs.push(Job::Restore(slot, here[slot]));
                // Texts are shorter than 32 bits can say.
                here[slot] = u32::try_from(at).unwrap_or(NONE);
                jobs.push(Job::Visit(*next));
            }
            State::Fail => {}
            State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Match { .. } => {
                threads.add(state, here)?;
            }
        }
    }
    Ok(())
}
