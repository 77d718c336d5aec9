//! Counts the messages between two offsets, by the headers of their chunks.

use std::sync::Arc;
use std::time::Duration;

use super::super::spec::Spec;
use crate::flow::resume::Start;
use crate::source::{self, Activation, Budget, Event, Link};
use crate::types::Offset;
use crate::wire::chunk::{ChunkHeader, ChunkKind};

/// Time limit: a larger range is only estimated, by its offsets.
const COUNT_MAX: Duration = Duration::from_secs(3);

/// Number of messages from offset `from` up to before `to`, of a stream whose last message is `last`. `None` if
/// counting takes too long, or would not be the consumer's own view: the broker leaves out what a filter does
/// not select, and a subscription that the broker activates would depose another daemon.
pub(super) async fn messages_between(
    spec: &Spec,
    link: &Arc<dyn Link>,
    (from, to): (Offset, Offset),
    last: Option<Offset>,
) -> Option<u64> {
    if spec.source.activation() == Activation::ByBroker || spec.source.is_filtered() {
        return None;
    }
    // Behind the last message nothing is delivered.
    let end = to.min(last?.next());
    if end <= from {
        return Some(0);
    }
    let counting = count(spec, link, from, end);
    tokio::time::timeout(COUNT_MAX, counting).await.ok().flatten()
}

async fn count(spec: &Spec, link: &Arc<dyn Link>, from: Offset, end: Offset) -> Option<u64> {
    let budget = Budget::new(spec.chunk_budget_bytes());
    let mut subscription = source::begin(link, Start::Offset(from), &budget).await.ok()?;
    let mut messages = 0;
    while let Some(event) = subscription.next().await {
        let Event::Chunk(delivery) = event else { return None };
        let header = ChunkHeader::parse(&delivery.chunk).ok()?;
        let first = header.first_offset;
        if header.kind == ChunkKind::User {
            let next = Offset(first.0.checked_add(header.records.into())?);
            let (first, next) = (first.max(from), next.min(end));
            messages += next.0.saturating_sub(first.0);
            if next >= end {
                return Some(messages);
            }
        } else if first >= end {
            return Some(messages);
        }
    }
    None
}
