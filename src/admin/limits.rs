//! Limits of the admin server, for one client and for all.

use std::time::Duration;

/// Most simultaneous connections. One more closes the one that has waited longest.
pub const CONNECTIONS_MAX: usize = 64;
/// Time limit for a request's head, and for an idle connection between two requests.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes read ahead from a connection, and so the largest head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields in a head.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of a body, for a route that says nothing else.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// Time limit for a request's body.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Time limit for a TLS handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a command waits for its effect, unless the request says otherwise.
///
/// Longer than a consumer may drain by default (`shutdown_grace`): what follows the drain is waited for too.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest time that a command may wait for its effect.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest duration of a connection: a client that does not read its answers blocks a slot no
/// longer.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// Time limit for current requests once the server stops, or the connection's time is over.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// Limits of one server: the constants above, except in tests.
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
