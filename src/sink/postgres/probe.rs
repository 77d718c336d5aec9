//! Which records of a batch the server refuses, exactly, though it names one at a time at the most.
//!
//! In one transaction, which is rolled back in the end:
//! - *Ranges.* A range of records is copied under a savepoint. Where the server takes it, it stays, so
//!   that a later record that repeats an earlier one's key is found. Where it refuses, the good ones
//!   before the line that the error names are copied again, or the half of them, where it names none
//!   (as the check of a foreign key does). The line is only a hint.
//! - *Row by row.* The records from there on are each inserted by themselves, some [`WINDOW`] in a
//!   single round trip (`window.rs`): what is called bad was refused alone, behind all good ones
//!   before it. While many are refused, this goes on; else ranges are tried again.
//!
//! So a batch of which all are bad takes one round trip for each [`WINDOW`] records. Where the time or
//! [`BAD_RECORDS_MAX`] is used up all the same, the answer is what was found so far, which is all that is bad
//! up to there: without these records the batch is given again, and gets further each time.
//!
//! Constraints that wait for the commit wait for the end of the search, as a later record may meet
//! them. Only where they refuse something then, the search begins again, with each of them made to
//! speak at once; a record that only a later one would have met is refused then, too.
//!
//! The table is what was looked up, or the answer is [`Found::Changed`]: no record is called bad for
//! what it is written into. An empty COPY takes the lock that keeps it so.

use std::time::{Duration, Instant};

use tokio_postgres::{Error, Statement};

use super::copy::{Open, copy};
use super::error::{is_about_records, line_of, names_no_column, refusal};
use super::window;
use crate::flow::batch::Batch;
use crate::sink::{BAD_RECORDS_MAX, BadReason, BadRecord};
use crate::types::Offset;

/// How many records are tried row by row, at the most, before it is looked at what came of them.
pub(super) const WINDOW: usize = 100;

/// Of so many, ranges are made as soon as fewer are refused in a window.
const MANY: usize = WINDOW / 8;

/// What was found out.
pub(super) enum Found {
    /// The table is no longer what was looked up.
    Changed,
    /// All that are refused, in order.
    All(Vec<BadRecord>),
    /// All that are refused below this offset.
    Until(Offset, Vec<BadRecord>),
}

/// When deferred constraints are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Constraints {
    Deferred,
    Immediate,
}

/// Finds the records that are refused; not all of them, where it takes longer than `slice`. An error
/// is about the server, not about a record.
///
/// Rolls back, whatever is open on the connection. No record of the batch is bad in the client's own
/// eyes any more.
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

/// Begins the transaction; `false` where the table is no longer what was looked up.
async fn begin(open: &Open<'_>, constraints: Constraints) -> Result<bool, Error> {
    let begin = match constraints {
        Constraints::Deferred => "ROLLBACK; BEGIN",
        Constraints::Immediate => "ROLLBACK; BEGIN; SET CONSTRAINTS ALL IMMEDIATE",
    };
    // Before any savepoint: what is locked behind one is let go with it.
    copy(open, begin, std::iter::empty(), &mut Vec::new()).await?;
    open.target.definition.holds(&open.session.client).await
}

/// What is tried next.
#[derive(Clone, Copy)]
enum Step {
    /// So many at once.
    Range(usize),
    /// So many good ones, as it seems, before one that is not.
    Prefix(usize),
    /// One by one.
    Rows,
}

struct Search<'a> {
    open: &'a Open<'a>,
    batch: &'a Batch,
    insert: Option<Statement>,
    bad: Vec<BadRecord>,
    /// The first record that was not decided yet.
    at: Offset,
    left: usize,
    /// The size of the next range.
    range: usize,
    /// Control statements, which go out with what is tried next.
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

    /// Until all are decided, or some are bad and the time is over; then tells where it has got.
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

    /// Tries a range at once, and says what to try next.
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
        // The server is silent until it has been sent a whole range.
        self.range = (count / 4).max(WINDOW);
        let good = line_of(&error).and_then(|line| line.checked_sub(1)).filter(|n| *n < count);
        Ok(match good {
            Some(0) => Step::Rows,
            _ if count <= WINDOW => Step::Rows,
            Some(good) => Step::Prefix(good),
            None => Step::Range(count / 2),
        })
    }

    /// Tries the next ones by themselves.
    async fn rows(&mut self) -> Result<Step, Error> {
        let (open, batch) = (self.open, self.batch);
        let records = batch.records_from(self.at).take(WINDOW);
        let (tried, refusals) = match &self.insert {
            Some(insert) => window::try_rows(open, self.before, insert, records).await?,
            None => self.rows_by_copy().await?,
        };
        // What was taken stays, and what was refused is undone already.
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

    /// What a COPY says of a record that was refused: of a value, also the column.
    async fn in_more_words(&mut self, offset: Offset, error: Error) -> Result<Error, Error> {
        let record = self.batch.records_from(offset).take(1);
        let said = copy(self.open, self.before, record, &mut Vec::new()).await;
        // Nothing of it stays, whatever became of it.
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

    /// So many are decided.
    fn pass(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        let next = self.batch.records_from(self.at).nth(count).map(|record| record.offset);
        self.at = next.unwrap_or(Offset(self.batch.last_offset().0.saturating_add(1)));
    }

    /// Whether constraints that wait for the commit are met by what was taken.
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
