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

    /// Counts the result of this many.
    pub(super) fn are(&self, result: SpanResult, spans: u64) {
        exported::count(result, spans);
        self.0.fetch_sub(spans, Ordering::Relaxed);
    }

    /// The ones that are left.
    pub(super) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
