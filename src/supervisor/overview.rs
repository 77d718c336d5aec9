//! What the admin server is shown of the consumers.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::Committed;
use super::keeper::Kept;
use crate::admin::{CommitAnswer, CommitError, ConsumerView, Overview, StoredOffset};
use crate::consumer::Command;
use crate::telemetry::Heartbeats;
use crate::types::Timestamp;

pub(super) struct View {
    pub(super) kept: Arc<Vec<Arc<Kept>>>,
    pub(super) heartbeats: Heartbeats,
}

#[async_trait]
impl Overview for View {
    fn consumers(&self) -> Vec<ConsumerView> {
        self.kept.iter().map(|kept| view(kept)).collect()
    }

    fn refresh_gauges(&self) {
        for kept in self.kept.iter() {
            kept.status.refresh_gauges();
        }
    }

    async fn commit(&self, name: &str) -> Result<CommitAnswer, CommitError> {
        let named: Vec<_> =
            self.kept.iter().filter(|k| k.plan.spec.name.as_str() == name).collect();
        let Some(first) = named.first() else {
            return Err(CommitError::Unknown(name.to_owned()));
        };
        let mut stored = Vec::new();
        for kept in &named {
            let offset = commit(kept).await.map_err(CommitError::Unavailable)?;
            if let Some(offset) = offset {
                stored.push(StoredOffset { stream: kept.plan.spec.stream.clone(), offset });
            }
        }
        if stored.is_empty() {
            return Err(CommitError::Nothing(name.to_owned()));
        }
        Ok(CommitAnswer { name: first.plan.spec.name.clone(), stored })
    }

    fn live(&self) -> Result<(), String> {
        self.heartbeats.check(Instant::now())
    }
}

async fn commit(kept: &Kept) -> Committed {
    let (answer, answered) = oneshot::channel();
    let why_not = || {
        let why = kept.status.facts().why_not_ready().unwrap_or_else(|| "busy".to_owned());
        format!("the consumer cannot store its offset now: {why}")
    };
    if !kept.tell(Command::Commit(answer)) {
        return Err(why_not());
    }
    answered.await.unwrap_or_else(|_| Err(why_not()))
}

fn view(kept: &Kept) -> ConsumerView {
    let spec = &kept.plan.spec;
    let facts = kept.status.facts();
    let now = Timestamp::now();
    let lag = facts.lag(now);
    ConsumerView {
        name: spec.name.clone(),
        stream: spec.stream.clone(),
        reference: spec.reference.clone(),
        sink: kept.plan.sink_kind,
        guarantee: kept.plan.guarantee,
        state: facts.shown_state(),
        ready: facts.is_ready(),
        reason: facts.why_not_ready(),
        ready_age_seconds: facts.seconds_so(now),
        received_offset: facts.received,
        durable_offset: facts.durable,
        stored_offset: facts.stored,
        stream_first_offset: facts.bounds.and_then(|b| b.first),
        stream_last_offset: facts.stream_end(),
        stream_seen_age_seconds: facts.watch.last_look().map(|seen| seen.seconds_until(now)),
        lag_messages: lag.map(|lag| lag.messages),
        lag_seconds: lag.map(|lag| lag.seconds),
        headroom_messages: facts.headroom(),
        restarts: facts.restarts,
        memory_bound_bytes: kept.plan.memory_bound_bytes,
        buffered_bytes: facts.buffered_bytes,
    }
}
