//! Accepts connections, and limits each of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::control::Control;
use super::door::{Caller, Door};
use super::limits::{HANDSHAKE_TIME_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Limits};
use super::overview::Overview;
use super::routes::{self, Site};
use super::tls::Tls;
use crate::sync::lock;

/// Pause after a failed accept (without file descriptors, for example), which would fail again at
/// once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Reason why the admin server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket listens on the address.
    #[error(
        "the admin address {0} is in use by another process (another rillway?). Stop that process, or \
         set another address under [admin] listen; `ss -ltnp` shows which process listens"
    )]
    InUse(SocketAddr),
    /// The process lacks the permission.
    #[error(
        "this user may not listen on the admin address {0}: ports below 1024 need root. Set a \
         higher port under [admin] listen"
    )]
    Denied(SocketAddr),
    /// No interface has this address.
    #[error(
        "no interface of this machine has the admin address {0}. Set one that `ip address` shows, \
         or 127.0.0.1, under [admin] listen"
    )]
    NotHere(SocketAddr),
    /// Any other error.
    #[error("cannot listen on the admin address {address} ([admin] listen): {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
}

/// Listens on `address`; with port 0, [`TcpListener::local_addr`] returns the chosen port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        io::ErrorKind::PermissionDenied => ListenError::Denied(address),
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere(address),
        _ => ListenError::Other { address, source },
    })
}

/// What a caller has to pass before it is answered.
pub struct Entrance {
    /// Access of callers.
    pub door: Door,
    /// Encryption; `None` for plain HTTP.
    pub tls: Option<Tls>,
}

/// Serves until `shutdown` is ready, then lets current requests finish, for at most
/// [`STOP_TIME_MAX`](super::limits::STOP_TIME_MAX). Dropping the future ends every connection at
/// once.
pub async fn serve(
    listener: TcpListener,
    Entrance { door, tls }: Entrance,
    overview: Arc<dyn Overview>,
    control: Arc<dyn Control>,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()>,
) {
    let site = Site { overview, control, metrics, door };
    serve_within(Limits::default(), listener, tls, site, shutdown).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    tls: Option<Tls>,
    site: Site,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Arc::new((site, tls));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut open = HashMap::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            // First, so that a flood of connections cannot delay the end.
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next_with_id(), if !connections.is_empty() => {
                open.remove(&task_of(&ended));
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, caller)) => {
                make_room(limits.connections, &mut connections, &mut open).await;
                let activity = Arc::new(Activity::new());
                let (shared, stopping, seen) =
                    (Arc::clone(&shared), stopping.clone(), Arc::clone(&activity));
                let task = connections.spawn(async move {
                    let (site, tls) = &*shared;
                    let (of, seen) = ((site, Caller(caller)), &*seen);
                    let Some(tls) = tls else {
                        return connection(limits, stream, of, seen, stopping).await;
                    };
                    // One that takes too long, or fails, has nobody to be told.
                    if let Some(stream) = handshake(stream, tls).await {
                        connection(limits, stream, of, seen, stopping).await;
                    }
                });
                open.insert(task.id(), Open { task, activity });
            }
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
    // Twice the time: each connection already keeps to the limit itself.
    if tokio::time::timeout(2 * limits.stop_time, all).await.is_err() {
        tracing::warn!(
            late = connections.len(),
            "closed admin connections that had not finished at the stop"
        );
    }
}

async fn handshake(stream: TcpStream, tls: &Tls) -> Option<impl AsyncRead + AsyncWrite + Unpin> {
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake of an admin connection failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake of an admin connection took too long");
            None
        }
    }
}

async fn connection(
    limits: Limits,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (site, caller): (&Site, Caller),
    activity: &Activity,
    mut stopping: watch::Receiver<()>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| async move {
        activity.set(true);
        request.extensions_mut().insert(caller);
        let request = request.map(|body| Awaited { body, activity });
        let answer = routes::answer(site, request).await;
        activity.set(false);
        Ok::<_, Infallible>(answer)
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
        None => tracing::debug!("an admin connection was closed: it reached its time limit"),
    }
}

/// Activity of a connection: it works on a request, or waits for the client (for the next request,
/// the rest of a head, or until the client has read the answer).
struct Activity(Mutex<(bool, Instant)>);

impl Activity {
    fn new() -> Activity {
        Activity(Mutex::new((false, Instant::now())))
    }

    fn set(&self, at_work: bool) {
        *lock(&self.0) = (at_work, Instant::now());
    }

    /// It works on a request, or waits for the rest of one; which does not make its client a quicker one.
    fn works(&self, at_work: bool) {
        lock(&self.0).0 = at_work;
    }

    /// True if it works on a request; and the time since which it does or does not.
    fn now(&self) -> (bool, Instant) {
        *lock(&self.0)
    }
}

/// A body, for which the connection waits for its client.
struct Awaited<'a> {
    body: Incoming,
    activity: &'a Activity,
}

impl Body for Awaited<'_> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.activity.works(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Open {
    task: AbortHandle,
    activity: Arc<Activity>,
}

fn task_of(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    }
}

/// Closes connections until one more fits. The one that has waited longest for its client goes
/// first, so that slow or idle clients do not keep others out.
async fn make_room(
    connections_max: usize,
    connections: &mut JoinSet<()>,
    open: &mut HashMap<Id, Open>,
) {
    while connections.len() >= connections_max.max(1) {
        if let Some(longest) = open.values().min_by_key(|open| open.activity.now()) {
            tracing::debug!("an admin connection was closed to make room for another");
            longest.task.abort();
        }
        // The task only has to be dropped, so this is quick.
        if let Some(ended) = connections.join_next_with_id().await {
            open.remove(&task_of(&ended));
        }
    }
}
