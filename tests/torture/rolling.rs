//! Three daemons on a super stream of ten partitions, which the broker spreads over them: one after the
//! other is restarted or killed, under load. Each time every partition is soon read by exactly one daemon
//! and goes on; in the end, what was published is compared with what landed.
//!
//! `ROUNDS=30` is the long form.

use std::time::{Duration, Instant};

use super::oracle::Tally;
use super::table;
use crate::common::daemon::{Daemon, Home};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, streams};
use crate::super_stream::spread::places::{Kind, Places};
use crate::super_stream::spread::{loads, stop, until_all_written, until_moving, until_spread};

const PARTITIONS: usize = 10;

const DAEMONS: usize = 3;

/// So long may a partition be without progress after a restart or a kill.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What happens to the daemons in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Ended by SIGTERM, and started again.
    Restart,
    /// The same by SIGKILL.
    Kill,
}

async fn rolled(kinds: &[Kind], turns: &[Turn], what: &str) -> Result<(), Unavailable> {
    let rounds = env_or("ROUNDS", 3);
    let broker = Broker::shared(Version::V4_3).await?;
    let places = Places::new(broker, kinds).await?;
    let (super_stream, partitions) = streams::create_super(broker, "rolling", PARTITIONS).await;
    let source = format!("super_stream = \"{super_stream}\"");
    let homes = [(); DAEMONS].map(|()| Home::new(&broker.uri(), &places.consumers(&source)));
    let names = places.names();
    let loads = loads(broker, &partitions);
    let mut daemons: Vec<Daemon> = homes.iter().map(Home::start).collect();
    let began = Instant::now();
    let all: Vec<&Daemon> = daemons.iter().collect();
    until_spread(&all, &names, &partitions, false).await;
    until_moving(&all, &names, &partitions).await;
    let mut idlest = Duration::ZERO;
    // One after the other, and each of them in each way.
    let turns_all = usize::try_from(rounds).unwrap() * DAEMONS;
    for turn in 0..turns_all {
        let (how, home) = (turns[turn % turns.len()], &homes[turn % DAEMONS]);
        let since = Instant::now();
        let former = daemons.remove(0);
        match how {
            Turn::Restart => former.terminate().await,
            Turn::Kill => former.kill(),
        }
        daemons.push(home.start());
        let all: Vec<&Daemon> = daemons.iter().collect();
        until_spread(&all, &names, &partitions, false).await;
        until_moving(&all, &names, &partitions).await;
        let idle = since.elapsed();
        assert!(idle <= IDLE_MAX, "turn {turn}, {how:?}: a partition was idle for {idle:?}");
        idlest = idlest.max(idle);
        if turn % DAEMONS == DAEMONS - 1 {
            eprintln!("round {} of {rounds}: at most {idlest:.1?}", turn / DAEMONS + 1);
        }
    }
    let totals = stop(loads, &partitions).await;
    let all: Vec<&Daemon> = daemons.iter().collect();
    until_all_written(&all, &names, &totals).await;
    for daemon in daemons {
        daemon.terminate().await;
    }
    eprintln!("{what}: the longest time without progress was {idlest:.1?}");
    let counts = places.counts(&homes.each_ref(), &totals).await;
    for (kind, count) in &counts {
        let tally =
            Tally { total: count.total, lost: count.lost, repeated: count.repeated, torn: 0 };
        table::row(kind.name(), what, rounds * DAEMONS as u64, tally, began.elapsed());
    }
    for (kind, count) in counts {
        count.assert_exact(kind);
    }
    streams::delete_super(broker, &super_stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_and_kills() {
    let kinds = [Kind::File, Kind::Sqlite, Kind::Object, Kind::Stream];
    or_skip!(rolled(&kinds, &[Turn::Restart, Turn::Kill], "rolling, killed too").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_and_kills_with_postgres() {
    let turns = [Turn::Restart, Turn::Kill];
    or_skip!(rolled(&[Kind::Postgres], &turns, "rolling, killed too").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_repeat_nothing_in_any_sink() {
    let kinds = [Kind::File, Kind::Sqlite, Kind::Object, Kind::Stream, Kind::Stdout, Kind::Http];
    or_skip!(rolled(&kinds, &[Turn::Restart], "rolling, orderly").await);
}
