//! Whether the web service can be reached, for `rillway check`. Nothing is sent.

use tokio::net::TcpStream;
use url::Url;

use super::client::{CONNECT_TIMEOUT_MAX, Client};
use super::options::HttpOptions;
use crate::sink::SinkError;
use crate::types::{Checkpoint, StreamName};

/// Connects to the service's host and port, and closes the connection. Returns the sink's position, which
/// is always `None`.
///
/// # Errors
/// Fatal if the options cannot work; transient if nothing answers.
pub async fn examine(
    options: &HttpOptions,
    stream: &StreamName,
) -> Result<Option<Checkpoint>, SinkError> {
    Client::new(options, stream).await?;
    let failed = |what: String| SinkError::transient(what);
    let url = Url::parse(options.url.reveal())
        .map_err(|error| SinkError::Fatal(format!("`url` is not a URL: {error}")))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(SinkError::Fatal("`url` names no host".to_owned()));
    };
    let limit = options.timeout.min(CONNECT_TIMEOUT_MAX);
    // In a URL an IPv6 address has brackets; here it has none.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::time::timeout(limit, TcpStream::connect((bare, port))).await {
        Ok(Ok(_)) => Ok(None),
        Ok(Err(error)) => Err(failed(format!(
            "http sink: could not connect to {host}:{port}: {error}. Is the service running, and is \
             `url` right?"
        ))),
        Err(_) => Err(failed(format!(
            "http sink: connecting to {host}:{port} timed out after {limit:?}. Is the service running, \
             and is `url` right?"
        ))),
    }
}
