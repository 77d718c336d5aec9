//! The look for a replica, beside a subscription to the leader.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

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
    found: oneshot::Receiver<Connection>,
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
        let looking = tokio::spawn(async move { drop(sender.send(replica.await)) });
        Some(Moving { looking: looking.abort_handle(), found, into: into.clone() })
    }

    /// True once a replica was found; its connection is kept for the next subscription.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        match self.found.poll_unpin(context) {
            Poll::Ready(Ok(connection)) => self.keep(connection),
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }

    /// The same, without being woken later.
    pub(super) fn has_found(&mut self) -> bool {
        self.found.try_recv().is_ok_and(|connection| self.keep(connection))
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
