//! The positions of a consumer on one stream, side by side; and moving them together.
//!
//! There are up to three: the offset stored on the broker, the state file, and the sink's own position.
//! `flow::resume` decides which of them counts. This module looks at all of them ([`see`]), says what they
//! mean ([`explain`]), finds the offset that a target means ([`plan`]), and moves all of them ([`Ready`]), also
//! those of several consumers or streams together; and gives them another name ([`Renames`]).
//!
//! # The order of a move
//! One write decides: the state file's. It says where the consumer begins, and which position of the sink and
//! which offset on the broker that replaces ([`Moved`](crate::flow::beginning::Moved)). Before it, nothing is
//! moved; from it on, everything is, because `flow::resume` lets neither of the replaced positions count.
//! The other writes only follow, so that the consumer goes on from there without the state file too:
//!
//! | killed after | the consumer goes on from | what completes it |
//! |---|---|---|
//! | looking | the old position | |
//! | 1. the state file names the target, and what it replaces | the target | the next opening of the sink, or another move |
//! | 2. the sink's position is moved | the target | the same |
//! | 3. the state file says that the sink is moved | the target | the first commit, or another move |
//! | 4. the broker's offset is moved | the target | the same |
//! | 5. the state file replaces nothing any more | the target | |
//!
//! A position that the sink reaches later may be the very one that was replaced. So what it replaces is
//! forgotten in step 3, before the sink is written to ([`interrupted`]).
//!
//! Several streams are moved all or none: everything is locked and looked at first, and then one write decides
//! for all of their state files ([`pledges`](super::pledges)), in the place of step 1.
//!
//! Offset 0 has no position before it: the sink then has none, and the broker keeps the offset that it has,
//! which the state file continues to replace until the first commit. The `stream` sink's position cannot be
//! raised without a message: the state file then says where to begin, until there is one.

mod count;
mod explain;
mod moving;
mod renaming;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::explain::{Explained, Mark, explain};
pub use self::moving::{MoveError, Ready, Unmoved};
pub(super) use self::moving::{interrupted, move_sink};
pub(super) use self::renaming::complete_rename;
pub use self::renaming::{Outlook, Rename, Renames};
pub use self::report::{Range, Report};
pub use self::target::{Planned, Target, plan, plan_again, plan_from};
use super::spec::Spec;
use super::state_file::StateFile;
use super::{Forecast, forecast};
use crate::flow::beginning::Memory;
use crate::flow::resume::{OnLost, Origin, Start};
use crate::sink::factory::{Look, Renaming, SinkFactory};
use crate::source::{Foreseen, Link, Prefer, SourceError};
use crate::types::{Checkpoint, Offset};

/// One consumer of one stream, whose positions are looked at or moved.
#[derive(Clone)]
pub struct Subject {
    /// The consumer.
    pub spec: Arc<Spec>,
    /// Opens its sink.
    pub sink: SinkFactory,
    /// Inspects its sink's position.
    pub look: Look,
    /// Gives what the sink, and that of the dead letters, keep another reference.
    pub renaming: Renaming,
    /// True if the sink's position can be given another reference.
    pub renames: bool,
    /// True if the sink keeps its position with the data.
    pub keeps_position: bool,
}

/// The positions, and the stream. Unknown values are `None`.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The offset stored on the broker.
    pub stored: Option<Offset>,
    /// False over AMQP 0.9.1, where the broker stores none.
    pub stores_offsets: bool,
    /// Content of the state file.
    pub memory: Option<Memory>,
    /// True if the sink keeps a position.
    pub keeps_position: bool,
    /// The sink's own position.
    pub sink: Option<Checkpoint>,
    /// First offset of the stream; `None` if it is empty.
    pub first: Option<Offset>,
    /// Last offset of the stream's messages; `None` if it is empty.
    pub last: Option<Offset>,
    /// Where the consumer would go on.
    pub next: Next,
}

/// Where a consumer would go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this offset. The origin is `None` if it never had a position.
    At(Offset, Option<Origin>),
    /// At an offset that is not known yet, as this text says.
    From(String),
    /// Nowhere: it would halt, for this reason.
    Halt(String),
}

impl Seen {
    /// The offset at which the consumer would go on, if it is known.
    pub fn next_offset(&self) -> Option<Offset> {
        match self.next {
            Next::At(offset, _) => Some(offset),
            Next::From(_) | Next::Halt(_) => None,
        }
    }

    /// Offsets from where it would go on to the end; an upper bound of the messages. `None` if unknown.
    pub fn lag(&self) -> Option<u64> {
        let next = self.next_offset()?;
        Some(self.last.map_or(0, |last| last.next().0.saturating_sub(next.0)))
    }
}

/// Looks at all positions, and at the stream. Changes nothing.
///
/// # Errors
/// If one of them cannot be read.
pub async fn see(subject: &Subject) -> anyhow::Result<Seen> {
    let spec = &subject.spec;
    let file = StateFile::of(spec);
    let memory = file.read_to_move()?;
    let sink = (subject.look)().await?;
    let Forecast { plan, stored, creation } = forecast(spec, sink).await?;
    let keeps_position = subject.keeps_position;
    if let Foreseen::Creates(_) = creation {
        let next = Next::From("the first message, once the stream is created".to_owned());
        let (stored, first, last, stores_offsets) = (None, None, None, true);
        return Ok(Seen {
            stored,
            stores_offsets,
            memory,
            keeps_position,
            sink,
            first,
            last,
            next,
        });
    }
    let link = spec.source.connect(Prefer::Replica).await?;
    let looked = look_at_stream(&*link).await;
    let stores_offsets = link.abilities().offsets;
    // Where the position is lost, the forecast does not tell.
    let stored = match (stores_offsets, stored) {
        (false, _) => Ok(None),
        (true, Some(stored)) => Ok(Some(stored)),
        (true, None) => link.stored().await,
    };
    link.close().await;
    let (first, last) = looked?;
    let stored = stored?;
    let next = match plan {
        Ok(plan) => match plan.wanted {
            Some(offset) => Next::At(offset, plan.origin),
            None => Next::From(plan.subscribe.to_string()),
        },
        Err(lost) => match spec.on_lost {
            OnLost::Halt => Next::Halt(lost),
            OnLost::First => Next::From(format!("{}, by on_offset_lost: {lost}", Start::First)),
            OnLost::Next => Next::From(format!("{}, by on_offset_lost: {lost}", Start::Next)),
        },
    };
    Ok(Seen { stored, stores_offsets, memory, keeps_position, sink, first, last, next })
}

/// First and last offset of the messages of the stream. The broker's own entries at its end do not count,
/// where the transport tells.
async fn look_at_stream(link: &dyn Link) -> Result<(Option<Offset>, Option<Offset>), SourceError> {
    if !link.abilities().probes {
        let first = link.resolve(Start::First).await?;
        let end = link.resolve(Start::Next).await?;
        let last = end.and_then(Offset::prev);
        return Ok((first.filter(|first| Some(*first) <= last), last));
    }
    let bounds = link.bounds().await?;
    let Some(first) = bounds.and_then(|bounds| bounds.first) else { return Ok((None, None)) };
    let last = match link.chunk_at(Start::Last).await? {
        Some(chunk) => chunk.next_offset().prev(),
        None => bounds.and_then(|bounds| bounds.tail.at_least()),
    };
    Ok((Some(first), last))
}
