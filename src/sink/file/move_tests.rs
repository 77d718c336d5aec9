//! A move of the position, with a death or a failure at each of its steps: the position is the old one or the
//! new one, no record is gone, and what comes next is written behind the new one.

use super::Compression;
use super::log::{Log, Setup};
use super::pack::Packer;
use super::segment::{self, Rotation};
use super::simulation::{Event, Model};
use crate::sink::SinkError;
use crate::sink::conformance::{STREAM, batch};
use crate::sink::format::Format;
use crate::types::{Checkpoint, Offset, Reference, StreamName, Timestamp};

/// Records before the move.
const BEFORE: u64 = 30;

fn open(model: &Model) -> Result<Log<Model>, SinkError> {
    let (format, stream) = (Format::raw_lines(), StreamName::from(STREAM));
    let setup = Setup {
        envelope: format.envelope(&stream),
        stream,
        reference: Reference::from("moved"),
        rotation: Rotation {
            extension: segment::extension(&format, Compression::None),
            bytes: Some(60),
            age: None,
        },
        packer: Packer::new(Compression::None).unwrap(),
        piece_bytes: 100,
    };
    Log::open(model.clone(), setup)
}

/// All records in the folder, those set aside included, in ascending order.
fn all_lines(model: &Model) -> Vec<u64> {
    let mut all = Vec::new();
    for (name, bytes) in model.files() {
        if name.starts_with("position") {
            continue;
        }
        let text = String::from_utf8(bytes).unwrap();
        let number = |line: &str| line.strip_prefix("offset ").unwrap().parse::<u64>().unwrap();
        all.extend(text.lines().map(number));
    }
    all.sort_unstable();
    all
}

/// A folder with [`BEFORE`] records in several segments.
fn filled(seed: u64) -> (Model, Log<Model>) {
    let model = Model::new(seed);
    let mut log = open(&model).unwrap();
    for from in (0..BEFORE).step_by(4) {
        log.write(&batch(from..(from + 4).min(BEFORE)), Timestamp(0)).unwrap();
    }
    (model, log)
}

fn at(log: &Log<Model>) -> Option<u64> {
    log.position().map(|checkpoint| checkpoint.offset.0)
}

/// Moves it with this event at this step; false if the move is over before that.
fn disturbed(to: Option<u64>, event: Event, step: u64, power_loss: bool, seed: u64) -> bool {
    let told = format!("{event:?} at step {step} of a move to {to:?}, seed {seed}");
    let checkpoint = to.map(|offset| Checkpoint { offset: Offset(offset), chunk: None });
    let (model, mut log) = filled(seed);
    let began = model.steps();
    model.plan(step, event);
    let mut moved = log.move_to(checkpoint);
    let reached = model.steps() - began >= step;
    if model.is_dead() {
        drop(log);
        if power_loss {
            model.after_power_loss()
        } else {
            model.after_kill()
        }
        log = open(&model).unwrap();
        assert!([to, Some(BEFORE - 1)].contains(&at(&log)), "{told}: at {:?}", at(&log));
        moved = log.move_to(checkpoint);
    } else if moved.is_err() {
        moved = log.move_to(checkpoint);
    }
    moved.unwrap_or_else(|error| panic!("{told}: {error}"));
    assert_eq!(at(&log), to, "{told}");
    let from = to.map_or(0, |to| to + 1);
    // A move of fewer steps is over before the event.
    model.cancel();
    log.write(&batch(from..from + 3), Timestamp(0)).unwrap();
    drop(log);
    // What was acknowledged is durable.
    model.after_power_loss();
    let log = open(&model).unwrap();
    assert_eq!(at(&log), Some(from + 2), "{told}");
    let mut expected: Vec<u64> = (0..BEFORE).chain(from..from + 3).collect();
    expected.sort_unstable();
    assert_eq!(all_lines(&model), expected, "{told}");
    reached
}

#[test]
fn a_move_that_is_disturbed_anywhere() {
    let mut tried = 0;
    for to in [None, Some(0), Some(12), Some(BEFORE - 1), Some(100)] {
        for event in [Event::Die, Event::Fail] {
            for (power_loss, seed) in [(false, 1), (true, 2), (true, 3), (true, 4)] {
                let mut step = 1;
                while disturbed(to, event, step, power_loss, seed) {
                    step += 1;
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 100, "only {tried}");
}
