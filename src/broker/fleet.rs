//! Knowledge about the nodes of one broker, shared by all connections of the process to that broker.
//!
//! Invariants:
//! - at most [`HANDSHAKES_MAX`] handshakes with one node run at the same time, so that a node that has
//!   just restarted is not flooded with connections;
//! - it decides only the order in which nodes are tried; no node is left out;
//! - a node is known by the address that is dialled for it: its configured one if there is one, else the
//!   advertised one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{Connection, Held};
use super::error::BrokerError;
use super::members::Members;
use super::options::{ConnectOptions, Endpoint};
use crate::sync::lock;
use crate::types::StreamName;

/// Most handshakes with one node at the same time. By default RabbitMQ's accept queue holds 128
/// connections.
const HANDSHAKES_MAX: usize = 16;

/// Longest wait for other handshakes with the same node.
const TURN_MAX: Duration = Duration::from_secs(120);

/// Time for which a node that could not be reached is tried last.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Time for which a node that let no further connection in is not asked for one.
const FULL_FOR: Duration = Duration::from_secs(60);

/// Most users of one connection. The protocol has 256 ids for subscriptions; each user needs one for its
/// own, and one for a probe.
pub(super) const USERS_MAX: usize = 120;

/// Most streams and addresses that are remembered; beyond that, all are forgotten.
const REMEMBERED_MAX: usize = 20_000;

/// Knowledge per broker, by the configured addresses.
static FLEETS: Mutex<Vec<(Vec<Endpoint>, Arc<Fleet>)>> = Mutex::new(Vec::new());

/// Shared knowledge of one broker's nodes.
#[derive(Default)]
pub(super) struct Fleet(Mutex<State>);

#[derive(Default)]
struct State {
    nodes: HashMap<Endpoint, Node>,
    /// Advertised address of the node behind each configured address; `None` if several nodes answered.
    configured: HashMap<Endpoint, Option<Endpoint>>,
    streams: HashMap<StreamName, Members>,
    /// Most nodes that were listed together.
    nodes_max: usize,
}

struct Node {
    gate: Arc<Semaphore>,
    failed: Option<(Instant, BrokerError)>,
    /// When it last let no further connection in.
    full: Option<Instant>,
    open: Vec<Held>,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            gate: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            failed: None,
            full: None,
            open: Vec::new(),
        }
    }
}

impl Node {
    fn is_suspect(&self, now: Instant) -> bool {
        self.failed.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < SUSPECT_FOR)
    }

    fn open(&self) -> usize {
        self.open.iter().filter(|held| held.is_open()).count()
    }

    /// The same, and those that are just being opened: consumers that start together spread over the nodes.
    fn open_soon(&self) -> usize {
        self.open() + HANDSHAKES_MAX.saturating_sub(self.gate.available_permits())
    }
}

impl Fleet {
    /// The knowledge of the broker with these addresses.
    pub(super) fn of(options: &ConnectOptions) -> Arc<Fleet> {
        let mut fleets = lock(&FLEETS);
        if let Some((_, fleet)) = fleets.iter().find(|(seeds, _)| *seeds == options.seeds) {
            return Arc::clone(fleet);
        }
        let fleet = Arc::new(Fleet::default());
        fleets.push((options.seeds.clone(), Arc::clone(&fleet)));
        fleet
    }

    /// Waits for permission to begin a handshake with this node. Dropping the permit lets the next
    /// handshake begin.
    ///
    /// # Errors
    /// If another handshake with the node failed meanwhile: this one would fail too.
    pub(super) async fn turn(
        &self,
        endpoint: &Endpoint,
    ) -> Result<OwnedSemaphorePermit, BrokerError> {
        let began = Instant::now();
        let gate = Arc::clone(&lock(&self.0).node(endpoint).gate);
        let permit = tokio::time::timeout(TURN_MAX, gate.acquire_owned()).await;
        if let Some((at, error)) = &lock(&self.0).node(endpoint).failed
            && *at > began
        {
            return Err(error.clone());
        }
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(BrokerError::Connect {
                endpoint: endpoint.clone(),
                what: format!(
                    "waited {TURN_MAX:?} for other connections of this process, of which {HANDSHAKES_MAX} at a time are opened to one node"
                ),
            }),
        }
    }

    /// Notes a connection that was opened.
    pub(super) fn opened(&self, connection: &Connection, options: &ConnectOptions) {
        let endpoint = connection.endpoint();
        let mut state = lock(&self.0);
        if options.follow_advertised_hosts
            && options.seeds.contains(endpoint)
            && let Some(advertised) = connection.advertised()
        {
            let known = state.configured.entry(endpoint.clone());
            let known = known.or_insert_with(|| Some(advertised.clone()));
            if known.as_ref() != Some(advertised) {
                *known = None;
            }
        }
        let node = state.node(endpoint);
        (node.failed, node.full) = (None, None);
        node.open.retain(Held::is_open);
        node.open.push(connection.held());
    }

    /// Notes that a node did not answer, or stopped answering.
    pub(super) fn failed(&self, endpoint: &Endpoint, error: &BrokerError) {
        lock(&self.0).node(endpoint).failed = Some((Instant::now(), error.clone()));
    }

    /// Notes that a node lets no further connection in.
    pub(super) fn full(&self, endpoint: &Endpoint) {
        lock(&self.0).node(endpoint).full = Some(Instant::now());
    }

    /// An open connection to a node that lets no further one in, with room for one more user. `None` if
    /// the node is not known to be full: it is asked anew every [`FULL_FOR`].
    pub(super) fn shared(
        &self,
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> Option<Connection> {
        let state = lock(&self.0);
        let node = state.nodes.get(endpoint)?;
        node.full.filter(|at| at.elapsed() < FULL_FOR)?;
        let open = node.open.iter().filter_map(Held::connection);
        // Those on which nothing is read are closed by their owners after a short use, or are publishers',
        // which RabbitMQ may stop reading.
        let fits = |c: &Connection| {
            c.is_of(options) && c.is_sound() && c.is_read_from() && c.users() < USERS_MAX
        };
        open.filter(fits).min_by_key(Connection::users)
    }

    /// True if the node did not answer a short while ago, and has not since.
    pub(super) fn is_suspect(&self, endpoint: &Endpoint) -> bool {
        let state = lock(&self.0);
        state.nodes.get(endpoint).is_some_and(|node| node.is_suspect(Instant::now()))
    }

    /// An open connection to the node with the same login, and the number of all.
    pub(super) fn witness(
        &self,
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> Option<(Connection, usize)> {
        let state = lock(&self.0);
        let node = state.nodes.get(endpoint)?;
        let mut connections = node.open.iter().rev().filter_map(Held::connection);
        let witness = connections.find(|connection| connection.is_of(options))?;
        Some((witness, node.open()))
    }

    /// Number of connections of this process to the node.
    pub(super) fn open_on(&self, endpoint: &Endpoint) -> usize {
        lock(&self.0).nodes.get(endpoint).map_or(0, Node::open)
    }

    /// The same addresses, best first: nodes without a recent failure before the others; among those, the
    /// ones with the fewest connections of this process.
    pub(super) fn ranked(&self, mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
        let now = Instant::now();
        fastrand::shuffle(&mut endpoints);
        let state = lock(&self.0);
        endpoints.sort_by_cached_key(|endpoint| {
            let node = state.nodes.get(endpoint);
            node.map_or((false, 0), |node| (node.is_suspect(now), node.open_soon()))
        });
        endpoints
    }

    /// The configured addresses in random order, those with a recent failure last.
    pub(super) fn shuffled_seeds(&self, options: &ConnectOptions) -> Vec<Endpoint> {
        let mut seeds = options.seeds.clone();
        fastrand::shuffle(&mut seeds);
        seeds.sort_by_key(|seed| self.is_suspect(seed));
        seeds
    }

    /// The address to dial for a node: a configured one that is known to lead to it, else the advertised
    /// one, or its replacement in the configuration.
    pub(super) fn address_of(&self, advertised: &Endpoint, options: &ConnectOptions) -> Endpoint {
        let state = lock(&self.0);
        let is_it = |at: &Option<Endpoint>| at.as_ref() == Some(advertised);
        let found =
            options.seeds.iter().find(|seed| state.configured.get(*seed).is_some_and(is_it));
        found.cloned().unwrap_or_else(|| options.mapped(advertised))
    }

    /// Remembers a stream's members, and how many nodes were listed.
    pub(super) fn learn(&self, stream: &StreamName, members: &Members, nodes: usize) {
        let mut state = lock(&self.0);
        state.nodes_max = state.nodes_max.max(nodes);
        if state.streams.len() >= REMEMBERED_MAX {
            state.streams.clear();
        }
        state.streams.insert(stream.clone(), members.clone());
    }

    /// True if the connection is one to the stream's leader, and other nodes could have a replica.
    pub(super) fn is_on_leader(&self, stream: &StreamName, connection: &Connection) -> bool {
        let state = lock(&self.0);
        let leader = state.streams.get(stream).and_then(|members| members.leader.as_ref());
        state.nodes_max > 1 && leader.is_some() && leader == connection.advertised()
    }

    /// A stream's members at the last query.
    pub(super) fn members(&self, stream: &StreamName) -> Option<Members> {
        lock(&self.0).streams.get(stream).cloned()
    }
}

impl State {
    fn node(&mut self, endpoint: &Endpoint) -> &mut Node {
        if self.nodes.len() >= REMEMBERED_MAX && !self.nodes.contains_key(endpoint) {
            self.nodes.retain(|_, node| node.open() > 0);
        }
        self.nodes.entry(endpoint.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint { host: "node".to_owned(), port }
    }

    fn refused(endpoint: &Endpoint) -> BrokerError {
        BrokerError::Connect { endpoint: endpoint.clone(), what: "refused".to_owned() }
    }

    #[test]
    fn a_node_that_failed_is_tried_last() {
        let fleet = Fleet::default();
        fleet.failed(&at(1), &refused(&at(1)));
        for _ in 0..20 {
            let ranked = fleet.ranked(vec![at(1), at(2), at(3)]);
            assert_eq!(ranked.last(), Some(&at(1)));
            assert_eq!(ranked.len(), 3, "none is left out");
        }
    }

    #[tokio::test]
    async fn a_waiter_gets_the_error_of_a_failed_handshake() {
        let fleet = Arc::new(Fleet::default());
        let mut permits = Vec::new();
        for _ in 0..HANDSHAKES_MAX {
            permits.push(fleet.turn(&at(1)).await.unwrap());
        }
        drop(fleet.turn(&at(2)).await.unwrap());
        let waiting = tokio::spawn({
            let fleet = Arc::clone(&fleet);
            async move { fleet.turn(&at(1)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "there is room for {HANDSHAKES_MAX}");
        fleet.failed(&at(1), &refused(&at(1)));
        drop(permits);
        assert!(waiting.await.unwrap().is_err());
        drop(fleet.turn(&at(1)).await.unwrap());
    }
}
