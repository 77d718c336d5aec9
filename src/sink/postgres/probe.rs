//! Finds exactly the records of a batch that the server refuses, although it names at most one at a time.
//!
//! In one transaction, which is rolled back at the end:
//! - *Ranges.* A range of records is copied under a savepoint. If the server takes it, it stays, so that
//!   a later record with the key of an earlier one is found. If the server refuses it, the good records
//!   before the line that the error names are copied again; or half of the range, if the error names no
//!   line (as with a foreign key). The line is only a hint.
//! - *Row by row.* From there on, records are inserted one by one, [`WINDOW`] of them in a single round
//!   trip (`window.rs`): a record counts as bad only if it was refused alone, after all good ones before
//!   it. While many are refused, this continues; otherwise ranges are tried again.
//!
//! So a batch of only bad records takes one round trip for each [`WINDOW`] records. When the time or
//! [`BAD_RECORDS_MAX`] is used up before the end, the answer is everything bad up to some record: without
//! these, the batch is given again, and gets further each time.
//!
//! Deferred constraints wait for the end of the search, because a later record may satisfy them. Only if
//! one of them is violated then, the search begins again with all constraints immediate; a record that
//! only a later one would have satisfied is then refused, too.
//!
//! The table is the one that was looked up, or the answer is [`Found::Changed`]: no record counts as bad
//! because its table was changed. An empty COPY takes the lock that prevents a change.

use std::time::{Duration, Instant};

use tokio_postgres::{Error, Statement};

use super::copy::{Open, copy};
use super::error::{is_about_records, line_of, names_no_column, refusal};
use super::window;
use crate::flow::batch::Batch;
use crate::sink::{BAD_RECORDS_MAX, BadReason, BadRecord};
use crate::types::Offset;

/// Most records that are tried row by row before the results are read.
pub(super) const WINDOW: usize = 100;

/// Ranges are tried again when fewer than this many records of a window are refused.
const MANY: usize = WINDOW / 8;

/// Result of the search.
pub(super) enum Found {
    /// The table is no longer the one that was looked up.
    Changed,
    /// All refused records, in order.
    All(Vec<BadRecord>),
    /// All refused records below this offset.
    Until(Offset, Vec<BadRecord>),
}

/// When deferred constraints are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Constraints {
    Deferred,
    Immediate,
}

/// Finds the refused records; not all of them, if that takes longer than `slice`. An error is about the
/// server, not about a record.
///
/// Rolls back whatever is open on the connection. Records that cannot be encoded were left out of the
/// batch before.
pub(super) async fn refused(
    open: &Open<'_>,
    batch: &Batch,
    slice: Duration,
) -> Result<Found, Error> {
    let client = &open.session.client;
    let mut constraints = Constraints::Deferred;
    let found = loop {
        if !begin(open, constraints).await? {
            break Found::Changed;
        }
        let insert = match open.target.inserts_as_copied {
            true => Some(client.prepare(&open.target.insert).await?),
            false => None,
        };
        let mut search = Search::new(open, batch, insert);
        let end = search.run(slice).await?;
        if constraints == Constraints::Deferred && !search.meets_deferred().await? {
            constraints = Constraints::Immediate;
            continue;
        }
        break match end {
            None => Found::All(search.bad),
            Some(end) => Found::Until(end, search.bad),
        };
    };
    client.batch_execute("ROLLBACK").await?;
    Ok(found)
}

/// Begins the transaction; `false` if the table is no longer the one that was looked up.
async fn begin(open: &Open<'_>, constraints: Constraints) -> Result<bool, Error> {
    let begin = match constraints {
        Constraints::Deferred => "ROLLBACK; BEGIN",
        Constraints::Immediate => "ROLLBACK; BEGIN; SET CONSTRAINTS ALL IMMEDIATE",
    };
    // Before any savepoint: a lock taken after one is released with it.
    copy(open, begin, std::iter::empty(), &mut Vec::new()).await?;
    open.target.definition.holds(&open.session.client).await
}

/// The next try.
#[derive(Clone, Copy)]
enum Step {
    /// A range of this many records.
    Range(usize),
    /// This many records that seem good, before one that is not.
    Prefix(usize),
    /// One by one.
    Rows,
}

struct Search<'a> {
    open: &'a Open<'a>,
    batch: &'a Batch,
    insert: Option<Statement>,
    bad: Vec<BadRecord>,
    /// The first record that is not decided yet.
    at: Offset,
    left: usize,
    /// The size of the next range.
    range: usize,
    /// Control statements, which are sent with the next try.
    before: &'static str,
}

const TAKEN: &str = "RELEASE SAVEPOINT range; SAVEPOINT range";
const GIVEN_BACK: &str = "ROLLBACK TO SAVEPOINT range";

impl<'a> Search<'a> {
    fn new(open: &'a Open<'a>, batch: &'a Batch, insert: Option<Statement>) -> Search<'a> {
        let left = usize::try_from(batch.messages()).unwrap_or(usize::MAX);
        Search {
            open,
            batch,
            insert,
            bad: Vec::new(),
            at: Offset(0),
            left,
            range: left,
            before: "SAVEPOINT range",
        }
    }

    /// Runs until all are decided, or until some are bad and the time is over; then returns how far it
    /// got.
    async fn run(&mut self, slice: Duration) -> Result<Option<Offset>, Error> {
        let began = Instant::now();
        // The range with everything was refused already.
        let mut step = Step::Range(self.left.div_ceil(2));
        while self.left > 0 {
            let full = began.elapsed() >= slice || self.bad.len() >= BAD_RECORDS_MAX;
            if full && !self.bad.is_empty() {
                return Ok(Some(self.at));
            }
            step = match step {
                Step::Range(count) => self.copy(count, false).await?,
                Step::Prefix(count) => self.copy(count, true).await?,
                Step::Rows => self.rows().await?,
            };
        }
        Ok(None)
    }

    /// Tries a range at once, and returns what to try next.
    async fn copy(&mut self, count: usize, is_prefix: bool) -> Result<Step, Error> {
        let count = count.clamp(1, self.left);
        let records = self.batch.records_from(self.at).take(count);
        let error = match copy(self.open, self.before, records, &mut Vec::new()).await {
            Ok(()) => {
                self.before = TAKEN;
                self.pass(count);
                self.range = self.range.saturating_mul(2);
                return Ok(if is_prefix { Step::Rows } else { Step::Range(self.range) });
            }
            Err(error) if is_about_records(&error) => error,
            Err(error) => return Err(error),
        };
        self.before = GIVEN_BACK;
        // The server does not answer before the whole range was sent.
        self.range = (count / 4).max(WINDOW);
        let good = line_of(&error).and_then(|line| line.checked_sub(1)).filter(|n| *n < count);
        Ok(match good {
            Some(0) => Step::Rows,
            _ if count <= WINDOW => Step::Rows,
            Some(good) => Step::Prefix(good),
            None => Step::Range(count / 2),
        })
    }

    /// Tries the next records one by one.
    async fn rows(&mut self) -> Result<Step, Error> {
        let (open, batch) = (self.open, self.batch);
        let records = batch.records_from(self.at).take(WINDOW);
        let (tried, refusals) = match &self.insert {
            Some(insert) => window::try_rows(open, self.before, insert, records).await?,
            None => self.rows_by_copy().await?,
        };
        // Accepted rows stay, and refused ones are undone already.
        self.before = TAKEN;
        let many = refusals.len() >= MANY;
        for (offset, mut error) in refusals {
            if !many && names_no_column(&error) {
                error = self.in_more_words(offset, error).await?;
            }
            let detail = format!("PostgreSQL refused it: {}", refusal(&error));
            self.bad.push(BadRecord { about: None, offset, reason: BadReason::Refused, detail });
        }
        self.pass(tried);
        Ok(if many { Step::Rows } else { Step::Range(self.range) })
    }

    /// The server's refusal of a record by COPY; if it is about a value, with the column.
    async fn in_more_words(&mut self, offset: Offset, error: Error) -> Result<Error, Error> {
        let record = self.batch.records_from(offset).take(1);
        let said = copy(self.open, self.before, record, &mut Vec::new()).await;
        // Nothing of it stays, whatever the result.
        self.open.session.client.batch_execute(GIVEN_BACK).await?;
        self.before = GIVEN_BACK;
        match said {
            Ok(()) => Ok(error),
            Err(said) if is_about_records(&said) => Ok(said),
            Err(said) => Err(said),
        }
    }

    /// The same by COPYs of one row each: two round trips for each.
    async fn rows_by_copy(&mut self) -> Result<(usize, Vec<(Offset, Error)>), Error> {
        let (open, batch) = (self.open, self.batch);
        let (mut tried, mut refusals) = (0, Vec::new());
        for record in batch.records_from(self.at).take(WINDOW) {
            tried += 1;
            let offset = record.offset;
            match copy(open, self.before, std::iter::once(record), &mut Vec::new()).await {
                Ok(()) => self.before = TAKEN,
                Err(error) if is_about_records(&error) => {
                    self.before = GIVEN_BACK;
                    refusals.push((offset, error));
                }
                Err(error) => return Err(error),
            }
        }
        open.session.client.batch_execute(self.before).await?;
        Ok((tried, refusals))
    }

    /// Marks this many records as decided.
    fn pass(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        let next = self.batch.records_from(self.at).nth(count).map(|record| record.offset);
        self.at = next.unwrap_or(Offset(self.batch.last_offset().0.saturating_add(1)));
    }

    /// Whether the accepted rows satisfy the deferred constraints.
    async fn meets_deferred(&self) -> Result<bool, Error> {
        let client = &self.open.session.client;
        client.batch_execute(self.before).await?;
        match client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await {
            Ok(()) => Ok(true),
            Err(error) if is_about_records(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
