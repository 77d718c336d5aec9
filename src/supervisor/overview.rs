//! The admin server's view of the consumers.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::member::Member;
use super::set::Shared;
use crate::admin::{CommitAnswer, CommitError, ConsumerView, Overview, StoredOffset};
use crate::telemetry::Heartbeats;
use crate::types::Timestamp;

pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) heartbeats: Heartbeats,
}

impl View {
    /// Copied first, so that the set is not locked while they are read.
    fn members(&self) -> Vec<Arc<Member>> {
        self.shared.set().members()
    }
}

#[async_trait]
impl Overview for View {
    fn consumers(&self) -> Vec<ConsumerView> {
        self.members().iter().map(|member| view(member)).collect()
    }

    fn refresh_gauges(&self) {
        for member in self.members() {
            member.status.refresh_gauges();
        }
    }

    async fn commit(&self, name: &str) -> Result<CommitAnswer, CommitError> {
        let mut named = self.members();
        named.retain(|member| member.plan.spec.name.as_str() == name);
        let Some(first) = named.first() else {
            return Err(CommitError::Unknown(name.to_owned()));
        };
        let mut stored = Vec::new();
        for member in &named {
            let offset = member.commit().await;
            let offset = offset.map_err(|error| CommitError::Unavailable(error.to_string()))?;
            if let Some(offset) = offset {
                stored.push(StoredOffset { stream: member.plan.spec.stream.clone(), offset });
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

fn view(member: &Member) -> ConsumerView {
    let spec = &member.plan.spec;
    let facts = member.status.facts();
    let now = Timestamp::now();
    let lag = facts.lag(now);
    ConsumerView {
        name: spec.name.clone(),
        stream: spec.stream.clone(),
        reference: spec.reference.clone(),
        sink: member.plan.sink_kind,
        guarantee: member.plan.guarantee,
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
        memory_bound_bytes: member.plan.memory_bound_bytes,
        buffered_bytes: facts.buffered_bytes,
    }
}
