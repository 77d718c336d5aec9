//! Ended spans, on their way to the task that sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::telemetry::exported::{self, SpanResult};

/// Number of spans that were queued, and have no result yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<AtomicU64>);

impl Pending {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the result of this many, except those that were given up meanwhile: each span has one result.
    pub(super) fn are(&self, result: SpanResult, spans: u64) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let without = |pending: u64| Some(pending.saturating_sub(spans));
        let (Ok(pending) | Err(pending)) = self.0.fetch_update(set, fetch, without);
        exported::count(result, spans.min(pending));
    }

    /// Counts all that are left as failed, and returns how many.
    pub(super) fn give_up(&self) -> u64 {
        let spans = self.0.swap(0, Ordering::Relaxed);
        exported::count(SpanResult::Failed, spans);
        spans
    }
}

/// The near end of the queue. It never waits.
#[derive(Debug)]
pub(super) struct Queue {
    near: mpsc::Sender<SpanData>,
    pending: Pending,
}

impl Queue {
    /// A queue for this many spans.
    pub(super) fn new(spans_max: usize, pending: Pending) -> (Queue, mpsc::Receiver<SpanData>) {
        let (near, far) = mpsc::channel(spans_max.max(1));
        (Queue { near, pending }, far)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        // Before it can be taken and sent.
        self.pending.add();
        if self.near.try_send(span).is_err() {
            self.pending.are(SpanResult::NoRoom, 1);
        }
    }

    // The task is told in another way, which does not block.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::prometheus;

    /// A span that ends while the export ends is counted by only one of the two.
    #[test]
    fn each_span_has_one_result() {
        let recorder = prometheus::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            let pending = Pending::default();
            (0..3).for_each(|_| pending.add());
            pending.are(SpanResult::Sent, 1);
            assert_eq!(pending.give_up(), 2);
            // It was queued before, and is refused only now.
            pending.are(SpanResult::NoRoom, 1);
            assert_eq!(pending.give_up(), 0);
            pending.add();
            pending.are(SpanResult::NoRoom, 1);
        });
        let page = recorder.handle().render();
        for (result, spans) in [("sent", 1), ("failed", 2), ("no_room", 1)] {
            let line = format!("rillway_trace_spans_total{{result=\"{result}\"}} {spans}\n");
            assert!(page.contains(&line), "{line}{page}");
        }
    }
}
