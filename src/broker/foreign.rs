//! What listens on a port where no stream protocol is spoken, told by the first bytes that it sends.
//!
//! The first four bytes of the stream protocol are a frame's size, which is small before the limits
//! are negotiated: none of these can be taken for it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::remedy;

/// So many bytes tell a frame's size from the protocols below.
pub(super) const TELLING_BYTES: usize = 4;

/// What to do where another port was meant.
const PORTS: &str = "rillway needs the port of RabbitMQ's stream protocol: 5552 as a rule, 5551 with TLS (rabbitmq-diagnostics listeners)";

/// What answers on the port, in words; `None` for what may be the stream protocol, or an answer of
/// TLS.
pub(super) fn what_answers(first: &[u8]) -> Option<String> {
    let found = match first {
        [b'A', b'M', b'Q', b'P', ..] => "an AMQP 0.9.1 listener answers there".to_owned(),
        [b'H', b'T', b'T', b'P', ..] => {
            "an HTTP server answers there (such as RabbitMQ's management UI)".to_owned()
        }
        [b'S', b'S', b'H', b'-', ..] => "an SSH server answers there".to_owned(),
        [a, b, c, d, ..] if [a, b, c, d].iter().all(|b| b.is_ascii_graphic() || **b == b' ') => {
            let begins = String::from_utf8_lossy(&first[..TELLING_BYTES]).into_owned();
            format!("what answers there speaks another protocol (it begins with {begins:?})")
        }
        _ => return None,
    };
    Some(format!("{found}; {PORTS}"))
}

/// What answers where a plain connection was wanted.
pub(super) fn what_answers_plainly(first: &[u8]) -> Option<String> {
    match first {
        // A record of TLS: an alert or a handshake, of any version.
        [0x15 | 0x16, 3, ..] => Some(needs_tls("it answers in TLS")),
        _ => what_answers(first),
    }
}

/// A peer that neither answered the first frame nor closed the connection.
pub(super) fn silent(limit: Duration) -> String {
    format!(
        "it took the connection, but said nothing within {limit:?}. Either the broker hangs, or what listens there waits for more because it speaks another protocol, as the management UI's HTTP server does; {PORTS}"
    )
}

/// Nothing at all was answered to the first frame.
pub(super) fn hung_up_plainly(how: &str) -> String {
    format!(
        "it closed the connection before it answered anything ({how}). {}",
        needs_tls("Either the port wants TLS")
    )
}

fn needs_tls(found: &str) -> String {
    format!(
        "{found}: set [broker.tls], or a URI that begins with rabbitmq-stream+tls://; or it is another port than that of the stream protocol: {PORTS}"
    )
}

/// Why a TLS handshake failed, with what answered instead of TLS.
pub(super) fn no_tls(first: &[u8], error: &io::Error) -> String {
    let is_tls = matches!(first, [0x15 | 0x16, 3, ..]);
    let hung_up = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    );
    match what_answers(first) {
        Some(found) => found,
        None if first.is_empty() && hung_up => format!(
            "it closed the connection in the TLS handshake without an answer ({error}), as a port without TLS does; connect to the port with TLS, or leave TLS out; {PORTS}"
        ),
        None if !first.is_empty() && !is_tls => {
            format!("what answers there does not speak TLS ({error}); {PORTS}")
        }
        None => format!("TLS handshake: {error}{}", remedy(error)),
    }
}

/// A byte stream that keeps the first bytes it reads.
pub(super) struct Noting<S> {
    inner: S,
    first: Arc<OnceLock<Vec<u8>>>,
}

impl<S> Noting<S> {
    /// The stream, and where its first bytes will be.
    pub(super) fn new(inner: S) -> (Self, Arc<OnceLock<Vec<u8>>>) {
        let first = Arc::new(OnceLock::new());
        (Noting { inner, first: Arc::clone(&first) }, first)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            self.first.get_or_init(|| new.iter().copied().take(TELLING_BYTES).collect());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
