//! Seeded interleavings of batches, lost answers, lost connections, resets, take-overs and restored
//! backups against a tracker, with a model of the database and of a sink that drives the tracker as the
//! real ones do.
//!
//! Run more of them with `RILLWAY_SIMULATIONS=1000000 cargo test --lib exactly_once`. A failure prints its
//! seed; `RILLWAY_SEED=SEED` runs that one alone.

use super::BeforeWrite;
use super::defect::{Defect, Tracker};
use crate::seeds;
use crate::types::{Checkpoint, Offset};

const SIMULATIONS: u64 = 20_000;
/// A planted defect is found within this many seeds.
const SEEDS_TO_FIND_MAX: u64 = 2_000;
const STEPS_MAX: u32 = 60;
/// Once nothing fails any more, a batch is durable after this many writes.
const QUIET_WRITES_MAX: u32 = 3;

/// The table of rows and the position's row.
#[derive(Clone, Debug)]
struct Database {
    owner: u32,
    epoch: u32,
    position: Option<u64>,
    /// Each row by the stream's incarnation and the offset.
    rows: Vec<(u32, u64)>,
}

/// Rows, and the position behind them; without rows a reset.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    owner: u32,
    epoch: u32,
    incarnation: u32,
    batch: Option<(u64, u64)>,
}

impl Transaction {
    fn to(self) -> Option<u64> {
        self.batch.map(|(_, last)| last)
    }
}

impl Database {
    /// The UPDATE of the position finds its row, so the transaction may commit.
    fn admits(&self, transaction: Transaction) -> bool {
        (self.owner, self.epoch) == (transaction.owner, transaction.epoch)
    }

    fn commit(&mut self, transaction: Transaction) {
        let Transaction { incarnation, batch, .. } = transaction;
        self.rows.extend(
            batch.into_iter().flat_map(|(first, last)| first..=last).map(|o| (incarnation, o)),
        );
        self.position = transaction.to();
    }
}

/// How a call of the sink failed.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Transient,
    Internal,
    Fenced,
    Moved,
}

struct World {
    rng: fastrand::Rng,
    /// Nothing fails any more.
    quiet: bool,
    defect: Option<Defect>,
    database: Database,
    backup: Option<Database>,
    /// Sent on a connection that was lost, and neither committed nor rolled back yet.
    under_way: Option<Transaction>,
    tracker: Tracker,
    owner: u32,
    /// The epoch of the connection.
    connection: Option<u32>,
    incarnation: u32,
    /// The batch that is written until it is durable.
    batch: Option<(u64, u64)>,
    /// The last offset that was acknowledged.
    acknowledged: Option<u64>,
    resetting: bool,
    /// Another process took over since the sink was opened.
    taken_over: bool,
    /// Somebody changed the database since the sink was opened.
    tampered: bool,
}

fn at(offset: u64) -> Checkpoint {
    Checkpoint { offset: Offset(offset), chunk: None }
}

impl World {
    fn new(seed: u64, defect: Option<Defect>) -> World {
        let rng = fastrand::Rng::with_seed(seed);
        let mut world = World {
            rng,
            quiet: false,
            defect,
            database: Database { owner: 0, epoch: 0, position: None, rows: Vec::new() },
            backup: None,
            under_way: None,
            tracker: Tracker::new(defect),
            owner: 0,
            connection: None,
            incarnation: 0,
            batch: None,
            acknowledged: None,
            resetting: false,
            taken_over: false,
            tampered: false,
        };
        world.open();
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.quiet && self.rng.u32(0..100) < percent
    }

    /// A new process takes the row over, and begins behind the position that it finds.
    fn open(&mut self) {
        if self.tampered {
            // An operator who moved the position puts it back to where the rows end.
            let rows = self.database.rows.iter().filter(|row| row.0 == self.incarnation);
            self.database.position = rows.map(|row| row.1).max();
        }
        self.decide_what_is_under_way();
        self.database.owner += 1;
        self.database.epoch += 1;
        self.owner = self.database.owner;
        self.tracker = Tracker::new(self.defect);
        self.connection = None;
        (self.taken_over, self.tampered) = (false, false);
        while self.connection.is_none() {
            let connected = self.connect();
            assert!(
                matches!(connected, Ok(()) | Err(Failed::Transient)),
                "{connected:?} at the start"
            );
        }
        self.acknowledged = self.tracker.committed().map(|at| at.offset.0);
        self.batch = None;
    }

    /// Before anybody has the row, what a lost connection has sent either counts or never will.
    fn decide_what_is_under_way(&mut self) {
        if let Some(transaction) = self.under_way.take()
            && self.database.admits(transaction)
            && self.rng.bool()
        {
            self.database.commit(transaction);
        }
    }

    fn connect(&mut self) -> Result<(), Failed> {
        self.connection = None;
        if self.chance(20) {
            return Err(Failed::Transient);
        }
        self.decide_what_is_under_way();
        if self.database.owner != self.owner {
            return Err(Failed::Fenced);
        }
        self.database.epoch += 1;
        let compared = self.tracker.compare(self.database.position.map(at));
        let compared = compared.map_err(|_| Failed::Moved)?;
        // The row that was read is not durable yet.
        if self.chance(10) {
            return Err(Failed::Transient);
        }
        self.tracker.resume(compared);
        self.connection = Some(self.database.epoch);
        Ok(())
    }

    fn get_ready(&mut self) -> Result<(), Failed> {
        match self.connection.is_none() || self.tracker.must_read_row() {
            true => self.connect(),
            false => Ok(()),
        }
    }

    fn write(&mut self, (first, last): (u64, u64)) -> Result<(), Failed> {
        self.get_ready()?;
        match self.tracker.before_write(Offset(first), at(last)) {
            BeforeWrite::ReadRow => panic!("in doubt, although the row was read"),
            BeforeWrite::AlreadyCommitted => Ok(()),
            BeforeWrite::Overlaps(_) => Err(Failed::Internal),
            BeforeWrite::Write => self.transact(Some((first, last))),
        }
    }

    fn reset(&mut self) -> Result<(), Failed> {
        self.get_ready()?;
        self.transact(None)
    }

    fn transact(&mut self, batch: Option<(u64, u64)>) -> Result<(), Failed> {
        let (owner, incarnation) = (self.owner, self.incarnation);
        let epoch = self.connection.expect("a connection");
        let transaction = Transaction { owner, epoch, incarnation, batch };
        if self.chance(10) {
            self.lose_connection(50);
            return Err(Failed::Transient);
        }
        if !self.database.admits(transaction) {
            self.connection = None;
            return Err(Failed::Fenced);
        }
        if self.database.position != self.tracker.committed().map(|at| at.offset.0) {
            return Err(Failed::Moved);
        }
        self.tracker.committing(transaction.to().map(at));
        match if self.quiet { 0 } else { self.rng.u32(0..10) } {
            0..5 => {
                self.database.commit(transaction);
                self.tracker.confirmed();
                return Ok(());
            }
            5 => self.tracker.rolled_back(),
            6 => {
                self.database.commit(transaction);
                self.lose_connection(70);
            }
            7 => self.lose_connection(70),
            _ => {
                self.under_way = Some(transaction);
                self.lose_connection(70);
            }
        }
        Err(Failed::Transient)
    }

    /// The sink notices it, or believes the connection to be alive.
    fn lose_connection(&mut self, percent: u32) {
        if self.rng.u32(0..100) < percent {
            self.connection = None;
        }
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..70 => self.go_on(),
            70..75 => self.connection = None,
            75..80 => self.resetting = true,
            80..84 => self.offer_a_repeat(),
            84..88 => self.be_taken_over(),
            88..91 => self.back_up(),
            91..94 => self.restore(),
            94..97 => self.move_by_hand(),
            _ => self.open(),
        }
        self.check_rows();
    }

    /// What the consumer does next: the reset, or the next batch until it is durable.
    fn go_on(&mut self) {
        if self.resetting {
            // A batch whose write failed is given up: it was of the old incarnation.
            self.batch = None;
            let reset = self.reset();
            if self.succeeded(reset) {
                (self.resetting, self.acknowledged, self.backup) = (false, None, None);
                self.incarnation += 1;
            }
            return;
        }
        let first = self.acknowledged.map_or(0, |acknowledged| acknowledged + 1);
        let batch = self.batch.unwrap_or((first, first + self.rng.u64(0..4)));
        self.batch = Some(batch);
        let written = self.write(batch);
        if self.succeeded(written) {
            self.acknowledged = Some(batch.1);
            self.batch = None;
            assert_eq!(
                self.database.position, self.acknowledged,
                "the position of what is durable"
            );
            let rows = self.database.rows.iter().filter(|row| row.0 == self.incarnation).count();
            assert_eq!(rows as u64, batch.1 + 1, "rows up to {batch:?}, which was acknowledged");
        }
    }

    /// Whether it succeeded. A sink that failed for good is opened again.
    fn succeeded(&mut self, result: Result<(), Failed>) -> bool {
        match result {
            Ok(()) => return true,
            Err(Failed::Transient) => {}
            Err(Failed::Internal) => panic!("a batch that the contract allows was refused"),
            Err(Failed::Fenced) => {
                assert!(self.taken_over, "fenced by nobody");
                self.open();
            }
            Err(Failed::Moved) => {
                assert!(self.tampered || self.taken_over, "the position was moved by nobody");
                self.open();
            }
        }
        false
    }

    /// A caller that repeats itself: a batch from within what was acknowledged.
    fn offer_a_repeat(&mut self) {
        let Some(acknowledged) = self.acknowledged.filter(|_| !self.resetting) else { return };
        let taken = self.batch.map(|batch| batch.1);
        let last = acknowledged + self.rng.u64(0..3);
        if Some(last) == taken {
            return;
        }
        let written = self.write((acknowledged.saturating_sub(1), last));
        assert_ne!(written, Ok(()), "a batch up to {last} was taken behind {acknowledged}");
        self.open();
    }

    /// Another process takes the row, and perhaps writes.
    fn be_taken_over(&mut self) {
        self.decide_what_is_under_way();
        self.database.owner += 1;
        self.database.epoch += 1;
        self.taken_over = true;
        if !self.resetting && !self.tampered && self.rng.bool() {
            let first = self.database.position.map_or(0, |at| at + 1);
            let Database { owner, epoch, .. } = self.database;
            let batch = Some((first, first + self.rng.u64(0..4)));
            self.database.commit(Transaction {
                owner,
                epoch,
                incarnation: self.incarnation,
                batch,
            });
        }
    }

    fn back_up(&mut self) {
        if !self.tampered {
            self.backup = Some(self.database.clone());
        }
    }

    /// The server comes back with an older state, under the same owner or a former one.
    fn restore(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.taken_over |= backup.owner != self.owner;
        self.tampered = true;
        self.under_way = None;
        self.connection = None;
        let epoch = self.database.epoch.max(backup.epoch);
        self.database = Database { epoch, ..backup };
    }

    /// To where no batch in doubt ends: that could not be told from one that landed.
    fn move_by_hand(&mut self) {
        self.tampered = true;
        self.connection = None;
        self.decide_what_is_under_way();
        self.database.position = self.database.position.map(|at| at + 100);
    }

    fn check_rows(&self) {
        let mut rows = self.database.rows.clone();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), self.database.rows.len(), "duplicates: {:?}", self.database.rows);
    }

    /// Nothing fails any more: the next batch is durable soon.
    fn finish(mut self) {
        self.quiet = true;
        if self.tampered || self.taken_over {
            self.open();
        }
        let mut writes = 0;
        while self.resetting || writes == 0 || self.batch.is_some() {
            writes += 1;
            assert!(writes <= 2 * QUIET_WRITES_MAX, "the batch does not become durable");
            self.go_on();
            self.check_rows();
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
fn nothing_is_lost_or_repeated_in_any_interleaving() {
    seeds::all_pass(SIMULATIONS, "exactly_once", |seed| simulate(seed, None));
}

#[test]
fn every_planted_defect_is_found() {
    for defect in Defect::ALL {
        let found = seeds::one_fails(SEEDS_TO_FIND_MAX, |seed| simulate(seed, Some(defect)));
        assert!(found, "{defect:?} was not found in {SEEDS_TO_FIND_MAX} seeds");
    }
}
