//! The last change of each key, in bounded memory: keys for which there is no room are kept in a temporary
//! database of SQLite, which it removes.
//!
//! A key is known by a hash of 128 bits.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rusqlite::{Connection, OptionalExtension, params};

use crate::types::Offset;

/// Keys in memory; each takes some 60 bytes.
pub(super) const KEYS_MAX: usize = 1 << 20;

/// Cache of the temporary database, in KiB.
const CACHE_KIB: i32 = 64 << 10;

/// Kind of the last change of a key in an upsert table: it decides whether the table has a row for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The sink should hold its record, and does not.
    Absent = 0,
    /// The sink holds its record.
    Present = 1,
    /// The sink should hold no record of the key.
    Deleted = 2,
    /// The sink holds a record whose message is not compared.
    Apart = 3,
}

/// A change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: Offset,
    pub(super) kind: Kind,
}

type Hash = (u64, u64);

/// The last change of each key.
pub(super) struct LastChanges {
    hashers: (RandomState, RandomState),
    recent: HashMap<Hash, Change>,
    recent_max: usize,
    /// Made when it is first needed.
    rest: Option<Connection>,
}

impl LastChanges {
    /// Keeps this many keys in memory.
    pub(super) fn new(recent_max: usize) -> LastChanges {
        let hashers = (RandomState::new(), RandomState::new());
        LastChanges { hashers, recent: HashMap::new(), recent_max, rest: None }
    }

    /// Records the change of a key. `replaced` is told each change that is followed by another one, perhaps at a
    /// later time, and a later change.
    ///
    /// # Errors
    /// If the temporary database cannot be written.
    pub(super) fn note(
        &mut self,
        key: &[u8],
        change: Change,
        replaced: &mut impl FnMut(Change, Change),
    ) -> rusqlite::Result<()> {
        let hash = (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key));
        if let Some(last) = self.recent.get_mut(&hash) {
            replaced(*last, change);
            *last = change;
            return Ok(());
        }
        if self.recent.len() >= self.recent_max {
            self.spill(replaced)?;
        }
        self.recent.insert(hash, change);
        Ok(())
    }

    /// Moves all of them to the database. In the order of the hashes, so that neighbours come together.
    fn spill(&mut self, replaced: &mut impl FnMut(Change, Change)) -> rusqlite::Result<()> {
        let rest = match self.rest.take() {
            Some(rest) => rest,
            None => open()?,
        };
        let mut recent: Vec<(Hash, Change)> = self.recent.drain().collect();
        recent.sort_unstable_by_key(|(hash, _)| (hash.0.cast_signed(), hash.1.cast_signed()));
        rest.execute_batch("BEGIN")?;
        {
            let mut look = rest.prepare("SELECT at, kind FROM last WHERE a = ?1 AND b = ?2")?;
            let mut put = rest.prepare("INSERT OR REPLACE INTO last VALUES (?1, ?2, ?3, ?4)")?;
            for ((a, b), change) in recent {
                let (a, b) = (a.cast_signed(), b.cast_signed());
                let before = look.query_row(params![a, b], |row| stored(row.get(0)?, row.get(1)?));
                if let Some(before) = before.optional()? {
                    replaced(before, change);
                }
                put.execute(params![a, b, change.at.0.cast_signed(), change.kind as u8])?;
            }
        }
        rest.execute_batch("COMMIT")?;
        self.rest = Some(rest);
        Ok(())
    }

    /// Ends the changes: after it each that is followed by another one has been told.
    ///
    /// # Errors
    /// If the temporary database cannot be read or written.
    pub(super) fn end(
        &mut self,
        replaced: &mut impl FnMut(Change, Change),
    ) -> rusqlite::Result<()> {
        if self.rest.is_some() { self.spill(replaced) } else { Ok(()) }
    }

    /// Tells the offsets of the last changes of this kind, in ascending order; [`end`](Self::end) comes first. However
    /// many there are, the memory is that of the keys that it holds: the database sorts on disk.
    ///
    /// # Errors
    /// If the temporary database cannot be read, or has no room to sort.
    pub(super) fn each_of(&self, kind: Kind, mut told: impl FnMut(Offset)) -> rusqlite::Result<()> {
        let Some(rest) = &self.rest else {
            let of_kind = self.recent.values().filter(|change| change.kind == kind);
            let mut offsets: Vec<Offset> = of_kind.map(|change| change.at).collect();
            offsets.sort_unstable_by_key(|at| at.0.cast_signed());
            offsets.into_iter().for_each(told);
            return Ok(());
        };
        let mut all = rest.prepare("SELECT at FROM last WHERE kind = ?1 ORDER BY at")?;
        let mut rows = all.query([kind as u8])?;
        while let Some(row) = rows.next()? {
            told(Offset(row.get::<_, i64>(0)?.cast_unsigned()));
        }
        Ok(())
    }
}

fn stored(at: i64, kind: u8) -> rusqlite::Result<Change> {
    let kind = match kind {
        0 => Kind::Absent,
        1 => Kind::Present,
        2 => Kind::Deleted,
        _ => Kind::Apart,
    };
    Ok(Change { at: Offset(at.cast_unsigned()), kind })
}

/// A database without a name is on disk as far as its cache does not hold it, and is removed with its
/// connection.
fn open() -> rusqlite::Result<Connection> {
    let rest = Connection::open("")?;
    rest.execute_batch(&format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB}; \
         CREATE TABLE last (a INTEGER, b INTEGER, at INTEGER, kind INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID"
    ))?;
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Offsets of replaced and of last changes after these changes of keys, with at most `recent_max` keys in memory. The
    /// last ones are as they were told.
    fn told(changes: &[(u8, Change)], recent_max: usize) -> (Vec<u64>, Vec<u64>, bool) {
        let (mut all, mut followed, mut ends) =
            (LastChanges::new(recent_max), Vec::new(), Vec::new());
        let mut replaced = |old: Change, new: Change| {
            assert!(old.at < new.at);
            followed.push(old.at.0);
        };
        for (key, change) in changes {
            all.note(&[*key], *change, &mut replaced).unwrap();
        }
        let has_spilt = all.rest.is_some();
        all.end(&mut replaced).unwrap();
        all.each_of(Kind::Absent, |at| ends.push(at.0)).unwrap();
        followed.sort_unstable();
        (followed, ends, has_spilt)
    }

    proptest! {
        #[test]
        fn the_room_in_memory_changes_nothing(
            keys in proptest::collection::vec(0_u8..20, 0..200),
            recent_max in 1_usize..30,
        ) {
            let change = |(at, key)| (key, Change { at: Offset(at), kind: Kind::Absent });
            let changes: Vec<_> = (0..).zip(keys.iter().copied()).map(change).collect();
            let mut last: BTreeMap<u8, u64> = BTreeMap::new();
            let mut followed = Vec::new();
            for (key, change) in &changes {
                followed.extend(last.insert(*key, change.at.0));
            }
            followed.sort_unstable();
            let mut ends: Vec<u64> = last.values().copied().collect();
            ends.sort_unstable();
            let found = told(&changes, recent_max);
            prop_assert_eq!((&found.0, &found.1), (&followed, &ends));
            prop_assert_eq!(found.2, last.len() > recent_max);
        }
    }

    #[test]
    fn kinds_come_back_from_the_disk() {
        for kind in [Kind::Absent, Kind::Present, Kind::Deleted, Kind::Apart] {
            let mut all = LastChanges::new(1);
            for key in 0..3 {
                let change = Change { at: Offset(u64::MAX - u64::from(key)), kind };
                all.note(&[key], change, &mut |_, _| {}).unwrap();
            }
            all.end(&mut |_, _| {}).unwrap();
            for other in [Kind::Absent, Kind::Present, Kind::Deleted, Kind::Apart] {
                let mut ends = Vec::new();
                all.each_of(other, |at| ends.push(at.0)).unwrap();
                let wanted = if other == kind {
                    vec![u64::MAX - 2, u64::MAX - 1, u64::MAX]
                } else {
                    Vec::new()
                };
                assert_eq!(ends, wanted);
            }
        }
    }
}
