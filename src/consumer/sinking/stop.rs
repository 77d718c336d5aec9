//! The word that no batch is to be begun any more.

use std::sync::Arc;

use tokio::sync::watch;

/// Says that the time of a graceful shutdown runs short.
#[derive(Clone, Default)]
pub(in crate::consumer) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Says so to every clone.
    pub(in crate::consumer) fn set(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said; never ends where it was said before.
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
