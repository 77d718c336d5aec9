//! Connections that only observe streams: one for each node, shared by all of its streams.
//!
//! Invariants:
//! - streams that need a lookup at the same time share one Metadata request;
//! - a node that cannot be reached delays only its own streams. It is tried again after a back-off,
//!   however many streams ask for it;
//! - a stream that failed on one node is looked up on another one next, if there is one;
//! - a connection that no stream uses is closed at the next lookup of streams;
//! - nothing is kept of a forgotten stream, even if its lookup was running.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::BrokerError;
use super::fleet::Fleet;
use super::locate::{candidates, connect_to_seed};
use super::options::{ConnectOptions, Endpoint};
use crate::flow::backoff::Backoff;
use crate::sync::lock;
use crate::types::StreamName;
use crate::wire::commands::{Metadata, MetadataResponse};

/// Most streams in one Metadata request: the answer has to fit into a frame.
const STREAMS_PER_REQUEST_MAX: usize = 500;

/// Most connections to seeds at the same time, if the nodes cannot be told apart.
const SEEDS_MAX: u8 = 4;

/// Time between two attempts to connect to the same node.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Connections to the nodes of one broker, shared by all observers of its streams.
pub struct Lookout {
    options: ConnectOptions,
    routes: Mutex<Routes>,
    /// Held while nodes are looked up, so that others who wait for it find the answer.
    locating: tokio::sync::Mutex<()>,
}

/// The target of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Node(Endpoint),
    /// Any seed: if advertised addresses are not followed, a load balancer decides which node it is.
    Seed(u8),
}

#[derive(Default)]
struct Routes {
    seats: HashMap<Place, Arc<Seat>>,
    streams: HashMap<StreamName, Place>,
    /// Nodes on which a stream was not found.
    failed: HashMap<StreamName, Place>,
    /// Streams that wait for a lookup, until there is an answer or they are forgotten.
    wanted: HashSet<StreamName>,
    /// Answers that are not passed on yet.
    refused: HashMap<StreamName, BrokerError>,
}

/// One node's connection.
#[derive(Default)]
struct Seat(tokio::sync::Mutex<Seated>);

#[derive(Default)]
struct Seated {
    connection: Option<Connection>,
    /// Why there is none, and until when no new attempt is made.
    failed: Option<(BrokerError, Instant)>,
    backoff: Option<Backoff>,
}

impl Lookout {
    /// Connects when it is first asked for a stream.
    pub fn new(options: ConnectOptions) -> Lookout {
        Lookout { options, routes: Mutex::default(), locating: tokio::sync::Mutex::default() }
    }

    /// A connection to a node that has a member of the stream. The caller must not close it.
    ///
    /// Waits at most for two connection attempts. Cancel-safe.
    pub async fn member(&self, stream: &StreamName) -> Result<Connection, BrokerError> {
        if !lock(&self.routes).streams.contains_key(stream) {
            self.locate(stream).await?;
        }
        let (place, seat) = {
            let mut routes = lock(&self.routes);
            let place = match routes.streams.get(stream) {
                Some(place) => place.clone(),
                None => return Err(unrouted(stream)),
            };
            (place.clone(), Arc::clone(routes.seats.entry(place).or_default()))
        };
        let connected = self.connection(&place, &seat).await;
        if connected.is_err() {
            self.failed(stream, true);
        }
        connected
    }

    /// Notes that the stream could not be observed on its node. The next [`Lookout::member`] looks it up
    /// again; on another node if `elsewhere` says that this may help.
    pub fn failed(&self, stream: &StreamName, elsewhere: bool) {
        let mut routes = lock(&self.routes);
        if let Some(place) = routes.streams.remove(stream)
            && elsewhere
        {
            routes.failed.insert(stream.clone(), place);
        }
    }

    /// Notes that nobody observes the stream any more. Connections that are then useless are closed at
    /// the next lookup of streams, or when this is dropped.
    pub fn forget(&self, stream: &StreamName) {
        let mut routes = lock(&self.routes);
        routes.streams.remove(stream);
        routes.failed.remove(stream);
        routes.wanted.remove(stream);
        routes.refused.remove(stream);
    }

    async fn connection(&self, place: &Place, seat: &Seat) -> Result<Connection, BrokerError> {
        let mut link = seat.0.lock().await;
        if let Some(connection) = link.connection.as_ref().filter(|c| !c.has_ended()) {
            return Ok(connection.clone());
        }
        link.connection = None;
        if let Some((error, until)) = &link.failed
            && *until > Instant::now()
        {
            return Err(error.clone());
        }
        let opened = match place {
            Place::Node(endpoint) => Connection::open(endpoint, &self.options).await,
            Place::Seed(_) => connect_to_seed(&self.options).await,
        };
        match opened {
            Ok(connection) => {
                *link = Seated { connection: Some(connection.clone()), ..Seated::default() };
                Ok(connection)
            }
            Err(error) => {
                link.note_failed(&error);
                Err(error)
            }
        }
    }

    /// Looks up the stream, together with all others that wait for a lookup.
    async fn locate(&self, stream: &StreamName) -> Result<(), BrokerError> {
        lock(&self.routes).wanted.insert(stream.clone());
        let _turn = self.locating.lock().await;
        let wanted: Vec<StreamName> = {
            let mut routes = lock(&self.routes);
            if let Some(refused) = routes.refused.remove(stream) {
                return Err(refused);
            }
            if routes.streams.contains_key(stream) {
                return Ok(());
            }
            routes.wanted.insert(stream.clone());
            routes.wanted.iter().cloned().collect()
        };
        if let Err(error) = self.locate_all(&wanted).await {
            let mut routes = lock(&self.routes);
            for other in wanted {
                routes.refuse(&other, error.clone());
            }
        }
        match lock(&self.routes).refused.remove(stream) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    async fn locate_all(&self, wanted: &[StreamName]) -> Result<(), BrokerError> {
        if self.options.follow_advertised_hosts {
            self.look_up(wanted).await?;
        } else {
            let mut routes = lock(&self.routes);
            wanted.iter().for_each(|stream| routes.seat_at_seed(stream));
        }
        let unused = lock(&self.routes).take_unused();
        if !unused.is_empty() {
            // Not waited for: a node that is gone does not answer.
            tokio::spawn(close_all(unused));
        }
        Ok(())
    }

    /// Asks a node which nodes have the streams.
    async fn look_up(&self, wanted: &[StreamName]) -> Result<(), BrokerError> {
        let hub = self.hub().await?;
        for some in wanted.chunks(STREAMS_PER_REQUEST_MAX) {
            let answer = hub.call(&Metadata { streams: some.to_vec() }).await?;
            let mut routes = lock(&self.routes);
            for stream in some {
                routes.seat(stream, &answer, &self.options);
            }
        }
        Ok(())
    }

    /// A connection to any node.
    async fn hub(&self) -> Result<Connection, BrokerError> {
        let seats: Vec<_> = lock(&self.routes).seats.values().cloned().collect();
        for seat in seats {
            // Does not wait for a connection that is just being opened.
            let Ok(link) = seat.0.try_lock() else { continue };
            if let Some(connection) = link.connection.as_ref().filter(|c| !c.has_ended()) {
                return Ok(connection.clone());
            }
        }
        let seed = connect_to_seed(&self.options).await?;
        let at = match seed.advertised() {
            Some(advertised) => Fleet::of(&self.options).address_of(advertised, &self.options),
            None => seed.endpoint().clone(),
        };
        let seat = Arc::clone(lock(&self.routes).seats.entry(Place::Node(at)).or_default());
        let mut link = seat.0.lock().await;
        *link = Seated { connection: Some(seed.clone()), ..Seated::default() };
        Ok(seed)
    }
}

impl Seated {
    fn note_failed(&mut self, error: &BrokerError) {
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(RETRY_MIN, RETRY_MAX));
        let until = Instant::now() + backoff.next(fastrand::f64());
        self.failed = Some((error.clone(), until));
    }
}

impl Routes {
    /// Assigns the stream to one of its members: to one with a connection already, if there is a choice.
    fn seat(&mut self, stream: &StreamName, answer: &MetadataResponse, options: &ConnectOptions) {
        let mut members = match candidates(answer, stream, options) {
            Ok(members) => members.into_iter().map(Place::Node).collect::<Vec<_>>(),
            Err(error) => return self.refuse(stream, error),
        };
        if !self.wanted.remove(stream) {
            return;
        }
        let failed = self.failed.remove(stream);
        if members.len() > 1 {
            members.retain(|place| Some(place) != failed.as_ref());
        }
        let known = members.iter().find(|place| self.seats.contains_key(*place)).cloned();
        let Some(place) = known.or(members.into_iter().next()) else {
            return drop(self.refused.insert(stream.clone(), unrouted(stream)));
        };
        self.seats.entry(place.clone()).or_default();
        self.streams.insert(stream.clone(), place);
    }

    /// Passes this on to those who look for the stream, if any.
    fn refuse(&mut self, stream: &StreamName, error: BrokerError) {
        if self.wanted.remove(stream) {
            self.refused.insert(stream.clone(), error);
        }
    }

    fn seat_at_seed(&mut self, stream: &StreamName) {
        if !self.wanted.remove(stream) {
            return;
        }
        let number = match self.failed.remove(stream) {
            Some(Place::Seed(failed)) => (failed + 1) % SEEDS_MAX,
            Some(Place::Node(_)) | None => 0,
        };
        self.streams.insert(stream.clone(), Place::Seed(number));
    }

    fn take_unused(&mut self) -> Vec<Arc<Seat>> {
        let used: HashSet<_> = self.streams.values().cloned().collect();
        if used.is_empty() {
            // Keeps one for the next lookup.
            return Vec::new();
        }
        let unused: Vec<_> = self.seats.keys().filter(|at| !used.contains(*at)).cloned().collect();
        unused.iter().filter_map(|at| self.seats.remove(at)).collect()
    }
}

async fn close_all(seats: Vec<Arc<Seat>>) {
    for seat in seats {
        if let Some(connection) = seat.0.lock().await.connection.take() {
            connection.close().await;
        }
    }
}

fn unrouted(stream: &StreamName) -> BrokerError {
    BrokerError::StreamUnavailable {
        stream: stream.clone(),
        detail: "it is being looked for on other nodes".to_owned(),
    }
}
