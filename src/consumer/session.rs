//! From nothing to a subscription: connect, find out where to resume, subscribe there.

use std::sync::Arc;

use super::spec::Spec;
use crate::broker::{
    Bounds, BrokerError, Budget, Connection, Prefer, Subscription, chunk_at, connect_to_stream,
    stream_bounds,
};
use crate::flow::lag::Tail;
use crate::flow::resume::{self, Known, Lost, Origin, Plan, Start};
use crate::types::{Checkpoint, Offset, Timestamp};
use crate::wire::chunk::ChunkHeader;

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
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// What the consumer knows by itself.
#[derive(Clone, Copy)]
pub(super) struct Own {
    /// The sink's position, or how far this process has come.
    pub(super) position: Option<(Origin, Checkpoint)>,
    /// The state file's.
    pub(super) remembered: Option<Checkpoint>,
    /// A plan that goes before everything: after a policy accepted a loss, or where a first
    /// subscription that had delivered nothing yet had begun.
    pub(super) plan: Option<Plan>,
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

/// Connects, decides and subscribes.
pub(super) async fn establish(
    spec: &Spec,
    own: Own,
    budget: &Arc<Budget>,
) -> Result<Session, SessionError> {
    let Outlook { connection, plan, stored, bounds } = look(spec, own).await?;
    let subscription =
        connection.subscribe(&spec.stream, plan.subscribe, budget, Vec::new()).await?;
    Ok(Session { subscription, plan, stored, bounds })
}

/// Connects and decides.
pub(super) async fn look(spec: &Spec, own: Own) -> Result<Outlook, SessionError> {
    let mut looked = look_at(spec, own, own.prefer).await;
    if matches!(looked, Err(SessionError::Lost(_))) && own.prefer != Prefer::Leader {
        // A replica may be behind, or have dropped more: only the leader's word counts.
        looked = look_at(spec, own, Prefer::Leader).await;
    }
    match (&looked, own.plan) {
        (Err(SessionError::Lost(Lost::PastEnd { .. })), Some(plan)) if plan.pinned => {
            tracing::warn!(consumer = %spec.name, stream = %spec.stream, "the stream was created again before its first message came; it is read from its first message");
            let plan = Some(Plan::anew(Start::First));
            look_at(spec, Own { plan, ..own }, Prefer::Leader).await
        }
        _ => looked,
    }
}

async fn look_at(spec: &Spec, own: Own, prefer: Prefer) -> Result<Outlook, SessionError> {
    let connection = connect_to_stream(&spec.connect, &spec.stream, prefer).await?;
    let mut bounds = stream_bounds(&connection, &spec.stream).await?;
    // A failure here is never taken for "nothing stored": it ends this attempt, and the next one
    // asks again.
    let stored = connection.query_offset(&spec.stream, &spec.reference).await?;
    let position = match own.plan {
        Some(plan) => plan.wanted.filter(|_| plan.pinned).and_then(Offset::prev),
        None => own.position.map(|(_, c)| c.offset).or(stored),
    };
    if bounds.first.is_none() && position.is_some() {
        // Before 3.11 "empty" means that no chunk came in time: too little to lose a position for.
        bounds = stream_bounds(&connection, &spec.stream).await?;
    }
    let known = Known {
        own: own.position,
        stored,
        remembered: own.remembered,
        stream_first: bounds.first,
        stream_last: last_offset(spec, &connection, &bounds, position).await?,
    };
    let plan = match own.plan {
        Some(plan) => resume::check_pinned(&plan, &known).map(|()| plan)?,
        None => resume::decide(&known, spec.begin.resolve(Timestamp::now()))?,
    };
    let plan = pin(spec, &connection, &bounds, plan).await?;
    Ok(Outlook { connection, plan, stored, bounds })
}

/// The last offset, as exactly as the position needs it: where the broker tells only the last
/// chunk's id and the position is not below it, that chunk is read.
async fn last_offset(
    spec: &Spec,
    connection: &Connection,
    bounds: &Bounds,
    position: Option<Offset>,
) -> Result<Option<Offset>, BrokerError> {
    match (bounds.tail, position) {
        (Tail::Empty, _) => Ok(None),
        (Tail::Offset(last), _) => Ok(Some(last)),
        (Tail::Chunk(id), Some(position)) if position >= id => {
            let chunk = chunk_at(connection, &spec.stream, Start::Last).await?;
            // It may have moved on since; then it is not below the position's chunk either.
            Ok(chunk.map(|c| last_of(&c).max(id)))
        }
        (Tail::Chunk(_), _) => Ok(None),
    }
}

/// Turns `next` and `last` into the offset that they mean now, so that a connection that breaks
/// before the first chunk came does not skip what is published meanwhile.
async fn pin(
    spec: &Spec,
    connection: &Connection,
    bounds: &Bounds,
    plan: Plan,
) -> Result<Plan, BrokerError> {
    let is_last = match plan.subscribe {
        Start::First | Start::Offset(_) | Start::Timestamp(_) => return Ok(plan),
        Start::Last => true,
        Start::Next => false,
    };
    let at = match bounds.tail {
        Tail::Empty if bounds.first.is_some() => {
            return Err(BrokerError::StreamUnavailable {
                stream: spec.stream.clone(),
                detail: "its end is not known on this node yet (after a restart or an election)"
                    .into(),
            });
        }
        // A stream without a chunk begins with the first one to come.
        Tail::Empty => Offset(0),
        Tail::Offset(last) if !is_last => last.next(),
        Tail::Offset(_) | Tail::Chunk(_) => {
            let Some(chunk) = chunk_at(connection, &spec.stream, Start::Last).await? else {
                return Err(BrokerError::StreamUnavailable {
                    stream: spec.stream.clone(),
                    detail: "its last chunk did not come in time".into(),
                });
            };
            if is_last { chunk.first_offset } else { chunk.next_offset() }
        }
    };
    Ok(Plan { subscribe: Start::Offset(at), wanted: Some(at), pinned: true, ..plan })
}

fn last_of(chunk: &ChunkHeader) -> Offset {
    chunk.next_offset().prev().unwrap_or(Offset(0))
}
