//! Connections that many streams share: one for each node.
//!
//! Invariants:
//! - a request for a node whose connection is just being opened waits for that connection, and gets its
//!   error if it fails;
//! - a connection that has ended, or on which a request timed out, is not given to any further stream;
//! - at most [`USERS_MAX`] streams share a connection. For more there is another one to the same node;
//! - the last user who closes a connection closes it gracefully. If all users drop it, it ends by itself.
//!
//! Nodes are chosen by [`locate`](super::locate).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use tokio::sync::Notify;

use super::connection::Connection;
use super::error::BrokerError;
use super::fleet::USERS_MAX;
use super::lease::Lease;
use super::options::{ConnectOptions, Endpoint, Sharing};
use crate::sync::lock;

type Opening = Shared<BoxFuture<'static, Result<Connection, BrokerError>>>;

/// The pools of this process, by number. Connection options are plain data, so they hold only the number.
static POOLS: Mutex<Vec<(u64, Weak<Pool>)>> = Mutex::new(Vec::new());

/// Longest wait for a search of another stream.
const TURN_MAX: Duration = Duration::from_secs(5);

/// The next pool's number.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Connections of one consumer, one for each node.
pub struct Pool {
    number: u64,
    /// Connections for other purposes than reading; `None` in those pools themselves.
    aside: Option<Aside>,
    inner: Mutex<Inner>,
    /// Searches behind addresses that lead to any node, one after the other.
    searching: tokio::sync::Mutex<()>,
}

/// The pool of this number; `None` once all its owners have dropped it.
pub(super) fn of(sharing: &Sharing) -> Option<Arc<Pool>> {
    let pools = lock(&POOLS);
    pools.iter().find(|(number, _)| *number == sharing.pool)?.1.upgrade()
}

/// Connections on which a node may do nothing else for long, because it waits for another one.
struct Aside {
    asking: Arc<Pool>,
    offsets: Arc<Pool>,
}

#[derive(Default)]
struct Inner {
    berths: Vec<Berth>,
    numbers: u64,
}

/// One connection of the pool, open or being opened.
struct Berth {
    number: u64,
    /// The address that was dialled.
    endpoint: Endpoint,
    users: usize,
    opening: Opening,
}

impl Berth {
    /// True if it is open, or being opened.
    fn is_sound(&self) -> bool {
        match self.opening.peek() {
            None => true,
            Some(Ok(connection)) => connection.is_sound(),
            Some(Err(_)) => false,
        }
    }

    /// True if one more stream may use it.
    fn has_room(&self) -> bool {
        self.is_sound() && self.users < USERS_MAX
    }

    /// Address by which the broker knows the node.
    fn advertised(&self) -> Option<&Endpoint> {
        self.opening.peek()?.as_ref().ok()?.advertised()
    }
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Arc<Pool> {
        let (asking, offsets) = (Pool::numbered(None), Pool::numbered(None));
        Pool::numbered(Some(Aside { asking, offsets }))
    }

    fn numbered(aside: Option<Aside>) -> Arc<Pool> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let pool = Arc::new(Pool {
            number,
            aside,
            inner: Mutex::default(),
            searching: Default::default(),
        });
        lock(&POOLS).push((number, Arc::downgrade(&pool)));
        pool
    }

    /// The pool of connections on which nodes are asked where streams are: a node may take 40 s for the
    /// answer, and does nothing else on that connection. They are closed once nobody asks.
    pub(super) fn asking(&self) -> Option<&Arc<Pool>> {
        self.aside.as_ref().map(|aside| &aside.asking)
    }

    /// The pool of connections on which offsets are stored and asked for: the node passes both on to the
    /// stream's leader.
    pub(super) fn offsets(&self) -> Option<&Arc<Pool>> {
        self.aside.as_ref().map(|aside| &aside.offsets)
    }

    /// A use of the pool, for connection options.
    pub fn sharing(&self) -> Sharing {
        Sharing { pool: self.number, avoid: None }
    }

    /// Waits for another stream's search for a node, which may find the wanted one; not for long, as it may
    /// also fail slowly.
    pub(super) async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        tokio::time::timeout(TURN_MAX, self.searching.lock()).await.ok()
    }

    fn lease(self: &Arc<Self>, number: u64) -> Lease {
        let pool = Arc::clone(self);
        Lease::new(number, move || pool.leave(number))
    }

    /// A connection to this address, which other streams may share.
    ///
    /// Cancel-safe.
    pub(super) async fn open(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        options: &ConnectOptions,
        avoid: Option<u64>,
    ) -> Result<Connection, BrokerError> {
        let (lease, opening) = self.board(endpoint, options, avoid);
        let connection = match opening.await {
            Ok(connection) => connection.leased(lease),
            Err(error) => {
                self.forget(lease.number());
                return Err(error);
            }
        };
        if let Some(twin) = self.twin_of(&connection) {
            connection.close().await;
            return Ok(twin);
        }
        Ok(connection)
    }

    /// A connection that is open already, to one of these nodes, by the addresses that they advertise.
    pub(super) fn known(self: &Arc<Self>, nodes: &[Endpoint]) -> Option<Connection> {
        self.join(|berth| berth.advertised().is_some_and(|node| nodes.contains(node)))
    }

    /// A connection to any node that is open already.
    pub(super) fn any(self: &Arc<Self>) -> Option<Connection> {
        self.join(|_| true)
    }

    /// Takes a slot on the connection to this address, or begins to open one.
    fn board(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        options: &ConnectOptions,
        avoid: Option<u64>,
    ) -> (Lease, Opening) {
        let mut inner = lock(&self.inner);
        // Behind one address, which may lead to any node, only a new connection can reach another. One
        // that was lost need not be avoided: those who lost it together share the next one.
        let is_open = |number| {
            inner.berths.iter().any(|berth: &Berth| berth.number == number && berth.is_sound())
        };
        let is_anew = !options.follow_advertised_hosts
            && avoid.is_some_and(|number| number == Sharing::ALL || is_open(number));
        let known = inner.berths.iter_mut().find(|berth| {
            let leads_there = berth.endpoint == *endpoint || berth.advertised() == Some(endpoint);
            leads_there && !is_anew && berth.has_room()
        });
        if let Some(berth) = known {
            berth.users += 1;
            return (self.lease(berth.number), berth.opening.clone());
        }
        inner.numbers += 1;
        let number = inner.numbers;
        let (to, options) = (endpoint.clone(), options.clone());
        let opening: Opening =
            async move { Connection::open_alone(&to, &options, &Notify::new()).await }
                .boxed()
                .shared();
        let berth =
            Berth { number, endpoint: endpoint.clone(), users: 1, opening: opening.clone() };
        inner.berths.push(berth);
        (self.lease(number), opening)
    }

    /// An older connection to the same node, by the address that the node advertises: a node can have
    /// several names, and a load balancer's address is none of them.
    fn twin_of(self: &Arc<Self>, connection: &Connection) -> Option<Connection> {
        let (node, number) = (connection.advertised()?, connection.number()?);
        self.join(|berth| berth.number < number && berth.advertised() == Some(node))
    }

    /// Takes a slot on an open connection that satisfies the condition.
    fn join(self: &Arc<Self>, is_wanted: impl Fn(&Berth) -> bool) -> Option<Connection> {
        let mut inner = lock(&self.inner);
        inner.berths.iter_mut().find_map(|berth| {
            let open = berth.opening.peek()?.as_ref().ok()?.clone();
            if !berth.has_room() || !is_wanted(berth) {
                return None;
            }
            berth.users += 1;
            Some(open.leased(self.lease(berth.number)))
        })
    }

    /// Removes the connection from the pool, so that no other stream gets it.
    fn forget(&self, number: u64) {
        let mut inner = lock(&self.inner);
        let at = inner.berths.iter().position(|berth| berth.number == number);
        let gone = at.map(|at| inner.berths.swap_remove(at));
        // Dropping a connection takes locks of its own.
        drop(inner);
        drop(gone);
    }

    /// Releases one slot of the connection; true if it was the last one in use.
    fn leave(&self, number: u64) -> bool {
        let mut inner = lock(&self.inner);
        let Some(at) = inner.berths.iter().position(|berth| berth.number == number) else {
            return false;
        };
        let users = inner.berths.get_mut(at).map_or(0, |berth| {
            berth.users -= 1;
            berth.users
        });
        // Under the same lock, so that nobody takes a slot of it any more.
        let gone = (users == 0).then(|| inner.berths.swap_remove(at));
        drop(inner);
        gone.is_some()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&POOLS).retain(|(number, _)| *number != self.number);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("connections", &lock(&self.inner).berths.len()).finish()
    }
}
