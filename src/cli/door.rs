//! The admin server's door by the configuration: for the daemon that opens it, and for the commands that ask
//! a running daemon.

use std::net::SocketAddr;

use super::exit::Failure;
use crate::admin::{Client, Door, Entrance, Tls};
use crate::config::{AdminConfig, AdminTls, Env};
use crate::tls::{ServerOptions, pinned};
use crate::types::Secret;
use crate::types::bearer::BearerToken;

/// What callers have to pass. Reads the files of `admin.tls`.
///
/// # Errors
/// If they cannot be used.
pub(super) fn entrance(config: &AdminConfig) -> anyhow::Result<Entrance> {
    let door = Door::at(config.listen);
    let door = match token(config)? {
        Some(token) => door.with_token(token, config.token_file.clone(), config.protect_reads),
        None => door,
    };
    let tls = config.tls.clone().map(|AdminTls { cert, key, client_ca }| {
        Tls::load(ServerOptions { cert, key, client_ca })
            .map_err(|error| Failure::unavailable(format!("[admin] tls: {error}")))
    });
    config.concerns().iter().for_each(|concern| tracing::warn!("{concern}"));
    Ok(Entrance { door, tls: tls.transpose()? })
}

/// A client of the daemon that runs with this configuration, at another address if one is given. Its own
/// certificate is the server's, if clients need one.
///
/// # Errors
/// If the server's certificate cannot be read.
pub(super) fn client(config: &AdminConfig, address: Option<SocketAddr>) -> anyhow::Result<Client> {
    let tls = config.tls.as_ref().map(|tls| {
        let key = tls.client_ca.as_ref().map(|_| tls.key.as_path());
        pinned(&tls.cert, key)
            .map_err(|error| Failure::unavailable(format!("[admin] tls: {error}")))
    });
    let client = Client::new(address.unwrap_or(config.listen));
    Ok(client.with_token(token(config)?).with_tls(tls.transpose()?))
}

/// The address of the daemon's admin server in the environment: commands that need nothing else then need no
/// configuration.
pub(super) fn address_in(env: &Env) -> Option<SocketAddr> {
    env.get("RILLWAY__ADMIN__LISTEN").and_then(|text| text.parse().ok())
}

fn token(config: &AdminConfig) -> anyhow::Result<Option<BearerToken>> {
    let token = |secret: &Secret| BearerToken::new(secret.clone());
    Ok(config.token.as_ref().map(token).transpose()?)
}
