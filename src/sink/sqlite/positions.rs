//! The table that holds the positions, `rillway_positions`: one row for each stream and reference.
//!
//! A row also names its owner, by a number: opening the sink takes the row by adding one, and every later
//! write requires the number that it took. So a former owner, however long it slept, changes nothing any
//! more; and a row that somebody else changed is never overwritten.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::types::{Checkpoint, ChunkId, Offset, Reference, StreamName, Timestamp};

/// The table's name.
pub(super) const NAME: &str = crate::types::table_name::POSITIONS;

/// SQLite's integers have 63 bits and a sign; unsigned values are stored by their bits.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS rillway_positions (
    stream TEXT NOT NULL,
    reference TEXT NOT NULL,
    table_name TEXT NOT NULL,
    \"offset\" INTEGER,
    chunk_first_offset INTEGER,
    chunk_epoch INTEGER,
    chunk_timestamp INTEGER,
    chunk_crc INTEGER,
    owner INTEGER NOT NULL,
    owner_pid INTEGER NOT NULL,
    owner_since TEXT NOT NULL,
    PRIMARY KEY (stream, reference)
) WITHOUT ROWID";

const LOOK: &str = "SELECT \"offset\", chunk_first_offset, chunk_epoch, chunk_timestamp, chunk_crc,
    owner, owner_pid, owner_since, table_name
    FROM rillway_positions WHERE stream = ?1 AND reference = ?2";

const OTHERS: &str =
    "SELECT \"offset\", chunk_first_offset, chunk_epoch, chunk_timestamp, chunk_crc,
    owner, owner_pid, owner_since, table_name, reference
    FROM rillway_positions WHERE stream = ?1 AND table_name = ?2 COLLATE NOCASE
    ORDER BY \"offset\" DESC";

const TAKE: &str = "INSERT INTO rillway_positions
    (stream, reference, table_name, owner, owner_pid, owner_since)
    VALUES (?1, ?2, ?3, 1, ?4, strftime('%Y-%m-%d %H:%M:%f', 'now'))
    ON CONFLICT (stream, reference) DO UPDATE SET table_name = excluded.table_name,
    owner = owner + 1, owner_pid = excluded.owner_pid, owner_since = excluded.owner_since";

const MOVE: &str = "UPDATE rillway_positions SET \"offset\" = ?1, chunk_first_offset = ?2,
    chunk_epoch = ?3, chunk_timestamp = ?4, chunk_crc = ?5
    WHERE stream = ?6 AND reference = ?7 AND owner = ?8 AND \"offset\" IS ?9";

/// The stream and reference of a position.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) position: Option<Checkpoint>,
    pub(super) owner: i64,
    pub(super) owner_pid: i64,
    pub(super) owner_since: String,
    pub(super) table: String,
}

pub(super) fn create(database: &Connection) -> rusqlite::Result<()> {
    database.execute_batch(CREATE)
}

/// The row; `None` if there is no table or no row.
pub(super) fn look(database: &Connection, whose: &Whose) -> rusqlite::Result<Option<Held>> {
    let known = "SELECT 1 FROM sqlite_schema WHERE name = 'rillway_positions'";
    if database.query_row(known, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let key = params![whose.stream.as_str(), whose.reference.as_str()];
    database.query_row(LOOK, key, held).optional()
}

/// Another reference that has written the stream into this table, with its position. Replays of this
/// reference's own dead letters do not count.
pub(super) fn other(
    database: &Connection,
    whose: &Whose,
    table: &str,
) -> rusqlite::Result<Option<(Reference, Held)>> {
    let known = "SELECT 1 FROM sqlite_schema WHERE name = 'rillway_positions'";
    if database.query_row(known, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let mut statement = database.prepare(OTHERS)?;
    let others = statement.query_map(params![whose.stream.as_str(), table], |row| {
        Ok((Reference::new(row.get::<_, String>(9)?), held(row)?))
    })?;
    for other in others {
        let (reference, held) = other?;
        if reference.without_replay() != whose.reference.without_replay() {
            return Ok(Some((reference, held)));
        }
    }
    Ok(None)
}

/// The references that have a row for this stream.
pub(super) fn references(
    database: &Connection,
    stream: &StreamName,
) -> rusqlite::Result<Vec<String>> {
    let known = "SELECT 1 FROM sqlite_schema WHERE name = 'rillway_positions'";
    if database.query_row(known, [], |_| Ok(())).optional()?.is_none() {
        return Ok(Vec::new());
    }
    let mut statement =
        database.prepare("SELECT reference FROM rillway_positions WHERE stream = ?1")?;
    let rows = statement.query_map([stream.as_str()], |row| row.get(0))?;
    rows.collect()
}

/// Gives a row another reference, and takes it from its owner.
pub(super) fn rename(
    database: &Connection,
    stream: &StreamName,
    (from, to): (&str, &str),
) -> rusqlite::Result<usize> {
    let sql = "UPDATE rillway_positions SET reference = ?3, owner = owner + 1
        WHERE stream = ?1 AND reference = ?2";
    database.execute(sql, params![stream.as_str(), from, to])
}

/// Makes this process the owner of the row; creates the row if there is none.
pub(super) fn take(database: &Connection, whose: &Whose, table: &str) -> rusqlite::Result<Held> {
    let (stream, reference) = (whose.stream.as_str(), whose.reference.as_str());
    database.execute(TAKE, params![stream, reference, table, std::process::id()])?;
    database.query_row(LOOK, params![stream, reference], held)
}

/// Moves the position if `owner` still owns it and it is at `from`; returns whether it did.
pub(super) fn move_on(
    database: &Connection,
    whose: &Whose,
    owner: i64,
    from: Option<Checkpoint>,
    to: Option<Checkpoint>,
) -> rusqlite::Result<bool> {
    let chunk = to.and_then(|to| to.chunk);
    let changed = database.execute(
        MOVE,
        params![
            to.map(|to| to.offset.0.cast_signed()),
            chunk.map(|chunk| chunk.first_offset.0.cast_signed()),
            chunk.map(|chunk| chunk.epoch.cast_signed()),
            chunk.map(|chunk| chunk.timestamp.0),
            chunk.map(|chunk| chunk.crc),
            whose.stream.as_str(),
            whose.reference.as_str(),
            owner,
            from.map(|from| from.offset.0.cast_signed()),
        ],
    )?;
    Ok(changed == 1)
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    let unsigned = |nth: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(nth)?.map(i64::cast_unsigned))
    };
    let chunk = match (unsigned(1)?, unsigned(2)?, row.get(3)?, row.get(4)?) {
        (Some(first_offset), Some(epoch), Some(timestamp), Some(crc)) => Some(ChunkId {
            first_offset: Offset(first_offset),
            epoch,
            timestamp: Timestamp(timestamp),
            crc,
        }),
        _ => None,
    };
    Ok(Held {
        position: unsigned(0)?.map(|offset| Checkpoint { offset: Offset(offset), chunk }),
        owner: row.get(5)?,
        owner_pid: row.get(6)?,
        owner_since: row.get(7)?,
        table: row.get(8)?,
    })
}
