//! Opens the byte stream to an address, with or without TLS.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::BrokerError;
use super::options::{ConnectOptions, Endpoint};
use super::tls;

pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// Connects. The caller sets the time limit.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    options: &ConnectOptions,
) -> Result<(ReadHalf, WriteHalf), BrokerError> {
    let failed = |error: std::io::Error| BrokerError::Connect {
        endpoint: endpoint.clone(),
        what: error.to_string(),
    };
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    sockopt::set_socket_keepalive(&tcp, true).map_err(|error| failed(error.into()))?;
    // Ends the connection if the peer's machine never acknowledges written data, even without
    // heartbeats. Best effort: not every system supports it.
    if let Err(error) = sockopt::set_tcp_user_timeout(&tcp, user_timeout_ms(options)) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT is not available");
    }
    match &options.tls {
        None => {
            let (read, write) = tcp.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        Some(settings) => {
            let stream = tls::connect(tcp, endpoint, settings).await?;
            let (read, write) = tokio::io::split(stream);
            Ok((Box::new(read), Box::new(write)))
        }
    }
}

fn user_timeout_ms(options: &ConnectOptions) -> u32 {
    let limit =
        if options.heartbeat.is_zero() { Duration::from_secs(60) } else { options.heartbeat * 2 };
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}
