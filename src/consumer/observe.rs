//! Looks at a consumer's stream from a connection of its own, for the lag: also of a consumer that
//! has halted or cannot connect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spec::Spec;
use super::status::Status;
use crate::broker::{BrokerError, Connection, Prefer, chunk_at, connect_to_stream, stream_bounds};
use crate::flow::backoff::Backoff;
use crate::flow::resume::Start;
use crate::telemetry::State;
use crate::types::{Offset, Timestamp};
use crate::wire::commands::keys;

/// Between two looks where the broker answers from its counters.
const EVERY: Duration = Duration::from_secs(1);

/// Between two looks where chunks have to be read for it (before 3.11).
const EVERY_BY_READING: Duration = Duration::from_secs(5);

/// Looks for ever; ends with its task.
pub async fn run(spec: Arc<Spec>, status: Arc<Status>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
    let observer = Observer { spec, status };
    loop {
        let error = observer.until_it_fails(&mut backoff).await;
        observer.status.update(|facts| {
            facts.watch.failed();
            if is_an_answer(&error) {
                facts.watch.heard(Timestamp::now());
            }
        });
        let wait = backoff.next(fastrand::f64());
        tracing::debug!(consumer = %observer.spec.name, %error, wait_ms = wait.as_millis(), "cannot look at the stream");
        tokio::time::sleep(wait).await;
    }
}

struct Observer {
    spec: Arc<Spec>,
    status: Arc<Status>,
}

impl Observer {
    async fn until_it_fails(&self, backoff: &mut Backoff) -> BrokerError {
        let (connect, stream) = (&self.spec.connect, &self.spec.stream);
        let connection = match connect_to_stream(connect, stream, Prefer::Replica).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let by_counters = connection.supports(keys::STREAM_STATS, 1);
        // Reading takes its time: an empty stream is one in which no chunk came for a while.
        let (every, within) = match by_counters {
            true => (EVERY, EVERY),
            false => (EVERY_BY_READING, EVERY_BY_READING * 2),
        };
        loop {
            if let Err(error) = self.look(&connection, within).await {
                connection.close().await;
                return error;
            }
            backoff.reset();
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                error = connection.ended() => return error,
            }
        }
    }

    /// Looks once; the next look is to be done `within` this time.
    async fn look(&self, connection: &Connection, within: Duration) -> Result<(), BrokerError> {
        let bounds = stream_bounds(connection, &self.spec.stream).await?;
        self.status.update(|facts| {
            facts.bounds = Some(bounds);
            facts.watch.looked(bounds.tail, Instant::now(), Timestamp::now(), within);
        });
        let facts = self.status.facts();
        if !facts.positioned && matches!(facts.state, State::Backoff | State::Halted) {
            self.ask_for_position(connection).await;
        }
        let facts = self.status.facts();
        match facts.watch.question(&facts.view()).filter(|_| facts.positioned) {
            Some(next) => self.ask(connection, next).await,
            None => Ok(()),
        }
    }

    /// A sink that cannot be opened does not say where it stands. The stored offset, which never is
    /// beyond that, serves until it does.
    async fn ask_for_position(&self, connection: &Connection) {
        let (stream, reference) = (&self.spec.stream, &self.spec.reference);
        // Without an answer it stays unknown, and is asked for at the next look.
        let Ok(Some(stored)) = connection.query_offset(stream, reference).await else { return };
        self.status.update(|facts| {
            if !facts.positioned {
                facts.position = Some(stored);
                facts.positioned = true;
                facts.stored = Some(stored);
            }
        });
    }

    /// Finds out when the first message from `next` on was written, if there is one.
    async fn ask(&self, connection: &Connection, next: Offset) -> Result<(), BrokerError> {
        let chunk = chunk_at(connection, &self.spec.stream, Start::Offset(next)).await?;
        let written = chunk.filter(|c| c.next_offset() > next).map(|c| c.header.timestamp);
        self.status.update(|facts| {
            let view = facts.view();
            if view.position.map_or(Offset(0), Offset::next) == next {
                facts.watch.answered(&view, written, Timestamp::now());
            }
        });
        Ok(())
    }
}

/// Whether the broker itself said so: then it is there.
fn is_an_answer(error: &BrokerError) -> bool {
    matches!(
        error,
        BrokerError::Login { .. }
            | BrokerError::VirtualHost { .. }
            | BrokerError::Refused { .. }
            | BrokerError::AccessRefused { .. }
            | BrokerError::ClosedByBroker { .. }
            | BrokerError::StreamMissing(_)
            | BrokerError::NotAStream { .. }
            | BrokerError::StreamUnavailable { .. }
    )
}
