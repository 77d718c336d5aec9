//! The `sqlite` sink, on a database of its own for each stream.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rillway::faults::Point;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::small_disk::SmallDisk;
use crate::torture::frozen::frozen;
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle, Second, number_in, quoted};
use crate::torture::outage::outages;

pub(super) struct Database {
    dir: TempDir,
    /// A file system that can be filled.
    disk: Option<SmallDisk>,
    /// The last stream asked for.
    path: std::sync::Mutex<PathBuf>,
    /// Holds the database's lock, so that nobody else can write.
    locking: Option<Connection>,
    /// A program leaves messages out, so that the position may be past the last row.
    leaves_out: bool,
}

impl Database {
    pub(super) fn new() -> Database {
        let dir = tempfile::tempdir().unwrap();
        Database { dir, disk: None, path: Default::default(), locking: None, leaves_out: false }
    }

    pub(super) fn with_a_program() -> Database {
        Database { leaves_out: true, ..Database::new() }
    }

    fn on_a_small_disk() -> Result<Database, Unavailable> {
        Ok(Database { disk: Some(SmallDisk::new(128)?), ..Database::new() })
    }

    fn path(&self, stream: &str) -> PathBuf {
        let dir = self.disk.as_ref().map_or(self.dir.path(), SmallDisk::path);
        dir.join(format!("{stream}.db"))
    }
}

/// All rows, and the position, of one snapshot of the database.
fn rows(path: &Path, leaves_out: bool) -> rusqlite::Result<Vec<(u64, u64)>> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.execute_batch("BEGIN")?;
    let checked: String = database.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    assert_eq!(checked, "ok");
    let mut all = database.prepare("SELECT \"offset\", body FROM events ORDER BY rowid")?;
    let row = |row: &rusqlite::Row<'_>| {
        let (offset, body): (i64, String) = (row.get(0)?, row.get(1)?);
        Ok((offset.cast_unsigned(), number_in(body.as_bytes())))
    };
    let rows: Vec<(u64, u64)> = all.query_map([], row)?.collect::<Result<_, _>>()?;
    let at: i64 =
        database.query_row("SELECT \"offset\" FROM rillway_positions", [], |row| row.get(0))?;
    let (at, last) = (Some(at.cast_unsigned()), rows.last().map(|row| row.0));
    assert!(at == last || leaves_out && at > last, "position {at:?}, and last row {last:?}");
    Ok(rows)
}

#[async_trait]
impl Oracle for Database {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn sink(&self, stream: &str) -> String {
        let path = self.path(stream);
        *self.path.lock().unwrap() = path.clone();
        format!("{{ type = \"sqlite\", path = {}, table = \"events\" }}", quoted(&path))
    }

    async fn landed(&mut self, _home: &Home, stream: &str) -> Landed {
        Landed { records: rows(&self.path(stream), self.leaves_out).unwrap(), torn: 0 }
    }

    /// Nothing can break the lock of a process that is frozen within a transaction.
    fn second(&self, frozen_at: Option<Point>) -> Second {
        match frozen_at {
            Some(Point::Written | Point::Flushed) => Second::WaitsForTheFirstToWake,
            _ => Second::TakesOverOrWaits,
        }
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match (how, &self.disk) {
            (Failure::Refuses, Some(disk)) if on => disk.fill(),
            (Failure::Refuses, Some(disk)) => disk.free(),
            (Failure::Hangs, _) if on => {
                let database = Connection::open(&*self.path.lock().unwrap()).unwrap();
                database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
                database.execute_batch("BEGIN IMMEDIATE").unwrap();
                self.locking = Some(database);
            }
            (Failure::Hangs, _) => drop(self.locking.take()),
            _ => return false,
        }
        true
    }
}

#[tokio::test]
async fn kills() {
    or_skip!(killed(Database::new()).await);
}

#[tokio::test]
async fn one_that_was_frozen_writes_nothing_after_another_took_over() {
    or_skip!(frozen(Database::new()).await);
}

#[tokio::test]
async fn a_full_disk_and_a_locked_database() {
    let database = or_skip!(Database::on_a_small_disk());
    or_skip!(outages(database).await);
}
