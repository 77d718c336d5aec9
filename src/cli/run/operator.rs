//! Carries out the orders that come in over HTTP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::reload::Reloader;
use crate::admin::{
    Changed, ConfigurationView, Control, ControlError, Draining, NotReloaded, Reloaded, Seek,
    SeekError, SkipOrder, Sought, Target, Verb,
};
use crate::supervisor::Supervisor;
use crate::telemetry::logging::{self, LoggingError};

/// The daemon, as an operator commands it.
pub(super) struct Operator {
    supervisor: Arc<Supervisor>,
    reloader: Arc<Reloader>,
    /// True once the daemon was told to end.
    drain: watch::Sender<bool>,
}

impl Operator {
    pub(super) fn new(supervisor: &Arc<Supervisor>, reloader: &Arc<Reloader>) -> Operator {
        let (supervisor, reloader) = (Arc::clone(supervisor), Arc::clone(reloader));
        Operator { supervisor, reloader, drain: watch::Sender::new(false) }
    }

    /// Waits until the daemon is told to end.
    ///
    /// Cancel-safe.
    pub(super) async fn drains(&self) {
        // The sender lives as long as `self`.
        drop(self.drain.subscribe().wait_for(|told| *told).await);
    }
}

#[async_trait]
impl Control for Operator {
    async fn change(
        &self,
        verb: Verb,
        target: Target<'_>,
        wait: Duration,
    ) -> Result<Changed, ControlError> {
        self.supervisor.change(verb, target, wait).await
    }

    async fn skip(&self, order: SkipOrder<'_>, wait: Duration) -> Result<Changed, ControlError> {
        self.supervisor.skip(order, wait).await
    }

    async fn seek(&self, target: Target<'_>, seek: Seek) -> Result<Sought, SeekError> {
        self.supervisor.seek(target, seek).await
    }

    fn drain(&self) -> Draining {
        self.drain.send_replace(true);
        let grace = self.reloader.config().shutdown_grace.0;
        Draining { draining: true, grace_seconds: grace.as_secs_f64() }
    }

    fn log_filter(&self) -> String {
        logging::filter()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        let before = logging::filter();
        logging::set_filter(filter).map_err(|error| match error {
            LoggingError::Filter { text, problem } => format!(
                "{text:?} is not a log filter: {problem}. Expected off, error, warn, info, debug or trace, or a \
                 list such as \"info,rillway::broker=debug\""
            ),
            error => error.to_string(),
        })?;
        tracing::info!(before, filter, "the log's filter was changed by an operator");
        Ok(())
    }

    async fn reload(&self, wait: Duration) -> Result<Reloaded, NotReloaded> {
        self.reloader.reload("HTTP", wait).await
    }

    fn configuration(&self) -> ConfigurationView {
        self.reloader.view()
    }
}
