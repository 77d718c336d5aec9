//! Simulates owners that freeze, die, wake up and lose answers at every operation on the store.
//! Checks that no record is ever missing before a visible one, or visible twice.
//!
//! Three owners with objects of different sizes run the real protocol on an in-memory object store.
//! Every operation can be suspended before it takes effect and before its answer arrives. By
//! default an owner runs until it ends; a *deviation* switches to another one, or loses an answer.
//! All ways to place two deviations are tried, and random ones with more. After each run a further
//! owner takes over and finishes the work; then the frozen owners wake up, and nothing may change.
//!
//! The same with commits of two objects: there, a visible record may come before a missing one, but no record is
//! missing below a position: it is visible, or in what the checkpoint claims as staged.
//!
//! ```text
//! RILLWAY_OBJECT_SIMULATIONS=100000 cargo test --lib object::simulation      more of the random ones
//! ```

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::commit::{Commit, Object};
use super::committer::{Committer, Upto, look};
use super::layout::{Format, Layout, Packing};
use super::remote::Remote;
use super::store::{Digest, Store};
use super::testing::{Disturbed, Interference};
use crate::sink::SinkError;
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// What the owners write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// The records 0 to this one, exclusive.
    records: u64,
    /// True if those of a commit are in two objects, of even and of odd numbers.
    in_two: bool,
}

const ONE_BY_ONE: Work = Work { records: 6, in_two: false };
pub(super) const IN_TWO: Work = Work { records: 4, in_two: true };

/// Choices of a run.
struct Chooser {
    /// The first choices; later ones are random, or 0.
    fixed: Vec<usize>,
    random: Option<(fastrand::Rng, u32)>,
    /// Each choice, and its number of options.
    trace: Vec<(usize, usize)>,
}

impl Chooser {
    fn choose(&mut self, options: usize) -> usize {
        let chosen = match (self.fixed.get(self.trace.len()), &mut self.random) {
            (Some(chosen), _) => (*chosen).min(options - 1),
            (None, Some((random, left))) => {
                let deviates = *left > 0 && random.u32(0..8) == 0;
                *left -= u32::from(deviates);
                if deviates { random.usize(0..options) } else { 0 }
            }
            (None, None) => 0,
        };
        self.trace.push((chosen, options));
        chosen
    }
}

/// Suspends every operation before it takes effect and before its answer, and may lose the answer.
struct Suspends(Arc<Mutex<Chooser>>);

async fn in_the_air() {
    let mut first = true;
    std::future::poll_fn(
        move |_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) },
    )
    .await;
}

impl Interference for Suspends {
    async fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> Result<R, SinkError> {
        in_the_air().await;
        let answer = operation.await;
        in_the_air().await;
        let lost = self.0.lock().unwrap().choose(2) == 1;
        if lost { Err(SinkError::transient("the answer was lost")) } else { answer }
    }
}

pub(super) fn names(work: Work) -> super::Names {
    let stream = StreamName::from("events");
    let table = super::layout::table(&stream, 255);
    let names = super::names_in(table, &stream, &Reference::from("archive"));
    let partition_by = work.in_two.then(|| vec!["r".to_owned()]);
    super::Names { partition_by, ..names }
}

pub(super) fn layout() -> Layout {
    Layout::new(&Format::Ndjson(Packing::Plain), &StreamName::from("events")).unwrap()
}

pub(super) fn object(folder: &str, offsets: impl Iterator<Item = u64>) -> Option<Object> {
    let offsets: Vec<u64> = offsets.collect();
    let bytes = Bytes::from(offsets.iter().map(|n| format!("{n}\n")).collect::<String>());
    Some(Object {
        folder: folder.to_owned(),
        extension: "ndjson".to_owned(),
        digest: Digest::of(&bytes),
        bytes,
        first_offset: Offset(*offsets.first()?),
        last_offset: Offset(*offsets.last()?),
        records: offsets.len() as u64,
    })
}

pub(super) fn commit(first: u64, last: u64, in_two: bool) -> Commit {
    let of = |rest| object(&format!("r={rest}"), (first..=last).filter(move |n| n % 2 == rest));
    let whole = object("date=2026-11-23/hour=14", first..=last);
    let objects = if in_two { vec![of(0), of(1)] } else { vec![whole] };
    let checkpoint = Checkpoint { offset: Offset(last), chunk: None };
    Commit::new(objects.into_iter().flatten().collect(), checkpoint).unwrap()
}

/// Retries transient errors, a few times.
macro_rules! again {
    ($operation:expr) => {{
        let mut left = 4;
        loop {
            match $operation.await {
                Err(SinkError::Transient { .. }) if left > 0 => left -= 1,
                other => break other,
            }
        }
    }};
}

/// Takes over and writes the missing records, `size` per object, until the end or an error. Stores
/// the number of records below its position in `settled`. Every other one first finishes what it finds, as a
/// sink does; the others leave that to their next step.
async fn owner(
    store: Arc<dyn Store>,
    work: Work,
    size: u64,
    settled: Arc<AtomicU64>,
) -> Result<(), SinkError> {
    let mut committer = again!(Committer::take_over(store.clone(), names(work), layout()))?;
    let position = |committer: &Committer| {
        let next = committer.position().map_or(0, |at| at.offset.0 + 1);
        settled.fetch_max(next, Ordering::SeqCst);
        next
    };
    let found = position(&committer);
    if committer.is_unfinished() && size != 3 {
        again!(committer.settle())?;
        assert_eq!(position(&committer), found, "the position has changed");
    }
    loop {
        let next = position(&committer);
        if next >= work.records {
            return again!(committer.settle());
        }
        let commit = commit(next, (next + size - 1).min(work.records - 1), work.in_two);
        again!(committer.commit(&commit))?;
        if next % 2 == 0 {
            again!(committer.settle())?;
        }
    }
}

type Owner = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send>>;

fn poll(owner: &mut Owner) -> Poll<Result<(), SinkError>> {
    owner.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The records that a reader of all objects sees.
fn visible(memory: &InMemory) -> Vec<u64> {
    let table = object_store::path::Path::from("events");
    let listed: Vec<_> = memory.list(Some(&table)).collect::<Vec<_>>().now_or_never().unwrap();
    let mut records: Vec<u64> = Vec::new();
    for meta in listed {
        let path = meta.unwrap().location;
        let got = memory.get(&path).now_or_never().unwrap().unwrap();
        let bytes = got.bytes().now_or_never().unwrap().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        records.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
    }
    records.sort_unstable();
    records
}

/// What a checkpoint says, for as long as it is not replaced.
#[derive(Default)]
struct Said {
    checkpoint: Bytes,
    /// Its position.
    created: u64,
    /// Key of what it claims as staged, and the records in it.
    staged: Option<(String, Vec<u64>)>,
}

impl Said {
    /// Reads the checkpoint. Fails if what it claims is not staged.
    fn renew(&mut self, memory: &InMemory, work: Work) {
        let path = |key: &str| object_store::path::Path::from(key);
        let get = |key: &str| {
            let got = memory.get(&path(key)).now_or_never().unwrap().ok()?;
            Some(got.bytes().now_or_never().unwrap().unwrap())
        };
        let Some(checkpoint) = get(&names(work).checkpoint) else { return };
        if checkpoint == self.checkpoint {
            let is_there = |key: &str| memory.head(&path(key)).now_or_never().unwrap().is_ok();
            assert!(self.staged.iter().all(|(key, _)| is_there(key)), "what is claimed is gone");
            return;
        }
        let state: serde_json::Value = serde_json::from_slice(&checkpoint).unwrap();
        let created = state["checkpoint"]["offset"].as_u64().map_or(0, |offset| offset + 1);
        let claim = &state["claim"];
        let staged = claim["staged"].is_object().then(|| {
            let key = claim["key"].as_str().unwrap().to_owned();
            let packed = get(&key).expect("what is claimed is staged");
            let objects = super::commit::unpack(&packed).unwrap();
            let text = |object: &Object| String::from_utf8(object.bytes.to_vec()).unwrap();
            let text: String = objects.iter().map(text).collect();
            (key, text.lines().map(|line| line.parse().unwrap()).collect())
        });
        *self = Said { checkpoint, created, staged };
    }
}

/// Number of commits that are staged.
fn staged(memory: &InMemory, work: Work) -> usize {
    let folder = object_store::path::Path::from(names(work).staged);
    memory.list(Some(&folder)).collect::<Vec<_>>().now_or_never().unwrap().len()
}

/// One run: returns its choices, and the number of owners that were fenced off.
fn run(
    work: Work,
    fixed: Vec<usize>,
    random: Option<(fastrand::Rng, u32)>,
) -> (Vec<(usize, usize)>, usize) {
    let chooser = Arc::new(Mutex::new(Chooser { fixed, random, trace: Vec::new() }));
    let memory = Arc::new(InMemory::new());
    let remote = || -> Arc<dyn Store> {
        let store: Arc<dyn ObjectStore> = memory.clone();
        Arc::new(Remote::new(store, "memory:".to_owned(), String::new(), Duration::from_secs(600)))
    };
    let settled = Arc::new(AtomicU64::new(0));
    let mut frozen: Vec<Owner> = Vec::new();
    let mut fenced = 0;
    let mut ended = |result: Result<(), SinkError>| match result {
        Err(SinkError::Fatal(why)) => {
            assert!(why.contains("has taken over"), "{why}");
            fenced += 1;
        }
        Ok(()) | Err(SinkError::Transient { .. }) => {}
        Err(other) => panic!("{other}"),
    };
    for size in [2, 3, 1] {
        let store =
            Arc::new(Disturbed { inner: remote(), interference: Suspends(chooser.clone()) });
        frozen.push(Box::pin(owner(store, work, size, settled.clone())));
    }
    let said = std::cell::RefCell::new(Said::default());
    let check = || {
        let seen = visible(&memory);
        let settled = settled.load(Ordering::SeqCst);
        if work.in_two {
            assert!(seen.windows(2).all(|two| two[0] < two[1]), "twice: {seen:?}");
            let mut said = said.borrow_mut();
            said.renew(&memory, work);
            let (staged, created) = (said.staged.as_ref().map(|(_, staged)| staged), said.created);
            let is_staged = |n: u64| staged.is_some_and(|staged| staged.contains(&n));
            let is_kept = |n: u64| seen.contains(&n) || is_staged(n);
            assert!((0..settled).all(is_kept), "lost: {seen:?}, {staged:?} of {settled}");
            assert!((0..created).all(|n| seen.contains(&n)), "not created: {seen:?} of {created}");
            assert!(!(0..created).any(is_staged), "claimed again: {staged:?}");
        } else {
            assert!(seen.iter().copied().eq(0..seen.len() as u64), "visible: {seen:?}");
            assert!(seen.len() as u64 >= settled, "lost: {seen:?}");
        }
        seen.len() as u64
    };
    // The owners run in turn, except for deviations; an owner that was interrupted stays frozen
    // until a deviation returns to it.
    let mut current = 0;
    let mut left: Vec<usize> = (0..frozen.len()).collect();
    let mut steps = 0;
    while !left.is_empty() && steps < 400 {
        steps += 1;
        let chosen = chooser.lock().unwrap().choose(left.len());
        current = (current + chosen) % left.len();
        if let Poll::Ready(result) = poll(&mut frozen[left[current]]) {
            ended(result);
            left.remove(current);
            current = if left.is_empty() { 0 } else { current % left.len() };
            // The others may stay frozen for good.
            if !left.is_empty() && chooser.lock().unwrap().choose(2) == 1 {
                break;
            }
        }
        check();
    }
    // The last owner finishes the work, undisturbed.
    let finishing = owner(remote(), work, 2, settled.clone()).now_or_never();
    assert!(matches!(finishing, Some(Ok(()))), "{finishing:?}");
    assert_eq!(check(), work.records);
    for upto in [Upto::Claimed, Upto::Created] {
        let (store, names) = (remote(), names(work));
        let looked = look(&*store, &names, &layout(), upto).now_or_never().unwrap().unwrap();
        assert_eq!(looked.map(|at| at.offset), Some(Offset(work.records - 1)));
    }
    assert_eq!(staged(&memory, work), 0, "something staged was left");
    // The frozen owners wake up.
    for nth in left {
        for _ in 0..400 {
            if let Poll::Ready(result) = poll(&mut frozen[nth]) {
                ended(result);
                break;
            }
            assert_eq!(check(), work.records);
        }
    }
    assert_eq!(check(), work.records);
    let trace = std::mem::take(&mut chooser.lock().unwrap().trace);
    (trace, fenced)
}

fn explained(
    work: Work,
    fixed: &[usize],
    random: Option<(fastrand::Rng, u32)>,
) -> (Vec<(usize, usize)>, usize) {
    let ran = std::panic::catch_unwind(|| run(work, fixed.to_vec(), random));
    ran.unwrap_or_else(|panic| {
        eprintln!("the run that failed: {work:?} {fixed:?}");
        std::panic::resume_unwind(panic)
    })
}

fn two_deviations_anywhere(work: Work) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let (mut waiting, mut runs, mut fenced) = (vec![(Vec::new(), 2)], 0, 0);
    while let Some((fixed, left)) = waiting.pop() {
        let (trace, lost) = explained(work, &fixed, None);
        runs += 1;
        fenced += usize::from(lost > 0);
        if left == 0 {
            continue;
        }
        for at in fixed.len()..trace.len() {
            for other in 1..trace[at].1 {
                let mut next: Vec<usize> = trace[..at].iter().map(|(chosen, _)| *chosen).collect();
                next.push(other);
                waiting.push((next, left - 1));
            }
        }
    }
    eprintln!("{runs} runs, in {fenced} of them somebody was fenced off");
    assert!(runs > 5_000 && fenced > 1_000, "{runs} runs, {fenced} with a fence");
}

#[test]
fn two_deviations_anywhere_do_no_harm() {
    two_deviations_anywhere(ONE_BY_ONE);
}

#[test]
fn two_deviations_anywhere_do_no_harm_to_commits_of_several_objects() {
    two_deviations_anywhere(IN_TWO);
}

#[test]
fn many_deviations_by_chance_do_no_harm() {
    many_deviations_by_chance(ONE_BY_ONE);
}

#[test]
fn many_deviations_by_chance_do_no_harm_to_commits_of_several_objects() {
    many_deviations_by_chance(IN_TWO);
    many_deviations_by_chance(Work { records: 9, ..IN_TWO });
}

fn many_deviations_by_chance(work: Work) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let runs = std::env::var("RILLWAY_OBJECT_SIMULATIONS").map_or(3_000, |n| n.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fenced = 0;
    for _ in 0..runs {
        let run = fastrand::Rng::with_seed(random.u64(..));
        fenced += explained(work, &[], Some((run, 12))).1;
    }
    assert!(fenced as u64 > runs / 10, "only {fenced} were fenced off in {runs} runs");
}
