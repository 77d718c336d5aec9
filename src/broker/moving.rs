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
use super::race::race;
use super::tail::stream_bounds;
use crate::flow::resume::Start;
use crate::types::StreamName;

/// Most readers of the process that look for a replica at the same time.
const MOVES_MAX: usize = 4;

/// How often a replica is asked whether it has what the leader has, and the waits between.
const CATCHING_UP_MAX: usize = 5;
const CATCHING_UP: Duration = Duration::from_millis(500);

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
            Ok(found) if is_other(&found, &here, &stream).await => return found,
            Ok(found) => found.close().await,
            Err(error) => tracing::debug!(%stream, %error, "no replica to move to"),
        }
        // One that did not answer a short while ago comes behind the leader there; here it may be tried.
        if let Some(found) = any_replica(&options, &stream).await {
            if is_other(&found, &here, &stream).await {
                return found;
            }
            found.close().await;
        }
    }
}

/// True if the connection leads to another node, which serves the stream, and is not behind.
async fn is_other(found: &Connection, here: &Connection, stream: &StreamName) -> bool {
    found.advertised().is_some()
        && found.advertised() != here.advertised()
        && found.probe(stream, Start::Next, Duration::ZERO).await.is_ok()
        && has_caught_up(found, here, stream).await
}

/// True if the node has what the leader had a moment ago. One that is behind would be left again at once
/// for the leader, and for good: only the leader's word counts where a position is missing.
async fn has_caught_up(found: &Connection, here: &Connection, stream: &StreamName) -> bool {
    let Ok(leader) = stream_bounds(here, stream).await else { return false };
    for _ in 0..CATCHING_UP_MAX {
        match stream_bounds(found, stream).await {
            Ok(bounds) if bounds.tail.at_least() >= leader.tail.at_least() => return true,
            // A member learns a little later than the leader what is committed.
            Ok(_) => tokio::time::sleep(CATCHING_UP).await,
            Err(_) => return false,
        }
    }
    false
}

async fn any_replica(options: &ConnectOptions, stream: &StreamName) -> Option<Connection> {
    if !options.follow_advertised_hosts {
        return None;
    }
    let fleet = Fleet::of(options);
    let replicas = fleet.members(stream)?.replicas;
    let addresses = replicas.iter().map(|node| fleet.address_of(node, options)).collect();
    race(&fleet.ranked(addresses), options).await.ok()
}
