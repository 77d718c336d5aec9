//! A load balancer in front of several nodes: each connection leads to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The load balancer. Dropping it ends new connections.
pub(crate) struct Balancer {
    /// On localhost.
    pub(crate) port: u16,
    accepted: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Balancer {
    /// Leads to these ports of localhost in turn; a connection to one that refuses is closed.
    pub(crate) async fn between(ports: Vec<u16>) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let accepting = tokio::spawn(async move {
            let mut targets = ports.iter().cycle();
            while let Ok((mut client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let Some(target) = targets.next().copied() else { return };
                tokio::spawn(async move {
                    let Ok(mut node) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    client.set_nodelay(true).ok();
                    node.set_nodelay(true).ok();
                    copy_bidirectional(&mut client, &mut node).await.ok();
                });
            }
        });
        Balancer { port, accepted, accepting }
    }

    /// Number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
