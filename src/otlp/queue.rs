//! Ended spans, on their way to the task that sends them.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::telemetry::exported::{self, SpanResult};

/// The near end of the queue. It never waits.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

impl Queue {
    /// A queue for this many spans.
    pub(super) fn new(spans_max: usize) -> (Queue, mpsc::Receiver<SpanData>) {
        let (near, far) = mpsc::channel(spans_max.max(1));
        (Queue(near), far)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.0.try_send(span).is_err() {
            exported::count(SpanResult::NoRoom, 1);
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
