//! Two owners of one destination: the old one must not write after another took over.

use std::sync::Arc;

use crate::sink::{Sink, SinkError};
use crate::types::Guarantee;

use super::{
    Answer, Medium, Outcome, Owners, attempt, batch, close, ensure, open, open_again, shows, write,
};

/// Either the second cannot open while the first lives; or it takes over, and from then on nothing
/// that the first one writes is stored, and its errors are fatal: at once, or where its session was ended,
/// at the second attempt.
///
/// # Errors
/// The reason of a failure.
pub async fn lets_one_owner_write(medium: &mut impl Medium) -> Answer {
    let Some((mut former, latter)) = two(medium).await? else {
        return Ok(Outcome::NotAsked("several may write to this medium"));
    };
    let Some(mut latter) = latter else {
        write(&mut *former, batch(3..6)).await?;
        drop(former);
        let mut sink = open_again(medium).await?;
        write(&mut *sink, batch(6..9)).await?;
        close(sink).await?;
        shows(medium, 0..9).await?;
        return Ok(Outcome::Yes);
    };
    write(&mut *latter, batch(3..7)).await?;
    // The batch in flight when it was frozen, parts of it, and the next ones.
    for range in [3..6, 3..8, 7..9, 20..30] {
        let batch = Arc::new(batch(range.clone()));
        let mut told = attempt(&mut *former, &batch).await;
        // Its session may have been ended, which it finds out first.
        if matches!(told, Err(SinkError::Transient { .. })) {
            told = attempt(&mut *former, &batch).await;
        }
        ensure(matches!(told, Err(SinkError::Fatal(_))), || {
            format!("{range:?} of the old owner returned {told:?}")
        })?;
        shows(medium, 0..7).await?;
    }
    write(&mut *latter, batch(7..9)).await?;
    drop(former);
    write(&mut *latter, batch(9..10)).await?;
    close(latter).await?;
    shows(medium, 0..10).await?;
    Ok(Outcome::Yes)
}

/// Both write the very same batch: it is stored once, whatever the old owner gets as a result.
///
/// # Errors
/// The reason of a failure.
pub async fn lets_one_owner_write_the_same(medium: &mut impl Medium) -> Answer {
    if medium.owners() == Owners::OneByLock {
        return Ok(Outcome::NotAsked("a second owner cannot open"));
    }
    let Some((mut former, latter)) = two(medium).await? else {
        return Ok(Outcome::NotAsked("several may write to this medium"));
    };
    let Some(mut latter) = latter else {
        drop(former);
        return Ok(Outcome::NotAsked("a second owner cannot open"));
    };
    write(&mut *latter, batch(3..6)).await?;
    let told = attempt(&mut *former, &Arc::new(batch(3..6))).await;
    ensure(!matches!(told, Err(SinkError::Poison(_))), || format!("got {told:?}"))?;
    shows(medium, 0..6).await?;
    write(&mut *latter, batch(6..9)).await?;
    let mut told = attempt(&mut *former, &Arc::new(batch(6..10))).await;
    if matches!(told, Err(SinkError::Transient { .. })) {
        told = attempt(&mut *former, &Arc::new(batch(6..10))).await;
    }
    ensure(matches!(told, Err(SinkError::Fatal(_))), || format!("6..10 returned {told:?}"))?;
    write(&mut *latter, batch(9..10)).await?;
    close(latter).await?;
    close(former).await?;
    shows(medium, 0..10).await?;
    Ok(Outcome::Yes)
}

type Former = Box<dyn Sink>;
type Latter = Option<Box<dyn Sink>>;

/// An owner that has written, and a second one if it can open. `None` if several may write.
async fn two(medium: &mut impl Medium) -> Result<Option<(Former, Latter)>, String> {
    let mut former = open(medium).await?;
    let owners = match (medium.owners(), former.guarantee()) {
        // A destination that recognises each record needs no owner.
        (Owners::Unstated, _) if medium.takes_records_one_by_one() => Owners::Many,
        (Owners::Unstated, Guarantee::ExactlyOnce) => Owners::Unstated,
        (Owners::Unstated, _) => Owners::Many,
        (stated, _) => stated,
    };
    if owners == Owners::Many {
        return Ok(None);
    }
    write(&mut *former, batch(0..3)).await?;
    let latter = match medium.open().await {
        Ok(_) if owners == Owners::OneByLock => {
            return Err("a second sink could open while the first one was open".to_owned());
        }
        Ok(mut sink) => {
            let at = sink.position().await.map_err(|error| format!("no position: {error}"))?;
            let expected = Some(batch(0..3).checkpoint());
            ensure(at == expected, || {
                format!("the position of the second is {at:?}, not {expected:?}")
            })?;
            Some(sink)
        }
        Err(error) if owners == Owners::LastByFence => {
            return Err(format!("a second sink could not take over: {error}"));
        }
        Err(_) => None,
    };
    Ok(Some((former, latter)))
}
