//! Bad records are durable as dead letters before the batch continues without them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::consumer::dead_letter_index::DeadLetterIndex;
use crate::consumer::dead_letters::DeadLetters;
use crate::consumer::filter::{Filter, testing::filter};
use crate::consumer::orders::Order;
use crate::consumer::spec::testing::spec;
use crate::flow::ledger::Ledger;
use crate::sink::BadReason;
use crate::sink::SinkError;
use crate::sink::conformance::{BAD_MESSAGE, STREAM, batch_with_bad};
use crate::types::{Checkpoint, Guarantee, Offset};
use crate::wire::amqp::{self, Value};

/// What happened, in order: `sink` and `letters` with the offsets that became durable there.
type Journal = Arc<Mutex<Vec<(&'static str, Vec<u64>)>>>;

/// Notes what is written. Refuses, as the sink, what [`BAD_MESSAGE`] is; as the letters, what it is
/// told to.
struct Noting {
    name: &'static str,
    journal: Journal,
    refuses: BTreeSet<u64>,
    errors: VecDeque<SinkError>,
    /// Takes letters into its own memory first.
    holds: Option<Vec<u64>>,
    encoded: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[async_trait]
impl Sink for Noting {
    fn kind(&self) -> &'static str {
        self.name
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        let bad: Vec<_> = batch
            .records()
            .filter(|r| self.refuses.contains(&r.offset.0))
            .map(|r| BadRecord {
                about: None,
                offset: r.offset,
                reason: BadReason::Undecodable,
                detail: format!("bad at {}", r.offset),
            })
            .collect();
        if !bad.is_empty() {
            return Err(SinkError::Poison(bad));
        }
        let offsets: Vec<u64> = batch.records().map(|r| r.offset.0).collect();
        self.encoded.lock().unwrap().extend(batch.records().map(|r| r.message.to_vec()));
        if let Some(held) = &mut self.holds {
            held.extend(offsets);
            return Ok(Durability::Held);
        }
        self.journal.lock().unwrap().push((self.name, offsets));
        Ok(Durability::Durable)
    }

    /// Asks for a flush while it holds records. Before the first write, these are an earlier process's.
    fn flush_at(&self) -> Option<Instant> {
        let has_some = self.holds.as_ref().is_some_and(|held| !held.is_empty());
        has_some.then(Instant::now)
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(held) = &mut self.holds {
            self.journal.lock().unwrap().push((self.name, std::mem::take(held)));
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

struct Case {
    bad: BTreeSet<u64>,
    /// Good messages that the sink refuses.
    refuses: BTreeSet<u64>,
    filter: Option<Filter>,
    /// The letters' position when they were opened.
    found: Option<u64>,
    letters: Noting,
    errors: VecDeque<SinkError>,
    state: Arc<tempfile::TempDir>,
}

impl Case {
    /// A start after a crash: `found` is the letters' position by then.
    fn again(&self, bad: &[u64], found: u64) -> Case {
        let state = Arc::clone(&self.state);
        Case { found: Some(found), state, ..Case::new(bad) }
    }

    fn new(bad: &[u64]) -> Case {
        let letters = Noting {
            name: "letters",
            journal: Journal::default(),
            refuses: BTreeSet::new(),
            errors: VecDeque::new(),
            holds: None,
            encoded: Arc::default(),
        };
        Case {
            bad: bad.iter().copied().collect(),
            refuses: BTreeSet::new(),
            filter: None,
            found: None,
            letters,
            errors: VecDeque::new(),
            state: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    /// Two batches, 0..10 and 10..20; what was reported, and the tickets.
    async fn run(self) -> (Vec<Report>, Vec<Ticket>) {
        let sink = Noting {
            name: "sink",
            journal: Arc::clone(&self.letters.journal),
            refuses: self.bad.union(&self.refuses).copied().collect(),
            errors: self.errors,
            holds: None,
            encoded: Arc::default(),
        };
        let sieve =
            self.filter.map(|filter| Sieve::new(Some(Arc::new(filter)), None, Counted::noop()));
        let (orders, receive) = mpsc::channel(10);
        let (send, mut reports) = mpsc::channel(100);
        let mut ledger = Ledger::starting_at(None);
        let mut tickets = Vec::new();
        for first in [0, 10] {
            let batch = batch_with_bad(first..first + 10, &self.bad);
            let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
            tickets.push(ticket);
            orders.try_send(Message::Write(Order { ticket, batch })).ok().unwrap();
        }
        drop(orders);
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let spec = Arc::new(spec(self.state.path()));
        let at = self.found.map(Offset);
        let index = DeadLetterIndex::open(&spec, at).unwrap();
        let letters = DeadLetters::new(Box::new(self.letters), spec, at, index);
        run(
            Box::new(sink),
            Some(letters),
            receive,
            send,
            Rules { sieve, ..Rules::from(OnBad::DeadLetter) },
            (backoff, Stop::default()),
        )
        .await;
        let mut all = Vec::new();
        while let Some(report) = reports.recv().await {
            all.push(report);
        }
        (all, tickets)
    }
}

fn without(range: std::ops::Range<u64>, bad: &[u64]) -> Vec<u64> {
    range.filter(|n| !bad.contains(n)).collect()
}

fn transient() -> SinkError {
    SinkError::transient("away".to_owned())
}

fn settled(reports: &[Report]) -> Vec<Ticket> {
    let settled = reports.iter().filter_map(|r| match r {
        Report::Settled { tickets, .. } => Some(tickets.clone()),
        _ => None,
    });
    settled.flatten().collect()
}

fn stopped(reports: &mut Vec<Report>) -> Stopped {
    match reports.pop() {
        Some(Report::Stopped(stopped)) => stopped,
        _ => panic!("it goes on"),
    }
}

/// An earlier process was killed while it finished them, and no other dead letter comes.
#[tokio::test]
async fn letters_that_count_already_are_finished_first() {
    let mut case = Case::new(&[]);
    case.letters.holds = Some(vec![3]);
    let journal = Arc::clone(&case.letters.journal);
    let (reports, tickets) = case.run().await;
    assert_eq!(settled(&reports), tickets);
    let journal = journal.lock().unwrap();
    assert_eq!(journal.first(), Some(&("letters", vec![3])), "{journal:?}");
    assert_eq!(journal.len(), 3, "{journal:?}");
}

/// The filter cannot read some messages, and the sink refuses others before and after them: the letters
/// are in order all the same, and what is not wanted is in neither place.
#[tokio::test]
async fn letters_of_the_filter_and_of_the_sink_are_in_order() {
    let case = Case {
        refuses: BTreeSet::from([3, 9, 15]),
        filter: Some({
            let wanted: Vec<String> = (0..20).map(|n| format!("offset {n}")).collect();
            let unwanted = [4, 11];
            let wanted: Vec<&str> = (0..20)
                .filter(|n| !unwanted.contains(n))
                .map(|n| wanted[n as usize].as_str())
                .collect();
            filter("body", &wanted, false)
        }),
        ..Case::new(&[5, 6, 12])
    };
    let journal = Arc::clone(&case.letters.journal);
    let (reports, tickets) = case.run().await;
    let expected = [
        ("letters", vec![3]),
        ("sink", vec![0, 1, 2]),
        ("letters", vec![5, 6]),
        ("letters", vec![9]),
        ("sink", vec![7, 8]),
        ("sink", vec![10]),
        ("letters", vec![12]),
        ("letters", vec![15]),
        ("sink", vec![13, 14, 16, 17, 18, 19]),
    ];
    assert_eq!(*journal.lock().unwrap(), expected);
    assert_eq!(settled(&reports), tickets);
}

#[tokio::test]
async fn letters_are_durable_before_the_rest_is_written() {
    for holds in [None, Some(Vec::new())] {
        let mut case = Case::new(&[3, 7, 10]);
        case.letters.holds = holds;
        let (journal, encoded) =
            (Arc::clone(&case.letters.journal), Arc::clone(&case.letters.encoded));
        let (reports, tickets) = case.run().await;
        assert_eq!(
            *journal.lock().unwrap(),
            [
                ("letters", vec![3, 7]),
                ("sink", without(0..10, &[3, 7])),
                ("letters", vec![10]),
                ("sink", without(10..20, &[10])),
            ]
        );
        assert_eq!(settled(&reports), tickets);
        let letter = encoded.lock().unwrap()[1].clone();
        let letter = amqp::Message::parse(&letter).unwrap();
        assert_eq!(&*amqp::carried(&letter).unwrap(), BAD_MESSAGE);
        let map = letter.message_annotations().unwrap();
        let text = |key: &str| map.get(key).unwrap().unwrap().as_str().map(str::to_owned).unwrap();
        assert_eq!(text("x-rillway-reason"), "undecodable");
        assert_eq!(text("x-rillway-error"), "bad at 7");
        assert_eq!(text("x-rillway-consumer"), "c");
        assert_eq!(text("x-rillway-stream"), STREAM);
        assert!(matches!(map.get("x-rillway-offset"), Ok(Some(Value::Ulong(7)))));
        assert!(matches!(
            map.get("x-rillway-timestamp"),
            Ok(Some(Value::Timestamp(1_700_000_000_000)))
        ));
    }
}

/// After a crash between the letters and the rest of the batch it is all read again.
#[tokio::test]
async fn letters_that_an_earlier_run_wrote_are_not_written_again() {
    for (found, expected) in [(6, vec![7]), (7, vec![])] {
        let before = Case::new(&[3, 7]);
        let case = before.again(&[3, 7], found);
        before.run().await;
        let journal = Arc::clone(&case.letters.journal);
        let (reports, tickets) = case.run().await;
        let journal = journal.lock().unwrap();
        let letters: Vec<u64> =
            journal.iter().filter(|(n, _)| *n == "letters").flat_map(|(_, o)| o.clone()).collect();
        assert_eq!(letters, expected, "{found}");
        assert!(journal.contains(&("sink", without(0..10, &[3, 7]))));
        assert_eq!(settled(&reports), tickets);
    }
}

#[tokio::test]
async fn a_sink_of_letters_that_is_away_is_waited_for() {
    let mut case = Case::new(&[3]);
    case.letters.errors = [transient(), transient()].into();
    let journal = Arc::clone(&case.letters.journal);
    let (reports, tickets) = case.run().await;
    let retries = reports.iter().filter(|r| matches!(r, Report::Retrying { .. })).count();
    assert_eq!((retries, settled(&reports)), (2, tickets));
    assert_eq!(journal.lock().unwrap()[0], ("letters", vec![3]));
}

/// Then an operator has to act: the records before the bad one are written, and nothing behind it.
#[tokio::test]
async fn a_letter_that_is_refused_halts() {
    for fatal in [false, true] {
        let mut case = Case::new(&[5]);
        if fatal {
            case.letters.errors = [SinkError::Fatal("no right to write".to_owned())].into();
        } else {
            case.letters.refuses = [5].into();
        }
        let journal = Arc::clone(&case.letters.journal);
        let (mut reports, tickets) = case.run().await;
        let stopped = stopped(&mut reports);
        assert!(stopped.reason.contains("its dead letter cannot be written"), "{}", stopped.reason);
        assert!(stopped.reason.contains("offset 5"), "{}", stopped.reason);
        let part = stopped.written.part.map(|(ticket, c, n)| (ticket, c.offset.0, n));
        assert_eq!(part, Some((tickets[0], 4, 5)));
        assert_eq!(*journal.lock().unwrap(), [("sink", vec![0, 1, 2, 3, 4])]);
    }
}

/// A sink with a position would drop it: better to stop than to lose it.
#[tokio::test]
async fn a_record_that_is_found_bad_after_a_later_one_halts() {
    let mut case = Case::new(&[]);
    let bad = |offset| BadRecord {
        about: None,
        offset: Offset(offset),
        reason: BadReason::Misfit,
        detail: "late".to_owned(),
    };
    case.errors = [SinkError::Poison(vec![bad(6)]), SinkError::Poison(vec![bad(2)])].into();
    let journal = Arc::clone(&case.letters.journal);
    let (mut reports, _) = case.run().await;
    let stopped = stopped(&mut reports);
    assert!(
        stopped.reason.contains("offset 2 was found bad only after a later one"),
        "{}",
        stopped.reason
    );
    assert_eq!(*journal.lock().unwrap(), [("letters", vec![6]), ("sink", vec![0, 1])]);
}

/// Where an earlier run refused other messages: one that has no letter is not left out without.
#[tokio::test]
async fn a_record_without_a_letter_below_others_halts() {
    for (before, now, found, lost) in
        [(vec![3, 7], vec![3, 5, 7], 7, 5), (vec![7], vec![3], 7, 3), (vec![8], vec![8], 8, 0)]
    {
        let first = Case::new(&before);
        let case = first.again(&now, found);
        let file = first.state.path().join(format!("r@{STREAM}.dead-letters"));
        first.run().await;
        if lost == 0 {
            std::fs::remove_file(&file).unwrap();
        }
        let lost = if lost == 0 { 8 } else { lost };
        let repaired = case.again(&now, found);
        let journal = Arc::clone(&case.letters.journal);
        let (mut reports, _) = case.run().await;
        let reason = stopped(&mut reports).reason;
        assert!(reason.contains(&format!("offset {lost} was found bad only")), "{reason}");
        assert!(reason.contains("restart the consumer"), "{reason}");
        assert!(journal.lock().unwrap().iter().all(|(name, _)| *name == "sink"), "no letter");
        // An operator has found the dead letter, and confirms it.
        let mut text = std::fs::read_to_string(&file).unwrap_or_default();
        text.push_str(&format!("{lost}\n"));
        std::fs::write(&file, text).unwrap();
        let (reports, tickets) = repaired.run().await;
        assert_eq!(settled(&reports), tickets);
    }
}

/// What was noted, and came never to be written, proves nothing, whatever comes later.
#[tokio::test]
async fn an_intention_proves_nothing() {
    let mut first = Case::new(&[3, 7]);
    first.letters.refuses = [7].into();
    let other = first.again(&[8], 0);
    let last = first.again(&[3, 8], 8);
    stopped(&mut first.run().await.0);
    let (reports, tickets) = other.run().await;
    assert_eq!(settled(&reports), tickets);
    let reason = stopped(&mut last.run().await.0).reason;
    assert!(reason.contains("offset 3 was found bad only"), "{reason}");
}
