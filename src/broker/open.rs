//! Opens a connection: waits for its turn, dials, starts the reader and the writer, and performs the
//! handshake.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::Instrument;

use super::connection::Connection;
use super::dial::dial;
use super::error::BrokerError;
use super::fleet::Fleet;
use super::identity::{self, Identity};
use super::lease::Lease;
use super::options::{ConnectOptions, Endpoint};
use super::shared::{Beginnings, Shared};
use super::{foreign, handshake, pool, reader, writer};
use crate::wire::commands::Metadata;

/// Number of open connections to one node from which on the loss of a further one may be due to them.
const MANY: usize = 100;

/// Time limit for an open connection to show that its node works.
const WITNESS_WAIT: Duration = Duration::from_secs(2);

impl Connection {
    /// A connection to one address, shared with others if the options say so.
    pub async fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self, BrokerError> {
        Connection::open_in_turn(endpoint, options, &Notify::new()).await
    }

    /// The same; notifies when it begins.
    pub(super) async fn open_in_turn(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        begun: &Notify,
    ) -> Result<Self, BrokerError> {
        if let Some(sharing) = &options.sharing
            && let Some(pool) = pool::of(sharing)
        {
            begun.notify_one();
            return pool.open(endpoint, options, sharing.avoid).await;
        }
        Connection::open_alone(endpoint, options, begun).await
    }

    /// Connects to one address: TCP, TLS, login, virtual host, and the broker's abilities. Waits until
    /// fewer than a few other handshakes of this process with the same address are under way, and
    /// notifies when it begins.
    pub(super) async fn open_alone(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        begun: &Notify,
    ) -> Result<Self, BrokerError> {
        let fleet = Fleet::of(options);
        let _turn = fleet.turn(endpoint).await?;
        begun.notify_one();
        if options.sharing.is_none()
            && !options.routing.exclusive
            && let Some(connection) = fleet.shared(endpoint, options)
        {
            // It is not this user's to close.
            tracing::debug!(%endpoint, "connection limit: another consumer's connection is shared");
            return Ok(connection.leased(Lease::new(0, || false)));
        }
        let error = match open(endpoint, options, &fleet).await {
            Ok(connection) => {
                fleet.opened(&connection, options);
                return Ok(connection);
            }
            Err(error) => error,
        };
        let is_refused = matches!(error, BrokerError::VirtualHost { .. });
        if !is_refused && !error.is_silence() {
            return Err(error);
        }
        // Behind a load balancer, another connection tells nothing about a node that was silent.
        let is_told = is_refused || !options.routing.load_balancer;
        if is_told && let Some(limit) = is_full(endpoint, options, &fleet, &error).await {
            // One that is out of file descriptors ends a connection on which one more subscribes:
            // what is shared would be lost for all.
            if is_refused {
                fleet.full(endpoint);
            }
            return Err(limit);
        }
        if !is_refused {
            fleet.failed(endpoint, &error);
        }
        Err(error)
    }
}

/// The error for a connection that was lost while a subscription began: without file descriptors, the
/// broker ends it without a word. That is told only by a node that works on many others.
pub async fn explain_loss(
    options: &ConnectOptions,
    connection: &Connection,
    error: BrokerError,
) -> BrokerError {
    let fleet = Fleet::of(options);
    let open = fleet.open_on(connection.endpoint());
    if !matches!(error, BrokerError::Broken { .. }) || open < MANY {
        return error;
    }
    is_full(connection.endpoint(), options, &fleet, &error).await.unwrap_or(error)
}

/// The error for a node that lets no more connections in: what it says, or its silence, would mean
/// something else by itself, but it works on the connections that are open.
async fn is_full(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    fleet: &Fleet,
    error: &BrokerError,
) -> Option<BrokerError> {
    let (witness, open) = fleet.witness(endpoint, options)?;
    let nothing = Metadata { streams: Vec::new() };
    let works = tokio::time::timeout(WITNESS_WAIT, witness.call(&nothing)).await;
    matches!(works, Ok(Ok(_))).then(|| BrokerError::ConnectionLimit {
        endpoint: endpoint.clone(),
        open,
        what: error.to_string(),
    })
}

async fn open(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    fleet: &Arc<Fleet>,
) -> Result<Connection, BrokerError> {
    // Before the time limit of the connection begins: it has one of its own.
    let identity = Identity::of(options).await?;
    let limit = options.connect_timeout;
    let deadline = tokio::time::Instant::now() + limit;
    let failed = |what: String| BrokerError::Connect { endpoint: endpoint.clone(), what };
    let dialled = tokio::time::timeout_at(deadline, dial(endpoint, options)).await;
    let (read, write) =
        dialled.map_err(|_| failed(format!("no connection within {limit:?}")))??;
    let Beginnings { shared, outgoing, tune } = Shared::begin(endpoint);
    let reading = {
        let (shared, fleet) = (Arc::clone(&shared), Arc::clone(fleet));
        async move {
            reader::run(read, Arc::clone(&shared)).await;
            let reason = shared.reason();
            if reason.is_silence() {
                fleet.failed(&shared.endpoint, &reason);
            }
        }
    };
    let reader = tokio::spawn(reading.in_current_span()).abort_handle();
    tokio::spawn(writer::run(write, outgoing, Arc::clone(&shared)).in_current_span());
    let connection = Connection::new(shared, options, reader);
    let shaken =
        tokio::time::timeout_at(deadline, handshake::shake(&connection, options, &identity, tune))
            .await;
    let peer = shaken.map_err(|_| {
        failed(match connection.shared().heard.load(Ordering::Relaxed) {
            true => format!("the login took longer than {limit:?}"),
            false => foreign::silent(limit),
        })
    })??;
    tracing::debug!(%endpoint, version = peer.version_text, "connected");
    if let (Some(renewals), Some((user, _))) = (identity.renewals(), identity.plain()) {
        let shared = Arc::clone(connection.shared());
        let (user, version) = (user.to_owned(), peer.version);
        let renewing = identity::renew(renewals, user, shared, version, options.request_timeout);
        tokio::spawn(renewing.in_current_span());
    }
    connection.introduce(peer);
    Ok(connection)
}
