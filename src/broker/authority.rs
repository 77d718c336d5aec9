//! The member of a stream whose word decides about a loss: the leader, or what is left.
//!
//! A replica may be behind, or have dropped a segment more than the leader. Where the leader cannot be
//! reached (its node is in maintenance; the configured addresses do not lead to it), the replicas can, and
//! the one that goes back furthest is asked. What its answer proves is left to the caller, who is told.

use super::connection::Connection;
use super::error::BrokerError;
use super::fleet::Fleet;
use super::locate::{Prefer, connect_strictly};
use super::members::{Members, out_of_reach};
use super::options::ConnectOptions;
use super::search::{Search, close};
use super::tail::stream_bounds;
use crate::types::{Offset, StreamName};

/// A connection to the member whose word counts.
pub struct Authority {
    /// The connection.
    pub connection: Connection,
    /// Reason why it is not the leader's; `None` if it is.
    pub no_leader: Option<String>,
}

/// Connects to the stream's leader; if that is out of reach, to the one of the other members that can be
/// reached which has the oldest messages.
///
/// # Errors
/// If no member can be reached, or the leader is known and does not answer: another one is elected then.
pub async fn connect_to_authority(
    options: &ConnectOptions,
    stream: &StreamName,
) -> Result<Authority, BrokerError> {
    let why = match connect_strictly(options, stream, Prefer::Leader).await {
        Ok(connection) => return Ok(Authority { connection, no_leader: None }),
        Err(BrokerError::LeaderOutOfReach { why, .. }) => why,
        Err(error) => return Err(error),
    };
    match oldest_member(options, stream).await {
        Some(connection) => Ok(Authority { connection, no_leader: Some(why) }),
        None => Err(out_of_reach(stream, why)),
    }
}

/// The member with the lowest first offset, of those that can be reached.
async fn oldest_member(options: &ConnectOptions, stream: &StreamName) -> Option<Connection> {
    let fleet = Fleet::of(options);
    let mut oldest = None;
    let is_listed =
        |members: &Members| options.follow_advertised_hosts && members.shared_address().is_none();
    if let Some(members) = fleet.members(stream).filter(is_listed) {
        for replica in &members.replicas {
            let address = fleet.address_of(replica, options);
            if let Ok(connection) = Connection::open(&address, options).await {
                consider(connection, stream, &mut oldest).await;
            }
        }
    } else {
        // Where nodes share an address, each connection may lead to another one.
        let is_any_good = options.follow_advertised_hosts;
        // No name tells which of these a shared connection leads to.
        let sharing = options.sharing.filter(|_| !is_any_good);
        let mut search = Search::new(&ConnectOptions { sharing, ..options.clone() }, &fleet);
        while let Some(connection) = search.next(is_any_good).await {
            consider(connection, stream, &mut oldest).await;
        }
    }
    oldest.map(|(_, connection)| connection)
}

/// Keeps the connection if its node goes back further. An empty member proves no loss: it comes first.
async fn consider(
    connection: Connection,
    stream: &StreamName,
    oldest: &mut Option<(Option<Offset>, Connection)>,
) {
    let worse = match stream_bounds(&connection, stream).await {
        Ok(bounds) if oldest.as_ref().is_none_or(|(first, _)| bounds.first < *first) => {
            oldest.replace((bounds.first, connection)).map(|(_, former)| former)
        }
        Ok(_) => Some(connection),
        Err(error) => {
            tracing::debug!(%stream, node = %connection.endpoint(), %error, "no member of the stream here");
            Some(connection)
        }
    };
    if let Some(worse) = worse {
        close(worse);
    }
}
