//! Failures that occur again and again, each of them real: cut connections, a process that ends,
//! exhausted file descriptors, a broker that disappears before an offset is stored, and one that never
//! existed. A healthy daemon beside them raises no alert.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{consumer, deployed, faster, nobody};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, body};
use crate::common::prometheus::{self, Prometheus};
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

/// Slower than for the other failures: an alert that counts restarts in an hour has to see four of a
/// process in its window, which takes as long as the process takes to start.
const FASTER: f64 = 100.0;

/// The alerts that have fired so far, each with its daemon and consumer.
async fn fired(prometheus: &Prometheus, daemons: &[(&str, String)], so_far: &mut BTreeSet<String>) {
    for (labels, _) in prometheus.series("ALERTS{alertstate=\"firing\"}").await {
        let of = |label: &str| labels.get(label).map_or("", String::as_str);
        let at = daemons.iter().find(|(_, address)| *address == of("instance"));
        let at = at.map_or("unknown", |(name, _)| *name);
        so_far.insert(format!("{} {at} {}", of("alertname"), of("consumer")).trim_end().to_owned());
    }
}

/// Many consumers in a process whose limit of file descriptors is barely enough.
async fn few_descriptors(home: &Home, names: &[String]) -> Daemon {
    let mut daemon = home.start();
    for name in names {
        daemon.until(name, "it runs", SOON, |c| c["state"] == "running").await;
    }
    // The minimum, once 50 readings have brought no lower one: descriptors that are open only for a moment do not count.
    let (fewest, readings) = (Cell::new(f64::MAX), Cell::new(0));
    let open = eventually("the fewest descriptors are known", SOON, || async {
        let now = daemon.metric("process_open_fds", &[]).await?;
        if now < fewest.get() {
            fewest.set(now);
            readings.set(0);
        }
        readings.set(readings.get() + 1);
        (readings.get() == 50).then_some(fewest.get())
    })
    .await;
    // Between 0.8 and 1, with room for descriptors that are open for a moment.
    daemon.limit_descriptors((open / 0.87).ceil() as u64);
    daemon
}

/// Ends a process and starts it again. Each time it waits until Prometheus has seen the process, and
/// until another second: the start time is reported in whole seconds, rounded either way.
async fn crash_loop(home: &Home, prometheus: &Prometheus, times: usize) -> Daemon {
    let mut last: Option<f64> = None;
    for time in 0.. {
        eventually("it begins in another second", SOON, || async {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
            last.is_none_or(|last| now >= last + 2.0).then_some(())
        })
        .await;
        let mut daemon = home.start();
        daemon.until("crashing", "it runs", SOON, |c| c["state"] == "running").await;
        let began =
            format!("process_start_time_seconds{{instance=\"{}\"}}", daemon.admin_address());
        let seen = async || prometheus.series(&began).await.first().map(|(_, value)| *value);
        let new = eventually("Prometheus has seen this process", SOON, || async {
            seen().await.filter(|began| Some(*began) != last)
        })
        .await;
        last = Some(new);
        if time == times {
            return daemon;
        }
        daemon.kill();
    }
    unreachable!()
}

async fn again_and_again() -> Result<(), Unavailable> {
    let programs = prometheus::programs()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let busy = streams::create(broker, "alerts-busy").await;
    let null = "type = \"null\"";
    let from_first = "start = \"first\"";
    let by = |proxy: &Proxy| {
        format!("uri = \"{}\"\nfollow_advertised_hosts = false", broker.uri_by(proxy.port))
    };
    let lost = Proxy::to(broker.stream_port).await;
    let unstored = Home::with_broker(
        &by(&lost),
        &consumer("unstored", &busy, null, from_first).replace("200ms", "3s"),
    );
    let proxy = Proxy::to(broker.stream_port).await;
    let cut = Home::with_broker(
        &by(&proxy),
        &consumer("cut", &busy, null, from_first)
            .replace("min_backoff = \"2s\"", "min_backoff = \"10ms\""),
    );
    let never = Home::new(
        &format!("rabbitmq-stream://guest:guest@{}/%2f", nobody()),
        &consumer("never", &busy, null, ""),
    );
    let crowd: Vec<String> = (0..12).map(|nth| format!("crowd-{nth}")).collect();
    let crowded = Home::new(
        &broker.uri(),
        &crowd
            .iter()
            .map(|name| consumer(name, &busy, &format!("type = \"file\", dir = \"{name}\""), ""))
            .collect::<String>(),
    );
    let crashing = Home::new(&broker.uri(), &consumer("crashing", &busy, null, ""));
    let healthy = Home::new(&broker.uri(), &consumer("healthy", &busy, null, from_first));

    streams::publish(broker, &busy, (0..10).map(body)).await;
    let crowded = few_descriptors(&crowded, &crowd).await;
    let others = [&unstored, &cut, &never, &healthy].map(|home| home.start());
    let [mut unstored, cut, never, healthy] = others;
    let daemons: Vec<(&str, String)> = [
        ("unstored", unstored.admin_address()),
        ("cut", cut.admin_address()),
        ("never", never.admin_address()),
        ("crowded", crowded.admin_address()),
        ("healthy", healthy.admin_address()),
        ("crashing", crashing.admin_address()),
    ]
    .into();
    let targets: Vec<String> = daemons.iter().map(|(_, address)| address.clone()).collect();
    let rules = faster(&std::fs::read_to_string(deployed("alerts.yml")).unwrap(), FASTER);
    let prometheus = Prometheus::watching(&programs, &targets, Some(&rules));
    let load = Load::on(broker, &busy, Pace { messages: 10, pause: Duration::from_millis(50) });
    // The broker disappears after something became durable, and before its offset is due to be stored.
    let is_behind =
        |c: &serde_json::Value| c["durable_offset"].as_u64() > c["stored_offset"].as_u64();
    let away = |c: &serde_json::Value| c["state"] == "backoff";
    loop {
        unstored.until("unstored", "an offset is to be stored", SOON, is_behind).await;
        lost.refuse();
        let shown = unstored.until("unstored", "the broker is away", SOON, away).await;
        if is_behind(&shown) {
            break;
        }
        // It was stored in between.
        lost.resume();
    }
    let crashing = crash_loop(&crashing, &prometheus, 5).await;

    let expected: BTreeSet<String> = [
        "RillwayConsumerRestarting cut cut",
        "RillwayProcessRestarting crashing",
        "RillwayFileDescriptorsLow crowded",
        "RillwayOffsetNotStored unstored unstored",
        "RillwayConsumerNotReady never never",
    ]
    .map(str::to_owned)
    .into();
    let mut so_far = BTreeSet::new();
    let started = Instant::now();
    while !expected.is_subset(&so_far) {
        proxy.cut();
        fired(&prometheus, &daemons, &mut so_far).await;
        let missing: Vec<_> = expected.difference(&so_far).collect();
        if started.elapsed() > Duration::from_secs(150) {
            let open = crowded.metric("process_open_fds", &[]).await;
            let most = crowded.metric("process_max_fds", &[]).await;
            panic!("did not fire: {missing:?}; did: {so_far:?}; descriptors: {open:?} of {most:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let wrong: Vec<_> = so_far.iter().filter(|alert| alert.contains("healthy")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Only a process raises alerts about processes.
    for (alert, only) in
        [("RillwayProcessRestarting", "crashing"), ("RillwayFileDescriptorsLow", "crowded")]
    {
        let others: Vec<_> =
            so_far.iter().filter(|f| f.starts_with(alert) && !f.contains(only)).collect();
        assert!(others.is_empty(), "{others:?}");
    }
    load.stop().await;
    for daemon in [unstored, cut, never, crowded, healthy, crashing] {
        daemon.kill();
    }
    Ok(())
}

#[tokio::test]
async fn recurring_failures_raise_alerts() {
    or_skip!(again_and_again().await);
}
