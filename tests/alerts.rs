//! Does each kind of failure raise its alert, and does a healthy daemon raise none? promtool checks the
//! rules of `deploy/prometheus`, and a Prometheus evaluates them beside real failures.
//!
//! - [`repeated`]: failures that occur again and again
//! - [`watched`]: references of other programs

mod repeated;
mod watched;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, body};
use crate::common::prometheus::{self, Prometheus};
use crate::common::proxy::Proxy;
use crate::common::rstream::{Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, eventually, ports, streams};

/// Factor by which every time in the rules is divided here.
const FASTER: f64 = 300.0;

fn deployed(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(name)
}

async fn judged_by_promtool() -> Result<(), Unavailable> {
    let promtool = prometheus::programs()?.join("promtool");
    let output = Command::new(promtool)
        .args(["test", "rules"])
        .arg(deployed("alerts.test.yml"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

#[tokio::test]
async fn the_rules_pass_their_own_test() {
    or_skip!(judged_by_promtool().await);
}

/// Alerts without a case in which they fire, or without one in which they do not, would pass promtool.
#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let rules = std::fs::read_to_string(deployed("alerts.yml")).unwrap();
    let cases = std::fs::read_to_string(deployed("alerts.test.yml")).unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 19, "{alerts:?}");
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:\n");
        assert!(cases.contains(&fires), "no case in which {alert} fires");
        let rests = format!("alertname: {alert} }}\n");
        assert!(cases.contains(&rests), "no case in which {alert} does not fire");
    }
}

/// The deployed rules with every time in them divided by the factor: `for`, ranges, and the seconds that
/// figures are compared with.
fn faster(rules: &str, times: f64) -> String {
    let line = |line: &str| {
        let prose = ["#", "summary", "description"];
        if prose.iter().any(|prose| line.trim_start().starts_with(prose)) {
            return line.to_owned();
        }
        let words = line.split(' ').map(|word| {
            let bare = word.trim_end_matches(')');
            let (before, span) = match word.split_once('[') {
                Some((before, rest)) => (format!("{before}["), rest.split(']').next().unwrap()),
                None => (String::new(), bare),
            };
            let shorter = if let Some(minutes) = span.strip_suffix('m').and_then(number) {
                format!("{:.0}ms", minutes * 60_000.0 / times)
            } else if let Some(hours) = span.strip_suffix('h').and_then(number) {
                format!("{:.0}ms", hours * 3_600_000.0 / times)
            } else {
                // A number of seconds, but not a rate.
                match number(span).filter(|n| *n >= 100.0 && !line.contains('*')) {
                    Some(seconds) => (seconds / times).to_string(),
                    None => return word.to_owned(),
                }
            };
            word.replacen(&format!("{before}{span}"), &format!("{before}{shorter}"), 1)
        });
        words.collect::<Vec<_>>().join(" ")
    };
    rules.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[test]
fn every_time_is_made_shorter() {
    let rules = faster(&std::fs::read_to_string(deployed("alerts.yml")).unwrap(), FASTER);
    for shorter in [
        "for: 400ms",
        "rillway_consumer_ready[2000ms]) < 0.5",
        "(increase(rillway_lost_messages_total[2000ms])) > 0",
        "{job=\"rillway\"}) < 2\n",
        "[6000ms]), 0.001) < 6 * 3600",
        "rillway_lag_seconds > 12 unless",
        "> 12 and rillway_lag_messages > 0",
        "deriv(rillway_lag_seconds[3000ms]) > 0",
        "changes(process_start_time_seconds{job=\"rillway\"}[12000ms]) > 3",
        "avg_over_time(process_open_fds{job=\"rillway\"}[2000ms])",
        "in an hour",
    ] {
        assert!(rules.contains(shorter), "{shorter} is not in\n{rules}");
    }
}

/// An address at which nobody answers.
fn nobody() -> String {
    ports::nobody().to_string()
}

fn consumer(name: &str, stream: &str, sink: &str, more: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ {sink} }}\n\
         commit = {{ every = \"200ms\" }}\nrestart = {{ min_backoff = \"2s\", max_backoff = \"5s\" }}\n{more}\n"
    )
}

/// Alerts that have fired so far: with the consumer, or alone.
async fn fired(prometheus: &Prometheus, so_far: &mut BTreeSet<String>) {
    for (labels, _) in prometheus.series("ALERTS{alertstate=\"firing\"}").await {
        let of = |label: &str| labels.get(label).map_or("", String::as_str);
        so_far.insert(format!("{} {}", of("alertname"), of("consumer")).trim_end().to_owned());
    }
}

async fn each_kind_of_trouble() -> Result<(), Unavailable> {
    let programs = prometheus::programs()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let quiet = streams::create(broker, "alerts-quiet").await;
    streams::publish(broker, &quiet, (0..4).map(body)).await;
    let bad = streams::create(broker, "alerts-bad").await;
    let unreadable = [Outgoing::raw([0x00, 0x53, 0x75, 0xA0, 200, b'x'])];
    rstream.publish(&bad, &unreadable).await;
    let busy = streams::create(broker, "alerts-busy").await;
    let retention = [("max-length-bytes", "1000000"), ("stream-max-segment-size-bytes", "500000")];
    let short = streams::create_with(broker, "alerts-short", &retention).await;

    let fails = Arc::new(AtomicBool::new(false));
    let fails_too = Arc::clone(&fails);
    let web = Web::start(move |_| match fails_too.load(Ordering::SeqCst) {
        true => Reply::status(503),
        false => Reply::Keep,
    })
    .await;
    let file = |name: &str| format!("type = \"file\", dir = \"{name}\"");
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("healthy", &busy, &file("healthy"), ""),
            consumer("idle", &quiet, &file("idle"), ""),
            consumer(
                "dead-service",
                &quiet,
                &format!("type = \"http\", url = \"http://{}\"", nobody()),
                "",
            ),
            consumer(
                "dead-database",
                &quiet,
                &format!(
                    "type = \"postgres\", url = \"postgres://me@{}/db\", table = \"t\"",
                    nobody()
                ),
                "",
            ),
            consumer("missing-stream", "alerts-none", &file("missing"), ""),
            consumer("halted", &bad, &file("halted"), "on_bad_message = \"halt\""),
            consumer("lossy", &bad, &file("lossy"), "on_bad_message = \"skip\""),
            consumer("overtaken", &short, &format!("type = \"http\", url = \"{}\"", web.url()), ""),
        ]
        .concat(),
    );
    let proxy = Proxy::to(broker.stream_port).await;
    let cut_off = Home::with_broker(
        &format!(
            "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
            broker.uri_by(proxy.port)
        ),
        &consumer("cut-off", &busy, "type = \"null\"", ""),
    );
    let unlucky = Home::new(&broker.uri(), &consumer("gone", &busy, "type = \"null\"", ""));
    let load = Load::on(broker, &busy, Pace { messages: 10, pause: Duration::from_millis(50) });
    let large = "x".repeat(1000);
    streams::publish(broker, &short, (0..3000).map(|_| large.clone())).await;

    let mut daemons: Vec<Daemon> = [&home, &cut_off, &unlucky].map(|home| home.start()).into();
    daemons[0]
        .until("overtaken", "some of it is durable", Duration::from_secs(60), |c| {
            c["durable_offset"].as_u64() >= Some(2999)
        })
        .await;
    daemons[1].until_durable("cut-off", 1).await;
    let targets: Vec<String> = daemons.iter().map(Daemon::admin_address).collect();
    let rules = faster(&std::fs::read_to_string(deployed("alerts.yml")).unwrap(), FASTER);
    let prometheus = Prometheus::watching(&programs, &targets, Some(&rules));
    let up = || async { (prometheus.query("up == 1", "job").await.len() == 3).then_some(()) };
    eventually("Prometheus sees all three", Duration::from_secs(60), up).await;
    daemons.pop().unwrap().kill();
    proxy.refuse();
    fails.store(true, Ordering::SeqCst);
    rstream.publish(&bad, &unreadable).await;

    let expected: BTreeSet<String> = [
        "RillwayDown",
        "RillwayConsumerNotReady dead-service",
        "RillwayConsumerNotReady dead-database",
        "RillwayConsumerNotReady missing-stream",
        "RillwayConsumerNotReady cut-off",
        "RillwayConsumerHalted halted",
        "RillwayMessagesLost lossy",
        "RillwayHeadroomLow overtaken",
        "RillwayNothingDurable dead-service",
        "RillwayNothingDurable overtaken",
        "RillwayLagGrowing dead-service",
        "RillwayLagGrowing halted",
        "RillwayBrokerSilent cut-off",
    ]
    .map(str::to_owned)
    .into();
    let mut so_far = BTreeSet::new();
    let started = std::time::Instant::now();
    while !expected.is_subset(&so_far) {
        // Meanwhile retention comes nearer.
        streams::publish(broker, &short, (0..200).map(|_| large.clone())).await;
        fired(&prometheus, &mut so_far).await;
        let missing: Vec<_> = expected.difference(&so_far).collect();
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "did not fire: {missing:?}; did: {so_far:?}"
        );
    }
    for healthy in ["healthy", "idle"] {
        let wrong: Vec<_> = so_far.iter().filter(|alert| alert.ends_with(healthy)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    for other in ["RillwayConsumerNotReady halted", "RillwayNothingDurable halted"] {
        assert!(!so_far.contains(other), "one page is enough, and {other} is a second one");
    }
    load.stop().await;
    for daemon in daemons {
        daemon.kill();
    }
    Ok(())
}

#[tokio::test]
async fn each_kind_of_trouble_is_noticed() {
    or_skip!(each_kind_of_trouble().await);
}
