//! A thread for a sink that blocks: it owns the sink's state and runs one job after the other.
//!
//! `spawn_blocking` is not used, because a runtime that shuts down waits for its blocking tasks: a
//! write that hangs (a full pipe, a dead NFS server) would keep the process from exiting. This
//! thread is detached: dropping the [`SinkThread`] ends it after the current job, and the process
//! can exit while that job still hangs.
//!
//! Invariants: jobs run in the order in which they were submitted; at most [`JOBS_MAX`] wait; the
//! state never leaves the thread, and is dropped there.

use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::sink::SinkError;

/// Most jobs that wait for the current one. A sink does one thing at a time, so a second job waits
/// only if the caller stopped waiting for the first.
const JOBS_MAX: usize = 1;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Held by the thread until its state is dropped.
type Alive = oneshot::Sender<()>;

/// Handle of the thread that owns an `S`.
pub(crate) struct SinkThread<S> {
    jobs: SyncSender<Job<S>>,
    ended: oneshot::Receiver<()>,
}

/// Reason why a job could not be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    /// The thread panicked, or could not be started.
    #[error("its thread has ended")]
    Gone,
    /// Earlier jobs, which their caller abandoned, are not done yet.
    #[error("its thread is still busy with an earlier call that was abandoned")]
    Busy,
}

impl Unavailable {
    /// The sink's error, where this came in the way of what was `tried`.
    pub(crate) fn during(&self, tried: &str) -> SinkError {
        let what = format!("{tried}: {self}");
        match self {
            Unavailable::Gone => {
                SinkError::Fatal(format!("{what}. This is an internal error; please report it."))
            }
            Unavailable::Busy => SinkError::transient(what),
        }
    }
}

impl<S: 'static> SinkThread<S> {
    /// Starts a thread called `name` whose state `make` builds, on that thread.
    ///
    /// # Errors
    /// The inner error is `make`'s own.
    pub(crate) async fn start<E: Send + 'static>(
        name: &str,
        make: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> Result<Result<SinkThread<S>, E>, Unavailable> {
        Self::build(std::thread::Builder::new().name(name.to_owned()), make).await
    }

    /// The same on a thread with these properties.
    pub(crate) async fn build<E: Send + 'static>(
        thread: std::thread::Builder,
        make: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> Result<Result<SinkThread<S>, E>, Unavailable> {
        let (jobs, queue) = sync_channel::<Job<S>>(JOBS_MAX);
        let (made, ready) = oneshot::channel();
        let (alive, ended): (Alive, _) = oneshot::channel();
        let span = tracing::Span::current();
        let body = move || {
            // The log lines of the thread belong to the consumer that started it.
            let _in = span.entered();
            let mut state = match make() {
                Ok(state) => state,
                Err(error) => {
                    drop(made.send(Err(error)));
                    return;
                }
            };
            // If the caller has gone, the queue is closed too, and the loop ends at once.
            drop(made.send(Ok(())));
            while let Ok(job) = queue.recv() {
                job(&mut state);
            }
            drop(state);
            drop(alive);
        };
        thread.spawn(body).map_err(|_| Unavailable::Gone)?;
        match ready.await {
            Ok(Ok(())) => Ok(Ok(SinkThread { jobs, ended })),
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => Err(Unavailable::Gone),
        }
    }

    /// Runs `job` on the thread and returns its result. A caller that stops waiting does not stop
    /// the job.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, Unavailable> {
        let (done, result) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| drop(done.send(job(state))));
        self.jobs.try_send(job).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => Unavailable::Busy,
            std::sync::mpsc::TrySendError::Disconnected(_) => Unavailable::Gone,
        })?;
        result.await.map_err(|_| Unavailable::Gone)
    }

    /// Ends the thread, and returns after its state was dropped.
    pub(crate) async fn end(self) {
        drop(self.jobs);
        // This always returns an error: the sender is dropped, never used.
        drop(self.ended.await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    /// Polls once, then drops the future.
    fn poll_once<F: Future>(future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    async fn counter() -> SinkThread<u32> {
        SinkThread::start("test", || Ok::<u32, ()>(0)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn jobs_run_in_order_on_one_state() {
        let worker = counter().await;
        for expected in 1..=100 {
            let got = worker.run(|n| {
                *n += 1;
                *n
            });
            assert_eq!(got.await, Ok(expected));
        }
    }

    #[test]
    fn a_busy_thread_is_waited_for_and_a_dead_one_is_not() {
        let error = Unavailable::Busy.during("could not write to x");
        assert!(matches!(error, SinkError::Transient { .. }), "{error}");
        assert!(error.to_string().starts_with("could not write to x: its thread is still busy"));
        let error = Unavailable::Gone.during("could not write to x");
        assert!(matches!(error, SinkError::Fatal(_)), "{error}");
        assert!(error.to_string().contains("please report it"));
    }

    #[tokio::test]
    async fn a_failed_start_hands_its_error_over() {
        let failed = SinkThread::<u32>::start("test", || Err("no")).await.unwrap();
        assert_eq!(failed.err(), Some("no"));
    }

    #[tokio::test]
    async fn a_panic_is_told_and_does_not_spread() {
        let worker = counter().await;
        let panicked: Result<(), _> = worker.run(|_| panic!("on purpose")).await;
        assert_eq!(panicked, Err(Unavailable::Gone));
        assert_eq!(worker.run(|n| *n).await, Err(Unavailable::Gone));
    }

    #[tokio::test]
    async fn the_state_is_dropped_when_the_end_returns() {
        let state = std::sync::Arc::new(());
        let inside = std::sync::Arc::clone(&state);
        let worker = SinkThread::start("test", || Ok::<_, ()>(inside)).await.unwrap().unwrap();
        worker.end().await;
        assert_eq!(std::sync::Arc::strong_count(&state), 1);
    }

    #[tokio::test]
    async fn abandoned_jobs_are_bounded() {
        let worker = counter().await;
        let (release, stuck) = sync_channel::<()>(0);
        let (begun, begins) = oneshot::channel();
        let first = worker.run(move |_| {
            begun.send(()).unwrap();
            stuck.recv().unwrap();
        });
        assert!(poll_once(first).is_none());
        begins.await.unwrap();
        assert!(poll_once(worker.run(|n| *n += 1)).is_none(), "one job may wait");
        assert_eq!(poll_once(worker.run(|n| *n)), Some(Err(Unavailable::Busy)));
        release.send(()).unwrap();
    }

    /// A stuck pipe must not keep the runtime from shutting down.
    #[test]
    fn a_stuck_job_does_not_hold_up_the_runtime() {
        let (release, stuck) = sync_channel::<()>(0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let worker = counter().await;
            assert!(poll_once(worker.run(move |_| stuck.recv().is_ok())).is_none());
        });
        drop(runtime); // Would hang here with spawn_blocking.
        drop(release);
    }
}
