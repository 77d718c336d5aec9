//! Several daemons on one super stream, over which the broker spreads the partitions: is each partition read
//! by exactly one, and does the next one go on where the former stopped, with nothing lost and nothing twice?

mod hand_over;
pub(crate) mod places;
mod shared;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{LONG, rows};
use crate::common::daemon::Daemon;
use crate::common::load::{Load, Pace};
use crate::common::{Broker, eventually};

/// Enough for many hand-overs, and not so much that the machine is busy with it.
pub(crate) const PACE: Pace = Pace { messages: 10, pause: std::time::Duration::from_millis(50) };

/// A consumer on a partition.
type Part = (&'static str, String);

/// What each of these daemons shows of each consumer and partition; `None` while one does not answer, or
/// does not know all partitions.
async fn seen(
    daemons: &[&Daemon],
    names: &[&'static str],
    partitions: &[String],
) -> Option<BTreeMap<Part, Vec<Value>>> {
    let mut all: BTreeMap<Part, Vec<Value>> = BTreeMap::new();
    for daemon in daemons {
        for name in names {
            for row in rows(daemon, name).await {
                assert!(row["state"] != "halted", "{row}\n{}", daemon.tail());
                let stream = row["stream"].as_str()?.to_owned();
                if partitions.contains(&stream) {
                    all.entry((name, stream)).or_default().push(row);
                }
            }
        }
    }
    let is_whole = names.iter().all(|name| {
        let known = |partition: &String| {
            all.get(&(*name, partition.clone())).is_some_and(|rows| rows.len() == daemons.len())
        };
        partitions.iter().all(known)
    });
    is_whole.then_some(all)
}

/// Waits until each partition is active in exactly one daemon, and passive in the others; with `is_even`,
/// until each daemon has one of them.
pub(crate) async fn until_spread(
    daemons: &[&Daemon],
    names: &[&'static str],
    partitions: &[String],
    is_even: bool,
) {
    let what = format!("one of {} daemons reads each partition", daemons.len());
    eventually(&what, LONG, || async {
        let all = seen(daemons, names, partitions).await?;
        let mut busy = vec![0; daemons.len()];
        for rows in all.values() {
            let actives: Vec<_> =
                rows.iter().enumerate().filter(|(_, row)| row["state"] == "running").collect();
            let passives = rows.iter().filter(|row| row["state"] == "passive").count();
            let [(active, _)] = actives[..] else { return None };
            busy[active] += 1;
            if passives + 1 < rows.len() {
                return None;
            }
        }
        (!is_even || busy.iter().all(|busy| *busy >= names.len())).then_some(())
    })
    .await;
}

/// The highest offset that is durable for each consumer and partition.
async fn durable(
    daemons: &[&Daemon],
    names: &[&'static str],
    partitions: &[String],
) -> BTreeMap<Part, u64> {
    let all = eventually("the daemons answer", LONG, || seen(daemons, names, partitions)).await;
    let highest = |rows: Vec<Value>| {
        rows.iter().filter_map(|row| row["durable_offset"].as_u64()).max().unwrap_or(0)
    };
    all.into_iter().map(|(part, rows)| (part, highest(rows))).collect()
}

/// Waits until each partition has been written further by the daemon that reads it.
pub(crate) async fn until_moving(
    daemons: &[&Daemon],
    names: &[&'static str],
    partitions: &[String],
) {
    let before = durable(daemons, names, partitions).await;
    eventually("all partitions move", LONG, || async {
        let all = seen(daemons, names, partitions).await?;
        let moves = |(part, rows): (&Part, &Vec<Value>)| {
            rows.iter().any(|row| {
                row["state"] == "running" && row["durable_offset"].as_u64() > Some(before[part])
            })
        };
        all.iter().all(moves).then_some(())
    })
    .await;
}

/// Waits until everything that the partitions hold is durable. Nobody may be publishing.
pub(crate) async fn until_all_written(
    daemons: &[&Daemon],
    names: &[&'static str],
    totals: &BTreeMap<String, u64>,
) {
    let partitions: Vec<String> = totals.keys().cloned().collect();
    eventually("all is written", LONG, || async {
        let all = seen(daemons, names, &partitions).await?;
        let is_written = |((_, partition), rows): (&Part, &Vec<Value>)| {
            rows.iter().any(|row| {
                row["state"] == "running"
                    && row["lag_messages"] == 0
                    && row["durable_offset"].as_u64().map(|at| at + 1) >= Some(totals[partition])
            })
        };
        all.iter().all(is_written).then_some(())
    })
    .await;
}

/// Publishes into each partition.
pub(crate) fn loads(broker: &Broker, partitions: &[String]) -> Vec<Load> {
    partitions.iter().map(|partition| Load::on(broker, partition, PACE)).collect()
}

/// Stops publishing; returns how many messages each partition holds.
pub(crate) async fn stop(loads: Vec<Load>, partitions: &[String]) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for (load, partition) in loads.into_iter().zip(partitions) {
        totals.insert(partition.clone(), load.stop().await);
    }
    totals
}
