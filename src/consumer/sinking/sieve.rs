//! Applies the consumer's own filter and programs to a batch.
//!
//! Programs run on a thread of their own, so that a slow program delays nothing else. Between two messages the thread
//! checks whether its consumer ends. A batch is processed in pieces, and each piece is written before the next one is
//! processed.
//!
//! A message on which the filter or a program fails is a bad message, which `on_bad_message` handles. Dead letters have
//! to be written in the stream's order, and the sink may refuse messages before this one. So with dead letters, the
//! messages before it are written first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Counter;
use tokio::sync::OnceCell;

use super::Stop;
use crate::consumer::filter::Filter;
use crate::consumer::joined::Members;
use crate::consumer::sifting::{Sifted, Sifter};
use crate::consumer::spec::OnBad;
use crate::consumer::transform::Transform;
use crate::flow::batch::Batch;
use crate::sink::BadRecord;
use crate::sink::thread::{SinkThread, Unavailable};
use crate::transform::THREAD_STACK_BYTES;
use crate::types::Offset;

/// Counters of what is left out.
#[derive(Clone)]
pub(in crate::consumer) struct Counted {
    pub(in crate::consumer) by_filter: Counter,
    pub(in crate::consumer) by_program: Counter,
}

impl Counted {
    /// Counts nothing.
    pub(in crate::consumer) fn noop() -> Counted {
        Counted { by_filter: Counter::noop(), by_program: Counter::noop() }
    }
}

/// The filter and the programs of a consumer.
pub(in crate::consumer) struct Sieve {
    sifter: Sifter,
    counted: Counted,
    /// Where programs run; started with the first batch.
    thread: OnceCell<SinkThread<()>>,
}

/// What to do with a batch next.
pub(super) enum Next {
    /// Write all of it.
    Write,
    /// Write this part of it, which ends before messages that were not processed, or right before a bad one.
    WriteBefore(Batch),
    /// Apply the policy to these bad messages.
    Poison(Vec<BadRecord>),
    /// Begin nothing more: little of the time for a graceful shutdown is left.
    WoundUp,
    /// It cannot go on.
    Failed(String),
}

/// How far a batch was looked through.
#[derive(Default)]
pub(super) struct Sieving {
    /// Bad messages that are still in the batch, in order.
    bad: Vec<BadRecord>,
    /// Offset of the last message that was processed.
    done: Option<Offset>,
    is_complete: bool,
}

impl Sieve {
    pub(in crate::consumer) fn new(
        filter: Option<Arc<Filter>>,
        transform: Option<Arc<Transform>>,
        counted: Counted,
    ) -> Sieve {
        Sieve { sifter: Sifter { filter, transform }, counted, thread: OnceCell::new() }
    }

    /// Looks through the messages of a batch behind `done`.
    async fn sift(
        &self,
        batch: &Arc<Batch>,
        done: Option<Offset>,
        stop: &Stop,
    ) -> Result<Sifted, Unavailable> {
        if self.sifter.transform.is_none() {
            return Ok(self.sifter.sift(batch, done, || false));
        }
        let start = || async {
            let thread = std::thread::Builder::new().name("transform".to_owned());
            let started =
                SinkThread::build(thread.stack_size(THREAD_STACK_BYTES), || Ok::<(), ()>(()));
            started.await?.map_err(|()| Unavailable::Gone)
        };
        let thread = self.thread.get_or_try_init(start).await?;
        // Set when the caller gives up waiting.
        let gone = Gone(Arc::new(AtomicBool::new(false)));
        let (sifter, batch, stop) = (self.sifter.clone(), Arc::clone(batch), stop.clone());
        let is_gone = Arc::clone(&gone.0);
        let ends = move || stop.is_set() || is_gone.load(Ordering::Relaxed);
        thread.run(move |()| sifter.sift(&batch, done, ends)).await
    }
}

/// Tells the thread that nobody waits for its result.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Sieving {
    /// Leaves out what is not wanted, puts new messages in the place of others, and says what to do next.
    pub(super) async fn next(
        &mut self,
        sieve: Option<&Sieve>,
        batch: &mut Arc<Batch>,
        members: &mut Members,
        on_bad: OnBad,
        stop: &Stop,
    ) -> Next {
        let Some(sieve) = sieve else { return Next::Write };
        if self.bad.is_empty() && !self.is_complete {
            // What was made of one piece is written before the next one is made.
            let ready = self.done.and_then(|done| batch.before(done.next()));
            if let Some(ready) = ready.filter(|ready| ready.messages() > 0) {
                return Next::WriteBefore(ready);
            }
            match sieve.sift(batch, self.done, stop).await {
                Ok(sifted) => {
                    if let Err(reason) = self.take(sifted, sieve, batch, members) {
                        return Next::Failed(reason);
                    }
                }
                Err(error) => {
                    return Next::Failed(format!(
                        "internal error: `where` and `map` cannot run: {error}; please report it"
                    ));
                }
            }
        }
        let Some(first) = self.bad.first() else {
            return match self.done.filter(|_| !self.is_complete) {
                None if self.is_complete => Next::Write,
                _ if stop.is_set() => Next::WoundUp,
                Some(done) => batch.before(done.next()).map_or(Next::Write, Next::WriteBefore),
                None => Next::Failed(
                    "internal error: no message was looked at; please report it".to_owned(),
                ),
            };
        };
        // Otherwise the sink gets the messages before it first, since it may refuse one of them.
        if on_bad == OnBad::Skip {
            return Next::Poison(std::mem::take(&mut self.bad));
        }
        if let Some(before) = batch.before(first.offset).filter(|before| before.messages() > 0) {
            return Next::WriteBefore(before);
        }
        // Those before the first good one.
        let mut good = batch.records().map(|record| record.offset);
        let run = self.bad.iter().take_while(|bad| good.next() == Some(bad.offset)).count();
        Next::Poison(self.bad.drain(..run.max(1)).collect())
    }

    /// Bad messages that were not handled.
    pub(super) fn put_back(&mut self, bad: Vec<BadRecord>) {
        debug_assert!(
            self.bad.is_empty()
                || bad.is_empty()
                || bad.last().map(|b| b.offset) < self.bad.first().map(|b| b.offset)
        );
        self.bad.splice(..0, bad);
    }

    fn take(
        &mut self,
        mut sifted: Sifted,
        sieve: &Sieve,
        batch: &mut Arc<Batch>,
        members: &mut Members,
    ) -> Result<(), String> {
        let by_program = (sifted.unwanted.len() as u64).saturating_sub(sifted.by_filter);
        sieve.counted.by_filter.increment(sifted.by_filter);
        sieve.counted.by_program.increment(by_program);
        members.leave_out(sifted.unwanted.iter().copied());
        if let Some(changed) = sifted.apply(batch)? {
            *batch = Arc::new(changed);
        }
        (self.bad, self.done, self.is_complete) = (sifted.bad, sifted.done, sifted.is_complete);
        Ok(())
    }
}
