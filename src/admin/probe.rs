//! A minimal blocking HTTP client for one GET, on the standard library alone. `rillway health`,
//! which a container's HEALTHCHECK runs, asks the daemon's own `/livez` or `/readyz` with it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time limit of the whole exchange.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(3);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection failed, or no complete answer came.
    #[error(
        "GET http://{address}{path} failed: {source}. Is rillway running, with [admin] listen at \
         this address?"
    )]
    Io {
        /// Address that was asked.
        address: SocketAddr,
        /// Path that was asked for.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The answer is not HTTP.
    #[error("{address} answered, but not in HTTP; is another program listening there?")]
    NotHttp {
        /// Address that was asked.
        address: SocketAddr,
    },
    /// The path is not valid in a request line.
    #[error(
        "{0:?} is not a path: it must begin with / and contain no blanks or control characters"
    )]
    Path(String),
}

/// GETs `path` and returns the status and the body, within [`PROBE_TIME_MAX`]. For an unspecified
/// address (`0.0.0.0`, `::`), which a server listens on, it asks the loopback interface.
pub fn probe(address: SocketAddr, path: &str) -> Result<(u16, String), ProbeError> {
    probe_within(PROBE_TIME_MAX, address, path)
}

pub(super) fn probe_within(
    limit: Duration,
    address: SocketAddr,
    path: &str,
) -> Result<(u16, String), ProbeError> {
    call(address, "GET", path, "", limit)
}

/// The same with any method, and with a body.
pub fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> Result<(u16, String), ProbeError> {
    if !path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(ProbeError::Path(path.to_owned()));
    }
    let address = reachable(address);
    let answer = exchange(Instant::now() + limit, address, (method, path, body))
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

fn exchange(
    deadline: Instant,
    address: SocketAddr,
    (method, path, body): (&str, &str, &str),
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    // HTTP/1.0, so that the answer is not chunked and ends with the connection.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: rillway-health\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    let mut buffer = [0; 4096];
    loop {
        // Set again for each read: a peer that sends byte by byte gets no more time than a silent
        // one.
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
    io::Error::new(io::ErrorKind::TimedOut, "no complete answer in time")
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next().filter(|s| s.len() == 3)?.parse().ok()?;
    Some((status, body.to_owned()))
}
