//! Accepts connections, and bounds what each may take.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::overview::Overview;
use super::routes::{self, Site};

/// Connections at once. One more is answered 503 and closed.
pub const CONNECTIONS_MAX: usize = 64;
/// Time to send a request's head; also how long a connection may be idle between two requests.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// The most that is read ahead of a connection, so also the largest head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields in a head.
pub const HEADERS_MAX: usize = 64;
/// Announced size of a request's body beyond which the request is refused. No body is ever read.
pub const BODY_BYTES_MAX: u64 = 4 * 1024;
/// Time for a forced commit.
pub const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection ends after this, whatever it does: a client that does not read its answers holds
/// its place no longer.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// Time for requests under way to be answered once the server stops, or the connection's time is
/// over.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// Pause after a failed accept (no file descriptors, say), which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n\r\ntoo many connections\n";

/// The limits of one server; the constants, outside of tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) head_time: Duration,
    pub(super) connection_time: Duration,
    pub(super) stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: CONNECTIONS_MAX,
            head_time: HEAD_TIME_MAX,
            connection_time: CONNECTION_TIME_MAX,
            stop_time: STOP_TIME_MAX,
        }
    }
}

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket listens there.
    #[error(
        "the admin address {0} is in use by another process (another rillway?). Stop that one, or \
         set another address under [admin] listen; `ss -ltnp` names who listens"
    )]
    InUse(SocketAddr),
    /// It needs a right that this process has not.
    #[error(
        "this user may not listen on the admin address {0}: ports below 1024 are for root. Set a \
         higher one under [admin] listen"
    )]
    Denied(SocketAddr),
    /// No interface has this address.
    #[error(
        "no interface of this machine has the admin address {0}. Set one that `ip address` shows, \
         or 127.0.0.1, under [admin] listen"
    )]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("cannot listen on the admin address {address} ([admin] listen): {source}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on `address`; with port 0, [`TcpListener::local_addr`] tells which it became.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        io::ErrorKind::PermissionDenied => ListenError::Denied(address),
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere(address),
        _ => ListenError::Other { address, source },
    })
}

/// Serves until `shutdown` is ready, then lets requests under way finish, for [`STOP_TIME_MAX`] at
/// the most. Dropping the future ends every connection at once.
pub async fn serve(
    listener: TcpListener,
    overview: Arc<dyn Overview>,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(Limits::default(), listener, Site { overview, metrics }, shutdown).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    site: Site,
    shutdown: impl Future<Output = ()>,
) {
    let site = Arc::new(site);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            // First, so that a flood of connections cannot put the end off.
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (site, stopping) = (Arc::clone(&site), stopping.clone());
                    connections.spawn(async move {
                        connection(limits, stream, &site, stopping).await;
                        drop(place);
                    });
                }
                Err(_) => turn_away(stream),
            },
            Err(error) => {
                tracing::warn!(%error, "the admin server could not accept a connection");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    drop(stop);
    let all = async { while connections.join_next().await.is_some() {} };
    // Twice the time: each connection keeps to it by itself.
    if tokio::time::timeout(2 * limits.stop_time, all).await.is_err() {
        tracing::warn!(late = connections.len(), "admin connections were cut off at the stop");
    }
}

async fn connection(
    limits: Limits,
    stream: TcpStream,
    site: &Site,
    mut stopping: watch::Receiver<()>,
) {
    let service = service_fn(move |request| async move {
        Ok::<_, Infallible>(routes::answer(site, &request).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let time_is_over = async {
        tokio::select! {
            // Nothing is ever sent: the sender is dropped when the server stops.
            _ = stopping.changed() => {}
            () = tokio::time::sleep(limits.connection_time) => {}
        }
    };
    let result = tokio::select! {
        result = &mut connection => Some(result),
        () = time_is_over => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.stop_time, connection).await.ok()
        }
    };
    match result {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        None => tracing::debug!("an admin connection was cut off: its time was over"),
    }
}

/// Tells a client that there is no place, as far as that costs no waiting.
fn turn_away(stream: TcpStream) {
    // Straight to the system: it does not block, and the runtime knows nothing of the socket yet.
    let answer = stream.into_std().and_then(|mut stream| {
        // What the client has sent already is read first: closing with unread bytes would reset the
        // connection, and the answer with it.
        match stream.read(&mut [0; 1024]) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => stream.write(TOO_MANY),
        }
    });
    let error = answer.err().map(|error| error.to_string());
    tracing::debug!(error, "an admin connection too many was turned away");
}
