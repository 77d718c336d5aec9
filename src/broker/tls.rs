//! The TLS handshake with the broker.

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::BrokerError;
use super::foreign::{self, Noting};
use super::options::Endpoint;
use crate::tls::{self, TlsOptions};

/// The TLS handshake. The caller sets the time limit.
pub(super) async fn connect(
    tcp: TcpStream,
    endpoint: &Endpoint,
    options: &TlsOptions,
) -> Result<TlsStream<Noting<TcpStream>>, BrokerError> {
    let name = options.server_name.as_deref().unwrap_or(&endpoint.host).to_owned();
    let name = ServerName::try_from(name.clone()).map_err(|_| {
        BrokerError::Tls(format!(
            "{name:?} is not a valid name in a certificate; set tls.server_name"
        ))
    })?;
    let options = options.clone();
    // On a thread of its own: the files may be on a file system that hangs.
    let config = tokio::task::spawn_blocking(move || tls::current(&options)).await;
    let config = config.map_err(|error| BrokerError::Tls(error.to_string()))?;
    let config = config.map_err(|error| BrokerError::Tls(error.0))?;
    let (tcp, first) = Noting::new(tcp);
    TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
        let first = first.get().map(Vec::as_slice).unwrap_or_default();
        BrokerError::Connect { endpoint: endpoint.clone(), what: foreign::no_tls(first, &error) }
    })
}
