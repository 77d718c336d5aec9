//! The `postgres` sink: rows in a PostgreSQL table, exactly once, by one process at a time.
//!
//! # Why this is exactly-once
//! A batch is one transaction: `BEGIN`, a COPY of its rows, an UPDATE of the position in
//! `rillway_positions`, `COMMIT`. Rows and position become durable together or not at all, and the next
//! start resumes behind the position. A failure before the COMMIT leaves nothing. If the answer to the
//! COMMIT is lost, the transaction either counts or not, and this is looked up before anything else is
//! written. A new connection first ends every transaction of the former one (`claim.rs`), and then reads
//! the position, by which [`exactly_once`](super::exactly_once) decides.
//!
//! # Why only one process writes
//! The position's row names an owner and an epoch, and the UPDATE of the position requires both to be
//! those of this connection. A process that slept while another one took over finds other values, rolls
//! back, and stops for good. `claim.rs` has the argument, also for a process that froze with its
//! transaction open.
//!
//! # After a failure
//! The connection is dropped and made again, and everything is looked up again: the tables, the types of
//! the columns, the position. All of the server's errors are transient (`error.rs` says why). Fatal is:
//! - that another process took over;
//! - that the position is not the last one that was confirmed to this process: the server has lost
//!   transactions that it had committed (a backup was restored, an asynchronous standby was promoted), or
//!   somebody changed the row. Each transaction and each new connection checks this. When started again,
//!   the consumer resumes at the server's position, and writes again what was lost.
//!
//! # Bad records
//! Records that the server is known to refuse are found before they are sent. What only the server can
//! tell (lengths, constraints, triggers) is found by trying parts of the batch (`probe.rs`), which leaves
//! nothing behind.
//!
//! # A table that is changed meanwhile
//! Each transaction checks, under COPY's own lock, that the table is the one that was looked up, with
//! columns of the same types (`target.rs`). If not, it is rolled back, and the table is looked up again:
//! no value is stored as another one, and no record counts as bad because of it.
//!
//! # Rows that are replaced by their key
//! With a key, the COPY goes into a temporary table, from which one statement of the same transaction deletes
//! and upserts, the last change of each key (`merge.rs`).
//!
//! # Memory
//! Rows are encoded into pieces of 256 KiB (or one row, if that is larger). At most two pieces wait in
//! the connection while the next is built. A batch is never held twice.
//!
//! # What it cannot see
//! A server that confirms a COMMIT and loses it (`fsync = off`, asynchronous standbys), except by the
//! check above; rows that somebody else deletes or changes; connection poolers that give each transaction
//! another session (`pool_mode = transaction`), which must not be used.
//!
//! Must not know: brokers, retries, metrics.

mod audit;
mod claim;
mod copy;
mod declaration;
mod encode;
mod error;
mod evolve;
mod examine;
mod fit;
mod latest;
mod merge;
mod numeric;
mod options;
mod probe;
mod raw;
mod reading;
mod renaming;
mod restart;
mod rows;
mod session;
mod settings;
mod sharing;
mod table;
mod target;
mod transaction;
mod window;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Statement;

pub use self::settings::PostgresSettings;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::exactly_once::{BeforeWrite, PositionMoved, PositionTracker};
use crate::sink::{BadRecord, Durability, Sink, SinkError, used_after_close};
use crate::types::upsert::Missing;
use crate::types::{Checkpoint, Guarantee, Reference, StreamName};

pub use self::claim::Claim;
#[doc(hidden)]
pub use self::encode::fuzz_field;
pub use self::examine::examine;
pub use self::options::PostgresOptions;

use self::claim::{NotMoved, PATIENCE, Rows, Taken};
use self::copy::Open;
use self::error::{late, transient};
use self::rows::Shape;
use self::session::{Door, Session, within};
use self::table::Names;
use self::target::Target;
use self::transaction::{Done, Trouble};

/// How often in a row the table may have changed before the batch has to wait.
const CHANGES_MAX: u32 = 3;

/// Writes one stream's records into a table, exactly once.
pub struct PostgresSink {
    options: PostgresOptions,
    stream: StreamName,
    reference: Reference,
    claim: Claim,
    door: Door,
    shape: Shape,
    /// `None` after a failure, and once closed.
    ready: Option<Ready>,
    /// What is known of the position, and what may be done next.
    tracker: PositionTracker,
    closed: bool,
}

/// A connection on which everything was looked up.
struct Ready {
    session: Session,
    target: Target,
    advance: Statement,
    epoch: i64,
}

impl PostgresSink {
    /// Connects, creates the tables if allowed, and takes over from the former owner. The claim is the
    /// process's own, the same for each sink that it opens for this consumer.
    ///
    /// # Errors
    /// Fatal if the URL is wrong, or if this claim was lost to another process; transient for every other
    /// error.
    pub async fn open(
        options: PostgresOptions,
        stream: StreamName,
        reference: Reference,
        claim: Claim,
    ) -> Result<PostgresSink, SinkError> {
        let door = options.door(&reference)?;
        let shape = Shape::new(&stream, options.columns.clone(), options.upsert.as_ref());
        let mut sink = PostgresSink {
            options,
            stream,
            reference,
            claim,
            door,
            shape,
            ready: None,
            tracker: PositionTracker::default(),
            closed: false,
        };
        sink.get_ready().await?;
        Ok(sink)
    }

    /// Makes the connection ready, and resolves a doubt about the position.
    async fn get_ready(&mut self) -> Result<(), SinkError> {
        if self.closed {
            return Err(used_after_close(&format!("the postgres sink on {}", self.door.place)));
        }
        let connected = self.ready.as_ref().is_some_and(|ready| !ready.session.client.is_closed());
        if connected && !self.tracker.must_read_row() {
            return Ok(());
        }
        self.ready = None;
        let session = self.door.open().await?;
        // The take-over may wait for a lock twice.
        let limit = self.options.write_timeout + 2 * PATIENCE;
        let looking = self.look_up(session);
        let (ready, found) =
            within(limit, &self.door.place, "look up the tables and the position", looking).await?;
        let compared =
            self.tracker.compare(found).map_err(|moved| self.moved(&ready.target.names, moved))?;
        self.tracker.resume(compared);
        self.ready = Some(ready);
        Ok(())
    }

    async fn look_up(&self, session: Session) -> Result<(Ready, Option<Checkpoint>), SinkError> {
        let PostgresOptions { lock_timeout, write_timeout, create, missing, .. } = self.options;
        let place = &self.door.place;
        let client = &session.client;
        let setting = |error| transient("set up a session", place, &error);
        session.set_up(PATIENCE, write_timeout).await.map_err(setting)?;
        let names =
            Names::find(client, place, self.options.schema.as_deref(), &self.options.table).await?;
        let target = Target::find(client, place, names, &self.shape, (create, missing)).await?;
        let rows = self.rows(&session, &target.names);
        let tried = format!("take over {}", target.names.positions);
        let failed = |error| transient(&tried, place, &error);
        let named = table::positions_name_tables(client, &target.names, create).await;
        let taken = rows.take(&self.claim, named.map_err(failed)?).await.map_err(failed)?;
        let (epoch, position) = match taken {
            Taken::Ours { epoch, position } => (epoch, position),
            Taken::Lost(who) => return Err(self.fenced(&who)),
            Taken::Shared(other) => {
                return Err(sharing::shared(&rows, &target.names, place, &other));
            }
        };
        let preparing = |error| transient("prepare the statements", place, &error);
        let advance = rows.prepare().await.map_err(preparing)?;
        if position.is_none() && !self.shape.key().is_empty() && !self.is_replay() {
            let own = (&rows, &target.names, &self.shape);
            let begun = restart::forget(own, &advance, (&self.claim, epoch), None).await;
            let tried = format!("begin anew in {}", target.names.table);
            if let Some(why) = begun.map_err(|error| transient(&tried, place, &error))? {
                return Err(self.not_moved(&target.names, why));
            }
        }
        session.set_up(lock_timeout, write_timeout).await.map_err(setting)?;
        Ok((Ready { session, target, advance, epoch }, position))
    }

    /// Whether this writes dead letters again, beside the consumer's own sink.
    fn is_replay(&self) -> bool {
        self.reference.without_replay() != self.reference.as_str()
    }

    fn rows<'a>(&'a self, session: &'a Session, names: &'a Names) -> Rows<'a> {
        Rows {
            client: &session.client,
            table: &names.positions,
            stream: self.stream.as_str(),
            reference: self.reference.as_str(),
            into: &names.bare,
        }
    }

    fn fenced(&self, who: &str) -> SinkError {
        SinkError::Fatal(format!(
            "{}/{} at {} no longer belongs to this process: {who}. It writes nothing more, so that no \
             message is duplicated. Run one daemon for a stream and reference; restart this one only \
             if it has to take over again.",
            self.stream, self.reference, self.door.place
        ))
    }

    fn not_ready(&self) -> SinkError {
        SinkError::transient(format!("the position at {} is not known yet", self.door.place))
    }

    fn not_moved(&self, names: &Names, why: NotMoved) -> SinkError {
        match why {
            NotMoved::Lost(who) => self.fenced(&who),
            NotMoved::Holds(found) => match self.tracker.compare(found) {
                Err(moved) => self.moved(names, moved),
                // Somebody has restored it in the meantime.
                Ok(_) => self.not_ready(),
            },
        }
    }

    fn moved(&self, names: &Names, moved: PositionMoved) -> SinkError {
        let offset = |at: Option<Checkpoint>| {
            at.map_or("no offset".to_owned(), |at| format!("offset {}", at.offset))
        };
        SinkError::Fatal(format!(
            "the position of {}/{} in {} at {} is {}, where {} had been committed: the database \
             has lost transactions (was a backup restored, or another standby promoted?), or \
             somebody changed the row. When restarted, this consumer resumes behind the position \
             that is there now.",
            self.stream,
            self.reference,
            names.positions,
            self.door.place,
            offset(moved.found),
            offset(moved.committed),
        ))
    }

    fn internal(&self, batch: &Batch, at: Checkpoint) -> SinkError {
        SinkError::Fatal(format!(
            "internal error: {batch} is not behind offset {}, which is committed at {}; please report it",
            at.offset, self.door.place
        ))
    }

    /// Runs one transaction on the ready connection; repeats it if the table was no longer the one that
    /// was looked up.
    async fn transact(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for _ in 0..CHANGES_MAX {
            // Only a transaction that ends well puts the connection back.
            let Some(mut ready) = self.ready.take() else { return Err(self.not_ready()) };
            match self.try_transact(&ready, batch).await? {
                Tried::Committed => {
                    self.ready = Some(ready);
                    return Ok(());
                }
                Tried::Refused(bad) => {
                    self.ready = Some(ready);
                    return Err(SinkError::Poison(bad));
                }
                Tried::Changed => {
                    ready.target = self.look_again(&ready).await?;
                    self.ready = Some(ready);
                }
            }
        }
        Err(SinkError::transient(format!(
            "could not write {batch} at {}: the table was changed {CHANGES_MAX} times meanwhile",
            self.door.place
        )))
    }

    async fn try_transact(&mut self, ready: &Ready, batch: &Batch) -> Result<Tried, SinkError> {
        let open = Open {
            session: &ready.session,
            shape: &self.shape,
            target: &ready.target,
            advance: &ready.advance,
            rows: Rows {
                client: &ready.session.client,
                table: &ready.target.names.positions,
                stream: self.stream.as_str(),
                reference: self.reference.as_str(),
                into: &ready.target.names.bare,
            },
            claim: &self.claim,
            epoch: ready.epoch,
        };
        // The sink's own tracker: the doubt remains if the caller drops the future.
        match transaction::run(&open, batch, self.options.write_timeout, &mut self.tracker).await {
            Done::Committed => Ok(Tried::Committed),
            Done::Refused(bad) => Ok(Tried::Refused(bad)),
            Done::Changed => Ok(Tried::Changed),
            Done::NotMoved(why) => Err(self.not_moved(&ready.target.names, why)),
            Done::Broken(tried, trouble) => {
                let tried = format!("{tried} ({batch}) in {}", ready.target.names.table);
                let place = &self.door.place;
                Err(match trouble {
                    Trouble::Error(error) => transient(&tried, place, &error),
                    Trouble::Late(limit) => late(&tried, place, limit),
                })
            }
        }
    }

    /// Looks the table up again, because it was changed.
    async fn look_again(&self, ready: &Ready) -> Result<Target, SinkError> {
        let (client, place) = (&ready.session.client, &self.door.place);
        let names = ready.target.names.clone();
        tracing::warn!(
            table = %names.table, %place,
            "the table was changed while it was written to: nothing of the batch was kept, and the \
             columns are looked up again"
        );
        let allowed = (false, Missing::Refuse);
        let looking = Target::find(client, place, names, &self.shape, allowed);
        within(self.options.write_timeout, place, "look at the table again", looking).await
    }
}

/// Result of one transaction.
enum Tried {
    Committed,
    Refused(Vec<BadRecord>),
    Changed,
}

#[async_trait]
impl Sink for PostgresSink {
    fn kind(&self) -> &'static str {
        PostgresSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        PostgresSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.get_ready().await?;
        Ok(self.tracker.committed())
    }

    /// A transaction costs a sync and four round trips, however large the batch.
    fn joins_batches(&self) -> bool {
        true
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.get_ready().await?;
        match self.tracker.before_write(batch.first_offset(), batch.checkpoint()) {
            BeforeWrite::Write => self.transact(batch).await?,
            BeforeWrite::AlreadyCommitted => {}
            BeforeWrite::ReadRow => return Err(self.not_ready()),
            BeforeWrite::Overlaps(at) => return Err(self.internal(batch, at)),
        }
        Ok(Durability::Durable)
    }

    /// The rows stay; only the position is forgotten, and, where rows are replaced by their key, their
    /// offsets, so that the new incarnation can replace them. If the table has a unique key over offsets, whoever
    /// made that key has to move the rows away.
    async fn restart(&mut self) -> Result<(), SinkError> {
        self.get_ready().await?;
        tracing::warn!(place = %self.door.place, stream = %self.stream, "the stream was re-created: the rows so far stay in the table");
        self.shift(None).await
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        self.get_ready().await?;
        self.shift(to).await?;
        self.position().await
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.closed = true;
        if let Some(ready) = self.ready.take() {
            ready.session.close().await;
        }
        Ok(())
    }
}

impl PostgresSink {
    /// Moves the position alone. The rows stay; if it is forgotten, and rows are replaced by their key, every
    /// message may replace them.
    async fn shift(&mut self, to: Option<Checkpoint>) -> Result<(), SinkError> {
        let Some(ready) = self.ready.take() else { return Err(self.not_ready()) };
        let from = self.tracker.committed();
        self.tracker.committing(to);
        let rows = self.rows(&ready.session, &ready.target.names);
        let moving = async {
            let owned = (&self.claim, ready.epoch);
            let failed = |error| transient("move the position", &self.door.place, &error);
            if to.is_none() {
                let own = (&rows, &ready.target.names, &self.shape);
                return restart::forget(own, &ready.advance, owned, from).await.map_err(failed);
            }
            match rows.advance(&ready.advance, owned, from, to).await.map_err(failed)? {
                true => Ok(None),
                false => rows.why_not_moved(owned).await.map(Some).map_err(failed),
            }
        };
        let limit = self.options.write_timeout;
        match within(limit, &self.door.place, "move the position", moving).await? {
            None => {
                self.tracker.confirmed();
                self.ready = Some(ready);
                Ok(())
            }
            Some(why) => {
                self.tracker.rolled_back();
                Err(self.not_moved(&ready.target.names, why))
            }
        }
    }
}
