//! Any sequence of edits, ends and waits: by the rules, what runs becomes what is desired.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::desired::Edit;
use super::*;

const GRACE: Duration = Duration::from_secs(10);
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A plan that consists of its key.
#[derive(Clone, Debug)]
struct Bare(ConsumerKey);

impl Planned for Bare {
    fn key(&self) -> ConsumerKey {
        self.0.clone()
    }

    fn drain_grace(&self) -> Duration {
        GRACE
    }
}

/// Two streams of one consumer, and another consumer on one of them.
fn key(number: u8) -> ConsumerKey {
    let (consumer, stream) = [("a", "one"), ("a", "two"), ("b", "one")][usize::from(number % 3)];
    ConsumerKey { consumer: consumer.into(), stream: stream.into() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Drain(Instant),
    Abort,
}

/// Tasks as they really run, with the facts that the rules must respect.
#[derive(Default)]
struct World {
    tasks: BTreeMap<ConsumerKey, Told>,
    adopted: BTreeMap<ConsumerKey, Generation>,
    halted: BTreeSet<(ConsumerKey, Generation)>,
    not_before: BTreeMap<ConsumerKey, (Generation, Instant)>,
    /// Tasks that have to end before a consumer starts.
    awaited: BTreeMap<ConsumerKey, BTreeSet<(ConsumerKey, Generation)>>,
    stop_by: Option<Instant>,
}

impl World {
    fn act(&mut self, key: &ConsumerKey, action: Action, now: Instant) {
        match action {
            Action::Adopt(generation) => {
                assert!(!self.tasks.contains_key(key), "{key} is replaced before it has ended");
                let before = self.adopted.insert(key.clone(), generation);
                assert!(before < Some(generation), "{key} goes back to an older plan");
            }
            Action::Start => {
                let generation = self.adopted[key];
                assert!(!self.halted.contains(&(key.clone(), generation)), "{key} had halted");
                if let Some((of, until)) = self.not_before.get(key) {
                    assert!(*of != generation || *until <= now, "{key} starts before its time");
                }
                assert!(self.stop_by.is_none(), "{key} starts although all stop");
                for (former, generation) in self.awaited.remove(key).unwrap_or_default() {
                    let runs = self.tasks.contains_key(&former);
                    let is_that = runs && self.adopted[&former] == generation;
                    assert!(!is_that, "{key} starts beside {former}, from which it takes over");
                }
                let other = self.tasks.insert(key.clone(), Told::Nothing);
                assert_eq!(other, None, "a second task for {key}");
            }
            Action::Drain => {
                let before = self.tasks.insert(key.clone(), Told::Drain(now));
                assert_eq!(before, Some(Told::Nothing), "{key}");
            }
            Action::Abort => {
                let before = self.tasks.insert(key.clone(), Told::Abort);
                let Some(Told::Drain(since)) = before else { panic!("{key}: {before:?}") };
                let is_over = since + GRACE <= now || self.stop_by.is_some_and(|by| by <= now);
                assert!(is_over, "{key} is aborted before its time");
            }
            Action::Forget => {
                assert!(!self.tasks.contains_key(key), "{key} is forgotten while it runs");
                self.adopted.remove(key).expect("it was known");
                self.awaited.remove(key);
                self.not_before.remove(key);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Edit(u8, u8),
    /// The first consumer takes over from the second one, which is removed or changed.
    TakeOver(u8, u8, bool),
    /// Ends the consumer's task in this way, if that is possible.
    Ends(u8, u8),
    Wait(u64),
}

struct Play {
    desired: Desired<Bare>,
    actual: Actual,
    world: World,
    now: Instant,
}

impl Play {
    fn new() -> Play {
        let (desired, actual, world) = (Desired::new(), Actual::default(), World::default());
        Play { desired, actual, world, now: Instant::now() }
    }

    fn turn(&mut self) -> Option<Instant> {
        let Play { desired, actual, world, now } = self;
        let due = actual.turn(desired, *now, |key, action| world.act(key, action, *now));
        let more = actual.turn(desired, *now, |key, action| panic!("{key}: {action:?} after all"));
        assert_eq!(due, more);
        let with_task = actual.phases().filter(|(_, phase)| phase.has_task()).count();
        assert_eq!(with_task, world.tasks.len());
        assert!(due.is_none_or(|due| due > *now), "what is due was not done");
        let is_over = world.stop_by.is_some_and(|by| by <= *now);
        let aborted = world.tasks.values().all(|told| *told == Told::Abort);
        assert!(!is_over || aborted, "something goes on after the end");
        due
    }

    fn ends(&mut self, key: &ConsumerKey, how: u8) {
        let Some(told) = self.world.tasks.get(key).copied() else { return };
        let generation = self.world.adopted[key];
        let ended = match (told, how % 4) {
            (Told::Abort, _) => Ended::Aborted,
            (Told::Drain(_), 0) => Ended::Drained,
            (Told::Nothing, 0) => return,
            (_, 1) => {
                self.world.halted.insert((key.clone(), generation));
                Ended::Halted("halted".to_owned())
            }
            _ => {
                let wait = Duration::from_millis(700);
                if told == Told::Nothing {
                    let until = (generation, self.now + wait);
                    self.world.not_before.insert(key.clone(), until);
                }
                Ended::Failed { reason: "failed".to_owned(), wait }
            }
        };
        self.world.tasks.remove(key);
        self.actual.ended(key, ended, self.now);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Edit(what, of) => {
                let key = key(of);
                let edit = match what % 16 {
                    0..=4 => Edit::Put(Bare(key)),
                    5..=6 => Edit::StartAnew(key),
                    7..=9 => Edit::Pause(key),
                    10..=12 => Edit::Resume(key),
                    13..=14 => Edit::Remove(key),
                    _ => {
                        let by = self.now + STOP_GRACE;
                        self.world.stop_by.get_or_insert(by);
                        Edit::Stop { by }
                    }
                };
                if let Edit::Remove(key) = &edit {
                    // One that is added again is another one.
                    self.world.awaited.remove(key);
                }
                // For a consumer that does not exist: an error, and no other effect.
                self.desired.edit(edit).unwrap_or_default();
            }
            Step::TakeOver(one, other, stays) => {
                let (one, other) = (key(one), key(other));
                let after = self.desired.after(vec![other.clone()]);
                // What the other one waits for itself, it waits for too.
                let mut awaited = self.world.awaited.get(&other).cloned().unwrap_or_default();
                if self.world.tasks.contains_key(&other) {
                    awaited.insert((other.clone(), self.world.adopted[&other]));
                }
                if one != other {
                    if !stays {
                        self.world.awaited.remove(&other);
                    }
                    let edit = if stays { Edit::Put(Bare(other)) } else { Edit::Remove(other) };
                    self.desired.edit(edit).unwrap_or_default();
                }
                self.world.awaited.entry(one.clone()).or_default().extend(awaited);
                self.desired.edit(Edit::PutAfter(Bare(one), after)).unwrap_or_default();
            }
            Step::Ends(of, how) => self.ends(&key(of), how),
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
        }
    }

    /// No more edits, and no more failures; but drains hang if `hang` is set.
    fn settle(&mut self, hang: bool) {
        for _ in 0..100 {
            let due = self.turn();
            let told: Vec<_> = self.world.tasks.iter().map(|(k, t)| (k.clone(), *t)).collect();
            let mut ended = false;
            for (key, told) in told {
                match told {
                    Told::Nothing => {}
                    Told::Drain(_) if hang => {}
                    Told::Drain(_) | Told::Abort => {
                        self.ends(&key, 0);
                        ended = true;
                    }
                }
            }
            match due {
                Some(due) => self.now = self.now.max(due),
                None if ended => {}
                None => return,
            }
        }
        panic!("it does not come to rest: {:?}", self.actual.phases().collect::<Vec<_>>());
    }

    /// What runs is what is desired, except what has halted.
    fn assert_converged(&self) {
        let wanted: Vec<_> = self.desired.keys().collect();
        let there: BTreeSet<_> = self.actual.phases().map(|(key, _)| key).collect();
        assert_eq!(there, wanted.iter().copied().collect());
        for key in wanted {
            let wanted = self.desired.wanted(key).unwrap();
            let halted = matches!(self.actual.phase(key), Some(Phase::Halted { .. }));
            let runs = self.world.tasks.contains_key(key);
            assert_eq!(runs, wanted.want == Want::Run && !halted, "{key}");
            if runs || wanted.want == Want::Pause {
                assert_eq!(self.world.adopted[key], wanted.generation, "{key} by an old plan");
            }
            let of = (key.clone(), self.world.adopted[key]);
            assert_eq!(halted, self.world.halted.contains(&of), "{key} forgot that it halted");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<u8>(), any::<u8>()).prop_map(|(what, of)| Step::Edit(what, of)),
        2 => (any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(one, other, stays)| Step::TakeOver(one, other, stays)),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(of, how)| Step::Ends(of, how)),
        3 => (0u64..4000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn it_comes_to_what_is_desired(
        steps in prop::collection::vec((step(), any::<bool>()), 0..60),
        hang in any::<bool>(),
    ) {
        let mut play = Play::new();
        for (step, looked) in &steps {
            play.step(step);
            // Several things may happen before the loop's next turn.
            if *looked {
                play.turn();
            }
        }
        play.settle(hang);
        play.assert_converged();
    }
}

/// Plays one consumer; returns the actions as text.
fn one(steps: &[Step]) -> (Play, Vec<&'static str>) {
    let mut play = Play::new();
    let mut done = Vec::new();
    for step in steps {
        play.step(step);
        let Play { desired, actual, world, now } = &mut play;
        actual.turn(desired, *now, |key, action| {
            world.act(key, action, *now);
            done.push(match action {
                Action::Adopt(_) => "adopt",
                Action::Start => "start",
                Action::Drain => "drain",
                Action::Abort => "abort",
                Action::Forget => "forget",
            });
        });
    }
    (play, done)
}

const PUT: Step = Step::Edit(0, 0);
const ANEW: Step = Step::Edit(5, 0);
const PAUSE: Step = Step::Edit(7, 0);
const RESUME: Step = Step::Edit(10, 0);
const REMOVE: Step = Step::Edit(13, 0);
const STOP: Step = Step::Edit(15, 0);
const ENDS: Step = Step::Ends(0, 0);
const HALTS: Step = Step::Ends(0, 1);
const FAILS: Step = Step::Ends(0, 2);

#[test]
fn one_consumer_step_by_step() {
    let table: &[(&str, &[Step], &str)] = &[
        ("a replace waits for the drain", &[PUT, PUT, Step::Wait(9000)], "adopt start drain"),
        ("and then starts", &[PUT, PUT, ENDS], "adopt start drain adopt start"),
        (
            "a drain that hangs is aborted",
            &[PUT, REMOVE, Step::Wait(10_000)],
            "adopt start drain abort",
        ),
        (
            "an abort is waited for, too",
            &[PUT, PUT, Step::Wait(10_000), Step::Wait(90_000)],
            "adopt start drain abort",
        ),
        (
            "aborted, then replaced",
            &[PUT, PUT, Step::Wait(10_000), ENDS],
            "adopt start drain abort adopt start",
        ),
        ("shutdown is faster", &[PUT, REMOVE, STOP, Step::Wait(3000)], "adopt start drain abort"),
        ("a drain is not taken back", &[PUT, PAUSE, RESUME, Step::Wait(1000)], "adopt start drain"),
        ("it is finished first", &[PUT, PAUSE, RESUME, ENDS], "adopt start drain start"),
        ("halted stays halted", &[PUT, HALTS, PAUSE, RESUME, Step::Wait(99_000)], "adopt start"),
        ("until it is told", &[PUT, HALTS, ANEW], "adopt start adopt start"),
        ("or has another plan", &[PUT, HALTS, PUT], "adopt start adopt start"),
        ("failed waits", &[PUT, FAILS, Step::Wait(699)], "adopt start"),
        ("and comes again", &[PUT, FAILS, Step::Wait(700)], "adopt start start"),
        ("paused meanwhile, it does not", &[PUT, FAILS, PAUSE, Step::Wait(700)], "adopt start"),
        (
            "resumed, it waits for the rest",
            &[PUT, FAILS, PAUSE, RESUME, Step::Wait(699)],
            "adopt start",
        ),
        (
            "and comes again then",
            &[PUT, FAILS, PAUSE, RESUME, Step::Wait(700)],
            "adopt start start",
        ),
        ("another plan need not wait", &[PUT, FAILS, PUT], "adopt start adopt start"),
        ("paused, another plan", &[PUT, PAUSE, ENDS, PUT], "adopt start drain adopt"),
        ("is by that on", &[PUT, PAUSE, ENDS, PUT, RESUME], "adopt start drain adopt start"),
        ("removed and put again", &[PUT, REMOVE, PUT, ENDS], "adopt start drain adopt start"),
        ("after the stop nothing starts", &[STOP, PUT, ANEW, RESUME], "adopt"),
        ("removed", &[PUT, REMOVE, ENDS], "adopt start drain forget"),
        (
            "one that takes over waits",
            &[PUT, Step::TakeOver(1, 0, false), Step::Wait(9000)],
            "adopt start adopt drain",
        ),
        (
            "and starts then",
            &[PUT, Step::TakeOver(1, 0, false), ENDS],
            "adopt start adopt drain start forget",
        ),
        (
            "a plan of later is not waited for",
            &[PUT, Step::Edit(0, 1), Step::TakeOver(1, 0, true), ENDS, Step::Ends(1, 0)],
            "adopt start adopt start drain drain adopt start adopt start",
        ),
        (
            "changed again meanwhile, it waits on",
            &[PUT, Step::TakeOver(1, 0, false), Step::Edit(0, 1), ENDS],
            "adopt start adopt drain adopt start forget",
        ),
    ];
    for (name, steps, expected) in table {
        assert_eq!(one(steps).1.join(" "), *expected, "{name}");
    }
}
