//! One batch in one transaction: COPY, the position, COMMIT.

use std::time::Duration;

use futures_util::future::join3;
use tokio_postgres::Error;

use super::claim::NotMoved;
use super::copy::{Open, copy};
use super::error::{is_about_records, is_about_the_form};
use super::probe::{self, Found};
use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::exactly_once::PositionTracker;
use crate::sink::{BAD_RECORDS_MAX, BadRecord};
use crate::types::Offset;

/// How many times longer than a write the search for bad records may take.
const SORTING_FACTOR: u32 = 10;

/// Result of a transaction. After all but the last, nothing is open on the connection.
pub(super) enum Done {
    Committed,
    /// Rolled back because of these records: all the bad ones, or all up to the last of them.
    Refused(Vec<BadRecord>),
    /// Rolled back, because the table is no longer the one that was looked up.
    Changed,
    /// Rolled back, because the position could not be moved.
    NotMoved(NotMoved),
    /// What was tried, and why it failed. The connection cannot be used any more.
    Broken(&'static str, Trouble),
}

/// Reason of a failure.
pub(super) enum Trouble {
    Error(Error),
    /// It took longer than this.
    Late(Duration),
}

/// Result of the first try.
enum Looked {
    Done(Done),
    /// The server refuses some of it. These were found to be bad before.
    Unsorted(Vec<BadRecord>, Error),
}

type Failure = (&'static str, Error);

/// Writes the batch together with its position. The tracker is told before the COMMIT is sent, and when
/// its answer has arrived.
pub(super) async fn run(
    open: &Open<'_>,
    batch: &Batch,
    limit: Duration,
    tracker: &mut PositionTracker,
) -> Done {
    let looked = tokio::time::timeout(limit, write(open, batch, tracker)).await;
    let (bad, error) = match looked {
        Ok(Ok(Looked::Done(done))) => return done,
        Ok(Ok(Looked::Unsorted(bad, error))) => (bad, error),
        Ok(Err((tried, error))) => return Done::Broken(tried, Trouble::Error(error)),
        Err(_elapsed) => return Done::Broken("write", Trouble::Late(limit)),
    };
    let longest = limit * SORTING_FACTOR;
    match tokio::time::timeout(longest, sort_out(open, batch, bad, error, limit)).await {
        Ok(Ok(done)) => done,
        Ok(Err((tried, error))) => Done::Broken(tried, Trouble::Error(error)),
        Err(_elapsed) => Done::Broken("find the records that are refused", Trouble::Late(longest)),
    }
}

/// Four round trips: `BEGIN` with the start of the COPY, the COPY's end, everything between that and the
/// commit, `COMMIT`. Statements that are sent together are executed in this order, and after a failed one
/// the rest fail too.
async fn write(
    open: &Open<'_>,
    batch: &Batch,
    tracker: &mut PositionTracker,
) -> Result<Looked, Failure> {
    let client = &open.session.client;
    let (from, to) = (tracker.committed(), batch.checkpoint());
    let owned = (open.claim, open.epoch);
    let mut bad = Vec::new();
    if batch.messages() > 0 {
        match copy(open, "BEGIN", batch.records(), &mut bad).await {
            Ok(()) => {}
            Err(error) if is_about_records(&error) => return Ok(Looked::Unsorted(bad, error)),
            Err(error) => return changed_or(open, "copy rows", error).await,
        }
    } else {
        client.batch_execute("BEGIN").await.map_err(|error| ("begin a transaction", error))?;
    }
    faults::reach(Point::Written);
    let definition = async {
        match batch.messages() {
            0 => Ok(true),
            _ => open.target.definition.holds(client).await,
        }
    };
    // Otherwise a COMMIT would refuse an earlier record than those that were found to be bad.
    let constraints = client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE");
    let position = async {
        match bad.is_empty() {
            true => open.rows.advance(open.advance, owned, from, Some(to)).await,
            false => Ok(true),
        }
    };
    let (unchanged, constraints, moved) = join3(definition, constraints, position).await;
    if !unchanged.map_err(|error| ("look at the table again", error))? {
        return roll_back(open, Done::Changed).await;
    }
    match constraints {
        Ok(()) => {}
        Err(error) if is_about_records(&error) => return Ok(Looked::Unsorted(bad, error)),
        Err(error) => return Err(("check the constraints", error)),
    }
    if !bad.is_empty() {
        return roll_back(open, Done::Refused(bad)).await;
    }
    if !moved.map_err(|error| ("set the position", error))? {
        let why = open.rows.why_not_moved(owned).await;
        let why = why.map_err(|error| ("see why the position was not set", error))?;
        return roll_back(open, Done::NotMoved(why)).await;
    }
    faults::reach(Point::Flushed);
    tracker.committing(Some(to));
    match client.batch_execute("COMMIT").await {
        Ok(()) => {
            tracker.confirmed();
            Ok(Looked::Done(Done::Committed))
        }
        // A deferred constraint was violated: the server has rolled back.
        Err(error) if is_about_records(&error) => {
            tracker.rolled_back();
            Ok(Looked::Unsorted(Vec::new(), error))
        }
        Err(error) => Err(("commit", error)),
    }
}

/// Whether it failed because the table is no longer the one that was looked up.
async fn changed_or(open: &Open<'_>, tried: &'static str, error: Error) -> Result<Looked, Failure> {
    if is_about_the_form(&error) {
        let client = &open.session.client;
        client.batch_execute("ROLLBACK").await.map_err(|error| ("roll back", error))?;
        // An error here says less than the first one.
        if open.target.definition.holds(client).await.is_ok_and(|holds| !holds) {
            return Ok(Looked::Done(Done::Changed));
        }
    }
    Err((tried, error))
}

async fn roll_back(open: &Open<'_>, done: Done) -> Result<Looked, Failure> {
    open.session.client.batch_execute("ROLLBACK").await.map_err(|error| ("roll back", error))?;
    Ok(Looked::Done(done))
}

/// Finds the bad records: those that were found here, and those that the server refuses. Either all of
/// them, or, if that takes longer than `slice`, all up to some record.
async fn sort_out(
    open: &Open<'_>,
    batch: &Batch,
    mut bad: Vec<BadRecord>,
    error: Error,
    slice: Duration,
) -> Result<Done, Failure> {
    let rest = looked_through(batch, &bad).without(bad.iter().map(|bad| bad.offset).collect());
    let refused = probe::refused(open, &rest, slice).await;
    let found = match refused.map_err(|error| ("find the records that are refused", error))? {
        Found::Changed => return Ok(Done::Changed),
        Found::All(found) => found,
        Found::Until(end, found) => {
            bad.retain(|bad| bad.offset < end);
            found
        }
    };
    bad.extend(found);
    bad.sort_by_key(|bad| bad.offset);
    bad.truncate(BAD_RECORDS_MAX);
    match bad.is_empty() {
        // Tried one by one, all are good: the conflict was with another session's row, which is gone.
        true => Err(("copy rows", error)),
        false => Ok(Done::Refused(bad)),
    }
}

/// The records that [`copy`] has examined: it stops when enough of them are bad.
fn looked_through(batch: &Batch, bad: &[BadRecord]) -> Batch {
    let last = bad.last().filter(|_| bad.len() >= BAD_RECORDS_MAX);
    let looked_at = last.and_then(|last| batch.before(Offset(last.offset.0.saturating_add(1))));
    looked_at.unwrap_or_else(|| batch.clone())
}
