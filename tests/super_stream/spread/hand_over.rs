//! Daemons that come, end, die and freeze: who reads which partition then, and what landed?

use std::collections::BTreeMap;
use std::time::Instant;

use rusqlite::Connection;

use super::places::{Kind, Places};
use super::{loads, stop, until_all_written, until_moving, until_spread};
use crate::common::daemon::{Daemon, Home, is_to_stay_frozen};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};
use crate::super_stream::{LONG, rows, until_row};

const PARTITIONS: usize = 4;

/// A super stream of its own, with what publishes into it and where it goes.
struct Stage {
    broker: &'static Broker,
    super_stream: String,
    partitions: Vec<String>,
    places: Places,
}

impl Stage {
    async fn new(version: Version, kinds: &[Kind]) -> Result<Stage, Unavailable> {
        let broker = Broker::shared(version).await?;
        let places = Places::new(broker, kinds).await?;
        let (super_stream, partitions) = streams::create_super(broker, "spread", PARTITIONS).await;
        Ok(Stage { broker, super_stream, partitions, places })
    }

    fn home(&self) -> Home {
        let source = format!("super_stream = \"{}\"", self.super_stream);
        Home::new(&self.broker.uri(), &self.places.consumers(&source))
    }

    /// Of a daemon whose silence the broker notices soon.
    fn home_of_one_to_freeze(&self) -> Home {
        let source = format!("super_stream = \"{}\"", self.super_stream);
        Home::with_heartbeat(&self.broker.uri(), "2s", &self.places.consumers(&source))
    }

    async fn until_spread(&self, daemons: &[&Daemon]) {
        let names = self.places.names();
        until_spread(daemons, &names, &self.partitions, true).await;
        until_moving(daemons, &names, &self.partitions).await;
    }

    /// Two daemons that share the partitions.
    async fn two(&self, homes: &[Home; 2]) -> (Daemon, Daemon) {
        let first = homes[0].start();
        self.until_spread(&[&first]).await;
        let second = homes[1].start();
        self.until_spread(&[&first, &second]).await;
        (first, second)
    }

    async fn until_all_written(&self, daemons: &[&Daemon], totals: &BTreeMap<String, u64>) {
        until_all_written(daemons, &self.places.names(), totals).await;
    }

    async fn end(self) {
        streams::delete_super(self.broker, &self.super_stream).await;
    }
}

/// Three daemons come one after the other, and end one after the other.
async fn orderly(version: Version, kinds: &[Kind]) -> Result<(), Unavailable> {
    let stage = Stage::new(version, kinds).await?;
    let homes = [(); 3].map(|()| stage.home());
    let loads = loads(stage.broker, &stage.partitions);
    let first = homes[0].start();
    stage.until_spread(&[&first]).await;
    let second = homes[1].start();
    stage.until_spread(&[&first, &second]).await;
    let third = homes[2].start();
    stage.until_spread(&[&first, &second, &third]).await;
    for daemon in [&first, &second, &third] {
        let ready = daemon.http("GET", "/readyz").await.unwrap();
        assert_eq!(ready.0, 200, "one that stands by is ready: {}", ready.1);
    }
    first.terminate().await;
    stage.until_spread(&[&second, &third]).await;
    second.terminate().await;
    stage.until_spread(&[&third]).await;
    let totals = stop(loads, &stage.partitions).await;
    stage.until_all_written(&[&third], &totals).await;
    third.terminate().await;
    for (kind, count) in stage.places.counts(&homes.each_ref(), &totals).await {
        count.assert_exact(kind);
    }
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_come_and_end_and_no_sink_gets_anything_twice_on_4_3() {
    let kinds = [Kind::File, Kind::Sqlite, Kind::Object, Kind::Stream, Kind::Stdout, Kind::Http];
    or_skip!(orderly(Version::V4_3, &kinds).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_come_and_end_and_no_sink_gets_anything_twice_on_4_0() {
    or_skip!(orderly(Version::V4_0, &[Kind::File, Kind::Sqlite, Kind::Stdout]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_come_and_end_and_postgres_gets_nothing_twice() {
    or_skip!(orderly(Version::V4_3, &[Kind::Postgres]).await);
}

/// The first of two is killed: the other one takes over all of its partitions.
async fn killed(version: Version, kinds: &[Kind]) -> Result<(), Unavailable> {
    let stage = Stage::new(version, kinds).await?;
    let homes = [(); 2].map(|()| stage.home());
    let loads = loads(stage.broker, &stage.partitions);
    let (first, second) = stage.two(&homes).await;
    first.kill();
    stage.until_spread(&[&second]).await;
    let totals = stop(loads, &stage.partitions).await;
    stage.until_all_written(&[&second], &totals).await;
    second.terminate().await;
    for (kind, count) in stage.places.counts(&homes.each_ref(), &totals).await {
        count.assert_kept(kind);
    }
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_one_takes_over_from_one_that_is_killed_on_4_3() {
    let kinds = [Kind::File, Kind::Sqlite, Kind::Object, Kind::Stream, Kind::Stdout, Kind::Http];
    or_skip!(killed(Version::V4_3, &kinds).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_one_takes_over_from_one_that_is_killed_on_4_0() {
    or_skip!(killed(Version::V4_0, &[Kind::File, Kind::Stdout]).await);
}

/// The first of two is frozen until the broker has given its partitions away, and then wakes: nothing of
/// it lands where the next one is fenced off from it. `FREEZE_SECONDS=180` is the long form.
async fn frozen(version: Version, kinds: &[Kind]) -> Result<(), Unavailable> {
    let stage = Stage::new(version, kinds).await?;
    let homes = [stage.home_of_one_to_freeze(), stage.home()];
    let loads = loads(stage.broker, &stage.partitions);
    let (first, second) = stage.two(&homes).await;
    freeze(&first, &stage).await;
    let since = Instant::now();
    stage.until_spread(&[&second]).await;
    while is_to_stay_frozen(since).await {
        stage.until_spread(&[&second]).await;
    }
    first.signal("CONT");
    // The broker gives it its share again.
    stage.until_spread(&[&first, &second]).await;
    let totals = stop(loads, &stage.partitions).await;
    stage.until_all_written(&[&first, &second], &totals).await;
    first.terminate().await;
    second.terminate().await;
    for (kind, count) in stage.places.counts(&homes.each_ref(), &totals).await {
        count.assert_kept(kind);
    }
    stage.end().await;
    Ok(())
}

/// Freezes it, but not while it holds the lock of the database: nobody could write then until it wakes.
async fn freeze(daemon: &Daemon, stage: &Stage) {
    let has_database = stage.places.kinds().contains(&Kind::Sqlite);
    eventually("it is frozen outside of a transaction", LONG, || async {
        daemon.signal("STOP");
        eventually("it is frozen", LONG, || async { daemon.is_frozen().then_some(()) }).await;
        if !has_database {
            return Some(());
        }
        let database = Connection::open(stage.places.database()).unwrap();
        // The other daemon writes too, but not for long.
        database.busy_timeout(std::time::Duration::from_secs(2)).unwrap();
        if database.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return Some(());
        }
        daemon.signal("CONT");
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_one_that_was_frozen_lands_in_a_fenced_sink() {
    let kinds = [Kind::Sqlite, Kind::Object, Kind::Stream];
    or_skip!(frozen(Version::V4_3, &kinds).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_one_that_was_frozen_lands_in_postgres() {
    or_skip!(frozen(Version::V4_0, &[Kind::Postgres]).await);
}

/// A plain stream has one active daemon, and the others stand by, whatever the sink.
async fn plain(kinds: &[Kind]) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let places = Places::new(broker, kinds).await?;
    let partitions = [streams::create(broker, "spread-plain").await];
    let names = places.names();
    let source = format!("stream = \"{}\"", partitions[0]);
    let homes = [(); 2].map(|()| Home::new(&broker.uri(), &places.consumers(&source)));
    let loads = loads(broker, &partitions);
    let first = homes[0].start();
    until_moving(&[&first], &names, &partitions).await;
    let second = homes[1].start();
    until_spread(&[&first, &second], &names, &partitions, false).await;
    until_moving(&[&first, &second], &names, &partitions).await;
    first.terminate().await;
    until_moving(&[&second], &names, &partitions).await;
    let totals = stop(loads, &partitions).await;
    until_all_written(&[&second], &names, &totals).await;
    second.terminate().await;
    for (kind, count) in places.counts(&homes.each_ref(), &totals).await {
        count.assert_exact(kind);
    }
    streams::delete(broker, &partitions[0]).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_stream_is_handed_over_without_repeats_in_the_other_sinks() {
    or_skip!(plain(&[Kind::Object, Kind::Stream, Kind::Http]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_stream_is_handed_over_without_repeats_in_postgres() {
    or_skip!(plain(&[Kind::Postgres]).await);
}

/// The counts of the sink `metrics` are in the daemons: while none has ended, they add up.
async fn counted() -> Result<(), Unavailable> {
    let stage = Stage::new(Version::V4_3, &[]).await?;
    let names = ["counts"];
    let consumer = format!(
        "[[consumer]]\nname = \"counts\"\nsuper_stream = \"{}\"\nsingle_active = true\n\
         start = \"first\"\nbatch = {{ max_messages = 50, max_age = \"50ms\" }}\n[consumer.sink]\n\
         type = \"metrics\"\nmetrics = [{{ name = \"seen_total\", type = \"counter\", help = \"Seen.\" }}]\n",
        stage.super_stream
    );
    let homes = [(); 3].map(|()| Home::new(&stage.broker.uri(), &consumer));
    let loads = loads(stage.broker, &stage.partitions);
    let first = homes[0].start();
    until_spread(&[&first], &names, &stage.partitions, true).await;
    until_moving(&[&first], &names, &stage.partitions).await;
    let second = homes[1].start();
    until_spread(&[&first, &second], &names, &stage.partitions, true).await;
    until_moving(&[&first, &second], &names, &stage.partitions).await;
    let third = homes[2].start();
    let all = [&first, &second, &third];
    until_spread(&all, &names, &stage.partitions, true).await;
    until_moving(&all, &names, &stage.partitions).await;
    let totals = stop(loads, &stage.partitions).await;
    until_all_written(&all, &names, &totals).await;
    let mut counted = 0.0;
    for daemon in all {
        for partition in &stage.partitions {
            let label = format!("stream=\"{partition}\"");
            let labels = ["consumer=\"counts\"", label.as_str()];
            counted += daemon.metric("seen_total", &labels).await.unwrap_or(0.0);
            let passive = daemon
                .metric("rillway_consumer_state", &[label.as_str(), "state=\"passive\""])
                .await;
            let lag = daemon.metric("rillway_lag_messages", &[label.as_str()]).await;
            let is_passive = passive == Some(1.0);
            assert_eq!(lag.is_none(), is_passive, "{partition}: the active one shows the lag");
        }
    }
    let total = totals.values().sum::<u64>() as f64;
    assert!((counted - total).abs() < 0.5, "counted {counted} of {total}");
    for daemon in [first, second, third] {
        daemon.terminate().await;
    }
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counts_of_all_daemons_add_up() {
    or_skip!(counted().await);
}

/// A partition that comes later is read by one daemon, from its first message on, whichever has seen it
/// first; one that is unbound is not stood by for any more.
async fn come_and_go() -> Result<(), Unavailable> {
    let stage = Stage::new(Version::V4_3, &[Kind::File, Kind::Stdout]).await?;
    let names = stage.places.names();
    let homes = [(); 2].map(|()| stage.home());
    let load = loads(stage.broker, &stage.partitions);
    let first = homes[0].start();
    stage.until_spread(&[&first]).await;
    // Not known to either, and without an order of its own.
    let late = format!("{}-late", stage.super_stream);
    streams::create_named(stage.broker, &late, &[]).await;
    let more = loads(stage.broker, std::slice::from_ref(&late));
    let second = homes[1].start();
    stage.until_spread(&[&first, &second]).await;
    crate::common::amqp091::bind(stage.broker, &late, &stage.super_stream, "late").await;
    let mut partitions = stage.partitions.clone();
    partitions.push(late.clone());
    until_spread(&[&first, &second], &names, &partitions, false).await;
    until_moving(&[&first, &second], &names, &partitions).await;

    // The first partition goes.
    let gone = partitions.remove(0);
    crate::common::amqp091::unbind(stage.broker, &gone, &stage.super_stream, ("0", 0)).await;
    eventually("nobody reads it any more", LONG, || async {
        let mut left = 0;
        for (daemon, name) in
            [&first, &second].into_iter().flat_map(|d| names.iter().map(move |n| (d, n)))
        {
            let rows = rows(daemon, name).await;
            left += usize::from(rows.is_empty());
            left += rows.iter().filter(|row| row["stream"] == gone.as_str()).count();
        }
        (left == 0).then_some(())
    })
    .await;
    until_spread(&[&first, &second], &names, &partitions, false).await;
    let mut totals = stop(load, &stage.partitions).await;
    totals.extend(stop(more, std::slice::from_ref(&late)).await);
    totals.remove(&gone);
    until_all_written(&[&first, &second], &names, &totals).await;
    first.terminate().await;
    second.terminate().await;
    for kind in stage.places.kinds() {
        let mut landed = stage.places.landed(*kind, &homes.each_ref()).await;
        let left = landed.remove(&gone).expect("it was read");
        assert!(left.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?}: {gone}");
        super::places::Count::of(*kind, &landed, &totals).assert_exact(*kind);
    }
    for home in &homes {
        assert!(home.log().contains("no longer a partition"), "{}", home.log_tail());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go_under_several_daemons() {
    or_skip!(come_and_go().await);
}

async fn too_old() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let consumer = "[[consumer]]\nname = \"c\"\nsuper_stream = \"orders\"\nsingle_active = true\n\
                    sink = { type = \"null\" }\n";
    let home = Home::new(&broker.uri(), consumer);
    let checked = home.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("for each partition, one of all daemons"), "{said}");
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(69), "{said}");
    assert!(said.contains("needs RabbitMQ 3.11 or later") && said.contains("3.10"), "{said}");
    let daemon = home.start();
    until_row(&daemon, ("c", "orders"), "it says what is needed", |row| {
        row["reason"].as_str().is_some_and(|reason| reason.contains("3.11 or later"))
    })
    .await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_too_old_for_it_is_named_with_the_version_needed() {
    or_skip!(too_old().await);
}
