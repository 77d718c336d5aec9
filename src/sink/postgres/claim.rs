//! Who may write: one row for each stream and reference, with its owner, the owner's epoch, and the
//! position.
//!
//! ```text
//! rillway_positions(stream, reference, owner, epoch, backend, …, "offset", chunk_…)
//! ```
//!
//! A process takes the row over when it first opens the sink, whoever the owner was: the newest process
//! is the one that was just started. Each take-over raises the epoch, and so does each later connection
//! of the owner. A transaction that writes ends with an UPDATE of the row. The UPDATE requires the owner
//! and epoch of its own connection, and the position from which it moves on; if it matches no row, the
//! transaction is rolled back.
//! So at most one connection can commit at any time:
//! - UPDATE and take-over change the same row, so one waits for the other. If the take-over is first, the
//!   UPDATE finds another epoch. If the UPDATE is first, the take-over waits for the COMMIT, and its
//!   RETURNING yields the position after it.
//! - The row is locked only from the UPDATE to the COMMIT, not while data flows: a process that freezes
//!   during a COPY blocks nobody here.
//! - A process that freezes between UPDATE and COMMIT does block the row. The row names its server
//!   process, which the new owner ends after [`PATIENCE`] (`pg_terminate_backend`, which a role may do to
//!   its own sessions). If it may not (another role), the session's own
//!   `idle_in_transaction_session_timeout` ends it.
//! - After a take-over the former owner's session is ended in any case: a COPY that stands still holds
//!   locks in unique indexes, for which the new owner's rows would wait.
//! - The owner's own new connection raises the epoch too. So every transaction of its former connection
//!   is over before the position is read: a COMMIT whose answer was lost has either counted by then, or
//!   never will.
//!
//! Two daemons with one configuration do not take the row from each other forever: a process takes it
//! over only once. When it finds that another process has it, it stops for good. A sink that is opened
//! again in the same process continues with the existing claim ([`Claim`]). Where the broker chooses the
//! active daemon, each opening is a new claim.
//!
//! A row also names the table that its rows go to. If a new process finds another reference there, for
//! the same stream and table, it does not take its own row: every message would be in the table twice.
//! Two processes that are new at the same time cannot miss each other, because an advisory lock lets only
//! one of them look at a time. (Rows of earlier versions do not name a table; they do once they are taken
//! again.) The table's name is in a column of its own, and also behind the owner's name: a table of
//! positions that an earlier version made has no such column, and the role may not be allowed to add it.
//!
//! Must not know: the data that is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::error::is_lock_timeout;
use crate::types::{Checkpoint, ChunkId, Offset, Reference, Timestamp};

/// The table's name, in the schema of the table that is written to.
pub(super) const TABLE: &str = "rillway_positions";

/// Separates the owner from the table that it writes into. Has no characters that are special in a
/// regular expression.
const WRITES_INTO: &str = ", writing into the table ";

/// How long a new process waits for a running commit, before it ends the owner's session.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Statement that creates the table, with `{}` for its quoted name.
pub(super) fn create(name: &str) -> String {
    // Leaves room in each page, so that updates stay in place.
    format!(
        "CREATE TABLE IF NOT EXISTS {name} (\
         stream text NOT NULL, reference text NOT NULL, \
         owner text NOT NULL, epoch bigint NOT NULL, \
         backend integer NOT NULL, backend_start timestamptz, taken_at timestamptz NOT NULL, \
         \"offset\" numeric(20, 0) CHECK (\"offset\" BETWEEN 0 AND 18446744073709551615), \
         chunk_first_offset numeric(20, 0), chunk_epoch numeric(20, 0), \
         chunk_timestamp_ms bigint, chunk_crc bigint, updated_at timestamptz, \
         table_name text, \
         PRIMARY KEY (stream, reference)) WITH (fillfactor = 50)"
    )
}

/// The columns from which [`position`] reads, in its order.
const POSITION: &str = "\"offset\"::text, chunk_first_offset::text, chunk_epoch::text, \
                        chunk_timestamp_ms, chunk_crc";

/// A process's claim on one stream and reference. Clones are the same claim.
#[derive(Clone, Debug)]
pub struct Claim(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    owner: String,
    /// True if the row was taken over once. It is not taken over again.
    taken: AtomicBool,
}

impl Claim {
    /// A claim not yet made: one for each consumer and process.
    #[must_use]
    pub fn new() -> Claim {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "unknown host" } else { host.trim() };
        let owner = format!("{host}, process {}, {:016x}", std::process::id(), fastrand::u64(..));
        Claim(Arc::new(Inner { owner, taken: AtomicBool::new(false) }))
    }
}

impl Default for Claim {
    fn default() -> Claim {
        Claim::new()
    }
}

/// The row of one stream and reference, and the operations on it.
pub(super) struct Rows<'a> {
    pub(super) client: &'a Client,
    /// The table's quoted name.
    pub(super) table: &'a str,
    pub(super) stream: &'a str,
    pub(super) reference: &'a str,
    /// Unquoted name of the table that the rows go into.
    pub(super) into: &'a str,
}

/// Result of asking for the row.
pub(super) enum Taken {
    /// This connection has it, in this epoch; the position counts.
    Ours { epoch: i64, position: Option<Checkpoint> },
    /// Another process has it, as this text says; or it was deleted.
    Lost(String),
    /// It was not taken: another reference writes the stream into the same table.
    Shared(Other),
}

/// Why the position was not moved.
pub(super) enum NotMoved {
    /// Another process has the row, as this text says; or it was deleted.
    Lost(String),
    /// The row is still this connection's, and holds this position.
    Holds(Option<Checkpoint>),
}

/// Progress of another reference on the stream.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) reference: String,
    pub(super) offset: Option<String>,
    /// Whether it is known to be in the same table.
    pub(super) same_table: bool,
}

/// Result of trying to take the row.
enum Tried {
    Row(Option<Row>),
    Shared(Other),
}

impl Rows<'_> {
    /// Takes the row over, or moves it to this connection if this claim has it already. `named`: whether
    /// there is a column for the table's name.
    pub(super) async fn take(&self, claim: &Claim, named: bool) -> Result<Taken, Error> {
        let former = self.former().await?;
        let taken = match self.try_take(claim, named).await {
            Err(error) if is_lock_timeout(&error) => {
                self.end(&former).await;
                self.try_take(claim, named).await?
            }
            other => other?,
        };
        let taken = match taken {
            Tried::Row(row) => row,
            Tried::Shared(other) => return Ok(Taken::Shared(other)),
        };
        let Some(row) = taken else { return Ok(Taken::Lost(self.winner().await?)) };
        self.end(&former).await;
        claim.0.taken.store(true, Ordering::SeqCst);
        Ok(Taken::Ours { epoch: row.try_get(5)?, position: position(&row)? })
    }

    async fn try_take(&self, claim: &Claim, named: bool) -> Result<Tried, Error> {
        let again = claim.0.taken.load(Ordering::SeqCst);
        if again {
            return self.take_once(claim, again, named).await.map(Tried::Row);
        }
        self.client.batch_execute("BEGIN").await?;
        let taking = async {
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))";
            let key = format!("rillway {} {}", self.table, self.stream);
            self.client.execute(lock, &[&key]).await?;
            match self.other(named).await? {
                Some(other) => Ok(Tried::Shared(other)),
                None => self.take_once(claim, again, named).await.map(Tried::Row),
            }
        };
        let tried = taking.await;
        let end = if matches!(tried, Ok(Tried::Row(_))) { "COMMIT" } else { "ROLLBACK" };
        let ended = self.client.batch_execute(end).await;
        let tried = tried?;
        ended?;
        Ok(tried)
    }

    /// Another reference that has written the stream into this table, or may have. Replays of this
    /// reference's own dead letters do not count.
    pub(super) async fn other(&self, named: bool) -> Result<Option<Other>, Error> {
        let own_column = if named { "table_name, " } else { "" };
        let sql = format!(
            "SELECT reference, \"offset\"::text, \
             coalesce({own_column}substring(owner from '{WRITES_INTO}(.*)$')) \
             FROM {} WHERE stream = $1 ORDER BY \"offset\" DESC NULLS LAST",
            self.table
        );
        let own = Reference::from(self.reference);
        let (mut is_new, mut others) = (true, Vec::new());
        for row in self.client.query(&sql, &[&self.stream]).await? {
            let reference: String = row.try_get(0)?;
            if Reference::from(reference.as_str()).without_replay() == own.without_replay() {
                is_new = false;
                continue;
            }
            let table: Option<String> = row.try_get(2)?;
            if table.as_ref().is_none_or(|table| table == self.into) {
                let same_table = table.is_some();
                others.push(Other { reference, offset: row.try_get(1)?, same_table });
            }
        }
        // A reference that has a row already is as old as those whose table is not known.
        others.retain(|other| other.same_table || is_new);
        others.sort_by_key(|other| !other.same_table);
        Ok(others.into_iter().next())
    }

    async fn take_once(
        &self,
        claim: &Claim,
        again: bool,
        named: bool,
    ) -> Result<Option<Row>, Error> {
        const SESSION: &str = "pg_backend_pid(), \
             (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())";
        let table = self.table;
        let (column, value, set) = match named {
            true => (", table_name", ", $4", ", table_name = excluded.table_name"),
            false => ("", "", ""),
        };
        let sql = if again {
            format!(
                "UPDATE {table} AS p SET epoch = p.epoch + 1, (backend, backend_start) = \
                 (SELECT {SESSION}) WHERE stream = $1 AND reference = $2 AND owner = $3 \
                 RETURNING {POSITION}, epoch"
            )
        } else {
            format!(
                "INSERT INTO {table} AS p \
                 (stream, reference, owner, epoch, backend, backend_start, taken_at{column}) \
                 VALUES ($1, $2, $3, 1, {SESSION}, now(){value}) \
                 ON CONFLICT (stream, reference) DO UPDATE SET owner = excluded.owner, \
                 epoch = p.epoch + 1, backend = excluded.backend, \
                 backend_start = excluded.backend_start, taken_at = excluded.taken_at{set} \
                 RETURNING {POSITION}, epoch"
            )
        };
        let owner = self.owner(claim);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&self.stream, &self.reference, &owner];
        if named && !again {
            values.push(&self.into);
        }
        self.client.query_opt(&sql, &values).await
    }

    /// The owner, as it is in the row.
    fn owner(&self, claim: &Claim) -> String {
        format!("{}{WRITES_INTO}{}", claim.0.owner, self.into)
    }

    /// The server process of the present owner, and its start time.
    async fn former(&self) -> Result<Option<(i32, Option<String>)>, Error> {
        let sql = format!(
            "SELECT backend, backend_start::text FROM {} WHERE stream = $1 AND reference = $2",
            self.table
        );
        let row = self.client.query_opt(&sql, &[&self.stream, &self.reference]).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    /// Ends a session, if it is still the same. If the role may not, the session's own time limits end
    /// it.
    async fn end(&self, former: &Option<(i32, Option<String>)>) {
        let Some((backend, Some(since))) = former else { return };
        // Process ids are reused: the start time identifies the process.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 \
                   AND backend_start = $2::text::timestamptz AND pid <> pg_backend_pid()";
        match self.client.query(sql, &[backend, since]).await {
            Ok(ended) if !ended.is_empty() => {
                tracing::info!(backend, "ended the session of the former owner");
            }
            Ok(_) => {}
            Err(error) => {
                let error =
                    error.as_db_error().map_or_else(|| error.to_string(), |e| e.to_string());
                tracing::warn!(%error, backend, "could not end the session of the former owner");
            }
        }
    }

    /// Why the position was not moved.
    pub(super) async fn why_not_moved(
        &self,
        (claim, epoch): (&Claim, i64),
    ) -> Result<NotMoved, Error> {
        let sql = format!(
            "SELECT {POSITION} FROM {} \
             WHERE stream = $1 AND reference = $2 AND owner = $3 AND epoch = $4",
            self.table
        );
        let values: [&(dyn ToSql + Sync); 4] =
            [&self.stream, &self.reference, &self.owner(claim), &epoch];
        match self.client.query_opt(&sql, &values).await? {
            Some(row) => Ok(NotMoved::Holds(position(&row)?)),
            None => Ok(NotMoved::Lost(self.winner().await?)),
        }
    }

    /// The present owner, as text.
    async fn winner(&self) -> Result<String, Error> {
        let sql = format!(
            "SELECT owner, taken_at::text FROM {} WHERE stream = $1 AND reference = $2",
            self.table
        );
        match self.client.query_opt(&sql, &[&self.stream, &self.reference]).await? {
            Some(row) => {
                let (owner, at): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                Ok(format!("another process took over at {at}: {owner}"))
            }
            None => Ok("its row was deleted there".to_owned()),
        }
    }

    /// The position, without touching the row.
    pub(super) async fn look(&self) -> Result<Option<Checkpoint>, Error> {
        let sql =
            format!("SELECT {POSITION} FROM {} WHERE stream = $1 AND reference = $2", self.table);
        let row = self.client.query_opt(&sql, &[&self.stream, &self.reference]).await?;
        row.map_or(Ok(None), |row| position(&row))
    }

    /// The statement that [`advance`] executes.
    pub(super) async fn prepare(&self) -> Result<Statement, Error> {
        let sql = format!(
            "UPDATE {} SET \"offset\" = $5::text::numeric, \
             chunk_first_offset = $6::text::numeric, chunk_epoch = $7::text::numeric, \
             chunk_timestamp_ms = $8, chunk_crc = $9, updated_at = now() \
             WHERE stream = $1 AND reference = $2 AND owner = $3 AND epoch = $4 \
             AND \"offset\" IS NOT DISTINCT FROM $10::text::numeric",
            self.table
        );
        self.client.prepare(&sql).await
    }

    /// Moves the position, in the open transaction. False: the row is no longer this connection's, or no
    /// longer holds `from`; the transaction must not be committed.
    pub(super) async fn advance(
        &self,
        statement: &Statement,
        (claim, epoch): (&Claim, i64),
        from: Option<Checkpoint>,
        to: Option<Checkpoint>,
    ) -> Result<bool, Error> {
        let from = from.map(|from| from.offset.0.to_string());
        let offset = to.map(|to| to.offset.0.to_string());
        let chunk = to.and_then(|to| to.chunk);
        let first = chunk.map(|chunk| chunk.first_offset.0.to_string());
        let chunk_epoch = chunk.map(|chunk| chunk.epoch.to_string());
        let timestamp = chunk.map(|chunk| chunk.timestamp.0);
        let crc = chunk.map(|chunk| i64::from(chunk.crc));
        let owner = self.owner(claim);
        let changed = self
            .client
            .execute(
                statement,
                &[
                    &self.stream,
                    &self.reference,
                    &owner,
                    &epoch,
                    &offset,
                    &first,
                    &chunk_epoch,
                    &timestamp,
                    &crc,
                    &from,
                ],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// Reads the columns of [`POSITION`]. The table itself checks that the offset is one.
fn position(row: &Row) -> Result<Option<Checkpoint>, Error> {
    let number = |at: usize| -> Result<Option<u64>, Error> {
        Ok(row.try_get::<_, Option<String>>(at)?.and_then(|text| text.parse().ok()))
    };
    let Some(offset) = number(0)? else { return Ok(None) };
    let (first, epoch) = (number(1)?, number(2)?);
    let (timestamp, crc): (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    let crc = crc.and_then(|crc| u32::try_from(crc).ok());
    let chunk = match (first, epoch, timestamp, crc) {
        (Some(first), Some(epoch), Some(timestamp), Some(crc)) => Some(ChunkId {
            first_offset: Offset(first),
            epoch,
            timestamp: Timestamp(timestamp),
            crc,
        }),
        _ => None,
    };
    Ok(Some(Checkpoint { offset: Offset(offset), chunk }))
}
