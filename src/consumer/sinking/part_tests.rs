//! A sink that says how far it is while it writes: what of that is settled, and when it stops.

use std::collections::VecDeque;

use async_trait::async_trait;

use super::*;
use crate::consumer::orders::Order;
use crate::flow::ledger::Ledger;
use crate::sink::SinkError;
use crate::sink::conformance::batch;
use crate::types::{Checkpoint, Guarantee};

/// Answers as it was told, and notes what it was given.
struct Parts {
    answers: VecDeque<Durability>,
    given: std::sync::Arc<std::sync::Mutex<Vec<(u64, u64)>>>,
    stop: Stop,
    /// The stop is set before this many answers are left.
    stops_at: usize,
}

#[async_trait]
impl Sink for Parts {
    fn kind(&self) -> &'static str {
        "parts"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    fn joins_batches(&self) -> bool {
        true
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.given.lock().unwrap().push((batch.first_offset().0, batch.last_offset().0));
        if self.answers.len() == self.stops_at {
            self.stop.set();
        }
        Ok(self.answers.pop_front().unwrap_or(Durability::Durable))
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The batches 0..10, 10..20, 20..30, joined, and what the ledger makes of the reports.
async fn durable_after(
    answers: &[Durability],
    stops_at: usize,
) -> (Vec<Option<u64>>, Vec<(u64, u64)>, bool) {
    let given = std::sync::Arc::default();
    let stop = Stop::default();
    let sink = Parts {
        answers: answers.iter().copied().collect(),
        given: std::sync::Arc::clone(&given),
        stop: stop.clone(),
        stops_at,
    };
    let (orders, receive) = mpsc::channel(8);
    let (send, mut reports) = mpsc::channel(100);
    let mut ledger = Ledger::starting_at(None);
    for range in [0..10, 10..20, 20..30] {
        let batch = batch(range);
        let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
        orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
    }
    drop(orders);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    run(Box::new(sink), None, receive, send, OnBad::Halt, (backoff, stop)).await;
    let (mut durable, mut wound_up, mut messages) = (Vec::new(), false, 0);
    while let Some(report) = reports.recv().await {
        match report {
            Report::Part { written, oldest, .. } => {
                messages += written.messages;
                for ticket in written.tickets {
                    ledger.settle(ticket).unwrap();
                }
                if let Some((ticket, checkpoint, messages)) = written.part {
                    ledger.advance(ticket, checkpoint, messages, oldest).unwrap();
                }
            }
            Report::Settled { tickets, messages: more, .. } => {
                messages += more;
                for ticket in tickets {
                    ledger.settle(ticket).unwrap();
                }
            }
            Report::WoundUp => wound_up = true,
            _ => panic!("another report"),
        }
        durable.push(ledger.durable().map(|at| at.offset.0));
    }
    let reached = durable.last().copied().flatten().map_or(0, |offset| offset + 1);
    assert_eq!(messages, reached, "every message is counted once");
    let given = given.lock().unwrap().clone();
    (durable, given, wound_up)
}

fn upto(offset: u64) -> Durability {
    Durability::Part(Some(Offset(offset)))
}

#[tokio::test]
async fn what_is_written_is_settled_though_the_batch_is_not_done() {
    let answers = [upto(3), Durability::Part(None), upto(4), upto(9), upto(22), upto(28)];
    let (durable, given, wound_up) = durable_after(&answers, 99).await;
    let expected = [3, 4, 9, 22, 28, 29].map(Some);
    assert_eq!((durable.as_slice(), wound_up), (expected.as_slice(), false));
    // What is settled is not held any longer.
    assert_eq!(given, [(0, 29), (4, 29), (4, 29), (5, 29), (10, 29), (23, 29), (29, 29)]);
}

#[tokio::test]
async fn a_stop_leaves_what_the_sink_has_not_begun() {
    let answers = [upto(3), upto(14), Durability::Part(None)];
    let (durable, _, wound_up) = durable_after(&answers, 2).await;
    assert_eq!((durable, wound_up), (vec![Some(3), Some(14), Some(14)], true));
}

#[tokio::test]
async fn a_sink_that_says_it_has_written_all_and_is_not_done_is_stopped() {
    let given = std::sync::Arc::default();
    let stop = Stop::default();
    let answers = VecDeque::from([upto(9)]);
    let sink = Parts { answers, given, stop: stop.clone(), stops_at: 99 };
    let (orders, receive) = mpsc::channel(8);
    let (send, mut reports) = mpsc::channel(100);
    let batch = batch(0..10);
    let ticket = Ledger::default().open(batch.checkpoint(), 10, batch.oldest()).unwrap();
    orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
    drop(orders);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    run(Box::new(sink), None, receive, send, OnBad::Halt, (backoff, stop)).await;
    assert!(matches!(reports.recv().await, Some(Report::Stopped(_))));
}

/// Fails whenever it is to write, and has begun nothing.
struct Away;

#[async_trait]
impl Sink for Away {
    fn kind(&self) -> &'static str {
        "away"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, _: &Arc<Batch>) -> Result<Durability, SinkError> {
        let retry_after = Some(Duration::from_secs(3600));
        Err(SinkError::Transient { what: "away".to_owned(), retry_after })
    }

    async fn wind_up(&mut self, _: &Arc<Batch>) -> Result<Durability, SinkError> {
        Ok(Durability::Part(None))
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_stop_ends_a_long_wait_for_the_next_attempt() {
    let stop = Stop::default();
    let (orders, receive) = mpsc::channel(8);
    let (send, mut reports) = mpsc::channel(100);
    let batch = batch(0..10);
    let ticket = Ledger::default().open(batch.checkpoint(), 10, batch.oldest()).unwrap();
    orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let running = tokio::spawn(run(
        Box::new(Away),
        None,
        receive,
        send,
        OnBad::Halt,
        (backoff, stop.clone()),
    ));
    assert!(matches!(reports.recv().await, Some(Report::Retrying { .. })));
    stop.set();
    let limit = Duration::from_secs(60);
    let report = tokio::time::timeout(limit, reports.recv()).await.expect("not an hour later");
    assert!(matches!(report, Some(Report::WoundUp)));
    running.await.unwrap();
}
