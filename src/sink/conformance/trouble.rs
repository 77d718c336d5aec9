//! A medium that breaks off, refuses, vanishes, or is very slow: the sink returns a transient
//! error, within its own time limits, and continues when the medium works again.

use std::sync::Arc;
use std::time::Instant;

use crate::flow::batch::Batch;
use crate::sink::{Durability, Sink, SinkError, write_whole};

use super::{
    Answer, Medium, Outcome, RECOVERY_MAX, RETRY_EVERY, attempt, batch, close, ensure,
    keeps_position, open, open_again, shows_despite_trouble, stands_at, write,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Torn,
    Refusing,
    Gone,
    Slow,
}

impl Trouble {
    async fn begins(self, medium: &mut impl Medium) -> bool {
        match self {
            Trouble::Torn => medium.break_next().await,
            Trouble::Refusing => medium.refuse(true).await,
            Trouble::Gone => medium.vanish(true).await,
            Trouble::Slow => medium.slow(true).await,
        }
    }

    async fn ends(self, medium: &mut impl Medium) {
        match self {
            Trouble::Torn => true,
            Trouble::Refusing => medium.refuse(false).await,
            Trouble::Gone => medium.vanish(false).await,
            Trouble::Slow => medium.slow(false).await,
        };
    }

    /// True if a write may still succeed: the sink may repair a torn write itself, and a slow one
    /// may be fast enough.
    fn may_pass(self) -> bool {
        matches!(self, Trouble::Torn | Trouble::Slow)
    }
}

/// A write that broke off leaves nothing that counts; the same batch is then written, whole and
/// once.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_a_torn_write(medium: &mut impl Medium) -> Answer {
    through(medium, Trouble::Torn).await
}

/// The same, but another sink repeats the write.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_a_torn_write_and_a_reopening(medium: &mut impl Medium) -> Answer {
    let mut sink = open(medium).await?;
    let guarantee = sink.guarantee();
    write(&mut *sink, batch(0..3)).await?;
    if !Trouble::Torn.begins(medium).await {
        return Ok(Outcome::NotAsked("the medium cannot be made to break off"));
    }
    let done = attempt(&mut *sink, &Arc::new(batch(3..500))).await.is_ok();
    drop(sink);
    let mut sink = open_again(medium).await?;
    let behind = if keeps_position(&*sink) {
        let at = sink.position().await.map_err(|error| format!("no position: {error}"))?;
        at.map_or(0, |at| at.offset.0 + 1)
    } else if done {
        500
    } else {
        3
    };
    ensure(!done || behind == 500, || format!("3..500 was acknowledged; {behind} is next"))?;
    write(&mut *sink, batch(behind..501)).await?;
    close(sink).await?;
    shows_despite_trouble(medium, guarantee, 0..501).await?;
    Ok(Outcome::Yes)
}

/// While the medium refuses, nothing is acknowledged; afterwards the same batch is written.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_a_refusing_medium(medium: &mut impl Medium) -> Answer {
    through(medium, Trouble::Refusing).await
}

/// The same for a medium that is unavailable for a while.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_a_vanishing_medium(medium: &mut impl Medium) -> Answer {
    through(medium, Trouble::Gone).await
}

/// The sink waits for a very slow medium, but not indefinitely.
///
/// # Errors
/// The reason of a failure.
pub async fn survives_a_slow_medium(medium: &mut impl Medium) -> Answer {
    through(medium, Trouble::Slow).await
}

async fn through(medium: &mut impl Medium, trouble: Trouble) -> Answer {
    let mut sink = open(medium).await?;
    let guarantee = sink.guarantee();
    write(&mut *sink, batch(0..3)).await?;
    if !trouble.begins(medium).await {
        return Ok(Outcome::NotAsked("the medium cannot be brought into this trouble"));
    }
    let mut push = Push { batch: Arc::new(batch(3..500)), held: false };
    let tries = if trouble == Trouble::Refusing || trouble == Trouble::Gone { 2 } else { 1 };
    let mut done = false;
    for _ in 0..tries {
        let patience = medium.patience();
        match tokio::time::timeout(patience, push.on(&mut *sink)).await {
            Err(_) => return Err(format!("{trouble:?}: no answer within {patience:?}")),
            Ok(Ok(())) if trouble.may_pass() => done = true,
            Ok(Err(SinkError::Transient { what, .. })) => {
                ensure(!what.is_empty(), || format!("{trouble:?}: an error without a text"))?;
            }
            Ok(other) => return Err(format!("{trouble:?}: a write returned {other:?}")),
        }
    }
    trouble.ends(medium).await;
    if !done {
        push.until_it_works(&mut *sink).await?;
    }
    shows_despite_trouble(medium, guarantee, 0..500).await?;
    stands_at(medium, &mut *sink, Some(push.batch.checkpoint())).await?;
    write(&mut *sink, batch(500..502)).await?;
    close(sink).await?;
    let sink = open(medium).await?;
    close(sink).await?;
    shows_despite_trouble(medium, guarantee, 0..502).await?;
    Ok(Outcome::Yes)
}

/// A batch on its way into a sink, given as the sink's owner does: a held one is not given again.
struct Push {
    batch: Arc<Batch>,
    held: bool,
}

impl Push {
    async fn on(&mut self, sink: &mut dyn Sink) -> Result<(), SinkError> {
        if !self.held {
            self.held = write_whole(sink, &self.batch).await? == Durability::Held;
        }
        if self.held { sink.flush().await } else { Ok(()) }
    }

    async fn until_it_works(&mut self, sink: &mut dyn Sink) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match self.on(sink).await {
                Ok(()) => return Ok(()),
                Err(SinkError::Transient { .. }) if began.elapsed() < RECOVERY_MAX => {
                    tokio::time::sleep(RETRY_EVERY).await;
                }
                Err(error) => return Err(format!("was not written after the trouble: {error}")),
            }
        }
    }
}

pub(super) async fn flush_until_it_works(sink: &mut dyn Sink) -> Result<(), String> {
    Push { batch: Arc::new(batch(0..1)), held: true }.until_it_works(sink).await
}
