//! How a consumer ends: taking nothing new, finishing what is under way, and closing what is open.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::super::brain::Ending;
use super::{Outcome, Restarting, Worker};
use crate::telemetry::State;

/// How long closing the sink and the connection may take, once everything is settled and stored.
const CLOSE_MAX: Duration = Duration::from_secs(5);

impl Worker {
    /// Takes nothing new from now on; the first reason counts, and a fault counts for more than
    /// having been told to.
    pub(super) fn end(&mut self, outcome: Outcome) {
        match (&self.ending, &outcome) {
            (None, _) => {}
            (
                Some(Outcome::Drained),
                Outcome::Halted(_) | Outcome::Failed(_) | Outcome::Panicked(_),
            ) => {}
            (Some(_), Outcome::Drained) => {
                // A fault stays what it is, but a sink that is away is not waited for much longer.
                self.stop_at.get_or_insert(Instant::now() + self.spec.wind_up_after);
                return;
            }
            (Some(_), _) => return,
        }
        match &outcome {
            Outcome::Drained => {
                self.stop_at = Some(Instant::now() + self.spec.wind_up_after);
                self.storing.end(Ending::Drain);
                self.status.set_state(State::Draining, Some("told to stop".into()));
            }
            Outcome::Halted(reason) | Outcome::Failed(reason) | Outcome::Panicked(reason) => {
                self.storing.end(Ending::Fault);
                self.status.set_state(State::Draining, Some(reason.clone()));
            }
        }
        self.ending = Some(outcome);
        self.restarting = Restarting::No;
        self.link.stop();
        self.flush();
    }

    /// Whether everything that could be finished is.
    pub(super) fn finished(&self) -> Option<Outcome> {
        let outcome = self.ending.as_ref()?;
        self.storing.is_finished(self.sink_alive).then(|| outcome.clone())
    }

    /// Closes the sink and the connection, within a time limit.
    pub(super) async fn close(mut self, sink_task: AbortOnDrop, outcome: Outcome) -> Outcome {
        for waiter in self.storing.take_waiters() {
            let ended = Err("the consumer ended before it could be stored".to_owned());
            super::settling::answer(waiter, ended);
        }
        let connection = self.link.into_connection();
        drop(self.orders);
        let disconnect = async {
            if let Some(connection) = connection {
                connection.close().await;
            }
        };
        let closed = async { tokio::join!(sink_task.join(), disconnect).0 };
        match tokio::time::timeout(CLOSE_MAX, closed).await {
            Ok(Ok(())) => outcome,
            Ok(Err(error)) if error.is_panic() => {
                // The panic's own message went to the log where it happened.
                Outcome::Panicked("the sink panicked".to_owned())
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    timeout_ms = CLOSE_MAX.as_millis(),
                    "closing the sink or the connection timed out"
                );
                outcome
            }
        }
    }
}

/// The sink's task, aborted when this is dropped.
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl AbortOnDrop {
    async fn join(mut self) -> Result<(), tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
