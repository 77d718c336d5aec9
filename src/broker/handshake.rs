//! The handshake: peer properties, login, limits, virtual host, command versions.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::connection::{Connection, Peer};
use super::error::BrokerError;
use super::feature::parse_version;
use super::identity::Identity;
use super::options::{ConnectOptions, Endpoint};
use crate::wire::commands::{
    self, ExchangeCommandVersions, Open, PeerProperties, ResponseCode, SaslAuthenticate,
    SaslHandshake, SaslOutcome,
};

/// Largest frame, in bytes, that we propose. A lower limit of the broker wins; "no limit" (0)
/// becomes this value.
const FRAME_MAX: u32 = 1 << 20;

/// Brokers from this version on answer ExchangeCommandVersions; older ones close the connection.
const EXCHANGE_SINCE: (u32, u32) = (3, 11);

pub(super) async fn shake(
    connection: &Connection,
    options: &ConnectOptions,
    identity: &Identity<'_>,
    tune: oneshot::Receiver<(u32, u32)>,
) -> Result<Peer, BrokerError> {
    let endpoint = connection.endpoint().clone();
    let ours = [
        ("product", "Rillway"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("connection_name", options.name.as_str()),
    ];
    let ours = ours.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let theirs = connection.call(&PeerProperties { properties: ours }).await?;
    let version_text = property(&theirs, "version").unwrap_or_default().to_owned();

    login(connection, identity, &endpoint).await?;

    let (frame_max, heartbeat) = tune.await.map_err(|_| connection.shared().reason())?;
    let frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.min(FRAME_MAX) };
    let heartbeat =
        heartbeat_of(u32::try_from(options.heartbeat.as_secs()).unwrap_or(u32::MAX), heartbeat);
    connection.shared().frame_max.store(frame_max, Ordering::Relaxed);
    connection.send(commands::tune(frame_max, heartbeat)).await?;

    let open = Open { virtual_host: options.vhost.clone() };
    let opened = connection.call(&open).await.map_err(|error| match error {
        BrokerError::Refused { code, .. } => BrokerError::VirtualHost {
            endpoint: endpoint.clone(),
            user: options.user().to_owned(),
            vhost: options.vhost.clone(),
            detail: code.to_string(),
        },
        other => other,
    })?;
    connection.shared().heartbeat.send_replace(heartbeat);

    let mut peer = Peer {
        version: parse_version(&version_text),
        version_text,
        advertised: advertised(&opened),
        ..Peer::default()
    };
    if peer.version >= EXCHANGE_SINCE {
        peer.commands = connection.call(&ExchangeCommandVersions::ours()).await?;
    }
    Ok(peer)
}

async fn login(
    connection: &Connection,
    identity: &Identity<'_>,
    endpoint: &Endpoint,
) -> Result<(), BrokerError> {
    let refused = |detail: String| identity.refused(endpoint, detail);
    let authenticate = match identity.plain() {
        Some((username, password)) => SaslAuthenticate::plain(username, password),
        None => SaslAuthenticate::external(),
    };
    let mechanism = authenticate.mechanism();
    let offered = connection.call(&SaslHandshake).await?;
    if !offered.iter().any(|m| m == mechanism) {
        return Err(refused(format!("it offers {}, not {mechanism}", offered.join(", "))));
    }
    match connection.call(&authenticate).await {
        Ok(SaslOutcome::Done) => Ok(()),
        Ok(SaslOutcome::Challenge(_)) => {
            Err(refused(format!("it asks for more than {mechanism} has to give")))
        }
        Err(BrokerError::Refused { code, .. }) => Err(refused(code.to_string())),
        // Some versions close the connection instead of answering.
        Err(BrokerError::ClosedByBroker {
            code: code @ ResponseCode::AuthenticationFailure,
            ..
        }) => Err(refused(code.to_string())),
        Err(other) => Err(other),
    }
}

fn property<'a>(properties: &'a [(String, String)], key: &str) -> Option<&'a str> {
    properties.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

fn advertised(properties: &[(String, String)]) -> Option<Endpoint> {
    Some(Endpoint {
        host: property(properties, "advertised_host")?.to_owned(),
        port: property(properties, "advertised_port")?.parse().ok()?,
    })
}

/// The lower of our interval and the broker's; 0 on our side turns heartbeats off. A broker that
/// proposes none (0) still answers ours, so that a silent one is noticed.
fn heartbeat_of(ours: u32, theirs: u32) -> u32 {
    if theirs == 0 { ours } else { ours.min(theirs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_heartbeat_counts_and_ours_can_turn_it_off() {
        assert_eq!(heartbeat_of(10, 60), 10);
        assert_eq!(heartbeat_of(60, 10), 10);
        assert_eq!(heartbeat_of(0, 60), 0);
        assert_eq!(heartbeat_of(10, 0), 10);
    }
}
