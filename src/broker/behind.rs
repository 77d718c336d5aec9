//! Finds members of a stream behind addresses that may lead to any node: load balancers, tunnels,
//! addresses that several nodes share.
//!
//! Invariants:
//! - with a load balancer, a stream is read only from a node that says that it is the wanted one;
//! - the number of connections that are opened for it is limited (see [`search`](super::search)).

use std::sync::Arc;

use super::connection::Connection;
use super::error::BrokerError;
use super::locate::{Looking, Prefer, no_seed};
use super::members::{Members, out_of_reach, unavailable};
use super::options::Endpoint;
use super::pool::{self, Pool};
use super::race::Failures;
use super::search::{Search, close};
use crate::wire::commands::Metadata;

impl Looking<'_> {
    /// A connection where the broker gives one address for several members: any that has one, since a
    /// node can only be recognised by what it accepts.
    pub(super) async fn without_names(
        &self,
        asked: Option<Connection>,
        address: &Endpoint,
        prefer: Prefer,
    ) -> Result<Connection, BrokerError> {
        if prefer == Prefer::Leader && self.is_strict {
            let why = format!(
                "the broker gives the address {address} for several of its nodes, so that the leader cannot be told from the others: give each node an address of its own (stream.advertised_host and stream.advertised_port in its rabbitmq.conf)"
            );
            return Err(out_of_reach(self.stream, why));
        }
        let mut search = Search::new(self.options, self.fleet);
        let mut next = asked;
        loop {
            let connection = match next.take() {
                Some(connection) => connection,
                None => match search.next(true).await {
                    Some(connection) => connection,
                    None => break,
                },
            };
            if prefer == Prefer::Leader || self.has_member(&connection).await {
                return Ok(connection);
            }
            close(connection);
        }
        Err(unavailable(
            self.stream,
            "the configured addresses lead to no node with a member of it",
        ))
    }

    /// Connects through the configured addresses, again and again, until the wanted node answers.
    pub(super) async fn by_load_balancer(&self, prefer: Prefer) -> Result<Connection, BrokerError> {
        let mut search = Search::new(self.options, self.fleet);
        let (members, mut next) = self.members_behind(&mut search, prefer).await?;
        if let Some(address) = members.shared_address() {
            return self.without_names(next, address, prefer).await;
        }
        let wanted = match (prefer, &members.leader) {
            (Prefer::Replica, _) if !members.replicas.is_empty() => members.replicas.clone(),
            (_, Some(leader)) => vec![leader.clone()],
            (_, None) => return Err(self.no_leader(&members)),
        };
        let pool = self.options.sharing.as_ref().and_then(pool::of);
        // What one search finds serves the streams that wait for it.
        let _turn = match &pool {
            Some(pool) if pool.known(&wanted).is_none() => pool.turn().await,
            _ => None,
        };
        let mut second_best = None;
        loop {
            if let Some(known) = pool.as_ref().and_then(|pool| pool.known(&wanted)) {
                return Ok(known);
            }
            let connection = match next.take() {
                Some(connection) => connection,
                None => match search.next(false).await {
                    Some(connection) => connection,
                    None => break,
                },
            };
            match connection.advertised() {
                Some(node) if wanted.contains(node) => return Ok(connection),
                Some(node)
                    if prefer == Prefer::Replica && members.leader.as_ref() == Some(node) =>
                {
                    second_best = Some(connection);
                }
                _ => close(connection),
            }
        }
        if let Some(leader) = second_best {
            return Ok(leader);
        }
        if let Some(refusal) = search.refusal() {
            return Err(refusal);
        }
        let names = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let why = format!(
            "the configured addresses (broker.load_balancer) led to {}, and not to {names}{}",
            search.seen(),
            search.last_failure()
        );
        Err(match prefer {
            Prefer::Leader => out_of_reach(self.stream, why),
            Prefer::Replica => unavailable(self.stream, &why),
        })
    }

    /// The stream's members, and the connection that asked, if the stream may be read from it too.
    async fn members_behind(
        &self,
        search: &mut Search,
        prefer: Prefer,
    ) -> Result<(Members, Option<Connection>), BrokerError> {
        let asked = match &self.hub {
            None => search.next(true).await.ok_or_else(|| std::mem::take(&mut search.failures)),
            Some(hub) => self.asked_in(hub).await,
        };
        let asked = asked.map_err(|failures| no_seed(failures, self.options))?;
        if let Some(answer) = self.ask(&asked, prefer).await? {
            let members = Members::of(&answer, self.stream, self.options)?;
            self.fleet.learn(self.stream, &members, answer.nodes.len());
            return Ok((members, self.usable(asked)));
        }
        asked.give_up();
        let what = "the node that was asked does not say in time which ones have a member of it";
        let known = self.fleet.members(self.stream);
        known.map(|members| (members, None)).ok_or_else(|| unavailable(self.stream, what))
    }

    /// A shared connection for asking.
    async fn asked_in(&self, hub: &Arc<Pool>) -> Result<Connection, Failures> {
        if let Some(open) = hub.any() {
            return Ok(open);
        }
        let _turn = hub.turn().await;
        if let Some(open) = hub.any() {
            return Ok(open);
        }
        let mut search = Search::new(&self.asking(), self.fleet);
        search.next(true).await.ok_or(search.failures)
    }

    /// Only the given addresses may be used: the leader has to be behind one of them.
    pub(super) async fn leader_among_seeds(&self) -> Result<Connection, BrokerError> {
        // The answer may take long, and the connection does nothing else before it.
        let mut search = Search::new(&self.asking(), self.fleet);
        let mut has_answered = false;
        while let Some(connection) = search.next(false).await {
            has_answered = true;
            let request = Metadata { streams: vec![self.stream.clone()] };
            let answer = connection.call(&request).await;
            let answer = answer.map_err(|error| connection.about(self.stream, error))?;
            let members = Members::of(&answer, self.stream, self.options)?;
            let is_leader =
                members.leader.is_some() && members.leader.as_ref() == connection.advertised();
            let is_certain = !self.is_strict || members.shared_address().is_none();
            // One address in the answer does not mean one node: addresses that several nodes share are
            // listed once, and nodes that are drained or do not answer are left out.
            let is_alone = answer.nodes.len() == 1
                && members.replicas.is_empty()
                && members.leader.is_some()
                && connection.advertised().is_none();
            if (is_leader && is_certain) || is_alone {
                if self.hub.is_none() {
                    return Ok(connection);
                }
                let at = connection.endpoint().clone();
                close(connection);
                return self.leader_to_read_from(&at, members.leader.filter(|_| is_leader)).await;
            }
            close(connection);
        }
        if !has_answered {
            return Err(no_seed(search.failures, self.options));
        }
        let why = format!(
            "the configured addresses lead to {} (broker.follow_advertised_hosts is false, so no other node is tried): add an address of the leader's node",
            search.seen()
        );
        Err(out_of_reach(self.stream, why))
    }

    /// A connection for reading to the leader that was found behind this address, by the name that it
    /// gives itself.
    async fn leader_to_read_from(
        &self,
        at: &Endpoint,
        leader: Option<Endpoint>,
    ) -> Result<Connection, BrokerError> {
        let Some(leader) = leader else { return Connection::open(at, self.options).await };
        let wanted = [leader];
        let pool = self.options.sharing.as_ref().and_then(pool::of);
        let _turn = match &pool {
            Some(pool) if pool.known(&wanted).is_none() => pool.turn().await,
            _ => None,
        };
        let mut search = Search::new(self.options, self.fleet).beginning_with(at);
        loop {
            if let Some(known) = pool.as_ref().and_then(|pool| pool.known(&wanted)) {
                return Ok(known);
            }
            match search.next(false).await {
                Some(connection) if connection.advertised() == wanted.first() => {
                    return Ok(connection);
                }
                Some(other) => close(other),
                None => break,
            }
        }
        if let Some(refusal) = search.refusal() {
            return Err(refusal);
        }
        let [leader] = wanted;
        let why = format!(
            "{at} led to its node {leader}, and does not any more{}",
            search.last_failure()
        );
        Err(out_of_reach(self.stream, why))
    }
}
