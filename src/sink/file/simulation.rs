//! An in-memory file system that loses and tears data, and fails, as real ones may.
//!
//! Each file and the folder itself have a cache, which a process sees, and a disk, which survives a
//! power loss; between them are the operations that are not synced. On a power loss each of these
//! is kept, lost or torn, independently of the others and of their order. A `kill -9` leaves the
//! cache. A failed sync brings an arbitrary part to the disk and *forgets* the rest, which stays in
//! the cache: as Linux does.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::sink::SinkError;

use super::storage::{Entry, Stat, Storage};

/// Injected event at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process dies during the operation: nothing works from here on.
    Die,
    /// The operation fails, done in part or not at all.
    Fail,
}

/// A sync that does nothing. A test uses it to check that the tests would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Sync of a segment.
    Segment,
    /// Sync of the position.
    Position,
    /// Sync of the folder.
    Folder,
    /// Sync after cutting.
    Cut,
}

#[derive(Clone, Debug)]
enum Op {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Clone, Debug)]
enum NameOp {
    Set(String, usize),
    Unset(String),
    Rename(String, String, usize),
}

#[derive(Default)]
struct Node {
    cache: Vec<u8>,
    medium: Vec<u8>,
    pending: Vec<Op>,
    is_segment: bool,
}

fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { at, bytes: new } => {
            let end = at + new.len();
            if bytes.len() < end && !new.is_empty() {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(new);
        }
        Op::Cut(length) => bytes.resize(*length, 0),
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, op: &NameOp) {
    match op {
        NameOp::Set(name, node) => drop(names.insert(name.clone(), *node)),
        NameOp::Unset(name) => drop(names.remove(name)),
        NameOp::Rename(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

struct World {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    names_medium: BTreeMap<String, usize>,
    names_pending: Vec<NameOp>,
    random: fastrand::Rng,
    /// Number of operations so far.
    steps: u64,
    events: BTreeMap<u64, Event>,
    dead: bool,
    lie: Option<Lie>,
}

/// The folder; clones share it.
#[derive(Clone)]
pub(super) struct Model(Arc<Mutex<World>>);

/// Result of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Whole,
    /// It fails; how much of it is done depends on the operation.
    Broken,
}

impl World {
    /// Counts a step and returns its result.
    fn step(&mut self) -> io::Result<Course> {
        if self.dead {
            return Err(broken());
        }
        self.steps += 1;
        match self.events.remove(&self.steps) {
            None => Ok(Course::Whole),
            Some(Event::Fail) => Ok(Course::Broken),
            Some(Event::Die) => {
                self.dead = true;
                Ok(Course::Broken)
            }
        }
    }

    /// A step that changes nothing.
    fn look(&mut self) -> io::Result<()> {
        match self.step()? {
            Course::Whole => Ok(()),
            Course::Broken => Err(broken()),
        }
    }

    fn op(&mut self, node: usize, op: Op) {
        apply(&mut self.nodes[node].cache, &op);
        self.nodes[node].pending.push(op);
    }

    fn name_op(&mut self, op: NameOp) {
        apply_name(&mut self.names, &op);
        self.names_pending.push(op);
    }

    /// Brings an arbitrary part of the pending operations to the disk.
    fn settle_in_part(&mut self, node: usize) {
        for op in std::mem::take(&mut self.nodes[node].pending) {
            let part = match op {
                Op::Cut(_) => self.random.bool().then_some(op),
                Op::Write { at, bytes } => {
                    let mut ends =
                        [self.random.usize(..=bytes.len()), self.random.usize(..=bytes.len())];
                    ends.sort_unstable();
                    let [from, to] = match self.random.u8(..5) {
                        0 => [0, 0],
                        1 => [0, bytes.len()],
                        2 => [0, ends[0]],
                        3 => [ends[0], bytes.len()],
                        _ => ends,
                    };
                    let bytes = bytes[from..to].to_vec();
                    (!bytes.is_empty()).then_some(Op::Write { at: at + from, bytes })
                }
            };
            if let Some(part) = part {
                apply(&mut self.nodes[node].medium, &part);
            }
        }
    }

    fn settle(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        for op in std::mem::take(&mut node.pending) {
            apply(&mut node.medium, &op);
        }
    }
}

fn broken() -> io::Error {
    Errno::IO.into()
}

impl Model {
    pub(super) fn new(seed: u64) -> Model {
        Model(Arc::new(Mutex::new(World {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            names_medium: BTreeMap::new(),
            names_pending: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            steps: 0,
            events: BTreeMap::new(),
            dead: false,
            lie: None,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(super) fn lie(&self, lie: Lie) {
        self.world().lie = Some(lie);
    }

    pub(super) fn steps(&self) -> u64 {
        self.world().steps
    }

    /// Plans the event for the `step`-th operation from now (the next one is 1).
    pub(super) fn plan(&self, step: u64, event: Event) {
        let mut world = self.world();
        let at = world.steps + step;
        world.events.insert(at, event);
    }

    /// Forgets what is planned and has not happened.
    pub(super) fn cancel(&self) {
        self.world().events.clear();
    }

    pub(super) fn is_dead(&self) -> bool {
        self.world().dead
    }

    /// Starts a new process: the page cache is unchanged.
    pub(super) fn after_kill(&self) {
        let mut world = self.world();
        world.dead = false;
        world.events.clear();
    }

    /// Restarts the machine after a power loss.
    pub(super) fn after_power_loss(&self) {
        self.after_kill();
        let world = &mut *self.world();
        for node in 0..world.nodes.len() {
            world.settle_in_part(node);
            world.nodes[node].cache = world.nodes[node].medium.clone();
        }
        for op in std::mem::take(&mut world.names_pending) {
            if world.random.bool() {
                apply_name(&mut world.names_medium, &op);
            }
        }
        world.names = world.names_medium.clone();
    }

    /// Every file, as a process sees it.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        world
            .names
            .iter()
            .map(|(name, node)| (name.clone(), world.nodes[*node].cache.clone()))
            .collect()
    }

    /// Adds a file durably, as another program might.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let mut world = self.world();
        let (cache, medium) = (bytes.to_vec(), bytes.to_vec());
        let is_segment = super::segment::parse(name).is_some();
        world.nodes.push(Node { cache, medium, pending: Vec::new(), is_segment });
        let node = world.nodes.len() - 1;
        world.names.insert(name.to_owned(), node);
        world.names_medium.insert(name.to_owned(), node);
    }

    /// Removes a file durably, as another program might.
    pub(super) fn take(&self, name: &str) {
        let mut world = self.world();
        world.names.remove(name);
        world.names_medium.remove(name);
    }
}

impl Storage for Model {
    type File = usize;

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("model").join(name)
    }

    fn check_held(&mut self) -> io::Result<()> {
        self.world().look()
    }

    fn hold_again(&mut self) -> Result<(), SinkError> {
        self.world().look().map_err(|error| SinkError::transient(error.to_string()))
    }

    fn list(&mut self) -> io::Result<Vec<Entry>> {
        self.world().look()?;
        let files = self.files().into_iter();
        Ok(files.map(|(name, bytes)| Entry { name, bytes: bytes.len() as u64 }).collect())
    }

    fn open(&mut self, name: &str) -> io::Result<usize> {
        let mut world = self.world();
        world.look()?;
        world.names.get(name).copied().ok_or_else(|| Errno::NOENT.into())
    }

    fn create(&mut self, name: &str) -> io::Result<usize> {
        let mut world = self.world();
        let course = world.step()?;
        if world.names.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        if course == Course::Broken && world.random.bool() {
            return Err(broken());
        }
        let is_segment = super::segment::parse(name).is_some();
        world.nodes.push(Node { is_segment, ..Node::default() });
        let node = world.nodes.len() - 1;
        world.name_op(NameOp::Set(name.to_owned(), node));
        if course == Course::Broken { Err(broken()) } else { Ok(node) }
    }

    fn stat(&mut self, file: &usize) -> io::Result<Stat> {
        let mut world = self.world();
        world.look()?;
        let linked = world.names.values().any(|node| node == file);
        Ok(Stat { bytes: world.nodes[*file].cache.len() as u64, linked })
    }

    fn read(&mut self, file: &usize, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut world = self.world();
        world.look()?;
        let bytes = &world.nodes[*file].cache;
        Ok(bytes[..bytes.len().min(bytes_max)].to_vec())
    }

    fn write_at(&mut self, file: &usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        let course = world.step()?;
        let kept = match course {
            Course::Whole => bytes.len(),
            Course::Broken => world.random.usize(..=bytes.len()),
        };
        world.op(*file, Op::Write { at: at as usize, bytes: bytes[..kept].to_vec() });
        if course == Course::Broken { Err(broken()) } else { Ok(()) }
    }

    fn cut(&mut self, file: &usize, bytes: u64) -> io::Result<()> {
        let mut world = self.world();
        let course = world.step()?;
        if course == Course::Broken && world.random.bool() {
            return Err(broken());
        }
        world.op(*file, Op::Cut(bytes as usize));
        if course == Course::Broken {
            return Err(broken());
        }
        let course = world.step()?;
        if world.lie == Some(Lie::Cut) {
            return Ok(());
        }
        match course {
            Course::Whole => world.settle(*file),
            Course::Broken => world.settle_in_part(*file),
        }
        if course == Course::Broken { Err(broken()) } else { Ok(()) }
    }

    fn sync(&mut self, file: &usize) -> io::Result<()> {
        let mut world = self.world();
        let course = world.step()?;
        let lie = match world.nodes[*file].is_segment {
            true => Lie::Segment,
            false => Lie::Position,
        };
        if world.lie == Some(lie) {
            return Ok(());
        }
        match course {
            Course::Whole => {
                world.settle(*file);
                Ok(())
            }
            // A dying process leaves it pending; a failing disk forgets it.
            Course::Broken if world.dead => Err(broken()),
            Course::Broken => {
                world.settle_in_part(*file);
                Err(broken())
            }
        }
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let world = &mut *self.world();
        let course = world.step()?;
        if world.lie == Some(Lie::Folder) {
            return Ok(());
        }
        // A dying process leaves them pending; a failing disk forgets them.
        if course == Course::Broken && world.dead {
            return Err(broken());
        }
        for op in std::mem::take(&mut world.names_pending) {
            if course == Course::Whole || world.random.bool() {
                apply_name(&mut world.names_medium, &op);
            }
        }
        if course == Course::Broken { Err(broken()) } else { Ok(()) }
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let course = world.step()?;
        let node = *world.names.get(from).ok_or(Errno::NOENT)?;
        if course == Course::Broken && world.random.bool() {
            return Err(broken());
        }
        world.name_op(NameOp::Rename(from.to_owned(), to.to_owned(), node));
        if course == Course::Broken { Err(broken()) } else { Ok(()) }
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let course = world.step()?;
        if !world.names.contains_key(name) {
            return Err(Errno::NOENT.into());
        }
        if course == Course::Broken && world.random.bool() {
            return Err(broken());
        }
        world.name_op(NameOp::Unset(name.to_owned()));
        if course == Course::Broken { Err(broken()) } else { Ok(()) }
    }
}
