//! A TCP proxy in front of a broker that injects network failures: it cuts connections, refuses new
//! ones, goes silent while every socket stays open, or adds latency.
//!
//! A client that follows advertised addresses bypasses the proxy with its second connection: turn
//! that off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Treatment of bytes and new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Connections are accepted, and bytes wait.
    Silent,
    /// Connections are closed as soon as they are opened.
    Refuse,
}

/// The proxy. Dropping it closes all connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// On localhost.
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    /// Incremented to cut all connections.
    cuts: watch::Sender<usize>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// The connection that brings the last of this many bytes from its client is cut; 0: none.
    cut_after: AtomicU64,
}

impl Proxy {
    /// Forwards to this port of localhost.
    pub(crate) async fn to(port: u16) -> Self {
        Self::far_from(port, Duration::ZERO).await
    }

    /// The same with a latency for every byte, in both directions.
    pub(crate) async fn far_from(port: u16, delay: Duration) -> Self {
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let (mode, modes) = watch::channel(Mode::Forward);
        let (cuts, cut) = watch::channel(0);
        let counts = Arc::new(Counts::default());
        let accepting = tokio::spawn(accept(listener, target, delay, modes, cut, counts.clone()));
        Self { port, mode, cuts, counts, accepting }
    }

    /// Closes every connection, in both directions. New ones are served.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forwards this many more bytes from clients, and cuts the connection that brings the next;
    /// once.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.counts.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// True if the cut of [`Self::cut_after`] has not happened yet.
    pub(crate) fn is_to_cut(&self) -> bool {
        self.counts.cut_after.load(Ordering::SeqCst) > 0
    }

    /// Stops forwarding, in both directions, while sockets stay open: a half-open peer.
    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Closes every connection, and each new one at once, like a broker that is down.
    pub(crate) fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
        self.cut();
    }

    /// Forwards again, waiting bytes first.
    pub(crate) fn resume(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are forwarded, or silent, now.
    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    delay: Duration,
    modes: watch::Receiver<Mode>,
    cut: watch::Receiver<usize>,
    counts: Arc<Counts>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        if *modes.borrow() == Mode::Refuse {
            continue;
        }
        let (modes, mut cut, counts) = (modes.clone(), cut.clone(), counts.clone());
        cut.mark_unchanged();
        counts.open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            tokio::select! {
                () = forward(client, target, delay, modes, &counts) => {}
                // Also when the proxy, which holds the sender, is gone.
                _ = cut.changed() => {}
            }
            counts.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Waits until either side closes.
async fn forward(
    client: TcpStream,
    target: SocketAddr,
    delay: Duration,
    modes: watch::Receiver<Mode>,
    counts: &Counts,
) {
    let Ok(broker) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).ok();
    broker.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        () = pump(Way::new(from_client, delay), to_broker, modes.clone(), Some(&counts.cut_after)) => {}
        () = pump(Way::new(from_broker, delay), to_client, modes, None) => {}
    }
}

/// Bytes from one side: passed on at once, or after the latency.
enum Way {
    Near(OwnedReadHalf),
    Far(mpsc::Receiver<(Instant, Vec<u8>)>),
}

impl Way {
    fn new(mut from: OwnedReadHalf, delay: Duration) -> Way {
        if delay.is_zero() {
            return Way::Near(from);
        }
        let (sent, arriving) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let arrives = (Instant::now() + delay, buffer[..count].to_vec());
                if sent.send(arrives).await.is_err() {
                    return;
                }
            }
        });
        Way::Far(arriving)
    }

    /// Number of bytes read; 0 at the end.
    async fn read(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Way::Near(from) => from.read(buffer).await.unwrap_or(0),
            Way::Far(arriving) => {
                let Some((at, bytes)) = arriving.recv().await else { return 0 };
                tokio::time::sleep_until(at).await;
                buffer[..bytes.len()].copy_from_slice(&bytes);
                bytes.len()
            }
        }
    }
}

async fn pump(
    mut from: Way,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    cut_after: Option<&AtomicU64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let count @ 1.. = from.read(&mut buffer).await {
        if modes.wait_for(|mode| *mode != Mode::Silent).await.is_err() {
            return;
        }
        let left = cut_after.map_or(0, |left| left.load(Ordering::SeqCst));
        let last = left > 0 && left <= count as u64;
        let count = if last { usize::try_from(left).unwrap_or(count) } else { count };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if let Some(cut_after) = cut_after.filter(|_| left > 0) {
            cut_after.fetch_sub(count as u64, Ordering::SeqCst);
        }
        if last {
            return;
        }
    }
    // A close that arrives while the proxy is silent is not passed on either.
    modes.wait_for(|mode| *mode != Mode::Silent).await.ok();
}
