//! Exactly once, whatever fails and whenever: the log on a simulated file system that loses, tears and
//! refuses writes.
//!
//! In each life the log is used as by a consumer: it finds the position, takes the records behind it from
//! the stream in random batches, writes them, and retries what failed. A life ends by `kill -9` or power
//! loss at some step. After each start the visible records must be exactly those up to the position, and
//! the position must not be lower than the acknowledged one.

use std::collections::BTreeSet;
use std::time::Duration;

use super::log::{Log, Setup};
use super::pack::Packer;
use super::segment::{self, Rotation};
use super::simulation::{Event, Lie, Model};
use super::{Compression, position};
use crate::flow::batch::Batch;
use crate::sink::SinkError;
use crate::sink::conformance::{BAD_MESSAGE, STREAM, message, part};
use crate::sink::format::Format;
use crate::types::{Offset, Reference, StreamName, Timestamp};

/// With more lives than this, the log makes no progress.
const LIVES_MAX: usize = 1_000;
const TRIES_MAX: usize = 1_000;

/// The stream, as a broker would deliver it.
struct Source {
    /// Offset and body; `None` for a record that cannot be decoded.
    records: Vec<(u64, Option<String>)>,
}

impl Source {
    /// `count` records with random gaps and sizes, and some bad ones.
    fn random(count: usize, random: &mut fastrand::Rng) -> Source {
        let mut offset = random.u64(..3);
        // If nearly all are bad, whole batches change only the position.
        let bad_per_mille = [40, 100, 900][random.usize(..3)];
        let mut records = Vec::new();
        for _ in 0..count {
            let size = if random.u8(..10) == 0 { random.usize(..400) } else { random.usize(..20) };
            let body = format!("{offset}:{}", "x".repeat(size));
            records.push((offset, (random.u32(..1_000) >= bad_per_mille).then_some(body)));
            offset += if random.u8(..8) == 0 { random.u64(2..9) } else { 1 };
        }
        Source { records }
    }

    /// A batch of about `size` records above `after`.
    fn batch(&self, after: Option<Offset>, size: usize) -> Option<Batch> {
        let wanted = |offset: u64| after.is_none_or(|after| offset > after.0);
        let parts = self
            .records
            .iter()
            .filter(|(offset, _)| wanted(*offset))
            .take(size)
            .map(|(offset, body)| {
                let bytes = body.as_ref().map_or(BAD_MESSAGE.to_vec(), |b| message(b.as_bytes()));
                part(*offset, &[bytes]).unwrap()
            })
            .collect();
        Batch::new(StreamName::from(STREAM), parts)
    }

    /// The records that cannot be decoded.
    fn bad(&self) -> Vec<Offset> {
        let bad = self.records.iter().filter(|(_, body)| body.is_none());
        bad.map(|(offset, _)| Offset(*offset)).collect()
    }

    /// The content that the files must have once everything up to `position` is written.
    fn expected(&self, position: Option<Offset>) -> String {
        let records = self.records.iter();
        records
            .take_while(|(offset, _)| position.is_some_and(|position| *offset <= position.0))
            .filter_map(|(_, body)| body.as_ref().map(|body| format!("{body}\n")))
            .collect()
    }
}

/// Set-up of the log for a run.
#[derive(Clone, Copy)]
struct Shape {
    compression: Compression,
    rotate_bytes: Option<u64>,
    /// Every operation takes a millisecond.
    rotate_age: Option<Duration>,
    piece_bytes: usize,
}

impl Shape {
    fn random(random: &mut fastrand::Rng) -> Shape {
        Shape {
            compression: match random.u8(..6) {
                0 => Compression::Zstd { level: 1 },
                1 => Compression::Gzip { level: 1 },
                _ => Compression::None,
            },
            rotate_bytes: random.bool().then(|| random.u64(1..1_500)),
            rotate_age: random.bool().then(|| Duration::from_millis(random.u64(1..100))),
            piece_bytes: random.usize(1..600),
        }
    }

    fn open(self, model: &Model) -> Result<Log<Model>, SinkError> {
        let (format, stream) = (Format::raw_lines(), StreamName::from(STREAM));
        let setup = Setup {
            envelope: format.envelope(&stream),
            stream,
            reference: Reference::from("archiver"),
            rotation: Rotation {
                extension: segment::extension(&format, self.compression),
                bytes: self.rotate_bytes,
                age: self.rotate_age,
            },
            packer: Packer::new(self.compression).unwrap(),
            piece_bytes: self.piece_bytes,
        };
        Log::open(model.clone(), setup)
    }
}

/// Everything that a reader of the segments finds.
fn visible(model: &Model) -> Result<String, String> {
    let mut text = Vec::new();
    for (name, bytes) in model.files() {
        if name.contains(".aside") {
            return Err(format!("{name} was put aside, though all segments are ours"));
        }
        match segment::parse(&name) {
            None => {}
            // No frame at all: a segment that was created, but got no batch yet.
            Some(_) if bytes.is_empty() => {}
            Some((_, "raw.zst")) => {
                text.extend(zstd::stream::decode_all(&*bytes).map_err(|e| format!("{name}: {e}"))?);
            }
            Some((_, "raw.gz")) => {
                let mut reader = flate2::read::MultiGzDecoder::new(&*bytes);
                let read = std::io::Read::read_to_end(&mut reader, &mut text);
                read.map_err(|e| format!("{name}: {e}"))?;
            }
            Some(_) => text.extend(bytes),
        }
    }
    String::from_utf8(text).map_err(|e| format!("torn: {e}"))
}

/// One run of the log over a source, through many lives.
struct Run {
    model: Model,
    source: Source,
    shape: Shape,
    random: fastrand::Rng,
    acknowledged: Option<Offset>,
}

/// The end of a life.
enum End {
    /// The whole source is in the files.
    Complete,
    /// The process died.
    Died,
}

impl Run {
    fn new(seed: u64, count: usize) -> Run {
        let mut random = fastrand::Rng::with_seed(seed);
        let source = Source::random(count, &mut random);
        let shape = Shape::random(&mut random);
        Run { model: Model::new(random.u64(..)), source, shape, random, acknowledged: None }
    }

    /// Checks that the visible records match the position, and include everything acknowledged.
    fn check(&self, position: Option<Offset>) -> Result<(), String> {
        if position < self.acknowledged {
            let acknowledged = self.acknowledged;
            return Err(format!("{acknowledged:?} was acknowledged, but stands at {position:?}"));
        }
        let (found, expected) = (visible(&self.model)?, self.source.expected(position));
        if found != expected {
            return Err(format!("at {position:?}:\n{found}\ninstead of\n{expected}"));
        }
        Ok(())
    }

    fn life(&mut self) -> Result<End, String> {
        let Some(mut log) = self.begin()? else { return Ok(End::Died) };
        let mut position = log.position().map(|checkpoint| checkpoint.offset);
        self.check(position)?;
        loop {
            let size = self.random.usize(1..12);
            let Some(batch) = self.source.batch(position, size) else { return Ok(End::Complete) };
            // A policy may have removed the bad ones before.
            let filtered = self.random.bool();
            let batch = if filtered { batch.without(self.source.bad()) } else { batch };
            if !self.write(&mut log, batch.clone())? {
                return Ok(End::Died);
            }
            self.acknowledged = Some(batch.last_offset());
            position = self.acknowledged;
            if log.position() != Some(batch.checkpoint()) {
                return Err(format!("stands at {:?} after {batch:?}", log.position()));
            }
            self.check(position)?;
        }
    }

    /// Opens the log; `None` if the process died while opening it.
    fn begin(&mut self) -> Result<Option<Log<Model>>, String> {
        for _ in 0..TRIES_MAX {
            match self.shape.open(&self.model) {
                Ok(log) => return Ok(Some(log)),
                Err(_) if self.model.is_dead() => return Ok(None),
                Err(SinkError::Transient { .. }) => {}
                Err(error) => return Err(format!("could not open: {error}")),
            }
        }
        Err("opening never succeeds".to_owned())
    }

    /// Writes the batch as a consumer does; `false` if the process died while writing.
    fn write(&mut self, log: &mut Log<Model>, mut batch: Batch) -> Result<bool, String> {
        for _ in 0..TRIES_MAX {
            match log.write(&batch, Timestamp(self.model.steps() as i64)) {
                Ok(()) => return Ok(true),
                Err(_) if self.model.is_dead() => return Ok(false),
                Err(SinkError::Transient { .. }) => {}
                Err(SinkError::Poison(bad)) => {
                    batch = batch.without(bad.iter().map(|record| record.offset).collect());
                }
                Err(error) => return Err(format!("could not write {batch:?}: {error}")),
            }
        }
        Err("writing never succeeds".to_owned())
    }

    fn end_life(&mut self) {
        if self.random.bool() { self.model.after_kill() } else { self.model.after_power_loss() }
    }

    /// Repeats lives until everything is written, each with deaths and failures planned by `plan`.
    fn run(&mut self, mut plan: impl FnMut(&Model, &mut fastrand::Rng)) -> Result<(), String> {
        for _ in 0..LIVES_MAX {
            plan(&self.model, &mut self.random);
            let end = self.life()?;
            if matches!(end, End::Complete) {
                // One more power loss: what was acknowledged must have been durable.
                self.model.after_power_loss();
                self.begin()?.ok_or("died without a reason")?;
                return self.check(self.source.records.last().map(|(offset, _)| Offset(*offset)));
            }
            self.end_life();
        }
        Err("it never gets to the end".to_owned())
    }
}

fn random_plan(model: &Model, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(..4) {
        model.plan(random.u64(1..120), Event::Fail);
    }
    if random.u8(..8) != 0 {
        model.plan(random.u64(1..120), Event::Die);
    }
}

#[test]
fn random_lives_are_exactly_once() {
    for seed in 0..1_500 {
        let mut run = Run::new(seed, 120);
        run.run(random_plan).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

/// One event at each step of a run, from the first to the last: no step is left out.
fn at_every_step(event: Event, seeds: u64) -> u64 {
    let mut tried = 0;
    for seed in 0..seeds {
        let mut undisturbed = Run::new(seed, 40);
        undisturbed.run(|_, _| {}).unwrap();
        for step in 1..=undisturbed.model.steps() {
            for variant in 0..6 {
                let mut run = Run::new(seed, 40);
                run.random = fastrand::Rng::with_seed(seed ^ (variant << 32));
                let mut planned = false;
                let plan = |model: &Model, _: &mut fastrand::Rng| {
                    if !std::mem::replace(&mut planned, true) {
                        model.plan(step, event);
                    }
                };
                run.run(plan).unwrap_or_else(|why| {
                    panic!("{event:?} at step {step}, seed {seed}, variant {variant}: {why}")
                });
                tried += 1;
            }
        }
    }
    tried
}

#[test]
fn a_death_at_every_step_is_exactly_once() {
    assert!(at_every_step(Event::Die, 6) > 1_000);
}

#[test]
fn a_failure_at_every_step_is_exactly_once() {
    assert!(at_every_step(Event::Fail, 6) > 1_000);
}

/// The kernel loses a commit whose sync failed, but the next process still reads it from the cache; then
/// the power fails, early in that process's life.
#[test]
fn a_commit_that_is_only_in_the_cache_is_not_trusted() {
    for seed in 0..120 {
        let mut run = Run::new(seed, 12);
        run.run(|_, _| {}).unwrap();
        let steps = run.model.steps();
        for step in 1..=steps {
            let mut run = Run::new(seed, 12);
            run.random = fastrand::Rng::with_seed(seed ^ (step << 32));
            let after = run.random.u64(1..5);
            run.model.plan(step, Event::Fail);
            run.model.plan(step + after, Event::Die);
            let told = run.life().map(|_| ()).and_then(|()| {
                run.model.after_kill();
                run.model.plan(run.random.u64(8..25), Event::Die);
                run.life()?;
                run.model.after_power_loss();
                run.run(|_, _| {})
            });
            told.unwrap_or_else(|why| panic!("seed {seed}, step {step}: {why}"));
        }
    }
}

/// A start-up that dies again and again, at any of its steps, succeeds in the end.
#[test]
fn deaths_during_recovery_are_exactly_once() {
    for seed in 0..300 {
        let mut run = Run::new(seed, 60);
        let mut deaths = 0;
        run.run(|model, random| {
            deaths += 1;
            if deaths < 40 {
                model.plan(random.u64(1..25), Event::Die);
            }
        })
        .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

/// A check of the tests above: they must find each of these planted lies.
#[test]
fn the_model_finds_a_missing_sync() {
    for lie in [Lie::Segment, Lie::Position, Lie::Folder, Lie::Cut] {
        let found = (0..1_500).any(|seed| {
            let mut run = Run::new(seed, 120);
            run.model.lie(lie);
            run.run(random_plan).is_err()
        });
        assert!(found, "{lie:?} went unnoticed");
    }
}

#[test]
fn files_in_the_folder_are_handled_by_table() {
    /// The expected result of the next start.
    enum Expect {
        /// It continues, and these files exist.
        Files(&'static [&'static str]),
        /// It refuses, with this text.
        Fatal(&'static str),
    }
    use Expect::{Fatal, Files};
    const TAIL: &str = "00000000000000000000.raw";
    const LATER: &str = "00000000000000000999.raw";
    const EARLIER: &str = "00000000000000000003.raw";
    type Tamper = fn(&Model);
    let cases: &[(&str, Tamper, Expect)] = &[
        ("nothing", |_| {}, Files(&[TAIL])),
        ("an empty later segment", |m| m.put(LATER, b""), Files(&[TAIL])),
        (
            "a later segment",
            |m| m.put(LATER, b"x"),
            Files(&[TAIL, "00000000000000000999.raw.aside"]),
        ),
        (
            "a later segment, and one that was put aside before",
            |m| {
                m.put("00000000000000000999.raw.aside", b"old");
                m.put(LATER, b"x");
            },
            Files(&[TAIL, "00000000000000000999.raw.aside", "00000000000000000999.raw.aside.1"]),
        ),
        ("an earlier segment", |m| m.put(EARLIER, b"x"), Files(&[TAIL, EARLIER])),
        ("another file", |m| m.put("README", b"x"), Files(&[TAIL, "README"])),
        ("the tail is missing", |m| m.take(TAIL), Fatal("is missing")),
        ("the tail is short", |m| m.put(TAIL, b"x"), Fatal("has 1 bytes, but")),
        ("no position", |m| m.take(position::NAME), Fatal("holds segments")),
        ("a damaged position", |m| m.put(position::NAME, &[0; 8192]), Fatal("is damaged")),
        ("an empty position", |m| m.put(position::NAME, b""), Fatal("is damaged")),
        (
            "a newer position",
            |m| m.put(position::NAME, b"rillway-position 9 00000000 0000\n"),
            Fatal("newer rillway"),
        ),
    ];
    let shape = Shape {
        compression: Compression::None,
        rotate_bytes: None,
        rotate_age: None,
        piece_bytes: 100,
    };
    for (what, tamper, expect) in cases {
        let mut random = fastrand::Rng::with_seed(1);
        let source = Source { records: (0..20).map(|n| (n, Some(n.to_string()))).collect() };
        let mut run =
            Run { model: Model::new(1), source, shape, random: random.fork(), acknowledged: None };
        run.run(|_, _| {}).unwrap();
        tamper(&run.model);
        match (shape.open(&run.model), expect) {
            (Ok(_), Files(names)) => {
                let expected: BTreeSet<&str> =
                    names.iter().copied().chain([position::NAME]).collect();
                let files = run.model.files();
                let found: BTreeSet<&str> = files.keys().map(String::as_str).collect();
                assert_eq!(found, expected, "{what}");
            }
            (Err(SinkError::Fatal(why)), Fatal(expected)) => {
                assert!(why.contains(expected) && why.contains("model/"), "{what}: {why}");
            }
            (other, _) => panic!("{what}: came back as {:?}", other.err()),
        }
    }
}
