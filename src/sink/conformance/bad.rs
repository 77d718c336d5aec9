//! Records that can never be written.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sink::{BAD_RECORDS_MAX, SinkError, write_whole};
use crate::types::Offset;

use super::{
    Answer, Medium, Outcome, attempt, batch, batch_with_bad, close, ensure, open, shows, write,
};

const LOOKS_INTO_NONE: Answer = Ok(Outcome::NotAsked("the sink does not look into messages"));

/// All bad records of a batch are reported at once and in order. Nothing of the batch is visible
/// (or all good records are, on a medium that cannot undo), and without the bad ones it can be
/// written.
///
/// # Errors
/// The reason of a failure.
pub async fn names_every_bad_record(medium: &mut impl Medium) -> Answer {
    if !medium.decodes() {
        return LOOKS_INTO_NONE;
    }
    // Large enough that a sink that writes along the way has written before it meets the bad ones.
    let last = 12_000;
    let bad = BTreeSet::from([10, 11, 6_000, last - 1]);
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..5)).await?;
    let poisoned = batch_with_bad(5..last, &bad);
    let only_the_last = BTreeSet::from([last - 1]);
    // Written records must not be given again with other content.
    let rounds = [&only_the_last, &bad];
    let rounds = if medium.takes_back() { &rounds[..] } else { &rounds[1..] };
    for bad in rounds {
        let poisoned = batch_with_bad(5..last, bad);
        let named: Vec<u64> = match write_whole(&mut *sink, &Arc::new(poisoned)).await {
            Err(SinkError::Poison(named)) => named.iter().map(|record| record.offset.0).collect(),
            other => return Err(format!("a bad record returned {other:?}")),
        };
        let expected: Vec<u64> = bad.iter().copied().collect();
        ensure(named == expected, || format!("named {named:?} as bad, not {expected:?}"))?;
        match medium.takes_back() {
            true => shows(medium, 0..5).await?,
            false => shows(medium, (0..last).filter(|offset| !bad.contains(offset))).await?,
        }
    }
    write(&mut *sink, poisoned.without(bad.iter().map(|o| Offset(*o)).collect())).await?;
    write(&mut *sink, batch(last..last + 1)).await?;
    close(sink).await?;
    shows(medium, (0..=last).filter(|offset| !bad.contains(offset))).await?;
    Ok(Outcome::Yes)
}

/// Of very many bad records in a batch, at most the first [`BAD_RECORDS_MAX`] are reported, and the
/// others when it is given again without these. A good record between them is written, once.
///
/// # Errors
/// The reason of a failure.
pub async fn names_so_many_at_once(medium: &mut impl Medium) -> Answer {
    if !medium.decodes() {
        return LOOKS_INTO_NONE;
    }
    let last = 2 * BAD_RECORDS_MAX as u64 + 5_000;
    let bad: BTreeSet<u64> = (0..last).filter(|offset| offset % 2 == 1).collect();
    let mut left: Vec<u64> = bad.iter().copied().collect();
    let mut sink = open(medium).await?;
    let mut poisoned = batch_with_bad(0..last, &bad);
    loop {
        let named = match attempt(&mut *sink, &Arc::new(poisoned.clone())).await {
            Ok(()) => break,
            Err(SinkError::Poison(named)) => named,
            Err(error) => return Err(format!("bad records returned {error}")),
        };
        ensure((1..=BAD_RECORDS_MAX).contains(&named.len()), || {
            format!("{} records are named at once", named.len())
        })?;
        let named: Vec<Offset> = named.iter().map(|record| record.offset).collect();
        let are_first =
            named.iter().map(|offset| offset.0).eq(left.drain(..named.len().min(left.len())));
        ensure(are_first, || format!("those up to {:?} are not all named", named.last()))?;
        poisoned = poisoned.without(named);
    }
    ensure(left.is_empty(), || format!("{} bad records were accepted", left.len()))?;
    close(sink).await?;
    shows(medium, (0..last).filter(|offset| !bad.contains(offset))).await?;
    Ok(Outcome::Yes)
}
