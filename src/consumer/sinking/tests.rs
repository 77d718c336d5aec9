use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::consumer::orders::Order;
use crate::flow::ledger::Ledger;
use crate::sink::BadReason;
use crate::sink::SinkError;
use crate::sink::conformance::batch;
use crate::types::{Checkpoint, Guarantee, Offset};

/// Writes a batch for each permit, and notes from where to where the batches went.
struct Scripted {
    joins: bool,
    bad: BTreeSet<u64>,
    permits: Arc<Semaphore>,
    begun: mpsc::Sender<()>,
    written: Arc<Mutex<Vec<(u64, u64)>>>,
}

#[async_trait]
impl Sink for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::None
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    fn joins_batches(&self) -> bool {
        self.joins
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.begun.send(()).await.unwrap();
        self.permits.acquire().await.unwrap().forget();
        let bad = batch.records().map(|r| r.offset).filter(|o| self.bad.contains(&o.0));
        let detail = "on purpose".to_owned();
        let bad: Vec<_> = bad
            .map(|offset| BadRecord {
                about: None,
                offset,
                reason: BadReason::Refused,
                detail: detail.clone(),
            })
            .collect();
        if !bad.is_empty() {
            return Err(SinkError::Poison(bad));
        }
        self.written.lock().unwrap().push((batch.first_offset().0, batch.last_offset().0));
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What comes of these batches, all of them waiting while the first is written: the reports until
/// the end, what was written, and the ledger's tickets.
async fn carry_out(
    joins: bool,
    on_bad: OnBad,
    bad: &[u64],
    batches: &[Range<u64>],
) -> (Vec<Report>, Vec<(u64, u64)>, Vec<Ticket>) {
    let permits = Arc::new(Semaphore::new(0));
    let written = Arc::default();
    let (begun, mut begins) = mpsc::channel(100);
    let bad: BTreeSet<u64> = bad.iter().copied().collect();
    let sink = Scripted {
        joins,
        bad: bad.clone(),
        permits: Arc::clone(&permits),
        begun,
        written: Arc::clone(&written),
    };
    let (orders, receive) = mpsc::channel(batches.len());
    let (send, mut reports) = mpsc::channel(100);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let task =
        tokio::spawn(run(Box::new(sink), None, receive, send, on_bad, (backoff, Stop::default())));
    let mut ledger = Ledger::starting_at(None);
    let mut tickets = Vec::new();
    for (nth, range) in batches.iter().enumerate() {
        let batch = batch(range.clone());
        let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
        tickets.push(ticket);
        orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
        if nth == 0 {
            begins.recv().await.unwrap();
        }
    }
    drop(orders);
    permits.add_permits(100);
    let mut all = Vec::new();
    while let Some(report) = reports.recv().await {
        all.push(report);
    }
    task.await.unwrap();
    let written = written.lock().unwrap().clone();
    (all, written, tickets)
}

const FOUR: [Range<u64>; 4] = [0..10, 10..20, 20..30, 30..40];

fn settled(reports: &[Report]) -> Vec<(Vec<Ticket>, u64)> {
    reports
        .iter()
        .filter_map(|r| match r {
            Report::Settled { tickets, messages, .. } => Some((tickets.clone(), *messages)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn what_waits_is_written_at_once_where_the_sink_says_so() {
    let (reports, written, t) = carry_out(true, OnBad::Halt, &[], &FOUR).await;
    assert_eq!(written, [(0, 9), (10, 39)]);
    assert_eq!(settled(&reports), [(vec![t[0]], 10), (vec![t[1], t[2], t[3]], 30)]);
}

#[tokio::test]
async fn other_sinks_get_the_batches_as_they_were_cut() {
    let (reports, written, t) = carry_out(false, OnBad::Halt, &[], &FOUR).await;
    assert_eq!(written, [(0, 9), (10, 19), (20, 29), (30, 39)]);
    assert_eq!(settled(&reports), t.iter().map(|t| (vec![*t], 10)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_joined_has_a_limit() {
    let many: Vec<_> = (0..20).map(|n| n..n + 1).collect();
    let (_, written, _) = carry_out(true, OnBad::Halt, &[], &many).await;
    assert_eq!(written, [(0, 0), (1, 8), (9, 16), (17, 19)]);
}

/// Where the first bad record lies decides whose tickets are settled, to the message.
#[tokio::test]
async fn a_halt_shares_out_what_came_before_the_bad_record() {
    for (bad, whole, part) in
        [(10, 0, None), (13, 0, Some((1, 12, 3))), (20, 1, None), (39, 2, Some((3, 38, 9)))]
    {
        let (mut reports, written, t) = carry_out(true, OnBad::Halt, &[bad], &FOUR).await;
        let Some(Report::Stopped(stopped)) = reports.pop() else { panic!("not stopped: {bad}") };
        let Written { messages, tickets, part: got } = stopped.written;
        assert_eq!(messages, bad - 10, "{bad}");
        assert_eq!(tickets, t[1..=whole], "{bad}");
        let got = got.map(|(ticket, c, n)| (ticket, c.offset.0, n));
        assert_eq!(got, part.map(|(nth, last, n): (usize, u64, u64)| (t[nth], last, n)), "{bad}");
        let end = (bad > 10).then(|| (10, bad - 1));
        assert_eq!(written[1..], Vec::from_iter(end), "{bad}");
    }
}

#[tokio::test]
async fn bad_records_that_may_be_skipped_leave_all_tickets_settled() {
    let (reports, written, t) = carry_out(true, OnBad::Skip, &[10, 25, 39], &FOUR).await;
    assert_eq!(written, [(0, 9), (10, 39)]);
    assert_eq!(settled(&reports), [(vec![t[0]], 10), (vec![t[1], t[2], t[3]], 27)]);
    let skipped = reports.iter().find_map(|r| match r {
        Report::Settled { skipped, .. } if !skipped.is_empty() => {
            Some(skipped.iter().map(|b| b.offset).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(skipped, Some(vec![Offset(10), Offset(25), Offset(39)]));
}
