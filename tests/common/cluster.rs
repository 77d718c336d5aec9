//! Clusters of three nodes, started by `scripts/cluster.sh`. A cluster belongs to one test, which may
//! stop, kill, freeze and drain its nodes; all of it ends within a second of this process.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rabbitmq_stream_client::Environment;
use rabbitmq_stream_client::types::Message;
use rillway::broker::{Connection, Endpoint};
use rillway::types::StreamName;
use rillway::wire::commands::{Metadata, Node};
use tokio::task::JoinHandle;

use super::broker::{Broker, Version, blocking, broker, run, scratch};
use super::load::body;
use super::reading::connect_options;
use super::skip::Unavailable;
use super::streams::{Failure, RUNTIME};

pub(crate) const NODES: usize = 3;

/// A running cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Broker>,
    dir: PathBuf,
}

/// The members of a stream, by the index of their node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) leader: Option<usize>,
    pub(crate) replicas: Vec<usize>,
}

impl Cluster {
    /// Three nodes that know each other.
    pub(crate) async fn start(version: Version) -> Result<Cluster, Unavailable> {
        static NTH: AtomicU32 = AtomicU32::new(0);
        let dir = scratch(&format!("cluster-{}", NTH.fetch_add(1, Ordering::Relaxed)));
        let of = dir.clone();
        let settings = blocking(move || {
            let mut command = script("start", &of);
            command.args(["--version", version.as_str(), "--nodes", &NODES.to_string()]);
            command.args(["--owner", &std::process::id().to_string()]);
            run(&mut command)
        })
        .await?;
        let nodes = (1..=NODES).map(|n| {
            let prefix = format!("{n}.");
            let own: Vec<_> = settings.lines().filter_map(|l| l.strip_prefix(&prefix)).collect();
            broker(version, dir.join(n.to_string()), &own.join("\n"), true)
        });
        Ok(Cluster { nodes: nodes.collect(), dir })
    }

    /// The value of `broker.uris` with all nodes.
    pub(crate) fn uris(&self) -> String {
        let uris: Vec<_> = self.nodes.iter().map(|node| format!("{:?}", node.uri())).collect();
        format!("[{}]", uris.join(", "))
    }

    /// Members of the stream, as this node has them; `None` if it does not answer.
    pub(crate) async fn members(&self, stream: &str, asked: usize) -> Option<Members> {
        let options = connect_options(self.nodes[asked].stream_port);
        let endpoint =
            Endpoint { host: "localhost".to_owned(), port: self.nodes[asked].stream_port };
        let connection = Connection::open(&endpoint, &options).await.ok()?;
        let stream = StreamName::from(stream);
        let answer = connection.call(&Metadata { streams: vec![stream.clone()] }).await.ok()?;
        let found = answer.stream(&stream)?;
        let index = |node: &Node| {
            self.nodes.iter().position(|broker| u32::from(broker.stream_port) == node.port)
        };
        Some(Members {
            leader: found.leader.as_ref().and_then(index),
            replicas: found.replicas.iter().filter_map(index).collect(),
        })
    }

    /// Waits until the stream has its leader and all replicas again, and would have them after a crash.
    pub(crate) async fn until_whole(&self, stream: &str) -> Members {
        let limit = Duration::from_secs(90);
        let whole = super::eventually("the stream has all of its members", limit, || async {
            for asked in 0..NODES {
                if !self.knows_its_coordinator(asked) {
                    return None;
                }
                let members = self.members(stream, asked).await?;
                if members.leader.is_none() || members.replicas.len() != NODES - 1 {
                    return None;
                }
            }
            self.members(stream, 0).await
        });
        within("the nodes say where the stream is", limit * 2, whole).await
    }

    /// True once the node's member of the streams' coordinator is in its file of names. That is written up
    /// to 3 s after the first stream was declared; a node of RabbitMQ 4.0 that is killed before it never
    /// finds a stream again (`noproc` in its log).
    fn knows_its_coordinator(&self, node: usize) -> bool {
        const NAME: &[u8] = b"rabbit_stream_coordinator";
        let folders = |path: PathBuf| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path())
        };
        folders(self.dir.join((node + 1).to_string()).join("data"))
            .flat_map(|data| folders(data.join("coordination")))
            .filter_map(|of_node| std::fs::read(of_node.join("names.dets")).ok())
            .any(|names| names.windows(NAME.len()).any(|bytes| bytes == NAME))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The nodes' folders are removed with the nodes.
        script("stop", &self.dir).status().ok();
    }
}

/// Waits for the future; fails with this message after the time limit.
pub(crate) async fn within<T>(what: &str, limit: Duration, of: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, of).await {
        Ok(done) => done,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

fn script(verb: &str, dir: &Path) -> Command {
    let mut command =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh"));
    command.arg(verb).arg("--dir").arg(dir);
    command
}

/// A producer of numbered messages that continues through failures. It has a name and publishing ids, so
/// that unconfirmed messages are sent again and are in the stream only once.
pub(crate) struct SteadyLoad {
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicU64>,
    publishing: JoinHandle<()>,
}

const BATCH: u64 = 50;

impl SteadyLoad {
    pub(crate) fn on(cluster: &Cluster, stream: &str) -> SteadyLoad {
        let (stop, confirmed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.stream_port).collect();
        let stream = stream.to_owned();
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&confirmed));
        let publishing = RUNTIME.spawn(async move {
            // True while a batch may be in the stream or not: it is sent until it is confirmed, so that
            // the returned number is what the stream contains.
            let in_doubt = AtomicBool::new(false);
            for port in ports.iter().cycle() {
                if ends.load(Ordering::SeqCst) && !in_doubt.load(Ordering::SeqCst) {
                    return;
                }
                let published = publish(*port, &stream, &ends, &counts, &in_doubt).await;
                if let Err(error) = published {
                    eprintln!("the producer connects anew: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        SteadyLoad { stop, confirmed, publishing }
    }

    /// Messages confirmed so far.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::SeqCst)
    }

    /// Stops publishing, and returns the number of messages in the stream.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let ended = within("the producer ends", Duration::from_secs(120), &mut self.publishing);
        ended.await.unwrap();
        self.confirmed()
    }
}

impl Drop for SteadyLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

async fn publish(
    port: u16,
    stream: &str,
    stop: &AtomicBool,
    confirmed: &AtomicU64,
    in_doubt: &AtomicBool,
) -> Result<(), Failure> {
    let limit = Duration::from_secs(8);
    let opening = async {
        let environment = Environment::builder().host("localhost").port(port).build().await?;
        Ok::<_, Failure>(environment.producer().name("steady").build(stream).await?)
    };
    // Dropping it may wait forever for a node that is gone.
    let mut producer = ManuallyDrop::new(tokio::time::timeout(limit, opening).await??);
    loop {
        in_doubt.store(true, Ordering::SeqCst);
        let first = confirmed.load(Ordering::SeqCst);
        let messages = (first..first + BATCH)
            .map(|i| Message::builder().publishing_id(i + 1).body(body(i)).build())
            .collect();
        let sent = tokio::time::timeout(limit, producer.batch_send_with_confirm(messages));
        let confirmations = sent.await??;
        if !confirmations.iter().all(|confirmation| confirmation.confirmed()) {
            return Err("a message was not confirmed".into());
        }
        confirmed.fetch_add(BATCH, Ordering::SeqCst);
        in_doubt.store(false, Ordering::SeqCst);
        if stop.load(Ordering::SeqCst) {
            // Not closed either, for the same reason.
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
