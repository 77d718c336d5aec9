//! The admin server's view of the consumers.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::member::Member;
use super::plan::Plan;
use super::set::Shared;
use super::super_stream::Group;
use super::watches::Watch;
use crate::admin::{CommitAnswer, CommitError, ConsumerView, Overview, StoredOffset, WatchView};
use crate::consumer::Status;
use crate::telemetry::Heartbeats;
use crate::types::{ConsumerName, Guarantee, Reference, StreamName, Timestamp};

pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) heartbeats: Heartbeats,
    pub(super) groups: Vec<Arc<Group>>,
    pub(super) watches: Vec<Arc<Watch>>,
    /// Consumers in the order in which they are shown; others come after them.
    pub(super) order: Vec<ConsumerName>,
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
        let rows = self.groups.iter().filter_map(|group| {
            let status = group.row()?;
            Some(row_of(group, &status))
        });
        let mut all: Vec<_> = rows.collect();
        all.extend(self.members().iter().map(|member| view(member)));
        if !self.order.is_empty() {
            // The sort is stable: the partitions of a consumer keep their order.
            let place = |name: &ConsumerName| self.order.iter().position(|other| other == name);
            all.sort_by_cached_key(|view| place(&view.name).unwrap_or(usize::MAX));
        }
        all
    }

    fn watches(&self) -> Vec<WatchView> {
        self.watches.iter().flat_map(|watch| watch.views()).collect()
    }

    fn refresh_gauges(&self) {
        self.watches.iter().for_each(|watch| watch.refresh_gauges());
        for member in self.members() {
            member.status.refresh_gauges();
        }
        for row in self.groups.iter().filter_map(|group| group.row()) {
            row.refresh_gauges();
        }
    }

    async fn commit(&self, name: &str) -> Result<CommitAnswer, CommitError> {
        let mut named = self.members();
        named.retain(|member| member.plan.spec.name.as_str() == name);
        let Some(first) = named.first() else {
            let group = self.groups.iter().find(|group| group.name().as_str() == name);
            let why = group.map(|group| group.row().and_then(|row| row.facts().why_not_ready()));
            return Err(match why {
                Some(why) => CommitError::Unavailable(format!(
                    "consumer {name:?} has no partitions yet: {}",
                    why.unwrap_or_else(|| "they are being started".to_owned())
                )),
                None => CommitError::Unknown(name.to_owned()),
            });
        };
        let (mut stored, mut failed) = (Vec::new(), None);
        // One that fails does not keep the others from storing.
        for member in &named {
            let stream = &member.plan.spec.stream;
            match member.commit().await {
                Ok(Some(offset)) => stored.push(StoredOffset { stream: stream.clone(), offset }),
                Ok(None) => {}
                Err(error) => drop(failed.get_or_insert(format!("stream {stream}: {error}"))),
            }
        }
        if let Some(why) = failed {
            return Err(CommitError::Unavailable(why));
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

/// A consumer of a super stream whose partitions are not known.
fn row_of(group: &Group, status: &Status) -> ConsumerView {
    let shown = Shown {
        name: group.name(),
        stream: group.super_stream(),
        reference: group.reference(),
        sink: group.sink_kind(),
        guarantee: group.guarantee(),
        memory_bound_bytes: 0,
    };
    view_of(&shown, status)
}

fn view(member: &Member) -> ConsumerView {
    let Plan { spec, sink_kind, guarantee, memory_bound_bytes, .. } = &member.plan;
    let shown = Shown {
        name: &spec.name,
        stream: &spec.stream,
        reference: &spec.reference,
        sink: sink_kind,
        guarantee: *guarantee,
        memory_bound_bytes: *memory_bound_bytes,
    };
    view_of(&shown, &member.status)
}

/// The fixed values of a view.
struct Shown<'a> {
    name: &'a ConsumerName,
    stream: &'a StreamName,
    reference: &'a Reference,
    sink: &'static str,
    guarantee: Guarantee,
    memory_bound_bytes: u64,
}

fn view_of(shown: &Shown<'_>, status: &Status) -> ConsumerView {
    let facts = status.facts();
    let now = Timestamp::now();
    let lag = facts.lag(now);
    ConsumerView {
        name: shown.name.clone(),
        stream: shown.stream.clone(),
        reference: shown.reference.clone(),
        sink: shown.sink,
        guarantee: shown.guarantee,
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
        memory_bound_bytes: shown.memory_bound_bytes,
        buffered_bytes: facts.buffered_bytes,
    }
}
