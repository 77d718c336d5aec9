//! Chooses the node to connect to: known members, seeds, metadata, replicas.
//!
//! A subscription needs a node that has a member of the stream. Replicas are preferred, which
//! leaves the leader to the publishers; of several, the one to which this process has the fewest
//! connections. The leader is used if there is no replica, or if the caller needs the newest state of
//! the stream.
//!
//! A node that does not answer delays this by seconds only, whatever its part: addresses are tried
//! one beside the other, and a node that is slow to say where a stream is (RabbitMQ's Metadata waits
//! for frozen nodes, up to 40 s) is used itself if it has a member.
//!
//! Invariant: where the leader is wanted, no other member takes its place.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::error::BrokerError;
use super::fleet::Fleet;
use super::members::{Members, out_of_reach, unavailable};
use super::options::{ConnectOptions, Endpoint};
use super::pool::{self, Pool};
use super::publishing::Creation;
use super::race::{Failures, race};
use super::search::close;
use crate::flow::resume::Start;
use crate::types::StreamName;
use crate::wire::commands::{Metadata, MetadataResponse};

/// Time limit for a node to say where a stream is, before it is asked for the stream itself.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);

/// Connections of this process that a node may have more than another one before the other one is
/// chosen instead of a node that is connected already.
const SPREAD: usize = 1;

/// Most known members that are tried before the configured addresses.
const KNOWN_FIRST_MAX: usize = 2;

/// Choice of the stream's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// A replica; the leader if there is none.
    Replica,
    /// Only the leader. It is never behind, so only its answer counts if a stream seems to end too
    /// early or to begin too late.
    Leader,
}

/// Connects to a node that has a member of the stream.
pub async fn connect_to_stream(
    options: &ConnectOptions,
    stream: &StreamName,
    prefer: Prefer,
) -> Result<Connection, BrokerError> {
    Looking::new(options, &Fleet::of(options), stream).connect(prefer).await
}

/// The same, but a node that cannot be told from the leader is not taken for it.
pub(super) async fn connect_strictly(
    options: &ConnectOptions,
    stream: &StreamName,
    prefer: Prefer,
) -> Result<Connection, BrokerError> {
    let fleet = Fleet::of(options);
    let looking = Looking { is_strict: true, ..Looking::new(options, &fleet, stream) };
    looking.connect(prefer).await
}

/// Creates the stream with the broker's defaults, through any node. An existing stream or queue of
/// this name is left as it is.
pub async fn create_stream(
    options: &ConnectOptions,
    stream: &StreamName,
) -> Result<Creation, BrokerError> {
    let seed = connect_to_seed(options).await?;
    let created = seed.create_stream(stream).await;
    seed.close().await;
    created
}

/// Connects to any of the seeds.
pub(super) async fn connect_to_seed(options: &ConnectOptions) -> Result<Connection, BrokerError> {
    let seeds = Fleet::of(options).shuffled_seeds(options);
    race(&seeds, options).await.map_err(|failures| no_seed(failures, options))
}

/// One error for all seeds, in the order of the configuration, so that the same failures give the same
/// text and are not logged again.
pub(super) fn no_seed(failures: Failures, options: &ConnectOptions) -> BrokerError {
    let place = |endpoint: &Endpoint| options.seeds.iter().position(|seed| seed == endpoint);
    let mut failures: Vec<_> =
        failures.into_iter().filter(|(endpoint, _)| place(endpoint).is_some()).collect();
    failures.sort_by_key(|(endpoint, _)| place(endpoint));
    let failures: Vec<_> = failures.into_iter().map(|(_, error)| error).collect();
    match <[BrokerError; 1]>::try_from(failures) {
        Ok([only]) => only,
        Err(all) => BrokerError::NoNode(all.into()),
    }
}

/// A search for a node that has a member of the stream.
pub(super) struct Looking<'a> {
    pub(super) options: &'a ConnectOptions,
    pub(super) fleet: &'a Fleet,
    pub(super) stream: &'a StreamName,
    /// A node that cannot be told from the leader is not taken for it.
    pub(super) is_strict: bool,
    /// Shared connections for asking, other than those that streams are read from.
    pub(super) hub: Option<Arc<Pool>>,
}

impl<'a> Looking<'a> {
    pub(super) fn new(
        options: &'a ConnectOptions,
        fleet: &'a Fleet,
        stream: &'a StreamName,
    ) -> Looking<'a> {
        let pool = options.sharing.as_ref().and_then(pool::of);
        let hub = pool.and_then(|pool| pool.asking().map(Arc::clone));
        Looking { options, fleet, stream, is_strict: false, hub }
    }

    async fn connect(&self, prefer: Prefer) -> Result<Connection, BrokerError> {
        match prefer {
            _ if self.options.routing.load_balancer => self.by_load_balancer(prefer).await,
            _ if self.options.follow_advertised_hosts => self.by_advertised(prefer).await,
            Prefer::Replica => connect_to_seed(self.options).await,
            Prefer::Leader => self.leader_among_seeds().await,
        }
    }

    /// Options of the connection on which a node is asked where the stream is.
    pub(super) fn asking(&self) -> ConnectOptions {
        let sharing = match &self.hub {
            Some(hub) => Some(hub.sharing()),
            None => self.options.sharing,
        };
        ConnectOptions { sharing, ..self.options.clone() }
    }

    /// The connection that asked, if the stream may be read from it too.
    pub(super) fn usable(&self, asked: Connection) -> Option<Connection> {
        if self.hub.is_some() {
            close(asked);
            return None;
        }
        Some(asked)
    }

    /// The node behind a connection, by the address that is dialled for it.
    fn node_of(&self, connection: &Connection) -> Endpoint {
        match connection.advertised() {
            Some(advertised) => self.fleet.address_of(advertised, self.options),
            None => connection.endpoint().clone(),
        }
    }

    fn addresses(&self, advertised: &[Endpoint]) -> Vec<Endpoint> {
        advertised.iter().map(|node| self.fleet.address_of(node, self.options)).collect()
    }

    /// Addresses of the members, best first: replicas that answered lately, the leader, and then those
    /// that did not.
    fn targets(&self, members: &Members, prefer: Prefer) -> Vec<Endpoint> {
        let leader = members.leader.as_ref().map(|l| self.fleet.address_of(l, self.options));
        let replicas = match prefer {
            Prefer::Replica => self.fleet.ranked(self.addresses(&members.replicas)),
            Prefer::Leader => Vec::new(),
        };
        let mut all: Vec<_> = replicas.into_iter().chain(leader).collect();
        all.sort_by_key(|node| self.fleet.is_suspect(node));
        all
    }

    async fn by_advertised(&self, prefer: Prefer) -> Result<Connection, BrokerError> {
        let known = self.fleet.members(self.stream);
        let known = known.map_or_else(Vec::new, |members| self.targets(&members, prefer));
        let all = known.len();
        // Suspect nodes are not tried before the seeds.
        let mut to_ask: Vec<_> =
            known.into_iter().filter(|node| !self.fleet.is_suspect(node)).collect();
        if prefer == Prefer::Replica
            && (1..all).contains(&to_ask.len())
            && let Some(connection) = self.without_metadata(&to_ask).await
        {
            // A member is in trouble: to be told where the others are might take long.
            return Ok(connection);
        }
        to_ask.truncate(KNOWN_FIRST_MAX);
        for seed in self.fleet.shuffled_seeds(self.options) {
            if !to_ask.contains(&seed) {
                to_ask.push(seed);
            }
        }
        let mut failed: Option<BrokerError> = None;
        let asking = self.asking();
        while !to_ask.is_empty() {
            let asked = match race(&to_ask, &asking).await {
                Ok(asked) => asked,
                Err(failures) => {
                    return Err(failed.unwrap_or_else(|| no_seed(failures, self.options)));
                }
            };
            to_ask.retain(|node| node != asked.endpoint());
            match self.ask(&asked, prefer).await {
                Ok(Some(answer)) => return self.choose(asked, &answer, prefer).await,
                Ok(None) => {
                    // Until it has its answer, the connection does nothing else: it is given to no
                    // other stream, and a new one is opened.
                    let node = asked.endpoint().clone();
                    asked.give_up();
                    drop(asked);
                    if let Some(connection) = self.without_metadata(&[node]).await {
                        return Ok(connection);
                    }
                    let what = "nodes that have no member of it do not say in time which ones have";
                    failed = Some(unavailable(self.stream, what));
                }
                // It has used its time, and the others would take as long.
                Err(error @ BrokerError::Timeout { .. }) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| unavailable(self.stream, "there is no node to ask")))
    }

    /// Asks where the stream is. `None` if that takes too long and any replica is good enough.
    pub(super) async fn ask(
        &self,
        asked: &Connection,
        prefer: Prefer,
    ) -> Result<Option<MetadataResponse>, BrokerError> {
        let request = Metadata { streams: vec![self.stream.clone()] };
        let answer = asked.call(&request);
        let answer = match prefer {
            Prefer::Leader => answer.await,
            Prefer::Replica => match tokio::time::timeout(METADATA_PATIENCE, answer).await {
                Ok(answer) => answer,
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(answer.map_err(|error| asked.about(self.stream, error))?))
    }

    /// Connects to the first of these nodes that accepts a subscription to the stream, without Metadata.
    async fn without_metadata(&self, nodes: &[Endpoint]) -> Option<Connection> {
        let mut nodes: Vec<_> = nodes.to_vec();
        nodes.sort_by_key(|node| self.fleet.is_suspect(node));
        while !nodes.is_empty() {
            let connection = race(&nodes, self.options).await.ok()?;
            if self.has_member(&connection).await {
                return Some(connection);
            }
            nodes.retain(|node| node != connection.endpoint());
        }
        None
    }

    /// True if the node accepts a subscription to the stream.
    pub(super) async fn has_member(&self, connection: &Connection) -> bool {
        match connection.probe(self.stream, Start::Next, Duration::ZERO).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(stream = %self.stream, node = %connection.endpoint(), %error, "no member of the stream here");
                false
            }
        }
    }

    async fn choose(
        &self,
        asked: Connection,
        answer: &MetadataResponse,
        prefer: Prefer,
    ) -> Result<Connection, BrokerError> {
        let members = Members::of(answer, self.stream, self.options)?;
        self.fleet.learn(self.stream, &members, answer.nodes.len());
        let here = self.node_of(&asked);
        let asked = self.usable(asked);
        if let Some(address) = members.shared_address() {
            return self.without_names(asked, address, prefer).await;
        }
        if prefer == Prefer::Leader {
            return self.leader_of(asked, &members).await;
        }
        let targets = self.targets(&members, prefer);
        let at = targets.iter().position(|target| *target == here).filter(|_| asked.is_some());
        if let (Some(asked), Some(_), true) = (&asked, at, self.is_wanted(&here, &members)) {
            let best = targets.first().map_or(0, |best| self.fleet.open_on(best));
            // The connection that asked is counted already.
            if self.fleet.open_on(&here).saturating_sub(1) <= best + SPREAD {
                return Ok(asked.clone());
            }
        }
        let before = targets.get(..at.unwrap_or(targets.len())).unwrap_or_default();
        let failures = match before {
            [] => Failures::new(),
            before => match race(before, self.options).await {
                Ok(connection) => {
                    if let Some(asked) = asked {
                        close(asked);
                    }
                    return Ok(connection);
                }
                Err(failures) => failures,
            },
        };
        for (node, error) in &failures {
            tracing::warn!(stream = %self.stream, %node, %error, "a node with a member of the stream cannot be reached");
        }
        if let (Some(asked), Some(_)) = (asked, at) {
            return Ok(asked);
        }
        let last = failures.into_iter().last().map(|(_, error)| with_advice(error));
        Err(last
            .unwrap_or_else(|| unavailable(self.stream, "it has no member that can be reached")))
    }

    /// The leader, by the address that the broker gives for it: a configured one may lead to another
    /// node by now.
    async fn leader_of(
        &self,
        asked: Option<Connection>,
        members: &Members,
    ) -> Result<Connection, BrokerError> {
        let Some(leader) = &members.leader else { return Err(self.no_leader(members)) };
        if let Some(asked) = asked {
            if asked.advertised() == Some(leader) {
                return Ok(asked);
            }
            close(asked);
        }
        match Connection::open(&self.options.mapped(leader), self.options).await {
            Ok(connection) => match connection.advertised() {
                Some(other) if other != leader => {
                    let why = format!(
                        "its address {leader} leads to the node that advertises {other}: give each node an address of its own (stream.advertised_host and stream.advertised_port in its rabbitmq.conf), or set broker.load_balancer = true"
                    );
                    close(connection);
                    Err(out_of_reach(self.stream, why))
                }
                _ => Ok(connection),
            },
            Err(error) => {
                tracing::warn!(stream = %self.stream, node = %leader, %error, "the stream's leader cannot be reached");
                Err(with_advice(error))
            }
        }
    }

    /// True if the node has a replica, or there is none.
    fn is_wanted(&self, node: &Endpoint, members: &Members) -> bool {
        members.replicas.is_empty() || self.addresses(&members.replicas).contains(node)
    }

    /// The error for a leader that is not listed: it is in maintenance, or is being elected.
    pub(super) fn no_leader(&self, members: &Members) -> BrokerError {
        let why = format!(
            "the broker lists {} replicas and no leader: its node is in maintenance (rabbitmq-diagnostics cluster_status; rabbitmq-upgrade revive ends that), or an election is under way",
            members.replicas.len(),
        );
        out_of_reach(self.stream, why)
    }
}

fn with_advice(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Connect { endpoint, what } => BrokerError::Connect {
            endpoint,
            what: format!(
                "{what} (the broker advertises this address; if it cannot be reached from here, give the one that can in broker.address_map, set broker.load_balancer = true behind a load balancer, or change the broker's stream.advertised_host)"
            ),
        },
        other => other,
    }
}

/// Addresses of the nodes to look at a stream on, best first.
pub(super) fn candidates(
    answer: &MetadataResponse,
    stream: &StreamName,
    options: &ConnectOptions,
) -> Result<Vec<Endpoint>, BrokerError> {
    let fleet = &Fleet::of(options);
    let members = Members::of(answer, stream, options)?;
    Ok(Looking::new(options, fleet, stream).targets(&members, Prefer::Replica))
}
