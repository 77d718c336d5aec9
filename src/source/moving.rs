//! The look for a replica, beside a subscription to the leader.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::broker::{ConnectOptions, Connection, is_on_leader, replica_in_place_of};
use crate::sync::lock;
use crate::types::StreamName;

/// A connection to a replica, for the next subscription.
#[derive(Clone, Default)]
pub(super) struct Found(Arc<Mutex<Option<Connection>>>);

impl Found {
    /// Takes the connection, if there is one that is open.
    pub(super) fn take(&self) -> Option<Connection> {
        lock(&self.0).take().filter(|connection| !connection.has_ended())
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Found").field(&lock(&self.0).is_some()).finish()
    }
}

/// The look for a replica. Dropping it ends it.
pub(super) struct Moving {
    looking: AbortHandle,
    /// `None` once it has ended: a receiver must not be polled after that.
    found: Option<oneshot::Receiver<Connection>>,
    into: Found,
}

impl Moving {
    /// Begins to look, if the stream is read from its leader. `options` are those of the source.
    pub(super) fn begin(
        options: &ConnectOptions,
        stream: &StreamName,
        here: &Connection,
        into: &Found,
    ) -> Option<Moving> {
        let after: Duration = options.routing.move_back_after?;
        if !is_on_leader(options, stream, here) {
            return None;
        }
        let (sender, found) = oneshot::channel();
        let replica = replica_in_place_of(here.clone(), options.clone(), stream.clone(), after);
        // The reader may be gone by then; the connection is dropped with the message.
        let looking =
            tokio::spawn(async move { drop(sender.send(replica.await)) }.in_current_span());
        Some(Moving { looking: looking.abort_handle(), found: Some(found), into: into.clone() })
    }

    /// True once a replica was found; its connection is kept for the next subscription.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Some(found) = &mut self.found else { return false };
        let Poll::Ready(found) = found.poll_unpin(context) else { return false };
        self.found = None;
        found.is_ok_and(|connection| self.keep(connection))
    }

    /// The same, without being woken later.
    pub(super) fn has_found(&mut self) -> bool {
        let Some(found) = &mut self.found else { return false };
        match found.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => false,
            found => {
                self.found = None;
                found.is_ok_and(|connection| self.keep(connection))
            }
        }
    }

    fn keep(&self, connection: Connection) -> bool {
        *lock(&self.into.0) = Some(connection);
        true
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_ended_without_a_replica_is_not_polled_again() {
        let (sender, found) = oneshot::channel();
        let looking = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let mut moving = Moving { looking, found: Some(found), into: Found::default() };
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(!moving.poll(&mut context) && !moving.has_found());
        drop(sender);
        for _ in 0..3 {
            assert!(!moving.poll(&mut context) && !moving.has_found());
        }
    }
}
