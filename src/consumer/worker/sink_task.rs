//! The sink's task, as the loop sees it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

use super::Answer;
use crate::consumer::brain::Event;
use crate::consumer::dead_letters::DeadLetters;
use crate::consumer::joined::JOINED_MAX;
pub(super) use crate::consumer::orders::Message;
use crate::consumer::orders::Report;
use crate::consumer::sinking::{self, Rules, Sieve, Stop};
use crate::consumer::skips::Skips;
use crate::consumer::spec::Spec;
use crate::flow::backoff::Backoff;
use crate::sink::Sink;

/// The most batches that may be with the sink's task and not reported: one being written, and two that
/// wait.
const ORDERS_MAX: usize = 3;

/// The same for a sink that writes several at once.
const JOINED_ORDERS_MAX: usize = 2 * JOINED_MAX;

/// Besides batches, at most one order to flush and one to begin a new incarnation wait at a time.
const OTHERS_MAX: usize = 2;

/// A running task that owns a sink.
pub(super) struct SinkTask {
    /// `None` once it was told to close.
    orders: Option<mpsc::Sender<Message>>,
    reports: mpsc::Receiver<Report>,
    /// Its last report was taken.
    has_stopped: bool,
    stop: Stop,
    task: AbortOnDrop,
}

impl SinkTask {
    /// Starts the task; the second value is how many batches it may have at once.
    pub(super) fn spawn(
        spec: &Arc<Spec>,
        sink: Box<dyn Sink>,
        letters: Option<DeadLetters>,
        sieve: Option<Sieve>,
        skips: Skips,
    ) -> (SinkTask, usize) {
        let orders_max = if sink.joins_batches() { JOINED_ORDERS_MAX } else { ORDERS_MAX };
        let (orders, receive_orders) = mpsc::channel(orders_max + OTHERS_MAX);
        let (send_reports, reports) = mpsc::channel(orders_max);
        let backoff = Backoff::new(spec.backoff_min, spec.backoff_max);
        let stop = Stop::default();
        let limits = (backoff, stop.clone());
        skips.begins();
        let (on_bad, upto, operations) = (spec.on_bad, spec.upto, spec.operations());
        let rules = Rules { on_bad, upto, sieve, skips, operations };
        let run = sinking::run(sink, letters, receive_orders, send_reports, rules, limits);
        let task = AbortOnDrop(tokio::spawn(run.in_current_span()));
        let has_stopped = false;
        (SinkTask { orders: Some(orders), reports, has_stopped, stop, task }, orders_max)
    }

    /// Gives it an order. There is room: the brain keeps to the limit.
    pub(super) fn send(&self, message: Message) {
        let sent = self.orders.as_ref().map(|orders| orders.try_send(message));
        if let Some(Err(mpsc::error::TrySendError::Full(_))) = sent {
            tracing::error!("internal error: the sink was given more than it takes");
        }
        // A task that has ended gives the reason in its last report.
    }

    /// Has it finish the batches that it has begun, and begin no others.
    pub(super) fn stop(&self) {
        self.stop.set();
    }

    /// Has it close the sink after its remaining orders.
    pub(super) fn close(&mut self) {
        self.orders = None;
    }

    /// Has it close the sink, and waits for that.
    pub(super) async fn join(self) -> Result<(), JoinError> {
        let SinkTask { orders, reports, mut task, .. } = self;
        drop((orders, reports));
        (&mut task.0).await
    }
}

/// The next event of the sink's task; none between its last report and the order to close. Cancel-safe.
pub(super) async fn next(sink: &mut Option<SinkTask>) -> Event<Answer> {
    let Some(running) = sink else { return std::future::pending().await };
    if running.has_stopped && running.orders.is_some() {
        return std::future::pending().await;
    }
    if let Some(report) = running.reports.recv().await {
        running.has_stopped = matches!(report, Report::Stopped(_) | Report::WoundUp);
        return Event::Reported(report);
    }
    let joined = (&mut running.task.0).await;
    let was_told = running.orders.is_none();
    *sink = None;
    match joined {
        Ok(()) if was_told => Event::SinkClosed,
        Ok(()) => Event::SinkGone { panicked: false },
        Err(error) => Event::SinkGone { panicked: error.is_panic() },
    }
}

/// A task that is aborted when this is dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
