//! Looks for nodes behind addresses that may lead to any of them: load balancers, tunnels, services.
//!
//! A node tells the address that it advertises when a connection opens, which is its name here.
//! Connections are opened one after the other until the wanted node has answered, or so many were
//! opened that it is not there, or hides behind a load balancer that does not take turns.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::connection::Connection;
use super::error::BrokerError;
use super::fleet::Fleet;
use super::options::{ConnectOptions, Endpoint, Sharing};
use super::race::Failures;
use crate::flow::backoff::Backoff;

/// Most connections that are opened to find a node behind a load balancer. If each leads to one of three
/// nodes at random, one node in particular is missed once in 130 searches.
const ATTEMPTS_MAX: usize = 12;

/// How often an address is tried that is not known to be a load balancer's.
const ROUNDS: usize = 3;

/// Waits between two attempts, once each address was tried.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Time for attempts that fail: a load balancer may lead to a frozen node again and again.
const FAILING_MAX: Duration = Duration::from_secs(20);

/// A search, connection by connection.
pub(super) struct Search {
    options: ConnectOptions,
    addresses: VecDeque<Endpoint>,
    /// Attempts to come before the waits begin.
    at_once: usize,
    left: usize,
    backoff: Backoff,
    /// Nodes that have answered, by the addresses that they advertise.
    seen: Vec<Endpoint>,
    /// Time that failed attempts have taken.
    failing: Duration,
    /// Last errors of the addresses that cannot be used.
    pub(super) failures: Failures,
}

impl Search {
    /// Begins with the configured addresses, in random order.
    pub(super) fn new(options: &ConnectOptions, fleet: &Fleet) -> Search {
        let addresses: VecDeque<_> = fleet.shuffled_seeds(options).into();
        let rounds = addresses.len() * ROUNDS;
        // An open connection leads where it leads: another node answers only on a new one.
        let sharing = options.sharing.map(|own| Sharing { avoid: Some(Sharing::ALL), ..own });
        Search {
            at_once: addresses.len(),
            left: if options.routing.load_balancer { rounds.max(ATTEMPTS_MAX) } else { rounds },
            options: ConnectOptions { follow_advertised_hosts: false, sharing, ..options.clone() },
            addresses,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            seen: Vec::new(),
            failing: Duration::ZERO,
            failures: Failures::new(),
        }
    }

    /// A connection to a node that has not answered before; `None` if there is none. With
    /// `is_any_good`, to any node.
    pub(super) async fn next(&mut self, is_any_good: bool) -> Option<Connection> {
        while self.left > 0 {
            let address = self.addresses.pop_front()?;
            self.left -= 1;
            match self.at_once.checked_sub(1) {
                Some(rest) => self.at_once = rest,
                None => tokio::time::sleep(self.backoff.next(fastrand::f64())).await,
            }
            let began = Instant::now();
            match Connection::open(&address, &self.options).await {
                Ok(connection) => {
                    self.addresses.push_back(address);
                    let is_new = self.is_new(&connection);
                    if is_any_good || is_new {
                        return Some(connection);
                    }
                    close(connection);
                }
                Err(error) => {
                    tracing::debug!(node = %address, %error, "this address cannot be used");
                    self.failing += began.elapsed();
                    let leads_elsewhere_too = self.options.routing.load_balancer
                        && error.is_silence()
                        && self.failing < FAILING_MAX;
                    if leads_elsewhere_too {
                        self.addresses.push_back(address.clone());
                    }
                    self.failures.retain(|(failed, _)| *failed != address);
                    self.failures.push((address, error));
                }
            }
        }
        None
    }

    /// The same with this address first.
    pub(super) fn beginning_with(mut self, first: &Endpoint) -> Search {
        if let Some(at) = self.addresses.iter().position(|address| address == first) {
            self.addresses.swap(0, at);
        }
        self
    }

    /// Notes the node behind a connection; false if it has answered before.
    fn is_new(&mut self, connection: &Connection) -> bool {
        let Some(node) = connection.advertised() else { return true };
        let is_new = !self.seen.contains(node);
        if is_new {
            self.seen.push(node.clone());
        }
        is_new
    }

    /// What an operator has to change, if a node refused a connection.
    pub(super) fn refusal(&mut self) -> Option<BrokerError> {
        let at = self.failures.iter().position(|(_, error)| !error.is_silence())?;
        Some(self.failures.swap_remove(at).1)
    }

    /// The last failure, for an error.
    pub(super) fn last_failure(&self) -> String {
        let failed = |(address, error): &(Endpoint, BrokerError)| {
            format!("; {address} last failed: {error}")
        };
        self.failures.last().map(failed).unwrap_or_default()
    }

    /// The nodes that answered, for an error.
    pub(super) fn seen(&self) -> String {
        match self.seen.as_slice() {
            [] => "no node".to_owned(),
            seen => seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Closes a connection that is not needed. Not waited for: what it has to say makes no difference.
pub(super) fn close(connection: Connection) {
    tokio::spawn(async move { connection.close().await }.in_current_span());
}
