//! Accepts connections, and limits each of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::control::Control;
use super::limits::{HEAD_BYTES_MAX, HEADERS_MAX, Limits};
use super::overview::Overview;
use super::routes::{self, Site};
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

/// Serves until `shutdown` is ready, then lets current requests finish, for at most
/// [`STOP_TIME_MAX`](super::limits::STOP_TIME_MAX). Dropping the future ends every connection at
/// once.
pub async fn serve(
    listener: TcpListener,
    overview: Arc<dyn Overview>,
    control: Arc<dyn Control>,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(Limits::default(), listener, Site { overview, control, metrics }, shutdown).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    site: Site,
    shutdown: impl Future<Output = ()>,
) {
    let site = Arc::new(site);
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
            Ok((stream, _)) => {
                make_room(limits.connections, &mut connections, &mut open).await;
                let activity = Arc::new(Activity::new());
                let (site, stopping, seen) =
                    (Arc::clone(&site), stopping.clone(), Arc::clone(&activity));
                let task = connections.spawn(async move {
                    connection(limits, stream, &site, &seen, stopping).await;
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

async fn connection(
    limits: Limits,
    stream: TcpStream,
    site: &Site,
    activity: &Activity,
    mut stopping: watch::Receiver<()>,
) {
    let service = service_fn(move |request| async move {
        activity.set(true);
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

    /// True if it works on a request; and the time since which it does or does not.
    fn now(&self) -> (bool, Instant) {
        *lock(&self.0)
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
