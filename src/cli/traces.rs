//! The export of traces, for commands that run consumers.

use std::sync::Arc;

use crate::config::{Config, TracesConfig};
use crate::otlp::{self, Exporter};
use crate::telemetry::logging::SpanLayer;

/// Starts it, if it is configured. The layer goes to the log's set-up, as there is only one subscriber.
pub(super) fn start(config: Option<&TracesConfig>) -> (Option<SpanLayer>, Option<Arc<Exporter>>) {
    match config.and_then(|config| otlp::start(&config.options)) {
        Some((layer, exporter)) => (Some(layer), Some(Arc::new(exporter))),
        None => (None, None),
    }
}

/// Logs where they go, and what an operator should know about it.
pub(super) fn tell(config: &Config) {
    if let Some(traces) = &config.traces {
        let collector = &traces.options.url;
        tracing::info!(collector, "traces are sent to an OpenTelemetry collector");
    }
    config.traces_concerns().for_each(|concern| tracing::warn!("{concern}"));
}

/// Sends the last spans, within a time limit.
pub(super) async fn finish(exporter: Option<&Exporter>) {
    if let Some(exporter) = exporter {
        exporter.finish().await;
    }
}
