//! Which connection counts as one to the leader, and on which one that is asked. A scripted broker lists
//! members as nodes that share an address do, or as a cluster with a drained node does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BufMut;
use rillway::broker::{
    Budget, ConnectOptions, Connection, Endpoint, Mechanism, Pool, Prefer, Routing,
};
use rillway::flow::resume::Start;
use rillway::source::stream::StreamSource;
use rillway::source::{Link, Source, SourceError};
use rillway::types::{Reference, Secret, StreamName};
use rillway::wire::commands::keys;

use crate::common::Version;
use crate::common::balancer::Balancer;
use crate::common::reading::connect_options;
use crate::common::scripted::{Chunk, Heard, Say, Scripted, frame};

/// A reference to no node.
const NONE: u16 = u16::MAX;

const VHOST_REFUSED: u16 = 0x0c;

/// The answer to Metadata: one address, which is that of these members.
fn listed(heard: &Heard, port: u16, leader: u16, replicas: &[u16]) -> Say {
    Say::Frames(vec![frame(heard.key | 0x8000, 1, |out| {
        out.put_slice(&heard.payload[..4]);
        out.put_u32(1);
        out.put_u16(0);
        out.put_u16(9);
        out.put_slice(b"localhost");
        out.put_u32(port.into());
        out.put_u32(1);
        out.put_u16(1);
        out.put_slice(b"s");
        out.put_u16(1);
        out.put_u16(leader);
        out.put_u32(u32::try_from(replicas.len()).unwrap());
        replicas.iter().for_each(|replica| out.put_u16(*replica));
    })])
}

async fn scripted() -> Scripted {
    let broker = Scripted::start(Version::V4_3).await;
    broker.append(Chunk::plain(0, &["a", "b", "c"]));
    broker
}

/// Through this port, which is all that there is.
fn options(port: u16, load_balancer: bool) -> ConnectOptions {
    let routing = Routing { load_balancer, ..Routing::default() };
    ConnectOptions { routing, ..connect_options(port) }
}

fn source(options: &ConnectOptions, pool: Option<&Arc<Pool>>) -> StreamSource {
    let name = StreamName::from("s");
    let source = StreamSource::new(options.clone(), name, Reference::from("r"));
    pool.map_or(source.clone(), |pool| source.sharing(pool))
}

async fn leader(source: &StreamSource) -> Result<Arc<dyn Link>, SourceError> {
    source.connect(Prefer::Leader).await
}

#[tokio::test]
async fn no_node_is_taken_for_the_leader_by_the_number_of_addresses() {
    // Three nodes with one address; a drained leader, where one replica is left.
    for (first, replicas) in [(0, vec![0, 0]), (NONE, vec![0])] {
        let broker = scripted().await;
        let (port, members) = (broker.port, replicas.clone());
        broker.script(move |heard| match heard.key {
            keys::METADATA => listed(heard, port, first, &members),
            _ => Say::Usual,
        });
        for load_balancer in [false, true] {
            let pool = Pool::new();
            for pool in [None, Some(&pool)] {
                let what = format!("{replicas:?} {load_balancer} {}", pool.is_some());
                let link = leader(&source(&options(port, load_balancer), pool)).await;
                assert!(link.expect(&what).no_leader().is_some(), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn where_the_leader_is_is_not_asked_on_a_connection_that_others_read_from() {
    let broker = scripted().await;
    let asked: Arc<Mutex<Vec<(u16, usize)>>> = Arc::default();
    let notes = Arc::clone(&asked);
    broker.script(move |heard| {
        if matches!(heard.key, keys::METADATA | keys::QUERY_OFFSET) {
            notes.lock().unwrap().push((heard.key, heard.connection));
        }
        Say::Usual
    });
    let pool = Pool::new();
    let source = source(&options(broker.port, false), Some(&pool));
    let mut links = Vec::new();
    for _ in 0..3 {
        let link = leader(&source).await.unwrap();
        assert_eq!(link.no_leader(), None);
        link.stored().await.unwrap();
        links.push(link);
    }
    let of = |wanted: u16| -> Vec<usize> {
        let asked = asked.lock().unwrap();
        asked.iter().filter(|(key, _)| *key == wanted).map(|(_, connection)| *connection).collect()
    };
    let read = of(keys::QUERY_OFFSET);
    assert!(read.iter().all(|connection| *connection == read[0]), "all share one: {read:?}");
    assert!(!of(keys::METADATA).contains(&read[0]), "{:?}", asked.lock().unwrap());
}

#[tokio::test]
async fn a_load_balancer_that_also_leads_to_a_dead_node_leads_to_the_leader() {
    let broker = scripted().await;
    let dead = {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap().port()
    };
    let balancer = Balancer::between(vec![dead, broker.port, dead]).await;
    let options = options(balancer.port, true);
    let pool = Pool::new();
    for pool in [None, Some(&pool)] {
        for _ in 0..3 {
            let link = leader(&source(&options, pool)).await.unwrap();
            assert_eq!(link.no_leader(), None);
        }
    }
}

#[tokio::test]
async fn a_refusal_behind_a_load_balancer_is_told_as_such() {
    let broker = scripted().await;
    let opened = AtomicUsize::new(0);
    broker.script(move |heard| match heard.key {
        keys::OPEN if opened.fetch_add(1, Ordering::Relaxed) > 0 => Say::Code(VHOST_REFUSED),
        keys::METADATA => listed(heard, 1, 0, &[]),
        _ => Say::Usual,
    });
    let options = options(broker.port, true);
    // The first may ask, and the second may not read.
    let first = leader(&source(&options, None)).await.err().unwrap().to_string();
    assert!(first.contains("virtual host") || first.contains("connection limit"), "{first}");
    // Nor may any ask for the pool.
    let pool = Pool::new();
    let shared = leader(&source(&options, Some(&pool))).await.err().unwrap().to_string();
    assert!(shared.contains("virtual host") || shared.contains("connection limit"), "{shared}");
}

#[tokio::test]
async fn streams_that_begin_together_search_behind_a_load_balancer_once() {
    let broker = scripted().await;
    let options = options(broker.port, true);
    let pool = Pool::new();
    let connecting = (0..30).map(|_| {
        let source = source(&options, Some(&pool));
        tokio::spawn(async move { source.connect(Prefer::Replica).await })
    });
    let mut links = Vec::new();
    for connecting in connecting.collect::<Vec<_>>() {
        links.push(connecting.await.unwrap().unwrap());
    }
    // One to read, and one to ask, which is closed whenever nobody asks.
    assert!(broker.connections() <= 10, "{}", broker.connections());
}

#[tokio::test]
async fn at_a_limit_only_a_readers_connection_of_the_same_identity_is_shared() {
    let broker = scripted().await;
    let opened = AtomicUsize::new(0);
    broker.script(move |heard| match heard.key {
        keys::OPEN if opened.fetch_add(1, Ordering::Relaxed) > 0 => Say::Code(VHOST_REFUSED),
        _ => Say::Usual,
    });
    let plain = options(broker.port, false);
    let at = Endpoint { host: "localhost".to_owned(), port: broker.port };
    let first = Connection::open(&at, &plain).await.unwrap();
    for _ in 0..2 {
        let refused = Connection::open(&at, &plain).await;
        assert!(refused.is_err(), "a publisher may have the other one, or nobody reads from it");
    }
    let (stream, budget) = (StreamName::from("s"), Budget::new(1 << 20));
    let subscribed = first.subscribe(&stream, Start::First, &budget, Vec::new()).await.unwrap();
    let password = Secret::new("another");
    let other = Mechanism::Plain { username: "guest".to_owned(), password };
    let other = ConnectOptions { mechanism: other, ..plain.clone() };
    assert!(Connection::open(&at, &other).await.is_err(), "another identity");
    assert!(Connection::open(&at, &plain).await.is_ok(), "the same");
    drop(subscribed);
}
