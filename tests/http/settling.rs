//! A service that is slower than the stream: are accepted records settled at once, so that a crash
//! repeats little, and a graceful shutdown nothing?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::common::daemon::Home;
use crate::common::load::publish_evenly;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);
const TOTAL: u64 = 20_000;
/// Records in a request.
const RECORDS: u64 = 50;

/// A service that answers as many requests as there are permits.
async fn gated(gate: &Arc<Semaphore>) -> Web {
    let gate = Arc::clone(gate);
    Web::start(move |_| Reply::When(Arc::clone(&gate), Box::new(Reply::Keep))).await
}

fn home(broker: &Broker, stream: &str, web: &Web, in_flight: u32) -> Home {
    // Eight batches are joined: 8,000 records. Without settling as they are accepted, the first of them
    // would be reported only together with the last.
    Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"poster\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             batch = {{ max_messages = 1000, max_age = \"20ms\" }}\n\
             commit = {{ every_messages = 100, every = \"100ms\" }}\n\
             [consumer.sink]\ntype = \"http\"\nurl = \"{}\"\nmax_records = {RECORDS}\n\
             in_flight = {in_flight}\ntimeout = \"5m\"\n",
            web.url()
        ),
    )
}

async fn stream_of(broker: &Broker, name: &str) -> String {
    let stream = streams::create(broker, name).await;
    publish_evenly(broker, &stream, (TOTAL, 500), |i| format!("{{\"i\":{i}}}")).await;
    stream
}

/// Checks that everything arrived; returns how often something was repeated.
fn repeats(web: &Web) -> usize {
    let came: Vec<u64> =
        web.seen().iter().filter(|seen| seen.kept).flat_map(|seen| seen.offsets()).collect();
    let distinct: BTreeSet<u64> = came.iter().copied().collect();
    assert!(distinct.iter().copied().eq(0..TOTAL), "{} of {TOTAL}", distinct.len());
    came.len() - distinct.len()
}

async fn killed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = stream_of(broker, "http-slow-kill").await;
    let gate = Arc::new(Semaphore::new(0));
    let web = gated(&gate).await;
    let home = home(broker, &stream, &web, 1);
    let mut daemon = home.start();
    let mut answered = 0;
    for requests in [20, 1, 37] {
        gate.add_permits(requests);
        answered += requests;
        eventually("so many requests are accepted", LONG, || async {
            (web.seen().iter().filter(|seen| seen.kept).count() == answered).then_some(())
        })
        .await;
        // Nothing else is accepted, and the batch in flight is not complete.
        let accepted = web.kept().len() as u64;
        daemon.until_durable("poster", accepted - 1).await;
        assert_eq!(web.kept().len() as u64, accepted);
        eventually("it is stored", LONG, || async {
            (streams::stored_offset(broker, &stream, "poster").await == Some(accepted - 1))
                .then_some(())
        })
        .await;
    }
    daemon.kill();
    gate.add_permits(100_000);
    let mut daemon = home.start();
    daemon.until_durable("poster", TOTAL - 1).await;
    daemon.terminate().await;
    // At most the request that was in flight: its answer was lost.
    let repeats = repeats(&web) as u64;
    assert!(repeats <= RECORDS, "{repeats} came again");
    Ok(())
}

#[tokio::test]
async fn what_a_slow_service_accepts_is_settled_as_it_is_accepted() {
    or_skip!(killed().await);
}

async fn stopped() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = stream_of(broker, "http-slow-stop").await;
    let gate = Arc::new(Semaphore::new(0));
    let web = gated(&gate).await;
    let home = home(broker, &stream, &web, 4);
    home.set("shutdown_grace = \"14s\"");
    let mut daemon = home.start();
    let feeding = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move {
            // The service's pace: the slowness is part of the test.
            loop {
                tokio::time::sleep(Duration::from_millis(60)).await;
                gate.add_permits(1);
            }
        }
    });
    daemon.until_durable("poster", 499).await;
    daemon.signal("TERM");
    let status = daemon.ended(Duration::from_secs(60)).await;
    feeding.abort();
    assert_eq!(status.code(), Some(0), "{}", home.log_tail());
    let accepted = web.kept().len() as u64;
    assert!(accepted < TOTAL / 2, "{accepted}: it was slow");
    assert!(web.kept().into_iter().eq(0..accepted), "there are gaps below {accepted}");
    let stored = streams::stored_offset(broker, &stream, "poster").await;
    assert_eq!(stored, Some(accepted - 1));
    gate.add_permits(100_000);
    let mut daemon = home.start();
    daemon.until_durable("poster", TOTAL - 1).await;
    daemon.terminate().await;
    assert_eq!(repeats(&web), 0);
    Ok(())
}

#[tokio::test]
async fn a_graceful_shutdown_amid_a_backlog_repeats_nothing() {
    or_skip!(stopped().await);
}
