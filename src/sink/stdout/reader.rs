//! Detects that the reader of standard output has closed it.
//!
//! Detected by a write that fails or, without a write, on a pipe or a terminal: the kernel reports
//! an error on a pipe whose last reader has closed it, and on a closed terminal. There is only one
//! standard output, and its reader never returns.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

static READER_GONE: AtomicBool = AtomicBool::new(false);

/// True if the reader of standard output is known to have closed it.
pub fn reader_is_gone() -> bool {
    READER_GONE.load(Ordering::Acquire)
}

/// Records that the reader has closed it.
pub(super) fn note_gone() {
    READER_GONE.store(true, Ordering::Release);
}

/// Waits until the reader of standard output has closed it, and records that. Never ready if that
/// cannot be detected without a write: for a file, a socket, a device, or no standard output.
///
/// Cancel-safe.
pub async fn reader_goes() {
    if watched().await.is_err() {
        std::future::pending::<()>().await;
    }
    note_gone();
}

async fn watched() -> io::Result<()> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    // Unchecked: it may be a terminal, and has to stay in blocking mode for the writers.
    Sender::from_owned_fd_unchecked(stdout)?.ready(Interest::ERROR).await.map(drop)
}
