//! `kill -9` at random moments and at each named point of a write, under load.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rillway::faults::Point;

use super::home as home_of;
use super::oracle::{Oracle, Tally};
use super::{LONG, NAME, all_landed, consumer, table, until_progress};
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace};
use crate::common::skip::Unavailable;
use crate::common::{Broker, Version, env_or, streams};

/// One in this many runs is killed while it starts up.
const EARLY_ONE_IN: u64 = 4;

/// The daemon's work between two batches takes less than this.
const LATER_MS_MAX: u64 = 150;

/// The daemon dies after at most this many passes of a point.
const PASSED_MAX: u64 = 8;

/// A rate that every destination here can take while this machine is busy with other tests: what cannot
/// be written in time only makes the end of the test longer.
const PACE: Pace = Pace { messages: 20, pause: Duration::from_millis(12) };

/// How the daemon dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    AtAnyMoment,
    At(Point),
}

/// `KILLS` at random moments, and a tenth of that at each point.
fn deaths(points: &[Point], random: &mut fastrand::Rng) -> Vec<Death> {
    let kills = env_or("KILLS", 6);
    let mut deaths: Vec<Death> = (0..kills).map(|_| Death::AtAnyMoment).collect();
    for point in points {
        deaths.extend((0..(kills / 10).max(1)).map(|_| Death::At(*point)));
    }
    random.shuffle(&mut deaths);
    deaths
}

/// Kills the daemon again and again, and finally counts what was written.
pub(crate) async fn killed(mut oracle: impl Oracle) -> Result<(), Unavailable> {
    let oracle = &mut oracle;
    let broker = Broker::shared(Version::V4_3).await?;
    let seed = env_or("SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let deaths = deaths(oracle.points(), &mut random);
    eprintln!("{}: {} kills, SEED={seed}", oracle.name(), deaths.len());
    let began = Instant::now();
    let stream = streams::create(broker, "torture").await;
    let home = home_of(broker, oracle, &consumer(oracle, &stream));
    let load = Load::on(broker, &stream, PACE);
    let mut torn = 0;
    for death in &deaths {
        die(&home, *death, &mut random).await;
        torn += oracle.after_kill(&home, &stream).await;
    }
    let total = load.stop().await;
    let mut daemon = home.start();
    all_landed(&mut daemon, oracle, &home, &stream, total).await;
    daemon.terminate().await;

    let landed = oracle.landed(&home, &stream).await;
    let tally = Tally::of(oracle, &landed, total);
    table::row(oracle.name(), "killed", deaths.len() as u64, tally, began.elapsed());
    tally.assert_kept(oracle, torn);
    let last = landed.records.iter().map(|(offset, _)| *offset).max();
    let stored = streams::stored_offset(broker, &stream, NAME).await;
    assert_eq!(stored, last.filter(|_| oracle.stores_offsets()), "the stored offset");
    streams::delete(broker, &stream).await;
    Ok(())
}

async fn die(home: &Home, death: Death, random: &mut fastrand::Rng) {
    match death {
        Death::AtAnyMoment => {
            let mut daemon = home.start();
            if random.u64(0..EARLY_ONE_IN) > 0 {
                until_progress(&mut daemon).await;
            }
            // The moment is part of the test, not something to wait for.
            tokio::time::sleep(Duration::from_micros(random.u64(0..LATER_MS_MAX * 1000))).await;
            daemon.kill();
        }
        Death::At(point) => {
            let fault = format!("die@{}:{}", point.name(), random.u64(1..=PASSED_MAX));
            let daemon = home.start_with_fault(&fault);
            let status = daemon.ended(LONG).await;
            assert_eq!(status.signal(), Some(9), "{fault}: {status}\n{}", home.log_tail());
        }
    }
}
