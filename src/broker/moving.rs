//! Moves readers from a stream's leader, where they had to go while no replica could be reached, back to a
//! replica.
//!
//! Invariants:
//! - the connection to the replica is open, and serves the stream, before the reader leaves the leader;
//! - readers that came together do not leave together: each waits for a random part of the time, and at
//!   most [`MOVES_MAX`] look for a replica at the same time.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::connection::Connection;
use super::fleet::Fleet;
use super::locate::{Prefer, connect_to_stream};
use super::options::ConnectOptions;
use crate::flow::resume::Start;
use crate::types::StreamName;

/// Most readers of the process that look for a replica at the same time.
const MOVES_MAX: usize = 4;

static MOVES: Semaphore = Semaphore::const_new(MOVES_MAX);

/// True if the connection leads to the stream's leader, although replicas are preferred.
pub fn is_on_leader(
    options: &ConnectOptions,
    stream: &StreamName,
    connection: &Connection,
) -> bool {
    Fleet::of(options).is_on_leader(stream, connection)
}

/// Waits until the stream can be read from a replica instead of the leader that `here` leads to, and
/// returns a connection to that. Looks about every `after`. Cancel-safe.
pub async fn replica_in_place_of(
    here: Connection,
    options: ConnectOptions,
    stream: StreamName,
    after: Duration,
) -> Connection {
    loop {
        tokio::time::sleep(after.mul_f64(0.5 + fastrand::f64())).await;
        let _turn = MOVES.acquire().await;
        match connect_to_stream(&options, &stream, Prefer::Replica).await {
            Ok(found) => {
                let is_other = found.advertised().is_some()
                    && found.advertised() != here.advertised()
                    && found.probe(&stream, Start::Next, Duration::ZERO).await.is_ok();
                if is_other {
                    return found;
                }
                found.close().await;
            }
            Err(error) => {
                tracing::debug!(%stream, %error, "no replica to move to");
            }
        }
    }
}
