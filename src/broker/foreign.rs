//! Recognises other protocols on a port by the first bytes that the peer sends.
//!
//! The first four bytes of the stream protocol are a frame's size, which is small before the limits
//! are negotiated. None of the protocols below can be mistaken for it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls;

/// Number of bytes that distinguish a frame's size from the protocols below.
pub(super) const TELLING_BYTES: usize = 4;

/// Remedy if another port was meant.
const PORTS: &str = "Rillway needs the port of RabbitMQ's stream protocol: normally 5552, or 5551 with TLS (rabbitmq-diagnostics listeners)";

/// Description of the protocol that answers on the port; `None` for what may be the stream
/// protocol, or an answer of TLS.
pub(super) fn what_answers(first: &[u8]) -> Option<String> {
    let found = match first {
        [b'A', b'M', b'Q', b'P', ..] => "it is an AMQP 0.9.1 port".to_owned(),
        [b'H', b'T', b'T', b'P', ..] => {
            "it is an HTTP port (such as RabbitMQ's management UI)".to_owned()
        }
        [b'S', b'S', b'H', b'-', ..] => "it is an SSH port".to_owned(),
        [a, b, c, d, ..] if [a, b, c, d].iter().all(|b| b.is_ascii_graphic() || **b == b' ') => {
            let begins = String::from_utf8_lossy(&first[..TELLING_BYTES]).into_owned();
            format!("it speaks another protocol (its first bytes are {begins:?})")
        }
        _ => return None,
    };
    Some(format!("{found}; {PORTS}"))
}

/// The same where a connection without TLS was expected.
pub(super) fn what_answers_plainly(first: &[u8]) -> Option<String> {
    match first {
        // A record of TLS: an alert or a handshake, of any version.
        [0x15 | 0x16, 3, ..] => Some(needs_tls("it answers in TLS")),
        _ => what_answers(first),
    }
}

/// Error for a peer that neither answered the first frame nor closed the connection.
pub(super) fn silent(limit: Duration) -> String {
    format!(
        "it accepted the connection, but sent nothing within {limit:?}. Either the broker hangs, or the port belongs to another protocol, such as the management UI's HTTP; {PORTS}"
    )
}

/// Error for a peer that closed the connection without answering the first frame.
pub(super) fn hung_up_plainly(how: &str) -> String {
    format!(
        "it closed the connection without an answer ({how}). {}",
        needs_tls("Either the port requires TLS")
    )
}

fn needs_tls(found: &str) -> String {
    format!(
        "{found}: set [broker.tls], or a URI that begins with rabbitmq-stream+tls://; or it is not the port of the stream protocol: {PORTS}"
    )
}

/// Error for a failed TLS handshake, naming the protocol that answered instead.
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
            "it closed the connection in the TLS handshake without an answer ({error}), as a port without TLS does; use the TLS port, or turn TLS off; {PORTS}"
        ),
        None if !first.is_empty() && !is_tls => {
            format!("the port does not speak TLS ({error}); {PORTS}")
        }
        None => no_handshake(error),
    }
}

/// Error for a TLS handshake that failed with a peer that speaks TLS.
pub(super) fn no_handshake(error: &io::Error) -> String {
    format!("TLS handshake: {}", tls::in_words(error))
}

/// A byte stream that keeps the first bytes read.
pub(super) struct Noting<S> {
    inner: S,
    first: Arc<OnceLock<Vec<u8>>>,
}

impl<S> Noting<S> {
    /// Wraps a stream; the second value will hold its first bytes.
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
