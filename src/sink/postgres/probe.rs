//! Which records of a batch the server refuses, exactly, though it names one at a time at the most.
//!
//! A range of records is copied under a savepoint. Where the server takes it, it stays, so that a
//! later record that repeats an earlier one's key is found. Where it refuses, and the range is one
//! record, that record is bad; else the range is divided: at the line that the error names, which is
//! then asked by itself, or in the middle, where it names none (as the check of a foreign key does).
//! So the line is only a hint, and what is called bad was refused alone, behind all good ones before
//! it. How many records are tried at once shrinks with each refusal and grows again with each
//! success, for the server is silent until it has been sent a whole range: so a batch of which all are
//! bad goes over the line some [`FEWEST`] times, and not once for each.
//!
//! Constraints that wait for the commit are made to speak at once. In the end all is rolled back.

use std::ops::Range;

use tokio_postgres::Error;

use super::error::{is_about_records, line_of, refusal};
use super::transaction::{Open, copy};
use crate::flow::batch::Batch;
use crate::sink::{BadReason, BadRecord};

/// However many were refused, so many are tried at once.
const FEWEST: usize = 8;

/// All records that are refused, in order. An error is about the server, not about a record.
///
/// Rolls back, whatever is open on the connection. No record of the batch is bad in the client's own
/// eyes any more.
pub(super) async fn refused(open: &Open<'_>, batch: &Batch) -> Result<Vec<BadRecord>, Error> {
    let client = &open.session.client;
    client.batch_execute("ROLLBACK; BEGIN; SET CONSTRAINTS ALL IMMEDIATE").await?;
    let records = usize::try_from(batch.messages()).unwrap_or(usize::MAX);
    let mut bad = Vec::new();
    let mut step = records.max(1);
    // The next range is the last of these; they are in order, and do not overlap.
    let mut ranges: Vec<Range<usize>> = std::iter::once(0..records).collect();
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        let (range, rest) = (range.start..range.end.min(range.start + step), range);
        ranges.push(range.end..rest.end);
        client.batch_execute("SAVEPOINT range").await?;
        let some = batch.records().skip(range.start).take(range.len());
        let error = match copy(open, some, &mut bad).await {
            Ok(()) => {
                client.batch_execute("RELEASE SAVEPOINT range").await?;
                step = step.saturating_mul(2);
                continue;
            }
            Err(error) if is_about_records(&error) => error,
            Err(error) => return Err(error),
        };
        client.batch_execute("ROLLBACK TO SAVEPOINT range; RELEASE SAVEPOINT range").await?;
        step = (step / 4).max(FEWEST);
        if range.len() == 1 {
            let offset = batch.records().nth(range.start).map(|record| record.offset);
            bad.extend(offset.map(|offset| BadRecord {
                offset,
                reason: BadReason::Refused,
                detail: format!("PostgreSQL refused it: {}", refusal(&error)),
            }));
            continue;
        }
        let named = line_of(&error).and_then(|line| Some(range.start + line.checked_sub(1)?));
        match named.filter(|named| range.contains(named)) {
            Some(named) => {
                ranges.extend([named + 1..range.end, named..named + 1, range.start..named]);
            }
            None => {
                let middle = range.start + range.len() / 2;
                ranges.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    client.batch_execute("ROLLBACK").await?;
    Ok(bad)
}
