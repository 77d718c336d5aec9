//! One batch, one transaction: COPY, the position, COMMIT.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Error, Statement};

use super::claim::{Claim, Rows};
use super::encode::{HEADER, PgType, TRAILER};
use super::error::is_about_records;
use super::probe;
use super::rows::Shape;
use super::session::Session;
use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::BadRecord;
use crate::types::Checkpoint;
use crate::wire::block::Record;

/// So much is encoded before it is handed to the connection. Two such pieces wait there at the most.
const PIECE_BYTES: usize = 256 << 10;

/// How many times longer than a write the search for bad records may take.
const SORTING_FACTOR: u32 = 10;

/// What a transaction is done with.
pub(super) struct Open<'a> {
    pub(super) session: &'a Session,
    pub(super) shape: &'a Shape,
    pub(super) types: &'a [PgType],
    /// The statement that takes rows.
    pub(super) copy: &'a Statement,
    /// The one that sets the position.
    pub(super) advance: &'a Statement,
    pub(super) rows: Rows<'a>,
    pub(super) claim: &'a Claim,
    pub(super) epoch: i64,
}

/// What came of a transaction. After all but the last, nothing is open on the connection.
pub(super) enum Done {
    Committed,
    /// Rolled back, for these.
    Refused(Vec<BadRecord>),
    /// Rolled back, for the row is no longer ours.
    Fenced(String),
    /// What was tried, and why it failed. The connection cannot be used any more.
    Broken(&'static str, Trouble),
}

/// Why something failed.
pub(super) enum Trouble {
    Error(Error),
    /// It took longer than this.
    Late(Duration),
}

/// What the first look at a batch came to.
enum Looked {
    Done(Done),
    /// The server refuses some of it. These were found to be bad before.
    Unsorted(Vec<BadRecord>, Error),
}

type Failure = (&'static str, Error);

/// Writes the batch, its position with it. `doubt` is set while it cannot be known whether the
/// transaction counts.
pub(super) async fn run(
    open: &Open<'_>,
    batch: &Batch,
    limit: Duration,
    doubt: &mut Option<Option<Checkpoint>>,
) -> Done {
    let looked = tokio::time::timeout(limit, write(open, batch, doubt)).await;
    let (bad, error) = match looked {
        Ok(Ok(Looked::Done(done))) => return done,
        Ok(Ok(Looked::Unsorted(bad, error))) => (bad, error),
        Ok(Err((tried, error))) => return Done::Broken(tried, Trouble::Error(error)),
        Err(_elapsed) => return Done::Broken("write", Trouble::Late(limit)),
    };
    let limit = limit * SORTING_FACTOR;
    match tokio::time::timeout(limit, sort_out(open, batch, bad, error)).await {
        Ok(Ok(done)) => done,
        Ok(Err((tried, error))) => Done::Broken(tried, Trouble::Error(error)),
        Err(_elapsed) => Done::Broken("find the records that are refused", Trouble::Late(limit)),
    }
}

async fn write(
    open: &Open<'_>,
    batch: &Batch,
    doubt: &mut Option<Option<Checkpoint>>,
) -> Result<Looked, Failure> {
    let client = &open.session.client;
    let to = batch.checkpoint();
    client.batch_execute("BEGIN").await.map_err(|error| ("begin a transaction", error))?;
    if batch.messages() > 0 {
        let mut bad = Vec::new();
        match copy(open, batch.records(), &mut bad).await {
            Ok(()) if bad.is_empty() => {}
            Ok(()) => return roll_back(open, Done::Refused(bad)).await,
            Err(error) if is_about_records(&error) => return Ok(Looked::Unsorted(bad, error)),
            Err(error) => return Err(("copy rows", error)),
        }
    }
    faults::reach(Point::Written);
    let ours = open.rows.advance(open.advance, (open.claim, open.epoch), Some(to)).await;
    if !ours.map_err(|error| ("set the position", error))? {
        let who = open.rows.winner().await.map_err(|error| ("see who took over", error))?;
        return roll_back(open, Done::Fenced(who)).await;
    }
    faults::reach(Point::Flushed);
    *doubt = Some(Some(to));
    match client.batch_execute("COMMIT").await {
        Ok(()) => {
            *doubt = None;
            Ok(Looked::Done(Done::Committed))
        }
        // A constraint that was deferred to here: the server has rolled back.
        Err(error) if is_about_records(&error) => {
            *doubt = None;
            Ok(Looked::Unsorted(Vec::new(), error))
        }
        Err(error) => Err(("commit", error)),
    }
}

async fn roll_back(open: &Open<'_>, done: Done) -> Result<Looked, Failure> {
    open.session.client.batch_execute("ROLLBACK").await.map_err(|error| ("roll back", error))?;
    Ok(Looked::Done(done))
}

/// Finds all bad records: those that were found here, and those that the server refuses.
async fn sort_out(
    open: &Open<'_>,
    batch: &Batch,
    mut bad: Vec<BadRecord>,
    error: Error,
) -> Result<Done, Failure> {
    let rest = batch.clone().without(bad.iter().map(|bad| bad.offset).collect());
    let refused = probe::refused(open, &rest).await;
    bad.extend(refused.map_err(|error| ("find the records that are refused", error))?);
    bad.sort_by_key(|bad| bad.offset);
    match bad.is_empty() {
        // Taken one by one, all are good: it was somebody else's row, which is gone.
        true => Err(("copy rows", error)),
        false => Ok(Done::Refused(bad)),
    }
}

/// Copies records, but for the bad ones. What the server has to say of them it says in the end.
pub(super) async fn copy<'r>(
    open: &Open<'_>,
    records: impl Iterator<Item = Record<'r>>,
    bad: &mut Vec<BadRecord>,
) -> Result<(), Error> {
    let mut to = pin!(open.session.client.copy_in::<_, Bytes>(open.copy).await?);
    let mut out = BytesMut::with_capacity(PIECE_BYTES);
    out.extend_from_slice(HEADER);
    let mut row = Vec::new();
    for record in records {
        if let Err(record) = open.shape.append(record, open.types, &mut row, &mut out) {
            bad.push(record);
        }
        if out.len() >= PIECE_BYTES {
            to.feed(out.split().freeze()).await?;
        }
    }
    out.extend_from_slice(TRAILER);
    to.feed(out.freeze()).await?;
    to.finish().await?;
    Ok(())
}
