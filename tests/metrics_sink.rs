//! Metrics from messages: are the figures on `/metrics` those of the messages, each counted once? Does an
//! independent reader, Prometheus itself, read the same? And what does a restart do to them?

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::daemon::{Daemon, Home};
use crate::common::prometheus::{self, Prometheus};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

const METRICS: &str = r#"
[consumer.sink]
type = "metrics"
max_series = 4
[[consumer.sink.metrics]]
name = "orders_total"
type = "counter"
help = "Orders by region."
labels = { region = "/region" }
when = { "/type" = "order" }
[[consumer.sink.metrics]]
name = "order_amount"
type = "histogram"
help = "What orders are worth."
value = "/amount"
buckets = [10, 100]
when = { "/type" = "order" }
[[consumer.sink.metrics]]
name = "revenue_total"
type = "counter"
help = "What all orders are worth."
value = "/amount"
when = { "/type" = "order" }
[[consumer.sink.metrics]]
name = "temperature_celsius"
type = "gauge"
help = "The last one measured."
value = "/celsius"
labels = { room = "/room" }
when = { "/type" = "measure" }
"#;

fn consumer(name: &str, stream: &str, keys: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n{keys}\n{METRICS}")
}

fn order(region: &str, amount: f64) -> String {
    format!("{{\"type\":\"order\",\"region\":\"{region}\",\"amount\":{amount}}}")
}

/// Waits until a figure has this value.
async fn until_figure(daemon: &Daemon, name: &str, labels: &[&str], wanted: f64) {
    eventually(&format!("{name}{labels:?} is {wanted}"), LONG, || async {
        (daemon.metric(name, labels).await == Some(wanted)).then_some(())
    })
    .await;
}

async fn figures() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "metrics").await;
    let mut bodies = Vec::new();
    for _ in 0..1000 {
        bodies.extend([order("eu", 2.5), order("us", 50.0), order("a\\\"b", 1000.0)]);
    }
    bodies.push("{\"type\":\"measure\",\"room\":\"r1\",\"celsius\":21.5}".to_owned());
    bodies.push("{\"type\":\"measure\",\"room\":\"r1\",\"celsius\":-3}".to_owned());
    bodies.push("{\"type\":\"order\",\"region\":\"eu\",\"amount\":\"much\"}".to_owned());
    bodies.push("no JSON, and so no order".to_owned());
    bodies.extend((0..6).map(|i| order(&format!("r{i}"), 0.0)));
    let total = bodies.len() as u64;
    streams::publish(broker, &stream, bodies).await;
    let lenient = "start = \"first\"\non_bad_message = \"skip\"\nbatch = { max_messages = 500 }\n";
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("monitoring", &stream, lenient),
            consumer("second", &stream, lenient),
            consumer("strict", &stream, "start = \"first\"\n"),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    for name in ["monitoring", "second"] {
        daemon.until_durable(name, total - 1).await;
        let of = |region: &str| [format!("consumer=\"{name}\""), format!("region=\"{region}\"")];
        for (region, expected) in [("eu", 1000.0), ("us", 1000.0), ("a\\\"b", 1000.0), ("r0", 1.0)]
        {
            let [consumer, region] = of(region);
            assert_eq!(
                daemon.metric("orders_total", &[&consumer, &region]).await,
                Some(expected),
                "{region}"
            );
        }
        let consumer = format!("consumer=\"{name}\"");
        for (metric, label, expected) in [
            ("order_amount_bucket", "le=\"10\"", 1006.0),
            ("order_amount_bucket", "le=\"100\"", 2006.0),
            ("order_amount_bucket", "le=\"+Inf\"", 3006.0),
            ("order_amount_count", "", 3006.0),
            ("order_amount_sum", "", 1_052_500.0),
            ("revenue_total", "", 1_052_500.0),
            ("temperature_celsius", "room=\"r1\"", -3.0),
            (
                "rillway_metrics_dropped_samples_total",
                "metric=\"orders_total\",reason=\"max_series\"",
                5.0,
            ),
            (
                "rillway_metrics_dropped_samples_total",
                "metric=\"revenue_total\",reason=\"max_series\"",
                0.0,
            ),
            ("rillway_lost_messages_total", "reason=\"misfit\"", 1.0),
        ] {
            assert_eq!(
                daemon.metric(metric, &[&consumer, label]).await,
                Some(expected),
                "{metric} {label}"
            );
        }
    }
    let reason = daemon.until_halted("strict").await;
    assert!(
        reason.contains("offset 3002") && reason.contains("no number at \"/amount\""),
        "{reason}"
    );
    assert_eq!(daemon.metric("orders_total", &["strict", "eu"]).await, Some(1000.0));
    let (_, page) = daemon.http("GET", "/metrics").await.unwrap();
    for line in ["# TYPE orders_total counter", "# TYPE order_amount histogram"] {
        assert_eq!(page.lines().filter(|found| *found == line).count(), 1, "{page}");
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn the_figures_are_those_of_the_messages() {
    or_skip!(figures().await);
}

async fn restarted() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "metrics-again").await;
    let orders = |n: u32| (0..n).map(|_| order("eu", 1.0));
    streams::publish(broker, &stream, orders(50)).await;
    let keys = "commit = { every_messages = 1, every = \"100ms\" }\n";
    let home = Home::new(&broker.uri(), &consumer("monitoring", &stream, keys));
    let check = home.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("or else at next") && said.contains("at-least-once"), "{said}");

    // It starts with new messages: nobody observed it before.
    let mut daemon = home.start();
    daemon.until("monitoring", "it runs", LONG, |c| c["state"] == "running").await;
    streams::publish(broker, &stream, orders(30)).await;
    until_figure(&daemon, "orders_total", &["eu"], 30.0).await;
    daemon.terminate().await;

    // Messages that arrive while it is stopped are counted; earlier ones are not counted again.
    streams::publish(broker, &stream, orders(7)).await;
    let daemon = home.start();
    until_figure(&daemon, "orders_total", &["eu"], 7.0).await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was_and_counts_from_zero() {
    or_skip!(restarted().await);
}

async fn read_by_prometheus() -> Result<(), Unavailable> {
    let programs = prometheus::programs()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "metrics-prom").await;
    let odd = "back\\\\slash \\\"quoted\\\" and\\nbroken";
    let bodies = [order("eu", 5.0), order("us", 70.0), order("us", 7000.0), order(odd, 1.0)];
    streams::publish(broker, &stream, bodies).await;
    let home = Home::new(&broker.uri(), &consumer("monitoring", &stream, "start = \"first\"\n"));
    let mut daemon = home.start();
    daemon.until_durable("monitoring", 3).await;

    // promtool is strict where a server tolerates mistakes.
    let (_, page) = daemon.http("GET", "/metrics").await.unwrap();
    let mut promtool = Command::new(programs.join("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let judged = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(judged.status.success() && said.is_empty(), "{said}\n{page}");

    let prometheus = Prometheus::watching(&programs, &[daemon.admin_address()], None);
    let by_region = eventually("Prometheus has looked", LONG, || async {
        let found = prometheus.query("sum by (region) (orders_total)", "region").await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    let named = |label: &str, value| (label.to_owned(), value);
    assert_eq!(
        by_region,
        [named("back\\slash \"quoted\" and\nbroken", 1.0), named("eu", 1.0), named("us", 2.0)]
    );
    let buckets = prometheus.query("order_amount_bucket", "le").await;
    assert_eq!(buckets, [named("+Inf", 4.0), named("10", 2.0), named("100", 3.0)]);
    let up = prometheus.query("up", "job").await;
    assert_eq!(up, [named("rillway", 1.0)]);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn prometheus_itself_reads_them() {
    or_skip!(read_by_prometheus().await);
}
