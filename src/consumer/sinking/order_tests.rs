//! What a sink may rely on, whatever it answers: one call at a time, each waited for to its end; the
//! same batch again after an error that passes, and not before the medium is ready for it; nothing
//! after its end.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::consumer::orders::Order;
use crate::flow::ledger::Ledger;
use crate::sink::SinkError;
use crate::sink::conformance::batch;
use crate::types::{Checkpoint, Guarantee};

/// A call: what it was, and how long after the start it began.
type Call = (&'static str, Option<u64>, Duration);

/// A slow sink with scripted answers; after those, everything succeeds.
struct Watching {
    began: Instant,
    /// Each call takes so long.
    takes: Duration,
    answers: VecDeque<Result<Durability, SinkError>>,
    flush_errors: VecDeque<SinkError>,
    held: bool,
    busy: bool,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Watching {
    async fn call(&mut self, what: &'static str, last: Option<u64>) {
        // Still set where the call before was dropped in the middle.
        assert!(!self.busy, "{what} while another call is not at its end");
        self.busy = true;
        self.calls.lock().unwrap().push((what, last, self.began.elapsed()));
        tokio::time::sleep(self.takes).await;
        self.busy = false;
    }
}

#[async_trait]
impl Sink for Watching {
    fn kind(&self) -> &'static str {
        "watching"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.call("write", Some(batch.last_offset().0)).await;
        let answer = self.answers.pop_front().unwrap_or(Ok(Durability::Durable));
        self.held |= matches!(answer, Ok(Durability::Held));
        answer
    }

    /// Always sooner than a write takes.
    fn flush_at(&self) -> Option<Instant> {
        self.held.then(|| Instant::now() + self.takes / 10)
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.call("flush", None).await;
        self.held = !self.flush_errors.is_empty();
        self.flush_errors.pop_front().map_or(Ok(()), Err)
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.call("restart", None).await;
        self.answers.pop_front().unwrap_or(Ok(Durability::Durable)).map(drop)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.call("close", None).await;
        Ok(())
    }
}

fn transient(retry_after: Option<Duration>) -> SinkError {
    SinkError::Transient { what: "busy".to_owned(), retry_after }
}

const TAKES: Duration = Duration::from_millis(20);

/// How long the medium asks to be left alone.
const ASKED: Duration = Duration::from_secs(6);

/// The calls that come of three batches, one shortly after the other, a flush, and a restart.
async fn calls(
    answers: impl Into<VecDeque<Result<Durability, SinkError>>>,
    flush_errors: impl Into<VecDeque<SinkError>>,
) -> Vec<Call> {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let sink = Watching {
        began: Instant::now(),
        takes: TAKES,
        answers: answers.into(),
        flush_errors: flush_errors.into(),
        held: false,
        busy: false,
        calls: Arc::clone(&calls),
    };
    let (orders, receive) = mpsc::channel(10);
    let (send, mut reports) = mpsc::channel(100);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let task = tokio::spawn(run(
        Box::new(sink),
        None,
        receive,
        send,
        OnBad::Halt,
        (backoff, Stop::default()),
    ));
    let mut ledger = Ledger::starting_at(None);
    for first in [0, 10, 20] {
        let batch = batch(first..first + 10);
        let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
        // Fails where the sink has stopped before.
        orders.send(Message::Write(Order { ticket, batch })).await.ok();
        tokio::time::sleep(TAKES / 4).await;
    }
    orders.send(Message::Flush).await.ok();
    orders.send(Message::Restart).await.ok();
    drop(orders);
    while reports.recv().await.is_some() {}
    task.await.unwrap();
    std::mem::take(&mut calls.lock().unwrap())
}

fn names(calls: &[Call]) -> Vec<(&'static str, Option<u64>)> {
    calls.iter().map(|(what, last, _)| (*what, *last)).collect()
}

const END: [(&str, Option<u64>); 3] = [("flush", None), ("restart", None), ("close", None)];

#[tokio::test]
async fn one_call_after_the_other_in_the_order_of_the_stream() {
    let calls = calls([], []).await;
    let writes = [9, 19, 29].map(|last| ("write", Some(last)));
    assert_eq!(names(&calls), [&writes[..], &END].concat());
    assert!(calls.is_sorted_by(|a, b| b.2 - a.2 >= TAKES), "{calls:?}");
}

#[tokio::test]
async fn the_same_batch_again_and_none_before_it() {
    let again =
        [Err(transient(None)), Err(transient(None)), Ok(Durability::Durable), Err(transient(None))];
    let calls = calls(again, []).await;
    let writes = [9, 9, 9, 19, 19, 29].map(|last| ("write", Some(last)));
    assert_eq!(names(&calls), [&writes[..], &END].concat());
}

#[tokio::test]
async fn a_retry_waits_as_long_as_the_sink_asks() {
    let calls = calls([Err(transient(Some(ASKED))), Err(transient(None))], []).await;
    let begins: Vec<Duration> = calls.iter().map(|(_, _, at)| *at).collect();
    assert!(begins[1] >= begins[0] + TAKES + ASKED, "{calls:?}");
    // It asked once, not forever.
    assert!(begins[2] < begins[1] + ASKED, "{calls:?}");
}

/// Also in a flush, which may be due again and again meanwhile; and nothing is written before that
/// is through.
#[tokio::test]
async fn a_flush_that_fails_is_repeated_before_anything_else() {
    let calls = calls([Ok(Durability::Held)], [transient(Some(ASKED)), transient(None)]).await;
    let all = names(&calls);
    // Whether the second batch is taken before the first flush is due is a matter of time.
    let flushes = all.iter().position(|call| call.0 == "flush").unwrap();
    assert!(all[flushes..].starts_with(&[("flush", None); 3]), "{calls:?}");
    assert!(calls[flushes + 1].2 >= calls[flushes].2 + TAKES + ASKED, "{calls:?}");
    let writes: Vec<_> = all.iter().filter(|call| call.0 == "write").copied().collect();
    assert_eq!(writes, [9, 19, 29].map(|last| ("write", Some(last))));
    assert!(all.ends_with(&END), "{calls:?}");
}

#[tokio::test]
async fn nothing_but_the_end_after_a_fatal_error() {
    let answers = [Ok(Durability::Durable), Err(SinkError::Fatal("taken over".to_owned()))];
    let calls = calls(answers, []).await;
    assert_eq!(names(&calls), [("write", Some(9)), ("write", Some(19)), ("close", None)]);
}
