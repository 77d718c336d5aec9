//! A minimal blocking HTTP client for the daemon's own admin server: one request, one answer. The commands
//! that ask a running daemon use it; `rillway health`, which a container's HEALTHCHECK runs, as well.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::tls::{in_words, is_of_tls};
use crate::types::bearer::BearerToken;

/// Time limit of a whole exchange about the daemon's health.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(3);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection failed, or no complete answer came.
    #[error(
        "{method} {scheme}://{address}{path} failed: {source}. Is rillway running, with [admin] listen at \
         this address?"
    )]
    Io {
        /// Method of the request.
        method: String,
        /// `http` or `https`.
        scheme: &'static str,
        /// Address that was asked.
        address: SocketAddr,
        /// Path that was asked for.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error(
        "the TLS handshake with {address} failed: {what}. Only the certificate of [admin] tls.cert is \
         accepted: does the daemon run with this configuration?"
    )]
    Tls {
        /// Address that was asked.
        address: SocketAddr,
        /// Text of the error, for a person.
        what: String,
    },
    /// The answer is not HTTP.
    #[error(
        "{address} answered, but not in HTTP; is another program listening there, or is [admin] tls set in \
         the daemon's configuration and not in this one?"
    )]
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

/// Address, token and TLS of a daemon's admin server.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    token: Option<BearerToken>,
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    /// A client of this server. For an unspecified address (`0.0.0.0`, `::`), which a server listens on,
    /// it asks the loopback interface.
    pub fn new(address: SocketAddr) -> Client {
        Client { address: reachable(address), token: None, tls: None }
    }

    /// Presents this token.
    #[must_use]
    pub fn with_token(self, token: Option<BearerToken>) -> Client {
        Client { token, ..self }
    }

    /// Encrypts the connection.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ClientConfig>>) -> Client {
        Client { tls, ..self }
    }

    /// Address that is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// GETs `path` and returns the status and the body, within [`PROBE_TIME_MAX`].
    ///
    /// # Errors
    /// If no complete answer comes.
    pub fn get(&self, path: &str) -> Result<(u16, String), ProbeError> {
        self.call("GET", path, "", PROBE_TIME_MAX)
    }

    /// Sends the request, with a body unless that is empty, and returns the status and the body of the
    /// answer.
    ///
    /// # Errors
    /// If no complete answer comes within this time.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: &str,
        within: Duration,
    ) -> Result<(u16, String), ProbeError> {
        if !path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(ProbeError::Path(path.to_owned()));
        }
        let address = self.address;
        let request = self.request(method, path, body);
        let answer = self.exchange(Instant::now() + within, request.as_bytes());
        let answer = answer.map_err(|source| match is_of_tls(&source) {
            true => ProbeError::Tls { address, what: in_words(&source) },
            false => ProbeError::Io {
                method: method.to_owned(),
                scheme: if self.tls.is_some() { "https" } else { "http" },
                address,
                path: path.to_owned(),
                source,
            },
        })?;
        parse(&answer).ok_or(ProbeError::NotHttp { address })
    }

    /// In HTTP/1.0, so that the answer is not chunked and ends with the connection.
    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nUser-Agent: rillway/{}\r\n",
            self.address,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {}\r\n", token.reveal()));
        }
        if !body.is_empty() {
            let length = body.len();
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        request + "\r\n" + body
    }

    fn exchange(&self, deadline: Instant, request: &[u8]) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect_timeout(&self.address, left(deadline)?)?;
        let stream = Timed { stream, deadline };
        let Some(config) = &self.tls else { return ask(stream, request) };
        let name = ServerName::IpAddress(self.address.ip().into());
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        ask(StreamOwned::new(tls, stream), request)
    }
}

fn ask(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer)?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
    }
    Ok(answer)
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

/// A socket whose reads and writes end at the deadline. The limit is set again for each: a peer that sends
/// byte by byte gets no more time than a silent one.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer).map_err(or_late)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(bytes).map_err(or_late)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

/// Errors of the operating system that mean a timeout.
fn or_late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
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
