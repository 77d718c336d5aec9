//! From nothing to a subscription: connect, find out where to resume, keep where to begin, subscribe.

use std::sync::Arc;
use std::time::Duration;

use super::begin::{self, Anew};
use super::remembered::{Remembered, StateError};
use super::spec::Spec;
use crate::broker::{
    Bounds, BrokerError, Budget, Connection, Prefer, Subscription, chunk_at, connect_to_stream,
    stream_bounds,
};
use crate::flow::beginning::{Beginning, Memory};
use crate::flow::lag::Tail;
use crate::flow::resume::{
    self, Doubt, Glimpse, Known, Lost, NotBorneOut, Origin, Plan, Sight, Standing, Start,
};
use crate::types::{Checkpoint, Offset};
use crate::wire::chunk::Sighting;

/// How often a beginning is stored on the broker, and read back, before the attempt fails.
const STORES_MAX: u32 = 5;

/// The wait between two of them.
const STORE_AGAIN: Duration = Duration::from_millis(200);

/// A subscription that delivers.
pub(super) struct Session {
    pub(super) subscription: Subscription,
    pub(super) plan: Plan,
    /// What the broker had stored when it began.
    pub(super) stored: Option<Offset>,
    pub(super) bounds: Bounds,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The position is lost; `of` says where it was found.
    #[error("{lost}")]
    Lost { lost: Lost, of: Option<Origin> },
    /// It may be.
    #[error("{doubt}")]
    Doubt { doubt: Doubt, of: Option<Origin> },
    #[error(transparent)]
    State(#[from] StateError),
    /// The beginning could not be stored on the broker.
    #[error(
        "offset {wanted}, before which this reference begins, was stored on the broker {STORES_MAX} times, but it holds {}: nothing is read before that is kept", .held.map_or("none".to_owned(), |held| held.to_string())
    )]
    NotKept { wanted: Offset, held: Option<Offset> },
}

/// What the consumer knows by itself.
#[derive(Clone, Copy)]
pub(super) struct Own {
    /// The sink's position, or how far this process has come.
    pub(super) position: Option<(Origin, Checkpoint)>,
    /// The state file's.
    pub(super) remembered: Option<Memory>,
    /// Goes before everything: where to begin after a loss that a policy accepted.
    pub(super) anew: Option<Anew>,
    /// Whom to ask: the leader, where another node's answer would be a loss.
    pub(super) prefer: Prefer,
}

/// Where a consumer would begin, and what it rests on.
pub(super) struct Outlook {
    pub(super) connection: Connection,
    pub(super) plan: Plan,
    pub(super) stored: Option<Offset>,
    pub(super) bounds: Bounds,
}

/// Connects, decides, keeps the beginning if it is one, and subscribes.
pub(super) async fn establish(
    spec: &Spec,
    own: Own,
    budget: &Arc<Budget>,
) -> Result<Session, SessionError> {
    let Outlook { connection, plan, mut stored, bounds } = look(spec, own).await?;
    if let Some(beginning) = plan.begins {
        stored = keep(spec, &connection, &beginning, stored).await?;
    }
    let subscription =
        connection.subscribe(&spec.stream, plan.subscribe, budget, Vec::new()).await?;
    Ok(Session { subscription, plan, stored, bounds })
}

/// Has the beginning on the broker and in the state file, before anything is read. In this order: a
/// beginning that is remembered was on the broker once.
async fn keep(
    spec: &Spec,
    connection: &Connection,
    beginning: &Beginning,
    stored: Option<Offset>,
) -> Result<Option<Offset>, SessionError> {
    let stored = match beginning.mirror() {
        Some(wanted) if stored != Some(wanted) => {
            Some(store_beginning(spec, connection, wanted).await?)
        }
        _ => stored,
    };
    let (remembered, memory) = (Remembered::of(spec), Memory::Beginning(*beginning));
    let write = move || remembered.write(memory);
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written?,
        Err(error) => return Err(BrokerError::Lost(error.to_string().into()).into()),
    }
    tracing::info!(consumer = %spec.name, stream = %spec.stream, reference = %spec.reference, at = beginning.at.0, "this reference begins here; it is kept in the state file and on the broker");
    Ok(stored)
}

/// A store has no answer, so it is read back, and sent again where it did not arrive.
async fn store_beginning(
    spec: &Spec,
    connection: &Connection,
    wanted: Offset,
) -> Result<Offset, SessionError> {
    let mut held = None;
    for attempt in 0..STORES_MAX {
        if attempt > 0 {
            tokio::time::sleep(STORE_AGAIN).await;
        }
        held = connection.store_offset(&spec.stream, &spec.reference, wanted).await?;
        if held == Some(wanted) {
            return Ok(wanted);
        }
    }
    Err(SessionError::NotKept { wanted, held })
}

/// Connects and decides.
pub(super) async fn look(spec: &Spec, own: Own) -> Result<Outlook, SessionError> {
    let mut looked = look_at(spec, own, own.prefer).await;
    let refuted = matches!(looked, Err(SessionError::Lost { .. } | SessionError::Doubt { .. }));
    if refuted && own.prefer != Prefer::Leader {
        // A replica may be behind, or have dropped more: only the leader's word counts.
        looked = look_at(spec, own, Prefer::Leader).await;
    }
    looked
}

async fn look_at(spec: &Spec, own: Own, prefer: Prefer) -> Result<Outlook, SessionError> {
    let connection = connect_to_stream(&spec.connect, &spec.stream, prefer).await?;
    let bounds = stream_bounds(&connection, &spec.stream).await?;
    // A failure here is never taken for "nothing stored": it ends this attempt, and the next one
    // asks again.
    let stored = connection.query_offset(&spec.stream, &spec.reference).await?;
    let plan = match own.anew {
        Some(anew) => begin::anew(spec, &connection, &bounds, anew).await?,
        None => {
            let known = Known {
                own: own.position,
                stored,
                remembered: own.remembered,
                stream_first: bounds.first,
            };
            match resume::stand(&known) {
                Ok(Standing::New) => begin::configured(spec, &connection, &bounds).await?,
                Ok(standing) => {
                    bear_out(spec, &connection, &bounds, &standing).await?;
                    Plan::resume(standing)
                }
                Err(lost) => return Err(SessionError::Lost { lost, of: origin_of(&known) }),
            }
        }
    };
    Ok(Outlook { connection, plan, stored, bounds })
}

/// A beginning that retention has passed, or whose mirror is gone, is lost like a position.
fn origin_of(known: &Known) -> Option<Origin> {
    known.own.map(|(origin, _)| origin)
}

/// Whether the stream holds the position: by its counters, which are a lower bound, or else by the
/// chunk at the position itself.
async fn bear_out(
    spec: &Spec,
    connection: &Connection,
    bounds: &Bounds,
    standing: &Standing,
) -> Result<(), SessionError> {
    let Some(position) = standing.position() else { return Ok(()) };
    let reached = match bounds.tail {
        Tail::Empty => false,
        Tail::Offset(last) | Tail::Chunk(last) => last >= position.offset,
    };
    let sight =
        if reached { Sight::Reached } else { look_for(spec, connection, position.offset).await? };
    let of = standing.origin();
    resume::bears_out(position, sight).map_err(|why| match why {
        NotBorneOut::Lost(lost) => SessionError::Lost { lost, of },
        NotBorneOut::Doubt(doubt) => SessionError::Doubt { doubt, of },
    })
}

async fn look_for(
    spec: &Spec,
    connection: &Connection,
    position: Offset,
) -> Result<Sight, BrokerError> {
    // What a damaged chunk says of itself proves nothing.
    let seen = |chunk: Option<Sighting>| chunk.filter(|c| c.sound).map(glimpse);
    let there = chunk_at(connection, &spec.stream, Start::Offset(position)).await?;
    if let Some(chunk) = seen(there) {
        return Ok(Sight::Chunk(chunk));
    }
    if there.is_some_and(|chunk| chunk.first_offset() <= position) {
        // A damaged one: the subscription will tell more of it.
        return Ok(Sight::Reached);
    }
    Ok(Sight::Nothing(seen(chunk_at(connection, &spec.stream, Start::Last).await?)))
}

fn glimpse(chunk: Sighting) -> Glimpse {
    (chunk.id(), chunk.records())
}
