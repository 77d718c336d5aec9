//! A sink that dies before its first commit: the restarted consumer begins where it began the first time,
//! and not at a new beginning.
//!
//! Through the library, since none of the real sinks can be made to panic.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rillway::config::{Config, Env};
use rillway::flow::batch::Batch;
use rillway::sink::factory::opens;
use rillway::sink::{Durability, Sink, SinkError};
use rillway::supervisor::{Plan, Supervisor, plan_of};
use rillway::telemetry::State;
use rillway::types::{Checkpoint, Guarantee};

use super::{NULL, bodies, consumer};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, reading, streams};

const LONG: Duration = Duration::from_secs(60);

/// State shared by all sinks of one consumer.
#[derive(Default)]
struct Shared {
    writes: AtomicU32,
    offsets: Mutex<Vec<u64>>,
}

/// Panics in the first two writes, and keeps no position.
struct Fragile(Arc<Shared>);

#[async_trait]
impl Sink for Fragile {
    fn kind(&self) -> &'static str {
        "null"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        assert!(self.0.writes.fetch_add(1, Ordering::SeqCst) >= 2, "on purpose");
        self.0.offsets.lock().unwrap().extend(batch.records().map(|record| record.offset.0));
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

async fn dies_before_its_first_commit() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    for start in ["start = \"next\"", "start = { ago = \"1ms\" }"] {
        let stream = streams::create(broker, "restarted").await;
        streams::publish(broker, &stream, bodies(0..20)).await;
        let home = Home::new(&broker.uri(), &consumer("c", &stream, NULL, start));
        let config = Config::load(Some(&home.path("rillway.toml")), &Env::default()).unwrap();
        let shared = Arc::new(Shared::default());
        let sink = {
            let shared = Arc::clone(&shared);
            opens(move || {
                let shared = Arc::clone(&shared);
                async move { Ok(Fragile(shared)) }
            })
        };
        let plan = Plan { sink, ..plan_of(&config, &config.consumers[0]) };
        let supervisor = Supervisor::start(vec![plan]);
        let overview = supervisor.overview();
        eventually("it runs", LONG, || async {
            (overview.consumers()[0].state == State::Running).then_some(())
        })
        .await;
        let begins = streams::stored_offset(broker, &stream, "c").await.unwrap() + 1;
        assert_eq!(begins, 20, "{start}");
        streams::publish(broker, &stream, bodies(20..30)).await;
        // Where the broker has put them: its own records take offsets, too.
        let there = reading::offsets(broker, &stream).await;
        let wanted: Vec<u64> = there.into_iter().filter(|offset| *offset >= begins).collect();
        assert_eq!(wanted.len(), 10, "{start}");
        eventually("all is written", LONG, || async {
            (shared.offsets.lock().unwrap().len() >= wanted.len()).then_some(())
        })
        .await;
        assert!(shared.writes.load(Ordering::SeqCst) > 2, "{start}: no sink has died");
        assert_eq!(*shared.offsets.lock().unwrap(), wanted, "{start}");
        supervisor.drain(LONG).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_dies_before_its_first_commit() {
    or_skip!(dies_before_its_first_commit().await);
}
