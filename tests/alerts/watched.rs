//! References that other programs own: an owner that has stopped, one whom retention passes, one that
//! stores nothing, and a broker that is away. One that has caught up raises nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{FASTER, deployed, faster};
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace};
use crate::common::prometheus::{self, Prometheus};
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

/// A limit for a busy machine.
const SOON: Duration = Duration::from_secs(180);

/// When a broker counts as away. A three-hundredth of the real time would be shorter than from one observation
/// to the next.
const BLIND: &str = "rillway_watch_last_contact_timestamp_seconds > 15";

async fn fired(prometheus: &Prometheus, so_far: &mut BTreeSet<String>) {
    for (labels, _) in prometheus.series("ALERTS{alertstate=\"firing\"}").await {
        let of = |label: &str| labels.get(label).map_or("", String::as_str);
        so_far.insert(format!("{} {}", of("alertname"), of("reference")).trim_end().to_owned());
    }
}

async fn troubles_of_others() -> Result<(), Unavailable> {
    let programs = prometheus::programs()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let busy = streams::create(broker, "alerts-watched").await;
    let quiet = streams::create(broker, "alerts-watched-quiet").await;
    let retention = [("max-length-bytes", "1000000"), ("stream-max-segment-size-bytes", "500000")];
    let short = streams::create_with(broker, "alerts-watched-short", &retention).await;
    let large = "x".repeat(1000);
    streams::publish(broker, &short, (0..900).map(|_| large.clone())).await;
    streams::publish(broker, &quiet, ["only"]).await;
    streams::publish(broker, &busy, ["first"]).await;
    for (stream, reference, offset) in
        [(&busy, "stopped", 0), (&quiet, "caught-up", 0), (&short, "passed", 450)]
    {
        streams::store_offset(broker, stream, reference, offset).await;
    }
    let watch = |stream: &str, references: &str| {
        format!("[[watch]]\nstream = \"{stream}\"\nreferences = [{references}]\n")
    };
    let watches = [
        watch(&busy, "\"stopped\", \"nobody\""),
        watch(&quiet, "\"caught-up\""),
        watch(&short, "\"passed\""),
    ];
    let home = Home::new(&broker.uri(), &watches.concat());
    let proxy = Proxy::to(broker.stream_port).await;
    let cut_off = Home::with_broker(
        &format!(
            "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
            broker.uri_by(proxy.port)
        ),
        &watch(&quiet, "\"caught-up\""),
    );
    let daemons = [home.start(), cut_off.start()];
    for daemon in &daemons {
        let seen = || async {
            let labels = ["reference=\"caught-up\""];
            daemon.metric("rillway_watch_lag_messages", &labels).await.map(|_| ())
        };
        eventually("the lag is known", SOON, seen).await;
    }
    let targets: Vec<String> = daemons.iter().map(|daemon| daemon.admin_address()).collect();
    let rules = faster(&std::fs::read_to_string(deployed("alerts.yml")).unwrap(), FASTER);
    let rules =
        rules.replace("rillway_watch_last_contact_timestamp_seconds > 1\n", &format!("{BLIND}\n"));
    assert!(rules.contains(BLIND), "{rules}");
    let prometheus = Prometheus::watching(&programs, &targets, Some(&rules));
    let up = || async { (prometheus.query("up == 1", "job").await.len() == 2).then_some(()) };
    eventually("Prometheus sees both", SOON, up).await;
    let load = Load::on(broker, &busy, Pace { messages: 10, pause: Duration::from_millis(50) });

    let expected: BTreeSet<String> = [
        "RillwayWatchLagGrowing stopped",
        "RillwayWatchOffsetUnknown nobody",
        "RillwayWatchHeadroomLow passed",
    ]
    .map(str::to_owned)
    .into();
    let mut so_far = BTreeSet::new();
    let started = Instant::now();
    while !expected.is_subset(&so_far) {
        // Retention comes nearer all the while.
        streams::publish(broker, &short, (0..200).map(|_| large.clone())).await;
        fired(&prometheus, &mut so_far).await;
        let missing: Vec<_> = expected.difference(&so_far).collect();
        assert!(started.elapsed() < SOON, "did not fire: {missing:?}; did: {so_far:?}");
    }
    let wrong: Vec<_> = so_far.iter().filter(|alert| alert.ends_with("caught-up")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    proxy.refuse();
    let blind = || async {
        let mut so_far = BTreeSet::new();
        fired(&prometheus, &mut so_far).await;
        so_far.contains("RillwayWatchBlind caught-up").then_some(())
    };
    eventually("a broker that is away is noticed", SOON, blind).await;
    load.stop().await;
    for daemon in daemons {
        daemon.kill();
    }
    Ok(())
}

#[tokio::test]
async fn troubles_of_other_programs_are_noticed() {
    or_skip!(troubles_of_others().await);
}
