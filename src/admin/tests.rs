//! Raw TCP against a real listener on a free port.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, Limits};
use super::routes::Site;
use super::server::serve_within;
use super::*;
use crate::telemetry::{ConfigResult, State};
use crate::types::{Guarantee, Offset};

mod commands;
mod door;
mod encrypted;
mod limits;
mod page;
mod routes;
mod status;

/// A supervisor of one consumer, that answers as it is told.
#[derive(Default)]
struct Scripted {
    not_ready: Option<String>,
    /// Text in place of every name, reason and error.
    hostile: Option<String>,
    stuck: Option<String>,
    commit_never_ends: bool,
    commits: AtomicUsize,
    /// The orders, as text.
    orders: Mutex<Vec<String>>,
}

const NAME: &str = "arch<i>ver & \"co\"";

fn view(reason: Option<&str>) -> ConsumerView {
    ConsumerView {
        name: NAME.into(),
        stream: "events".into(),
        super_stream: None,
        reference: "archiver".into(),
        sink: "file",
        guarantee: Guarantee::ExactlyOnce,
        state: if reason.is_none() { State::Running } else { State::Halted },
        state_age_seconds: 4000.0,
        ready: reason.is_none(),
        reason: reason.map(str::to_owned),
        ready_age_seconds: 4000.0,
        received_offset: Some(Offset(12)),
        durable_offset: Some(Offset(11)),
        stored_offset: Some(Offset(0)),
        stream_first_offset: Some(Offset(0)),
        stream_last_offset: Some(Offset(20)),
        stream_seen_age_seconds: Some(0.5),
        lag_messages: Some(9),
        lag_seconds: Some(1.5),
        received_messages_per_second: Some(12.5),
        received_bytes_per_second: Some(1250.0),
        headroom_messages: None,
        halted_offset: None,
        last_error: Some("it was <b>away</b>".into()),
        last_error_age_seconds: Some(60.0),
        restarts: 2,
        memory_bound_bytes: 33_554_432,
        buffered_bytes: 100,
    }
}

#[async_trait]
impl Overview for Scripted {
    fn consumers(&self) -> Vec<ConsumerView> {
        let mut view = view(self.not_ready.as_deref());
        if let Some(text) = self.hostile.as_deref() {
            (view.name, view.stream) = (text.into(), text.into());
            view.reference = text.into();
            (view.reason, view.last_error) = (Some(text.to_owned()), Some(text.to_owned()));
        }
        vec![view]
    }

    fn histories(&self) -> Vec<HistoryView> {
        let point = |age: i32, lag: Option<f64>| PointView {
            age_seconds: f64::from(age),
            lag_messages: lag,
            lag_seconds: lag,
            received_messages_per_second: Some(1.0),
            received_bytes_per_second: None,
        };
        let points = vec![point(60, Some(3.0)), point(30, None), point(0, Some(9.0))];
        vec![HistoryView { name: NAME.into(), stream: "events".into(), points }]
    }

    fn refresh_gauges(&self) {}

    async fn commit_of(&self, target: Target<'_>) -> Result<CommitAnswer, CommitError> {
        let name = target.consumer;
        self.commits.fetch_add(1, Ordering::SeqCst);
        if self.commit_never_ends {
            std::future::pending::<()>().await;
        }
        match name {
            NAME => Ok(CommitAnswer {
                name: NAME.into(),
                stored: vec![StoredOffset { stream: "events".into(), offset: Offset(11) }],
            }),
            "empty" => Err(CommitError::Nothing(name.to_owned())),
            "away" => Err(CommitError::Unavailable("the broker is away".to_owned())),
            _ => Err(CommitError::Unknown(name.to_owned())),
        }
    }

    fn live(&self) -> Result<(), String> {
        self.stuck.clone().map_or(Ok(()), Err)
    }
}

/// A running server.
struct Server {
    address: SocketAddr,
    overview: Arc<Scripted>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(overview: Scripted, limits: Limits) -> Server {
        let entrance = Entrance { door: Door::at(([127, 0, 0, 1], 0).into()), tls: None };
        Server::behind(entrance, overview, limits).await
    }

    async fn behind(
        Entrance { door, tls }: Entrance,
        overview: Scripted,
        limits: Limits,
    ) -> Server {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let overview = Arc::new(overview);
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("rillway_probe_total").increment(3);
        });
        let (stop, stopped) = oneshot::channel();
        let control = Arc::<Scripted>::clone(&overview);
        let site = Site { overview: Arc::<Scripted>::clone(&overview), control, metrics, door };
        let task = tokio::spawn(async move {
            serve_within(limits, listener, tls, site, async { drop(stopped.await) }).await;
        });
        Server { address, overview, stop: Some(stop), task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads until the server closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        read_to_end(&mut stream).await
    }

    async fn ask(&self, method: &str, path: &str) -> Reply {
        self.ask_with(method, path, "").await
    }

    async fn ask_with(&self, method: &str, path: &str, headers: &str) -> Reply {
        self.ask_at(&self.address.to_string(), method, path, headers).await
    }

    /// The same under another name of the host.
    async fn ask_at(&self, host: &str, method: &str, path: &str, headers: &str) -> Reply {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
        );
        Reply::of(&self.raw(request.as_bytes()).await)
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// Asks until the answer is yes.
async fn eventually(mut ask: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("within 60 s");
}

/// All that comes until the connection ends; a reset ends it too.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes));
    drop(read.await.expect("the server closes the connection"));
    String::from_utf8(bytes).unwrap()
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn of(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
