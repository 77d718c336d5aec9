//! Programs at work: what the sink gets, what becomes a dead letter, and where it stops.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::consumer::dead_letter_index::DeadLetterIndex;
use crate::consumer::orders::Order;
use crate::consumer::spec::testing::spec;
use crate::consumer::transform::Transform;
use crate::flow::ledger::Ledger;
use crate::sink::conformance::{STREAM, batch_of};
use crate::sink::{BadReason, SinkError};
use crate::sync::lock;
use crate::transform::{Program, RESULT_BYTES_MAX};
use crate::types::{Checkpoint, Guarantee};
use crate::wire::amqp::{Message as Amqp, carried};

/// What a sink was given: offset and body, and where each batch ended.
type Journal = Arc<Mutex<Vec<(&'static str, Vec<(u64, String)>, u64)>>>;

struct Noting(&'static str, Journal);

#[async_trait]
impl Sink for Noting {
    fn kind(&self) -> &'static str {
        self.0
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let bodies = batch.records().map(|record| {
            let message = Amqp::parse(record.message).unwrap();
            let mut body = carried(&message).unwrap().into_owned();
            if self.0 == "letters" {
                // The message as it was published.
                let published = Amqp::parse(&body).unwrap();
                body = carried(&published).unwrap().into_owned();
            }
            let body = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
            (record.offset.0, body)
        });
        lock(&self.1).push((self.0, bodies.collect(), batch.last_offset().0));
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A write: where to, the messages, and the last offset that it covers.
type Wrote = (&'static str, Vec<(u64, String)>, u64);

struct Ran {
    journal: Vec<Wrote>,
    reports: Vec<Report>,
    settled: usize,
}

/// Runs the programs on a batch for each list of bodies.
async fn run_on(
    (keep, reshape): (Option<&str>, Option<&str>),
    batches: &[&[&str]],
    on_bad: OnBad,
    stop: Stop,
) -> Ran {
    run_with((keep, reshape), batches, (on_bad, &Skips::default()), stop).await
}

async fn run_with(
    (keep, reshape): (Option<&str>, Option<&str>),
    batches: &[&[&str]],
    (on_bad, skips): (OnBad, &Skips),
    stop: Stop,
) -> Ran {
    let compile = |text: &str| Program::compile(text).unwrap();
    let transform =
        Transform::new(STREAM.into(), keep.map(compile), reshape.map(compile), true).map(Arc::new);
    let sieve = Sieve::new(None, transform, Counted::noop());
    let journal = Journal::default();
    let state = tempfile::tempdir().unwrap();
    let spec = Arc::new(spec(state.path()));
    let index = DeadLetterIndex::open(&spec, None).unwrap();
    let letters = Box::new(Noting("letters", Arc::clone(&journal)));
    let letters = DeadLetters::new(letters, spec, None, index);
    let (orders, receive) = mpsc::channel(10);
    let (send, mut reports) = mpsc::channel(100);
    let mut ledger = Ledger::starting_at(None);
    let mut first = 0;
    for bodies in batches {
        let batch = batch_of(first, bodies);
        first += bodies.len() as u64;
        let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
        orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
    }
    drop(orders);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let sink = Box::new(Noting("sink", Arc::clone(&journal)));
    let rules = Rules { sieve: Some(sieve), skips: skips.clone(), ..Rules::from(on_bad) };
    run(sink, Some(letters), receive, send, rules, (backoff, stop)).await;
    let mut all = Vec::new();
    while let Some(report) = reports.recv().await {
        all.push(report);
    }
    let settled = all.iter().map(|report| match report {
        Report::Settled { tickets, .. } => tickets.len(),
        _ => 0,
    });
    let settled = settled.sum();
    let journal = lock(&journal).clone();
    Ran { journal, reports: all, settled }
}

fn texts(of: &[(u64, &str)]) -> Vec<(u64, String)> {
    of.iter().map(|(offset, body)| (*offset, (*body).to_owned())).collect()
}

#[tokio::test]
async fn what_is_kept_is_written_as_it_was_made_and_the_rest_moves_the_position() {
    let batches: [&[&str]; 2] =
        [&["{\"a\":1,\"b\":1.50}", "{\"a\":2}", "{\"a\":1}"], &["{\"a\":3}", "{\"a\":4}"]];
    let programs = (Some(".a == 1"), Some("{b, at: $message.offset}"));
    let ran = run_on(programs, &batches, OnBad::Halt, Stop::default()).await;
    let expected = [
        ("sink", texts(&[(0, "{\"b\":1.50,\"at\":0}"), (2, "{\"b\":null,\"at\":2}")]), 2),
        ("sink", texts(&[]), 4),
    ];
    assert_eq!(ran.journal, expected);
    assert_eq!(ran.settled, 2);
}

#[tokio::test]
async fn a_message_on_which_a_program_fails_follows_the_policy_as_it_was_published() {
    let bodies: &[&str] = &["{\"a\":1}", "no JSON", "{\"a\":\"x\"}", "{\"a\":2}"];
    let programs = (None, Some("{a: (.a + 1)}"));
    let good = [(0, "{\"a\":2}"), (3, "{\"a\":3}")];

    let skipped = run_on(programs, &[bodies], OnBad::Skip, Stop::default()).await;
    assert_eq!(skipped.journal, [("sink", texts(&good), 3)]);
    let bad = skipped.reports.iter().find_map(|report| match report {
        Report::Settled { skipped, .. } => Some(skipped.clone()),
        _ => None,
    });
    let bad = bad.unwrap();
    assert_eq!(
        bad.iter().map(|bad| (bad.offset.0, bad.reason)).collect::<Vec<_>>(),
        [(1, BadReason::Program), (2, BadReason::Program)]
    );
    assert!(bad[0].detail.starts_with("`map`: the body is not JSON: "), "{}", bad[0].detail);
    assert_eq!(bad[1].detail, "`map`: cannot calculate \"x\" + 1");

    let lettered = run_on(programs, &[bodies], OnBad::DeadLetter, Stop::default()).await;
    let expected = [
        ("sink", texts(&good[..1]), 0),
        ("letters", texts(&[(1, "no JSON"), (2, "{\"a\":\"x\"}")]), 2),
        ("sink", texts(&good[1..]), 3),
    ];
    assert_eq!(lettered.journal, expected);

    let mut halted = run_on(programs, &[bodies], OnBad::Halt, Stop::default()).await;
    assert_eq!(halted.journal, [("sink", texts(&good[..1]), 0)]);
    let Some(Report::Stopped(stopped)) = halted.reports.pop() else { panic!("it goes on") };
    assert!(
        stopped.reason.contains("offset 1 cannot be written: `map`: the body"),
        "{}",
        stopped.reason
    );
}

#[tokio::test]
async fn large_results_are_written_in_pieces() {
    let large = RESULT_BYTES_MAX / 4 * 3;
    let program = format!("{{n: .n, x: (\"x\" * {large})}}");
    let bodies: Vec<String> = (0..5).map(|n| format!("{{\"n\":{n}}}")).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let ran = run_on((None, Some(&program)), &[&bodies], OnBad::Halt, Stop::default()).await;
    let shape: Vec<(usize, u64)> =
        ran.journal.iter().map(|(_, bodies, last)| (bodies.len(), *last)).collect();
    assert_eq!(shape, [(2, 1), (2, 3), (1, 4)]);
    let all = ran.journal.iter().flat_map(|(_, bodies, _)| bodies);
    assert!(all.enumerate().all(|(n, (offset, body))| {
        *offset == n as u64 && body.starts_with(&format!("{{\"n\":{n},\"x\":\"xx"))
    }));
    assert_eq!(ran.settled, 1);
}

/// The time of a shutdown runs short while programs run that use all that they may.
#[tokio::test]
async fn a_stop_comes_between_two_messages() {
    let stop = Stop::default();
    stop.set();
    let bodies = vec!["{}"; 50_000];
    let ran = run_on((Some("def f: f; f"), None), &[&bodies], OnBad::Skip, stop).await;
    assert!(ran.journal.is_empty());
    assert!(matches!(ran.reports.as_slice(), [Report::WoundUp]));

    let stop = Stop::default();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move {
            let bodies = vec!["{}"; 50_000];
            run_on((Some("def f: f; f"), None), &[&bodies], OnBad::Skip, stop).await
        }
    });
    tokio::task::yield_now().await;
    stop.set();
    // Looking through all of it would take an hour.
    let ran = running.await.unwrap();
    assert!(matches!(ran.reports.as_slice(), [Report::WoundUp]));
}

/// One message is left out by order, and no other: neither a second one that the program fails on, nor the
/// same one once it was passed.
#[tokio::test]
async fn one_message_is_left_out_by_order() {
    let bodies: &[&str] = &["1", "\"x\"", "2", "\"y\"", "3"];
    for (to_dead_letters, letters) in
        [(false, None), (true, Some(("letters", texts(&[(1, "\"x\"")]), 1)))]
    {
        let (programs, skips) = ((None, Some(". + 1")), Skips::default());
        let halted = run_with(programs, &[bodies], (OnBad::Halt, &skips), Stop::default()).await;
        assert_eq!(halted.journal, [("sink", texts(&[(0, "2")]), 0)]);
        assert_eq!(skips.halted_at(), Some(Offset(1)));
        assert!(skips.order(Offset(3), to_dead_letters).is_err());
        skips.order(Offset(1), to_dead_letters).unwrap();

        let ran = run_with(programs, &[bodies], (OnBad::Halt, &skips), Stop::default()).await;
        let mut expected = vec![("sink", texts(&[(0, "2")]), 0)];
        expected.extend(letters.clone());
        expected.push(("sink", texts(&[(2, "3")]), 2));
        assert_eq!(ran.journal, expected);
        assert_eq!(skips.halted_at(), Some(Offset(3)));

        // What the consumer says of its position.
        skips.passed(Offset(2));
        let again = run_with(programs, &[bodies], (OnBad::Halt, &skips), Stop::default()).await;
        assert_eq!(again.journal, [("sink", texts(&[(0, "2")]), 0)]);
        assert_eq!(skips.halted_at(), Some(Offset(1)));
    }
}
