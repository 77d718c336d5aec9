//! One HTTP request on a connection of its own, encrypted if its URL says so.
//!
//! No redirection is followed and no proxy is used, so what a request holds goes nowhere but to the
//! configured address. An answer is limited in size. The caller sets the time limit.
//! Knows nothing of what is asked; no error holds anything of the request.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::tls::{self, TlsOptions};

/// Largest answer in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// There is no connection.
    #[error("there is no connection ({0})")]
    NotConnected(std::io::Error),
    /// The TLS handshake failed, in words that name keys of `tls`.
    #[error("TLS handshake: {0}")]
    Handshake(String),
    /// The connection ended before the answer.
    #[error("the connection broke ({0})")]
    Broken(hyper::Error),
    /// The answer is too large, or ended early.
    #[error("its answer cannot be read ({0})")]
    Unreadable(String),
    /// The request could not be made of what is configured.
    #[error("{0}")]
    Unusable(String),
}

/// A POST to this URL, with the headers that every request has.
pub(crate) fn post(url: &Url) -> Builder {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    Request::post(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("rillway/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
}

/// Sends a request to the host of this URL. The answer to a redirection has no body.
pub(crate) async fn exchange(
    url: &Url,
    options: &TlsOptions,
    request: Request<Full<Bytes>>,
) -> Result<(Parts, Bytes), Unanswered> {
    let (host, port) = match (url.host(), url.port_or_known_default()) {
        (Some(Host::Ipv6(ip)), Some(port)) => (ip.to_string(), port),
        (Some(host), Some(port)) => (host.to_string(), port),
        _ => return Err(Unanswered::Unusable("the URL has no host".to_owned())),
    };
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.map_err(Unanswered::NotConnected)?;
    if url.scheme() != "https" {
        return over(tcp, request).await;
    }
    let unusable = |error: &dyn std::fmt::Display| Unanswered::Unusable(error.to_string());
    let name = options.server_name.clone().unwrap_or(host);
    let name = ServerName::try_from(name).map_err(|error| unusable(&error))?;
    let options = options.clone();
    let config = tokio::task::spawn_blocking(move || tls::current(&options)).await;
    let config = config.map_err(|e| unusable(&e))?.map_err(|e| unusable(&e))?;
    let secured = TlsConnector::from(config).connect(name, tcp).await;
    let secured = secured.map_err(|error| Unanswered::Handshake(tls::in_words(&error)))?;
    over(secured, request).await
}

async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), Unanswered>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Unanswered::Broken)?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response: Response<_> = sender.send_request(request).await.map_err(Unanswered::Broken)?;
    let (parts, body) = response.into_parts();
    if parts.status.is_redirection() {
        return Ok((parts, Bytes::new()));
    }
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok((parts, body.to_bytes())),
        Err(error) => Err(Unanswered::Unreadable(error.to_string())),
    }
}
