//! Connections to a broker: handshake, requests with time limits, heartbeats, subscriptions and
//! credit, offsets, publishing with confirmations, and choosing the node.
//!
//! Invariants:
//! - the socket is always read: no step of the reader waits for a sink, a queue or a lock that a
//!   sink could hold. Memory is limited by credit (see [`budget`]), never by an unread socket;
//! - every wait on the peer has a time limit; a peer that is silent for 0.9 heartbeats is gone;
//! - a connection that ended gives one reason, the same to every caller ([`Connection::ended`]).
//!
//! It knows nothing of sinks, batches or policies.

mod authority;
mod behind;
mod budget;
mod claim;
mod connection;
mod create;
mod desk;
mod dial;
mod error;
mod feature;
mod fleet;
mod foreign;
mod handshake;
mod identity;
mod lease;
mod locate;
mod lookout;
mod members;
mod moving;
mod open;
mod options;
mod partitions;
mod passing;
mod pool;
mod publishing;
mod race;
mod reader;
mod replies;
mod scan;
mod search;
mod shared;
mod slot;
mod subscription;
mod tail;
mod tls;
mod window;
mod writer;

pub use authority::{Authority, connect_to_authority};
pub use budget::Budget;
// For sources that deliver chunks without a connection of this module.
#[cfg(test)]
pub(crate) use budget::CreditQueue;
pub(crate) use budget::{Admission, Held};
pub use connection::Connection;
pub use create::{Declared, Layout, declare};
pub use desk::Desk;
pub(crate) use dial::{ReadHalf, WriteHalf, dial};
pub use error::{BrokerError, Missing};
pub use feature::Feature;
pub(crate) use identity::Identity;
pub use locate::{Prefer, connect_to_stream, create_stream};
pub use lookout::Lookout;
pub use moving::{is_on_leader, replica_in_place_of};
pub use open::explain_loss;
pub use options::{ConnectOptions, Endpoint, Mechanism, Routing, Sharing};
pub use partitions::partitions;
pub use passing::nothing_selected;
pub use pool::Pool;
pub use publishing::{Creation, PublishFrame, StreamPublisher};
pub use scan::{ReadError, StreamReader};
pub(crate) use slot::queue_max;
pub use slot::{Delivery, Received};
pub use subscription::{SINGLE_ACTIVE, Subscribed};
pub use tail::{Bounds, chunk_at, stream_bounds};
