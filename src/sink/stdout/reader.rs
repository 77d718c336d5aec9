//! Whether anybody reads this process's standard output.
//!
//! Noticed by a write that fails, or without one where standard output is a pipe or a terminal: the
//! kernel reports an error on a pipe whose last reader has closed it, and on a terminal that is gone.
//! There is only one standard output, and a reader that has gone never comes back.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

static READER_GONE: AtomicBool = AtomicBool::new(false);

/// True if the reader of standard output is known to have gone.
pub fn reader_is_gone() -> bool {
    READER_GONE.load(Ordering::Acquire)
}

/// Notes that the reader has gone.
pub(super) fn note_gone() {
    READER_GONE.store(true, Ordering::Release);
}

/// Waits until the reader of standard output has gone, and notes it. Never ready where that cannot be
/// seen without a write: a file, a socket, a device, or no standard output at all.
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
    // Unchecked: it may be a terminal, and it has to stay in blocking mode for those who write.
    Sender::from_owned_fd_unchecked(stdout)?.ready(Interest::ERROR).await.map(drop)
}
