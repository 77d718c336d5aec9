//! Every order in which the steps of several processes can follow each other, and every step at which some or all
//! of them can be killed.
//!
//! A process is a thread that stops before each step ([`step`]) until it is let on. What it does next follows from
//! what it has seen. So two orders that lead to the same folder, and have shown each process the same, are one from
//! there on, and only the first of them is played further.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::super::hold::Hold;
use super::super::spec::testing;
use super::*;

/// Where a process has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Before a step on this file.
    Step(PathBuf),
    End(Result<(), String>),
}

/// A process, as its own thread sees it.
struct Seat {
    at: SyncSender<At>,
    go: Receiver<()>,
}

/// The panic of a process that is killed.
struct Killed;

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// Stops a process of these tests before a step on this file.
pub(super) fn step(path: &Path) {
    SEAT.with_borrow(|seat| {
        let Some(Seat { at, go }) = seat else { return };
        at.send(At::Step(path.to_owned())).unwrap();
        if go.recv().is_err() {
            resume_unwind(Box::new(Killed));
        }
    });
}

type Files = BTreeMap<OsString, Vec<u8>>;
type Process<'a> = &'a (dyn Fn(&Run) -> Result<(), String> + Sync);

/// What has led a process to where it is: each step's file, as it was before the step.
type Seen = Vec<(PathBuf, Option<Vec<u8>>)>;

/// One order of steps.
struct Run {
    folder: PathBuf,
    /// How often a process has gone on from a state file.
    gone_on: AtomicUsize,
}

impl Run {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn files(&self) -> Files {
        let entries = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    }

    fn counts(&self, name: &str) -> String {
        counts(&self.file(name))
    }
}

/// What counts for a state file, or nothing.
fn counts(file: &Path) -> String {
    let text = decided(file).unwrap().unwrap_or_else(|| {
        step(file);
        fs::read(file).unwrap_or_default()
    });
    String::from_utf8(text).unwrap()
}

fn settled(file: &Path) {
    let replace = |content: &[u8]| {
        step(file);
        fs::write(file, content)
    };
    settle(file, replace).unwrap();
}

struct Scene<'a> {
    files: Files,
    processes: &'a [Process<'a>],
    /// Looks at what the processes leave. The argument is true if all have come to their end, false if some were
    /// killed.
    left: &'a dyn Fn(&Run, bool) -> Result<(), String>,
}

impl Scene<'_> {
    /// Plays every order; returns how many states there are, or the first order that goes wrong.
    fn explore(&self) -> Result<usize, String> {
        let dir = in_memory();
        let (mut known, mut orders) = (HashSet::new(), vec![Vec::new()]);
        while let Some(order) = orders.pop() {
            for name in fs::read_dir(dir.path()).unwrap() {
                fs::remove_file(name.unwrap().path()).unwrap();
            }
            for (name, content) in &self.files {
                fs::write(dir.path().join(name), content).unwrap();
            }
            let run = Run { folder: dir.path().to_owned(), gone_on: AtomicUsize::new(0) };
            let (at, seen) = self.play(&run, &order);
            let told = |what| format!("{what}, after {seen:#?}\n{at:#?}");
            if !known.insert((run.files(), at.clone(), seen.clone())) {
                continue;
            }
            for one in &at {
                if let At::End(Err(what)) = one {
                    return Err(told(what.clone()));
                }
            }
            let going: Vec<usize> =
                (0..at.len()).filter(|nth| matches!(at[*nth], At::Step(_))).collect();
            (self.left)(&run, going.is_empty()).map_err(told)?;
            orders.extend(going.into_iter().map(|nth| [order.as_slice(), &[nth]].concat()));
        }
        Ok(known.len())
    }

    /// Lets the processes on in this order, and then kills those that have not come to their end.
    fn play(&self, run: &Run, order: &[usize]) -> (Vec<At>, Vec<Seen>) {
        thread::scope(|scope| {
            let (mut places, mut lets, mut threads) = (Vec::new(), Vec::new(), Vec::new());
            for (nth, process) in self.processes.iter().enumerate() {
                let ((at, place), (let_on, go)) = (sync_channel(1), sync_channel(1));
                let ended = at.clone();
                threads.push(scope.spawn(move || {
                    fastrand::seed(nth as u64);
                    SEAT.set(Some(Seat { at, go }));
                    let end = process(run);
                    SEAT.set(None);
                    ended.send(At::End(end)).unwrap();
                }));
                places.push(place);
                lets.push(let_on);
            }
            let arrived = |place: &Receiver<At>| {
                place.recv().unwrap_or(At::End(Err("a process panicked".to_owned())))
            };
            let mut at: Vec<At> = places.iter().map(arrived).collect();
            let mut seen: Vec<Seen> = vec![Vec::new(); at.len()];
            for nth in order {
                let At::Step(path) = &at[*nth] else { unreachable!() };
                seen[*nth].push((path.clone(), fs::read(path).ok()));
                lets[*nth].send(()).unwrap();
                at[*nth] = arrived(&places[*nth]);
            }
            drop(lets);
            for thread in threads {
                if let Err(panic) = thread.join()
                    && !panic.is::<Killed>()
                {
                    resume_unwind(panic);
                }
            }
            (at, seen)
        })
    }
}

/// A folder whose syncs cost nothing, where there is one.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A folder in which `a` and `b` are `"old"`, and `"new"` is pledged for both.
fn pledged(is_decided: bool) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let run = Run { folder: dir.path().to_owned(), gone_on: AtomicUsize::new(0) };
    let files = ["a", "b"].map(|name| run.file(name));
    files.iter().for_each(|file| fs::write(file, "\"old\"").unwrap());
    let contents = files.map(|file| (file, b"\"new\"".to_vec()));
    let pledges = Pledges::write(dir.path(), &contents).unwrap();
    if is_decided {
        pledges.decide().unwrap();
    }
    run.files()
}

fn all_are(run: &Run, expected: &str) -> Result<(), String> {
    let found = ["a", "b"].map(|name| run.counts(name));
    match found.iter().all(|found| found == expected) {
        true => Ok(()),
        false => Err(format!("{found:?}, not {expected}")),
    }
}

fn nothing_else_is_left(run: &Run) -> Result<(), String> {
    match run.files().len() {
        2 => Ok(()),
        _ => Err(format!("{:?} are left", run.files().keys())),
    }
}

/// What counts does so for everybody at each time; and after the next ones have settled it.
fn counts_and_goes_on_counting(run: &Run, is_over: bool, expected: &str) -> Result<(), String> {
    all_are(run, expected)?;
    if is_over {
        nothing_else_is_left(run)?;
    }
    ["a", "b"].iter().for_each(|name| settled(&run.file(name)));
    all_are(run, expected)
}

fn settles(name: &'static str) -> impl Fn(&Run) -> Result<(), String> + Sync {
    move |run| {
        settled(&run.file(name));
        Ok(())
    }
}

fn reads(name: &'static str, expected: &'static str) -> impl Fn(&Run) -> Result<(), String> + Sync {
    move |run| match run.counts(name) {
        found if found == expected => Ok(()),
        found => Err(format!("{name} is read as {found}, not {expected}")),
    }
}

#[test]
fn two_settle_one_decision_and_others_read() {
    for (is_decided, expected) in [(true, "\"new\""), (false, "\"old\"")] {
        let processes: &[Process<'_>] = &[&settles("a"), &settles("b"), &reads("a", expected)];
        let left = |run: &Run, is_over: bool| counts_and_goes_on_counting(run, is_over, expected);
        let states = Scene { files: pledged(is_decided), processes, left: &left }.explore();
        assert!(states.as_ref().is_ok_and(|states| *states > 100), "{states:?}");
    }
}

/// Whoever has read one of the new contents reads no old one any more.
#[test]
fn one_decides_and_another_one_reads() {
    let decides = |run: &Run| -> Result<(), String> {
        let contents = ["a", "b"].map(|name| (run.file(name), b"\"new\"".to_vec()));
        Pledges::write(&run.folder, &contents).unwrap().decide().unwrap();
        contents.iter().for_each(|(file, _)| settled(file));
        Ok(())
    };
    let looks = |run: &Run| -> Result<(), String> {
        let found = ["a", "b"].map(|name| run.counts(name));
        match found.is_sorted_by_key(|found| found == "\"new\"") {
            true => Ok(()),
            false => Err(format!("read one after the other: {found:?}")),
        }
    };
    let left = |run: &Run, is_over: bool| match run.counts("a").as_str() {
        "\"old\"" if !is_over => counts_and_goes_on_counting(run, false, "\"old\""),
        _ => counts_and_goes_on_counting(run, is_over, "\"new\""),
    };
    let mut files = pledged(false);
    files.retain(|name, _| name.to_string_lossy().ends_with(".json"));
    let states = Scene { files, processes: &[&decides, &looks], left: &left }.explore();
    assert!(states.as_ref().is_ok_and(|states| *states > 100), "{states:?}");
}

/// Two processes that share a reference: what one has stored since it went on, the other one does not write over.
/// Without the lock it would.
#[test]
fn two_of_one_reference_settle_one_after_the_other() {
    let other = tempfile::tempdir().unwrap();
    let spec = testing::spec(other.path());
    let goes_on = |run: &Run, locks: bool| -> Result<(), String> {
        let file = run.file("a");
        if locks && is_pledged(&file).unwrap() {
            step(Path::new("lock"));
            // It is tried again later.
            let Ok(_alone) = Hold::to_complete(&spec) else { return Ok(()) };
            settled(&file);
        } else {
            settled(&file);
        }
        step(&file);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("new", "new, and more")).unwrap();
        run.gone_on.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let left = |run: &Run, _: bool| {
        let more = ", and more".repeat(run.gone_on.load(Ordering::Relaxed));
        match run.counts("a") {
            found if found == format!("\"new{more}\"") => Ok(()),
            found => Err(format!("{found}, not with {more:?}")),
        }
    };
    let explored = |locks: bool| {
        let one = |run: &Run| goes_on(run, locks);
        Scene { files: pledged(true), processes: &[&one, &one], left: &left }.explore()
    };
    let states = explored(true);
    assert!(states.as_ref().is_ok_and(|states| *states > 50), "{states:?}");
    assert!(explored(false).unwrap_err().contains("\"new\", not with"));
}
