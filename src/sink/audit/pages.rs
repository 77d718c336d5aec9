//! Pages of records that are read ahead, on a task or thread of their own.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Entry, Found, Kept};
use crate::sink::SinkError;

/// Records of one page.
pub type Page = Vec<Found>;

/// Limits of a page.
const RECORDS_MAX: usize = 2_000;
const BYTES_MAX: usize = 1 << 20;

/// Pages that are read ahead.
const AHEAD: usize = 4;

/// Fills pages and hands them over.
pub(crate) struct Turner {
    page: Page,
    bytes: usize,
    to: mpsc::Sender<Result<Page, SinkError>>,
}

/// The reader has gone: nothing more is wanted.
#[derive(Debug)]
pub(crate) struct Gone;

impl Turner {
    /// One whose pages nobody reads, in place of one that was lost with its thread.
    #[cfg(feature = "object")]
    pub(crate) fn closed() -> Turner {
        Turner { page: Vec::new(), bytes: 0, to: mpsc::channel(1).0 }
    }

    /// Adds a record; `true` if the page is full.
    fn add(&mut self, found: Found) -> bool {
        self.bytes += match &found {
            Found::Record(Entry { content, .. }) => content.len(),
            Found::Unreadable(what) => what.len(),
        };
        self.page.push(found);
        self.page.len() >= RECORDS_MAX || self.bytes >= BYTES_MAX
    }

    fn take(&mut self) -> Page {
        self.bytes = 0;
        std::mem::take(&mut self.page)
    }

    /// Adds a record, on a thread that may wait.
    pub(crate) fn push(&mut self, found: Found) -> Result<(), Gone> {
        if !self.add(found) {
            return Ok(());
        }
        let page = self.take();
        self.to.blocking_send(Ok(page)).map_err(|_| Gone)
    }

    /// Adds a record, in a task.
    #[cfg(any(feature = "postgres", feature = "object"))]
    pub(crate) async fn push_async(&mut self, found: Found) -> Result<(), Gone> {
        if !self.add(found) {
            return Ok(());
        }
        let page = self.take();
        self.to.send(Ok(page)).await.map_err(|_| Gone)
    }
}

/// Pages that a channel delivers.
struct Pages(mpsc::Receiver<Result<Page, SinkError>>);

#[async_trait]
impl Kept for Pages {
    async fn next(&mut self) -> Result<Option<Page>, SinkError> {
        self.0.recv().await.transpose()
    }
}

/// The reason why the reading ended, if it is an error.
pub(crate) enum Stop {
    /// The reader has gone.
    Gone,
    /// The sink cannot be read further.
    Failed(SinkError),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Stop {
        Stop::Gone
    }
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Stop {
        Stop::Failed(error)
    }
}

/// Reads on a thread that may wait for a disk.
pub(crate) fn turning_blocking(
    read: impl FnOnce(&mut Turner) -> Result<(), Stop> + Send + 'static,
) -> Box<dyn Kept> {
    let (to, pages) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut turner = Turner { page: Vec::new(), bytes: 0, to };
        let last = match read(&mut turner) {
            Ok(()) => Ok(turner.take()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Gone) => return,
        };
        // The receiver may be gone; this is the last item in any case.
        drop(turner.to.blocking_send(last));
    });
    Box::new(Pages(pages))
}

/// Reads in a task. `read` gives the turner back.
#[cfg(any(feature = "postgres", feature = "object"))]
pub(crate) fn turning<F>(read: impl FnOnce(Turner) -> F) -> Box<dyn Kept>
where
    F: Future<Output = (Turner, Result<(), Stop>)> + Send + 'static,
{
    let (to, pages) = mpsc::channel(AHEAD);
    let reading = read(Turner { page: Vec::new(), bytes: 0, to });
    tokio::spawn(async move {
        let (mut turner, read) = reading.await;
        let last = match read {
            Ok(()) => Ok(turner.take()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Gone) => return,
        };
        drop(turner.to.send(last).await);
    });
    Box::new(Pages(pages))
}
