//! Looks at a consumer's stream from a connection of its own, for the lag: also of a consumer that
//! has halted or cannot connect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spec::Spec;
use super::status::Status;
use crate::broker::{BrokerError, Connection, Prefer, chunk_at, connect_to_stream, stream_bounds};
use crate::flow::backoff::Backoff;
use crate::flow::lag::{Tail, Watch};
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
    let mut observer = Observer { spec, status, watch: Watch::default(), oldest: None };
    loop {
        let error = observer.until_it_fails(&mut backoff).await;
        let wait = backoff.next(fastrand::f64());
        tracing::debug!(consumer = %observer.spec.name, %error, wait_ms = wait.as_millis(), "cannot look at the stream");
        let until = Instant::now() + wait;
        while Instant::now() < until {
            observer.publish();
            tokio::time::sleep(EVERY.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

struct Observer {
    spec: Arc<Spec>,
    status: Arc<Status>,
    watch: Watch,
    /// When the chunk after this position was written.
    oldest: Option<(Option<Offset>, Timestamp)>,
}

impl Observer {
    async fn until_it_fails(&mut self, backoff: &mut Backoff) -> BrokerError {
        let (connect, stream) = (&self.spec.connect, &self.spec.stream);
        let connection = match connect_to_stream(connect, stream, Prefer::Replica).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let by_counters = connection.supports(keys::STREAM_STATS, 1);
        let every = if by_counters { EVERY } else { EVERY_BY_READING };
        loop {
            if let Err(error) = self.look(&connection).await {
                connection.close().await;
                return error;
            }
            backoff.reset();
            self.publish();
            tokio::time::sleep(every).await;
        }
    }

    async fn look(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        let bounds = stream_bounds(connection, &self.spec.stream).await?;
        let facts = self.status.facts();
        if facts.positioned {
            let mut view = facts.view();
            if view.oldest.is_none() && !matches!(facts.state, State::Running | State::Connecting) {
                view.oldest = self.oldest_waiting(connection, view.position).await?;
            }
            let lag = self.watch.look(&view, bounds.tail, Instant::now(), Timestamp::now());
            self.status.update(|facts| facts.lag = Some(lag));
        }
        self.status.update(|facts| facts.bounds = Some(bounds));
        Ok(())
    }

    /// When the first chunk after the position was written; asked once for each position.
    async fn oldest_waiting(
        &mut self,
        connection: &Connection,
        position: Option<Offset>,
    ) -> Result<Option<Timestamp>, BrokerError> {
        if let Some((known, at)) = self.oldest
            && known == position
        {
            return Ok(Some(at));
        }
        let next = position.map_or(Offset(0), Offset::next);
        let chunk = chunk_at(connection, &self.spec.stream, Start::Offset(next)).await?;
        let at = chunk.filter(|c| c.next_offset() > next).map(|c| c.timestamp);
        if let Some(at) = at {
            self.oldest = Some((position, at));
        }
        Ok(at)
    }

    fn publish(&self) {
        let facts = self.status.facts();
        let metrics = &self.status.metrics;
        if let Some(bounds) = facts.bounds {
            if let Some(first) = bounds.first {
                metrics.stream_first_offset.set_offset(first);
            }
            match bounds.tail {
                Tail::Empty => {}
                Tail::Offset(last) | Tail::Chunk(last) => {
                    let last = facts.received.map_or(last, |received| received.max(last));
                    metrics.stream_last_offset.set_offset(last);
                }
            }
        }
        if let Some(lag) = facts.lag {
            metrics.lag_messages.set_count(lag.messages);
            metrics.lag_seconds.set(lag.seconds);
        }
        if let Some(headroom) = facts.headroom() {
            metrics.headroom_messages.set(headroom as f64);
        }
        // Nothing to store is as good as just stored.
        let age = if facts.unstored { facts.stored_at.elapsed() } else { Duration::ZERO };
        metrics.store_age_seconds.set(age.as_secs_f64());
    }
}
