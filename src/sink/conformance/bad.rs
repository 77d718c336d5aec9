//! Records that can never be written.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sink::{SinkError, write_whole};
use crate::types::Offset;

use super::{Answer, Medium, Outcome, batch, batch_with_bad, close, ensure, open, shows, write};

/// All bad records of a batch are named at once and in order, nothing of the batch is visible (or
/// all the others are, on a medium that takes nothing back), and without them it can be written.
///
/// # Errors
/// What went wrong.
pub async fn names_every_bad_record(medium: &mut impl Medium) -> Answer {
    if !medium.decodes() {
        return Ok(Outcome::NotAsked("the sink does not look into messages"));
    }
    // Large enough that a sink that writes as it goes has written when it meets the bad ones.
    let last = 12_000;
    let bad = BTreeSet::from([10, 11, 6_000, last - 1]);
    let mut sink = open(medium).await?;
    write(&mut *sink, batch(0..5)).await?;
    let poisoned = batch_with_bad(5..last, &bad);
    let only_the_last = BTreeSet::from([last - 1]);
    // What cannot be taken back must not be given another content.
    let rounds = [&only_the_last, &bad];
    let rounds = if medium.takes_back() { &rounds[..] } else { &rounds[1..] };
    for bad in rounds {
        let poisoned = batch_with_bad(5..last, bad);
        let named: Vec<u64> = match write_whole(&mut *sink, &Arc::new(poisoned)).await {
            Err(SinkError::Poison(named)) => named.iter().map(|record| record.offset.0).collect(),
            other => return Err(format!("a bad record came back as {other:?}")),
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
