//! Opens a connection: dials, starts the reader and the writer, and performs the handshake.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::Instrument;

use super::connection::Connection;
use super::dial::dial;
use super::error::BrokerError;
use super::options::{ConnectOptions, Endpoint};
use super::shared::{Beginnings, Shared};
use super::{foreign, handshake, pool, reader, writer};

impl Connection {
    /// A connection to one address, shared with others if the options say so.
    pub async fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self, BrokerError> {
        if let Some(sharing) = &options.sharing
            && let Some(pool) = pool::of(sharing)
        {
            return pool.open(endpoint, options, sharing.avoid).await;
        }
        Connection::open_alone(endpoint, options).await
    }

    /// Connects to one address: TCP, TLS, login, virtual host, and the broker's abilities.
    pub(super) async fn open_alone(
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<Self, BrokerError> {
        let limit = options.connect_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let failed = |what: String| BrokerError::Connect { endpoint: endpoint.clone(), what };
        let dialled = tokio::time::timeout_at(deadline, dial(endpoint, options)).await;
        let (read, write) =
            dialled.map_err(|_| failed(format!("no connection within {limit:?}")))??;
        let Beginnings { shared, outgoing, tune } = Shared::begin(endpoint);
        let reader =
            tokio::spawn(reader::run(read, Arc::clone(&shared)).in_current_span()).abort_handle();
        tokio::spawn(writer::run(write, outgoing, Arc::clone(&shared)).in_current_span());
        let connection = Connection::new(shared, options, reader);
        let shaken =
            tokio::time::timeout_at(deadline, handshake::shake(&connection, options, tune)).await;
        let peer = shaken.map_err(|_| {
            failed(match connection.shared().heard.load(Ordering::Relaxed) {
                true => format!("the login took longer than {limit:?}"),
                false => foreign::silent(limit),
            })
        })??;
        tracing::debug!(%endpoint, version = peer.version_text, "connected");
        connection.introduce(peer);
        Ok(connection)
    }
}
