//! The signal that no batch may be started any more.

use std::sync::Arc;

use tokio::sync::watch;

/// Signal that the time of a graceful shutdown runs short. Clones share it.
#[derive(Clone, Default)]
pub(in crate::consumer) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Sends the signal to every clone.
    pub(in crate::consumer) fn set(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the signal; never returns if it was sent before.
    ///
    /// Cancel-safe.
    pub(super) async fn comes(&self) {
        let mut said = self.0.subscribe();
        // The sender lives as long as `self`.
        if *said.borrow_and_update() || said.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
