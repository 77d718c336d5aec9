//! A consumer that the broker makes active and passive: when its sink is open, and what is written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::*;
use crate::consumer::spec::testing;
use crate::flow::batch::Batch;
use crate::flow::{commit, cutter};
use crate::sink::factory::opens;
use crate::sink::{Durability, Sink, SinkError};
use crate::source::Activation;
use crate::source::scripted::{ABLE, Scripted};
use crate::telemetry::ConsumerMetrics;
use crate::types::Guarantee;

/// What outlives a sink.
#[derive(Default)]
struct Medium {
    opened: AtomicU64,
    closed: AtomicU64,
    offsets: Mutex<Vec<u64>>,
    changed: tokio::sync::Notify,
}

struct InMemory(Arc<Medium>);

#[async_trait]
impl Sink for InMemory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.0.offsets.lock().unwrap().extend(batch.records().map(|record| record.offset.0));
        self.0.changed.notify_one();
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Medium {
    async fn until_written(&self, offsets: u64) {
        while (self.offsets.lock().unwrap().len() as u64) < offsets {
            self.changed.notified().await;
        }
    }

    fn counts(&self) -> (u64, u64) {
        (self.opened.load(Ordering::Relaxed), self.closed.load(Ordering::Relaxed))
    }
}

fn publish(scripted: &Scripted, messages: usize) {
    scripted.publish(&vec![vec![0; 10]; messages], Timestamp(0));
}

#[tokio::test]
async fn its_sink_is_open_only_while_it_is_active_and_an_orderly_hand_over_repeats_nothing() {
    let scripted = Scripted::activated(ABLE, Activation::ByBroker);
    scripted.set_active(false);
    publish(&scripted, 10);
    let medium = Arc::new(Medium::default());
    let sink = {
        let medium = Arc::clone(&medium);
        opens(move || {
            medium.opened.fetch_add(1, Ordering::Relaxed);
            let medium = Arc::clone(&medium);
            async move { Ok(InMemory(medium)) }
        })
    };
    let state = tempfile::tempdir().unwrap();
    let second = Duration::from_secs(1);
    let spec = Arc::new(Spec {
        source: Arc::new(scripted.clone()),
        // Neither count nor time makes it store: only a hand-over does.
        commit: commit::Policy { every_messages: 1_000, every: 1_000 * second },
        batch: cutter::BatchLimits { max_messages: 7, max_bytes: 1 << 20, max_age: second },
        ..testing::spec(state.path())
    });
    let resources =
        Resources { sink, dead_letters: None, hold: None, renaming: None, shares_hold: false };
    let metrics = ConsumerMetrics::new(&spec.name, &spec.stream, "memory");
    let (commands, receive) = mpsc::channel(1);
    let running = tokio::spawn(async move {
        let status = Arc::new(Status::new(metrics));
        run(spec, resources, status, receive, &Heartbeats::new()).await
    });

    scripted.subscribed(1).await;
    assert_eq!(medium.counts(), (0, 0), "a passive consumer leaves the sink to the active one");

    scripted.set_active(true);
    medium.until_written(10).await;
    assert_eq!(medium.counts(), (1, 0));
    scripted.set_active(false);
    scripted.yielded(1).await;
    assert_eq!(medium.counts(), (1, 1), "closed before the broker has another one begin");
    assert_eq!(scripted.stored(), Some(Offset(9)), "stored before that");

    // Another instance continues from there.
    publish(&scripted, 5);
    scripted.set_stored(Some(Offset(14)));
    publish(&scripted, 5);
    scripted.set_active(true);
    medium.until_written(15).await;
    commands.send(Command::Drain).await.unwrap();
    assert_eq!(running.await.unwrap(), Outcome::Drained);
    let expected: Vec<u64> = (0..10).chain(15..20).collect();
    assert_eq!(*medium.offsets.lock().unwrap(), expected);
    assert_eq!((medium.counts(), scripted.stored()), ((2, 2), Some(Offset(19))));
}

/// A sink that is stuck until it is released.
struct Stuck(Arc<tokio::sync::Semaphore>);

#[async_trait]
impl Sink for Stuck {
    fn kind(&self) -> &'static str {
        "stuck"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, _: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.0.acquire().await.unwrap().forget();
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect(what);
}

#[tokio::test]
async fn it_hears_that_another_is_to_be_active_while_its_sink_is_stuck_and_chunks_wait() {
    let scripted = Scripted::activated(ABLE, Activation::ByBroker);
    (0..40).for_each(|_| publish(&scripted, 5));
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let sink = {
        let permits = Arc::clone(&permits);
        opens(move || {
            let permits = Arc::clone(&permits);
            async move { Ok(Stuck(permits)) }
        })
    };
    let state = tempfile::tempdir().unwrap();
    let second = Duration::from_secs(1);
    let spec = Arc::new(Spec {
        source: Arc::new(scripted.clone()),
        commit: commit::Policy { every_messages: 1_000, every: 1_000 * second },
        batch: cutter::BatchLimits { max_messages: 5, max_bytes: 1 << 20, max_age: second },
        ..testing::spec(state.path())
    });
    let resources =
        Resources { sink, dead_letters: None, hold: None, renaming: None, shares_hold: false };
    let status = Arc::new(Status::new(ConsumerMetrics::new(&spec.name, &spec.stream, "stuck")));
    let (commands, receive) = mpsc::channel(1);
    let running = {
        let status = Arc::clone(&status);
        tokio::spawn(async move { run(spec, resources, status, receive, &Heartbeats::new()).await })
    };
    // The sink has fewer batches than there are chunks: the rest waits in the subscription's queue.
    until("it reads", || status.facts().received >= Some(Offset(14))).await;
    scripted.set_active(false);
    until("it yields", || status.facts().state == crate::telemetry::State::Draining).await;
    assert_eq!(scripted.stored(), None, "nothing is durable yet");
    permits.add_permits(1_000);
    scripted.yielded(1).await;
    let stored = scripted.stored().expect("what was with the sink is stored").0;
    assert!((4..199).contains(&stored), "{stored}: what waited is for the next active one");
    until("it stands by", || status.facts().state == crate::telemetry::State::Passive).await;
    let facts = status.facts();
    assert!(facts.is_ready() && facts.lag(Timestamp(0)).is_none(), "{facts:?}");
    commands.send(Command::Drain).await.unwrap();
    assert_eq!(running.await.unwrap(), Outcome::Drained);
}
