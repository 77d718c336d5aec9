//! A sink that passes batches on to the printer. A batch counts as written when it was passed on; its
//! memory is given back when it is printed.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::flow::batch::Batch;
use crate::sink::factory::{SinkFactory, opens};
use crate::sink::{Durability, Sink, SinkError};
use crate::types::{Checkpoint, Guarantee};

/// Batches of each stream that may wait for the printer.
pub(super) const WAITING_MAX: usize = 2;

/// A batch on its way to the printer.
pub(super) struct Arrival {
    /// Index of its stream.
    pub(super) lane: usize,
    pub(super) batch: Arc<Batch>,
    /// Given back when the batch is printed: then the next one may come.
    pub(super) slot: OwnedSemaphorePermit,
}

struct Tap {
    lane: usize,
    slots: Arc<Semaphore>,
    to: mpsc::Sender<Arrival>,
}

/// Opens the tap of this stream.
pub(super) fn tap(lane: usize, to: &mpsc::Sender<Arrival>) -> SinkFactory {
    let (slots, to) = (Arc::new(Semaphore::new(WAITING_MAX)), to.clone());
    opens(move || {
        let tap = Tap { lane, slots: Arc::clone(&slots), to: to.clone() };
        async { Ok(tap) }
    })
}

fn gone() -> SinkError {
    SinkError::Fatal("nothing more is printed".to_owned())
}

#[async_trait]
impl Sink for Tap {
    fn kind(&self) -> &'static str {
        "tail"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::None
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let slot = tokio::select! {
            slot = Arc::clone(&self.slots).acquire_owned() => slot.map_err(|_| gone())?,
            () = self.to.closed() => return Err(gone()),
        };
        let arrival = Arrival { lane: self.lane, batch: Arc::clone(batch), slot };
        self.to.send(arrival).await.map_err(|_| gone())?;
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
