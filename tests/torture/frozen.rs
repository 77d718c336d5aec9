//! Two daemons with the same configuration, of which one is frozen: in the middle of a write, or
//! anywhere. The other one continues if the destination allows it; then the first one wakes up. Nothing
//! that it still writes may be stored a second time, or in the wrong place.
//!
//! It stays frozen only until the other one has continued; `FREEZE_SECONDS=90` is the long form.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rillway::faults::Point;

use super::oracle::{Oracle, Second, Tally};
use super::{LONG, NAME, all_landed, consumer, durable, home, table, until_progress};
use crate::common::daemon::{Daemon, is_to_stay_frozen};
use crate::common::load::{Load, Pace};
use crate::common::skip::Unavailable;
use crate::common::{Broker, Version, eventually, streams};

const PACE: Pace = Pace { messages: 20, pause: Duration::from_millis(12) };

/// It is frozen after at most this many passes of a point: not always at the first, so that there is
/// something that the other one must not repeat.
const PASSED: std::ops::RangeInclusive<u64> = 2..=8;

/// Freezes the first of two daemons anywhere, and then at each point of a write.
pub(crate) async fn frozen(mut oracle: impl Oracle) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let points = oracle.points().iter().filter(|p| matches!(p, Point::Written | Point::Flushed));
    let points: Vec<Option<Point>> = [None].into_iter().chain(points.copied().map(Some)).collect();
    for point in points {
        let began = Instant::now();
        let tally = freeze(broker, &mut oracle, point).await;
        let what = format!("frozen at {}", point.map_or("any moment", Point::name));
        table::row(oracle.name(), &what, 1, tally, began.elapsed());
        tally.assert_kept(&oracle, 0);
    }
    Ok(())
}

async fn freeze(broker: &Broker, oracle: &mut impl Oracle, point: Option<Point>) -> Tally {
    let stream = streams::create(broker, "frozen").await;
    let consumer = consumer(oracle, &stream);
    let [first, second] = [(); 2].map(|()| home(broker, oracle, &consumer));
    let load = Load::on(broker, &stream, PACE);

    let mut sleeper = match point {
        None => {
            let mut daemon = first.start();
            until_progress(&mut daemon).await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..100))).await;
            daemon.signal("STOP");
            daemon
        }
        Some(point) => {
            first.start_with_fault(&format!("freeze@{}:{}", point.name(), fastrand::u64(PASSED)))
        }
    };
    eventually("the first one is frozen", LONG, || async { sleeper.is_frozen().then_some(()) })
        .await;
    let since = Instant::now();
    let mut heir = second.start();
    let at_first = oracle.second(point);
    let may_wait = !matches!(at_first, Second::TakesOver | Second::IsRecognised);
    let may_go_on = !matches!(at_first, Second::Waits | Second::WaitsForTheFirstToWake);
    let began_at = Cell::new(None);
    let told = heir.until(NAME, "the second goes on, or is kept out", LONG, |c| {
        if began_at.get().is_none() && c["received_offset"].is_u64() {
            began_at.set(Some(durable(c)));
        }
        let goes_on = began_at.get().is_some_and(|at| durable(c) > at);
        may_go_on && goes_on || may_wait && c["state"] == "backoff" && c["reason"].is_string()
    });
    let told = told.await;
    eprintln!("{}: the second {}: {}", oracle.name(), told["state"], told["reason"]);
    stay_frozen(&mut heir, since).await;
    sleeper.signal("CONT");
    match at_first {
        Second::Waits => {
            until_progress(&mut sleeper).await;
            sleeper.kill();
            until_progress(&mut heir).await;
        }
        Second::TakesOver | Second::WaitsForTheFirstToWake | Second::TakesOverOrWaits => {
            let reason = sleeper.until_halted(NAME).await;
            eprintln!("{}: the first is told: {reason}", oracle.name());
            until_progress(&mut heir).await;
            sleeper.kill();
        }
        Second::IsRecognised => {
            until_progress(&mut sleeper).await;
            until_progress(&mut heir).await;
            sleeper.kill();
        }
    }
    let total = load.stop().await;
    all_landed(&mut heir, oracle, &second, &stream, total).await;
    heir.terminate().await;
    let landed = oracle.landed(&second, &stream).await;
    let tally = Tally::of(oracle, &landed, total);
    streams::delete(broker, &stream).await;
    tally
}

/// Waits as long as requested, and the heir answers meanwhile.
async fn stay_frozen(heir: &mut Daemon, since: Instant) {
    while is_to_stay_frozen(since).await {
        heir.until(NAME, "the second answers", LONG, |c| c["state"].is_string()).await;
    }
}
