//! The admin server's view of the consumers.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::member::Member;
use super::plan::Plan;
use super::roll::Roll;
use super::set::Shared;
use super::super_stream::Group;
use super::verbs;
use crate::admin::{
    CommitAnswer, CommitError, ConsumerView, HistoryView, Overview, PointView, Target, WatchView,
};
use crate::consumer::Status;
use crate::flow::history::HistoryPoint;
use crate::telemetry::{Heartbeats, State};
use crate::types::{ConsumerName, Guarantee, Reference, StreamName, Timestamp};

pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) heartbeats: Heartbeats,
    pub(super) roll: Arc<Roll>,
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
        let groups = self.roll.groups();
        let rows = groups.iter().filter_map(|group| {
            let status = group.row()?;
            Some(row_of(group, &status))
        });
        let mut all: Vec<_> = rows.collect();
        all.extend(self.members().iter().map(|member| view(member)));
        let order = self.roll.order();
        if !order.is_empty() {
            // The sort is stable: the partitions of a consumer keep their order. Others come last.
            let place = |name: &ConsumerName| order.iter().position(|other| other == name);
            all.sort_by_cached_key(|view| place(&view.name).unwrap_or(usize::MAX));
        }
        all
    }

    fn watches(&self) -> Vec<WatchView> {
        self.roll.watches().iter().flat_map(|watch| watch.views()).collect()
    }

    fn histories(&self) -> Vec<HistoryView> {
        let now = Timestamp::now();
        let history = |member: &Arc<Member>| HistoryView {
            name: member.plan.spec.name.clone(),
            stream: member.plan.spec.stream.clone(),
            points: member.status.history().iter().map(|point| point_of(point, now)).collect(),
        };
        self.members().iter().map(history).collect()
    }

    fn refresh_gauges(&self) {
        self.roll.watches().iter().for_each(|watch| watch.refresh_gauges());
        for member in self.members() {
            member.status.refresh_gauges();
        }
        for row in self.roll.groups().iter().filter_map(|group| group.row()) {
            row.refresh_gauges();
        }
    }

    async fn commit_of(&self, target: Target<'_>) -> Result<CommitAnswer, CommitError> {
        verbs::commit(&self.shared, &self.roll, target).await
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
        super_stream: None,
        reference: group.reference(),
        sink: group.sink_kind(),
        guarantee: group.guarantee(),
        memory_bound_bytes: 0,
    };
    view_of(&shown, status)
}

fn view(member: &Member) -> ConsumerView {
    let Plan { spec, super_stream, sink_kind, guarantee, memory_bound_bytes, .. } = &member.plan;
    let shown = Shown {
        name: &spec.name,
        stream: &spec.stream,
        super_stream: super_stream.as_ref(),
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
    super_stream: Option<&'a StreamName>,
    reference: &'a Reference,
    sink: &'static str,
    guarantee: Guarantee,
    memory_bound_bytes: u64,
}

fn view_of(shown: &Shown<'_>, status: &Status) -> ConsumerView {
    let facts = status.facts();
    let now = Timestamp::now();
    let lag = facts.lag(now);
    let rate = status.rate(Instant::now());
    let error = facts.last_error.as_ref();
    ConsumerView {
        name: shown.name.clone(),
        stream: shown.stream.clone(),
        super_stream: shown.super_stream.cloned(),
        reference: shown.reference.clone(),
        sink: shown.sink,
        guarantee: shown.guarantee,
        state: facts.shown_state(),
        state_age_seconds: facts.seconds_in_state(now),
        ready: facts.is_ready(),
        reason: facts.why_not_ready(),
        ready_age_seconds: facts.seconds_so(now),
        halted_offset: status.skips.halted_at().filter(|_| facts.state == State::Halted),
        received_offset: facts.received,
        durable_offset: facts.durable,
        stored_offset: facts.stored,
        stream_first_offset: facts.bounds.and_then(|b| b.first),
        stream_last_offset: facts.stream_end(),
        stream_seen_age_seconds: facts.watch.last_look().map(|seen| seen.seconds_until(now)),
        lag_messages: lag.map(|lag| lag.messages),
        lag_seconds: lag.map(|lag| lag.seconds),
        received_messages_per_second: rate.map(|rate| rate.messages),
        received_bytes_per_second: rate.map(|rate| rate.bytes),
        headroom_messages: facts.headroom(),
        last_error: error.map(|error| error.text.to_string()),
        last_error_age_seconds: error.map(|error| error.at.seconds_until(now)),
        restarts: facts.restarts,
        memory_bound_bytes: shown.memory_bound_bytes,
        buffered_bytes: facts.buffered_bytes,
    }
}

fn point_of(point: &HistoryPoint, now: Timestamp) -> PointView {
    let known = |value: Option<f32>| value.map(f64::from);
    PointView {
        age_seconds: point.at.seconds_until(now),
        lag_messages: known(point.lag_messages),
        lag_seconds: known(point.lag_seconds),
        received_messages_per_second: known(point.messages),
        received_bytes_per_second: known(point.bytes),
    }
}
