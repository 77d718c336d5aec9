//! The destination fails for a while, beside another consumer of the same daemon: does that one keep its
//! speed, does memory stay within the bound that `rillway check` prints, and is everything written,
//! without help, once the destination works again?
//!
//! Each failure lasts some seconds; `OUTAGE_SECONDS=60` makes that longer.

use std::time::{Duration, Instant};

use super::home as home_of;
use super::oracle::{Failure, Oracle, Tally};
use super::{LONG, NAME, all_landed, consumer, durable, table, until_progress};
use crate::common::daemon::Daemon;
use crate::common::load::{Load, Pace};
use crate::common::skip::Unavailable;
use crate::common::{Broker, Version, env_or, streams};

const PACE: Pace = Pace { messages: 40, pause: Duration::from_millis(20) };

/// Memory for the program itself, whatever its configuration; as in the other tests of memory.
const PROCESS_BYTES: u64 = 8 << 20;

/// Without a change for this long, a figure counts as standing still.
const STANDS: Duration = Duration::from_secs(1);

/// Looks without a change before that: a machine that stalls is not looked at meanwhile.
const LOOKS: u32 = 8;

const BYSTANDER: &str = "bystander";

/// All failures that are possible with this destination, one after the other.
pub(crate) async fn outages(mut oracle: impl Oracle) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let began = Instant::now();
    let stream = streams::create(broker, "outage").await;
    let home = home_of(
        broker,
        &oracle,
        &format!(
            "{}memory = \"4MiB\"\n[[consumer]]\nname = \"{BYSTANDER}\"\nstream = \"{stream}\"\n\
             start = \"first\"\nsink = {{ type = \"null\" }}\n{}",
            consumer(&oracle, &stream),
            super::SMALL
        ),
    );
    let bound = home.memory_bound_bytes() + PROCESS_BYTES;
    let load = Load::on(broker, &stream, PACE);
    let mut daemon = home.start();
    let mut failures = 0;
    for failure in [Failure::Gone, Failure::Refuses, Failure::Hangs] {
        until_progress(&mut daemon).await;
        if oracle.break_down(failure, true).await {
            failures += 1;
            while_it_is_down(&mut daemon, &load, failure).await;
            assert!(oracle.break_down(failure, false).await, "it works again");
        }
        let most = daemon.most_memory_bytes();
        assert!(most <= bound, "{failure:?}: {most} B taken, where {bound} B are the bound");
    }
    assert!(failures > 0, "a medium that cannot be broken proves nothing here");
    let total = load.stop().await;
    all_landed(&mut daemon, &mut oracle, &home, &stream, total).await;
    daemon.until(NAME, "it runs", LONG, |c| c["state"] == "running").await;
    daemon.terminate().await;
    let landed = oracle.landed(&home, &stream).await;
    let tally = Tally::of(&oracle, &landed, total);
    table::row(oracle.name(), "outages", failures, tally, began.elapsed());
    tally.assert_kept(&oracle, 0);
    streams::delete(broker, &stream).await;
    Ok(())
}

/// The failing one stops, and stays where it is; the other one follows the producer.
async fn while_it_is_down(daemon: &mut Daemon, load: &Load, failure: Failure) {
    let seconds = Duration::from_secs(env_or("OUTAGE_SECONDS", 2));
    let began = Instant::now();
    // Writes in flight at the beginning may still succeed.
    let (mut at, mut since, mut looks) = (None, Instant::now(), 0);
    while looks < LOOKS || since.elapsed() < STANDS + seconds {
        let published = load.confirmed();
        daemon
            .until(BYSTANDER, "the other one follows", Duration::from_secs(60), |c| {
                c["state"] == "running"
                    && c["restarts"] == 0
                    && durable(c) >= published.checked_sub(1)
            })
            .await;
        let consumer = daemon.consumer(NAME).await.expect("the daemon answers");
        assert!(consumer["state"] != "halted", "{failure:?}: {consumer}");
        looks += 1;
        if at != durable(&consumer) {
            assert!(
                looks <= LOOKS || since.elapsed() < STANDS,
                "{failure:?}: the medium takes something: {consumer}"
            );
            assert!(began.elapsed() < LONG, "{failure:?}: it does not come to a stand: {consumer}");
            (at, since, looks) = (durable(&consumer), Instant::now(), 0);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let consumer = daemon.consumer(NAME).await.expect("the daemon answers");
    eprintln!("{failure:?}: {}", consumer["reason"]);
}
