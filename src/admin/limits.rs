//! Limits of the admin server: for one client, and for all of them.

use std::time::Duration;

/// Connections at once. One more closes the one that has been waiting longest.
pub const CONNECTIONS_MAX: usize = 64;
/// Time to send a request's head; also how long a connection may be idle between two requests.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// The most that is read ahead of a connection, so also the largest head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields in a head.
pub const HEADERS_MAX: usize = 64;
/// Announced size of a request's body beyond which the request is refused. No body is ever read.
pub const BODY_BYTES_MAX: u64 = 4 * 1024;
/// Time for a forced commit.
pub const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection ends after this, whatever it does: a client that does not read its answers holds
/// its place no longer.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// Time for requests under way to be answered once the server stops, or the connection's time is
/// over.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// The limits of one server; the constants, outside of tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) head_time: Duration,
    pub(super) connection_time: Duration,
    pub(super) stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: CONNECTIONS_MAX,
            head_time: HEAD_TIME_MAX,
            connection_time: CONNECTION_TIME_MAX,
            stop_time: STOP_TIME_MAX,
        }
    }
}
