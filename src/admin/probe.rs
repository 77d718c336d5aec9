//! A tiny HTTP client: one GET, blocking, on the standard library alone. It asks the daemon's own
//! `/livez` or `/readyz` from `rillway health`, which a container's HEALTHCHECK runs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time for the whole exchange.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(3);
/// The most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answered.
    #[error(
        "GET http://{address}{path} failed: {source}. Is rillway running, with [admin] listen at \
         this address?"
    )]
    Io {
        /// Who was asked.
        address: SocketAddr,
        /// For what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody answered, but not in HTTP.
    #[error("{address} answered, but not in HTTP; is another program listening there?")]
    NotHttp {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The path would not stand in a request line.
    #[error("{0:?} is no path: it begins with / and has neither blanks nor control characters")]
    Path(String),
}

/// GETs `path` and yields the status and the body. Takes [`PROBE_TIME_MAX`] at the most. An
/// unspecified address (`0.0.0.0`, `::`), at which one listens, is asked on the loopback interface.
pub fn probe(address: SocketAddr, path: &str) -> Result<(u16, String), ProbeError> {
    probe_within(PROBE_TIME_MAX, address, path)
}

pub(super) fn probe_within(
    limit: Duration,
    address: SocketAddr,
    path: &str,
) -> Result<(u16, String), ProbeError> {
    if !path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(ProbeError::Path(path.to_owned()));
    }
    let address = reachable(address);
    let answer = exchange(Instant::now() + limit, address, path)
        .map_err(|source| ProbeError::Io { address, path: path.to_owned(), source })?;
    parse(&answer).ok_or(ProbeError::NotHttp { address })
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn exchange(deadline: Instant, address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    // HTTP/1.0, so that the answer is not chunked and ends with the connection.
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: rillway-health\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    let mut buffer = [0; 4096];
    loop {
        // Anew for each read: a peer that drips bytes gets no more time than a silent one.
        limited.get_ref().set_read_timeout(Some(left(deadline)?))?;
        match limited.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(e) => return Err(e),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time")
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next().filter(|s| s.len() == 3)?.parse().ok()?;
    Some((status, body.to_owned()))
}
