//! Looks at the streams, for the lag. One place that starts it and ends it.

use std::sync::Arc;

use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::consumer::{Spec, Status, observe};
use crate::telemetry::logging::consumer_span;

/// What looks at one consumer's stream, for as long as this lives.
pub(super) struct Watching(AbortHandle);

/// Has this consumer's stream looked at, whether the consumer runs or not.
pub(super) fn watch(spec: &Arc<Spec>, status: &Arc<Status>) -> Watching {
    let observing = observe::run(Arc::clone(spec), Arc::clone(status));
    let span = consumer_span(&spec.name, &spec.stream);
    Watching(tokio::spawn(observing.instrument(span)).abort_handle())
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}
