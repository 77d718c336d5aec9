//! Batches that a sink makes durable, and reports, part by part.

use std::sync::Arc;

use crate::flow::batch::Batch;
use crate::sink::{Durability, Sink};
use crate::types::Offset;

use super::{
    Answer, Medium, Outcome, RECOVERY_MAX, batch, close, ensure, in_short, open, open_again, write,
};

const AS_A_WHOLE: Answer = Ok(Outcome::NotAsked("the sink writes every batch as a whole"));

/// Records in a batch: several parts, whatever the sink.
const MESSAGES: u64 = 5_000;

/// Parts are reported in order, none before it is durable; after that, the rest of the batch or all
/// of it can be given again, and nothing is written twice.
///
/// # Errors
/// The reason of a failure.
pub async fn tells_of_durable_parts_in_order(medium: &mut impl Medium) -> Answer {
    if !medium.trickle(true).await {
        return AS_A_WHOLE;
    }
    let mut sink = open(medium).await?;
    let whole = Arc::new(batch(0..MESSAGES));
    let (mut given, mut told, mut parts) = (Arc::clone(&whole), None, 0);
    while let Some(upto) = part(&mut *sink, &given, told).await? {
        told = Some(upto);
        parts += 1;
        ensure(upto < whole.last_offset(), || {
            format!("{upto} is reported as a part, but it is the whole batch")
        })?;
        let found = taken(medium).await;
        ensure(found.iter().copied().take_while(|n| *n <= upto.0).eq(0..=upto.0), || {
            format!("reported up to {upto}, but the destination holds {}", in_short(&found))
        })?;
        given = if parts % 2 == 0 { Arc::clone(&whole) } else { rest(&whole, upto)? };
    }
    ensure(parts > 0, || "no part was reported".to_owned())?;
    close(sink).await?;
    medium.trickle(false).await;
    let found = taken(medium).await;
    ensure(found.iter().copied().eq(0..MESSAGES), || format!("shows {}", in_short(&found)))?;
    Ok(Outcome::Yes)
}

/// A sink that winds up completes what it has started, starts nothing more, and has reported
/// everything that was written: the next sink repeats nothing.
///
/// # Errors
/// The reason of a failure.
pub async fn winds_up_what_it_has_begun(medium: &mut impl Medium) -> Answer {
    if !medium.trickle(true).await {
        return AS_A_WHOLE;
    }
    let mut sink = open(medium).await?;
    let mut given = Arc::new(batch(0..MESSAGES));
    let last = given.last_offset();
    let Some(mut told) = part(&mut *sink, &given, None).await? else {
        return Err("no part was reported".to_owned());
    };
    let winding_up = async {
        loop {
            given = rest(&given, told)?;
            match sink.wind_up(&given).await {
                Ok(Durability::Part(Some(upto))) if upto > told && upto < last => told = upto,
                Ok(Durability::Part(None)) => return Ok(()),
                other => return Err(format!("wind_up after {told} returned {other:?}")),
            }
        }
    };
    match tokio::time::timeout(RECOVERY_MAX, winding_up).await {
        Ok(wound_up) => wound_up?,
        Err(_) => return Err(format!("wind_up took longer than {RECOVERY_MAX:?}")),
    }
    close(sink).await?;
    let found = taken(medium).await;
    ensure(found.iter().copied().eq(0..=told.0), || {
        format!("reported up to {told}, but the destination holds {}", in_short(&found))
    })?;
    medium.trickle(false).await;
    let mut sink = open_again(medium).await?;
    write(&mut *sink, batch(told.0 + 1..MESSAGES)).await?;
    close(sink).await?;
    let found = taken(medium).await;
    ensure(found.iter().copied().eq(0..MESSAGES), || format!("shows {}", in_short(&found)))?;
    Ok(Outcome::Yes)
}

/// Writes until a new part is reported; `None` once all is durable.
async fn part(
    sink: &mut dyn Sink,
    given: &Arc<Batch>,
    told: Option<Offset>,
) -> Result<Option<Offset>, String> {
    loop {
        match sink.write(given).await {
            Ok(Durability::Part(None)) => {}
            Ok(Durability::Part(Some(upto))) => {
                ensure(told < Some(upto), || format!("reports {upto} after {told:?}"))?;
                return Ok(Some(upto));
            }
            Ok(Durability::Durable) => return Ok(None),
            other => return Err(format!("{given:?} returned {other:?}")),
        }
    }
}

fn rest(given: &Batch, upto: Offset) -> Result<Arc<Batch>, String> {
    let rest = given.after(upto).map(Arc::new);
    rest.ok_or_else(|| format!("nothing of {given:?} is left after {upto}"))
}

/// The records in the destination, in order of offset: requests may overtake each other.
async fn taken(medium: &mut impl Medium) -> Vec<u64> {
    let mut found = medium.visible().await.unwrap_or_default();
    found.sort_unstable();
    found
}
