//! What a sink holds back is settled when it is flushed, and never before.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::consumer::orders::Order;
use crate::flow::ledger::Ledger;
use crate::sink::BadReason;
use crate::sink::SinkError;
use crate::sink::conformance::batch;
use crate::types::{Checkpoint, Guarantee, Offset};

/// Holds every batch until it is flushed, and notes which were in it then.
struct Holding {
    held: Vec<u64>,
    /// As many batches are held, no more: then the flush is due at once.
    most: usize,
    flush_errors: VecDeque<SinkError>,
    flushed: Arc<Mutex<Vec<Vec<u64>>>>,
    bad: Option<u64>,
}

#[async_trait]
impl Sink for Holding {
    fn kind(&self) -> &'static str {
        "holding"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if let Some(bad) = self.bad.filter(|bad| batch.records().any(|r| r.offset.0 == *bad)) {
            let (reason, detail) = (BadReason::Misfit, "on purpose".to_owned());
            return Err(SinkError::Poison(vec![BadRecord {
                about: None,
                offset: Offset(bad),
                reason,
                detail,
            }]));
        }
        self.held.push(batch.last_offset().0);
        Ok(Durability::Held)
    }

    fn flush_at(&self) -> Option<Instant> {
        (self.held.len() >= self.most).then(Instant::now)
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(error) = self.flush_errors.pop_front() {
            return Err(error);
        }
        self.flushed.lock().unwrap().push(std::mem::take(&mut self.held));
        Ok(())
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn transient() -> SinkError {
    SinkError::transient("away".to_owned())
}

/// Result of four batches of ten and, behind them, `last`.
async fn carry_out(
    sink: Holding,
    last: Option<Message>,
) -> (Vec<Report>, Vec<Vec<u64>>, Vec<Ticket>) {
    let flushed = Arc::clone(&sink.flushed);
    let (orders, receive) = mpsc::channel(10);
    let (send, mut reports) = mpsc::channel(100);
    let mut ledger = Ledger::starting_at(None);
    let mut tickets = Vec::new();
    for first in [0, 10, 20, 30] {
        let batch = batch(first..first + 10);
        let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
        tickets.push(ticket);
        orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
    }
    if let Some(last) = last {
        orders.try_send(last).ok().unwrap();
    }
    drop(orders);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    run(Box::new(sink), None, receive, send, OnBad::Halt, (backoff, Stop::default())).await;
    let mut all = Vec::new();
    while let Some(report) = reports.recv().await {
        all.push(report);
    }
    let flushed = flushed.lock().unwrap().clone();
    (all, flushed, tickets)
}

fn holding(most: usize) -> Holding {
    Holding {
        held: Vec::new(),
        most,
        flush_errors: VecDeque::new(),
        flushed: Arc::default(),
        bad: None,
    }
}

/// `Err` for what is only held, `Ok` with the tickets and messages of what is durable.
fn steps(reports: &[Report]) -> Vec<Result<(Vec<Ticket>, u64), usize>> {
    reports
        .iter()
        .filter_map(|report| match report {
            Report::Settled { tickets, messages, .. } => Some(Ok((tickets.clone(), *messages))),
            Report::Held { batches, .. } => Some(Err(*batches)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn nothing_is_settled_that_was_not_flushed() {
    let (reports, flushed, _) = carry_out(holding(9), None).await;
    assert_eq!(steps(&reports), [Err(1), Err(1), Err(1), Err(1)]);
    assert!(flushed.is_empty());
}

#[tokio::test]
async fn a_flush_that_is_asked_for_settles_all() {
    let (reports, flushed, t) = carry_out(holding(9), Some(Message::Flush)).await;
    assert_eq!(steps(&reports), [Err(1), Err(1), Err(1), Err(1), Ok((t, 40))]);
    assert_eq!(flushed, [[9, 19, 29, 39]]);
}

#[tokio::test]
async fn a_flush_that_is_due_comes_before_the_next_batch() {
    let (reports, flushed, t) = carry_out(holding(2), Some(Message::Flush)).await;
    let pair = |pair: &[Ticket]| Ok((pair.to_vec(), 20));
    assert_eq!(steps(&reports)[..3], [Err(1), Err(1), pair(&t[..2])]);
    assert_eq!(steps(&reports)[3..6], [Err(1), Err(1), pair(&t[2..])]);
    assert_eq!(flushed[..2], [[9, 19], [29, 39]]);
}

#[tokio::test]
async fn a_flush_that_fails_is_tried_again() {
    let errors = VecDeque::from([transient(), transient()]);
    let sink = Holding { flush_errors: errors, ..holding(9) };
    let (reports, flushed, t) = carry_out(sink, Some(Message::Flush)).await;
    let retries = reports.iter().filter(|r| matches!(r, Report::Retrying { .. })).count();
    assert_eq!((retries, steps(&reports).pop()), (2, Some(Ok((t, 40)))));
    assert_eq!(flushed, [[9, 19, 29, 39]]);
}

#[tokio::test]
async fn a_flush_that_will_never_work_settles_nothing() {
    let errors = VecDeque::from([SinkError::Fatal("no".to_owned())]);
    let sink = Holding { flush_errors: errors, ..holding(9) };
    let (reports, _, _) = carry_out(sink, Some(Message::Flush)).await;
    let Some(Report::Stopped(stopped)) = reports.last() else { panic!("not stopped") };
    assert_eq!(stopped.written, Written::default());
    assert_eq!(steps(&reports).len(), 4);
}

#[tokio::test]
async fn a_halt_flushes_what_came_before_the_bad_record() {
    let (mut reports, flushed, t) = carry_out(Holding { bad: Some(23), ..holding(9) }, None).await;
    let Some(Report::Stopped(stopped)) = reports.pop() else { panic!("not stopped") };
    let Written { messages, tickets, part } = stopped.written;
    assert_eq!((messages, tickets), (23, t[..2].to_vec()));
    assert_eq!(part.map(|(ticket, c, n)| (ticket, c.offset.0, n)), Some((t[2], 22, 3)));
    assert_eq!(flushed, [[9, 19, 22]]);
}
