//! The task that sends spans, and its beginning and end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use super::END_MAX;
use super::encode::{self, Encoder};
use super::options::{Headers, Options, Sampling};
use super::queue::{Pending, Queue};
use super::send::{Sent, send};
use crate::flow::backoff::Backoff;
use crate::flow::trouble::Trouble;
use crate::sync::lock;
use crate::telemetry::exported::{self, SpanResult};
use crate::telemetry::logging::SpanLayer;
use crate::telemetry::operations;

/// Attempts to send a batch before it is dropped.
const ATTEMPTS_MAX: u32 = 5;

/// Shortest and longest wait before another attempt.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The export of a process.
#[derive(Debug)]
pub struct Exporter {
    url: String,
    headers: Arc<Mutex<Headers>>,
    pending: Pending,
    end: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Ends no span once it is dropped.
    _provider: SdkTracerProvider,
}

/// Starts the export, on the runtime that this is called on. The layer passes it the spans.
pub fn start(options: &Options) -> Option<(SpanLayer, Exporter)> {
    let resource = encode::resource(options);
    let pending = Pending::default();
    let (queue, spans) = Queue::new(options.limits.queue, pending.clone());
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_sampler(sampler(options.sampling))
        .with_resource(resource.clone())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer_with_scope(encode::scope()))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(|of| of.is_span() && of.target() == operations::TARGET));
    let headers = Arc::new(Mutex::new(options.headers.clone()));
    let (end, told) = watch::channel(false);
    let sender = Sender {
        encoder: Encoder::new(&resource, options.gzip),
        options: options.clone(),
        headers: Arc::clone(&headers),
        pending: pending.clone(),
        told,
        trouble: Trouble::default(),
    };
    exported::in_use();
    let task = Mutex::new(Some(tokio::spawn(sender.run(spans))));
    let url = options.url.clone();
    let exporter = Exporter { url, headers, pending, end, task, _provider: provider };
    Some((Box::new(layer), exporter))
}

fn sampler(sampling: Sampling) -> Sampler {
    let of_roots = match sampling {
        Sampling::All => Sampler::AlwaysOn,
        Sampling::None => Sampler::AlwaysOff,
        Sampling::Share(share) => Sampler::TraceIdRatioBased(share),
    };
    Sampler::ParentBased(Box::new(of_roots))
}

impl Exporter {
    /// Sends these headers from now on.
    pub fn set_headers(&self, headers: &Headers) {
        headers.clone_into(&mut lock(&self.headers));
    }

    /// Sends what waits, once, for at most [`END_MAX`]. The rest is dropped, and counted.
    pub async fn finish(&self) {
        let Some(mut task) = lock(&self.task).take() else { return };
        self.end.send_replace(true);
        let in_time = tokio::time::timeout(END_MAX, &mut task).await.is_ok();
        if !in_time {
            task.abort();
            // Until it has ended, it may count some of them.
            drop(task.await);
        }
        let spans = self.pending.give_up();
        if !in_time {
            tracing::warn!(
                collector = self.url,
                timeout_ms = END_MAX.as_millis(),
                spans,
                "the last spans of traces are dropped: sending them to the OpenTelemetry collector timed out"
            );
        }
    }
}

struct Sender {
    options: Options,
    encoder: Encoder,
    headers: Arc<Mutex<Headers>>,
    pending: Pending,
    told: watch::Receiver<bool>,
    trouble: Trouble,
}

impl Sender {
    /// True once the program ends.
    fn is_told(&self) -> bool {
        *self.told.borrow() || self.told.has_changed().is_err()
    }

    async fn run(mut self, mut spans: mpsc::Receiver<SpanData>) {
        let mut batch = Vec::new();
        loop {
            self.collect(&mut spans, &mut batch).await;
            if batch.is_empty() {
                if self.is_told() {
                    return;
                }
                continue;
            }
            self.deliver(std::mem::take(&mut batch)).await;
        }
    }

    /// Takes spans until the batch is full, its first one has waited long enough, or the program ends.
    async fn collect(&mut self, spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
        let batch_max = self.options.limits.batch;
        let due = tokio::time::sleep(self.options.limits.interval);
        tokio::pin!(due);
        while batch.len() < batch_max {
            let room = batch_max - batch.len();
            if self.is_told() {
                while batch.len() < batch_max
                    && let Ok(span) = spans.try_recv()
                {
                    batch.push(span);
                }
                return;
            }
            tokio::select! {
                taken = spans.recv_many(batch, room) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = &mut due => return,
                _ = self.told.changed() => {}
            }
        }
    }

    /// Sends a batch, several times if need be.
    async fn deliver(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let body = Bytes::from(self.encoder.body(batch));
        let mut backoff = Backoff::new(WAIT.0, WAIT.1);
        loop {
            let headers = lock(&self.headers).clone();
            match send(&self.options, &headers, body.clone()).await {
                Sent::Accepted { refused } => return self.accepted(spans, refused),
                Sent::Never { what } => return self.dropped(spans, &what),
                Sent::Again { what, after } => {
                    let wait = backoff.next(fastrand::f64()).max(after.unwrap_or_default());
                    self.failed(&what);
                    if backoff.failures() >= ATTEMPTS_MAX || self.is_told() {
                        return self.dropped(spans, &what);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = self.told.changed() => {}
                    }
                }
            }
        }
    }

    fn accepted(&mut self, spans: u64, refused: Option<(u64, String)>) {
        let (refused, why) = refused.unwrap_or_default();
        let refused = refused.min(spans);
        self.pending.are(SpanResult::Sent, spans - refused);
        self.pending.are(SpanResult::Refused, refused);
        if refused > 0 {
            return self.failed(&format!("it refuses spans ({why})"));
        }
        if let Some(past) = self.trouble.over(Instant::now()) {
            let lasted_ms = past.lasted.as_millis();
            let collector = self.options.url.as_str();
            tracing::info!(collector, lasted_ms, "spans of traces are delivered again");
        }
    }

    fn dropped(&mut self, spans: u64, what: &str) {
        self.pending.are(SpanResult::Failed, spans);
        self.failed(what);
    }

    /// Logs a failure, unless it was logged not long ago.
    fn failed(&mut self, error: &str) {
        if self.trouble.failed(error, Instant::now()) {
            let collector = self.options.url.as_str();
            tracing::warn!(
                collector,
                error,
                "spans of traces cannot be sent to the OpenTelemetry collector; consumers are not affected, and what \
                 is dropped is counted in rillway_trace_spans_total"
            );
        }
    }
}
