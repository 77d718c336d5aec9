//! Does every query of the Grafana dashboard find something? A Prometheus scrapes daemons that have every kind
//! of trouble that the dashboard shows, and answers each query.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, body};
use crate::common::prometheus::{self, Prometheus};
use crate::common::rstream::{Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/rillway.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The query with Grafana's variables replaced: all values, and a range of some scrapes.
fn filled(query: &str) -> String {
    let filled = ["instance", "consumer", "stream"]
        .iter()
        .fold(query.to_owned(), |query, name| query.replace(&format!("${name}"), ".*"))
        .replace("$__rate_interval", "5s")
        .replace("$__range", "5m");
    assert!(!filled.contains('$'), "an unknown variable in {query}");
    filled
}

/// Every query of a panel, without what stands in for "none": it would always find something.
fn queries(dashboard: &Value) -> BTreeSet<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets
        .map(|target| filled(target["expr"].as_str().unwrap()).replace(" or vector(0)", ""))
        .collect()
}

/// Query and label of each variable: `label_values(QUERY, LABEL)`.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let all = dashboard["templating"]["list"].as_array().unwrap();
    let of_metrics = all.iter().filter(|variable| variable["type"] == "query");
    of_metrics
        .map(|variable| {
            let query = variable["query"]["query"].as_str().unwrap();
            let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (query, label) = inner.rsplit_once(", ").unwrap();
            (filled(query), label.to_owned())
        })
        .collect()
}

fn consumer(name: &str, stream: &str, sink: &str, more: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ {sink} }}\n\
         commit = {{ every = \"200ms\" }}\nrestart = {{ min_backoff = \"100ms\", max_backoff = \"1s\" }}\n{more}\n"
    )
}

/// Draws it into the file that `RILLWAY_DASHBOARD_PICTURE` names, once a minute has been scraped.
async fn picture(prometheus: &Prometheus) {
    let Some(file) = std::env::var_os("RILLWAY_DASHBOARD_PICTURE") else { return };
    let scraped = || async {
        let samples = prometheus.query("count_over_time(up[2m]) > 290", "job").await;
        (!samples.is_empty()).then_some(())
    };
    eventually("a minute is scraped", SOON * 2, scraped).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut draw = std::process::Command::new("python3");
    draw.arg(root.join("scripts/lib/dashboard.py")).arg(root.join("deploy/grafana/rillway.json"));
    assert!(draw.arg(prometheus.url()).arg(file).status().unwrap().success());
}

async fn each_query_finds_something() -> Result<(), Unavailable> {
    let programs = prometheus::programs()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let busy = streams::create(broker, "dashboard-busy").await;
    streams::publish(broker, &busy, (0..4).map(body)).await;
    streams::store_offset(broker, &busy, "of-another-program", 2).await;
    let bad = streams::create(broker, "dashboard-bad").await;
    rstream.publish(&bad, &[Outgoing::raw([0x00, 0x53, 0x75, 0xA0, 200, b'x'])]).await;
    let large = streams::create(broker, "dashboard-large").await;
    let text = "x".repeat(1000);
    streams::publish(broker, &large, (0..8000).map(|_| text.clone())).await;
    let nobody = crate::common::ports::nobody();
    let file = |name: &str| format!("type = \"file\", dir = \"{name}\"");
    let letters =
        "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"letters\" }";
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("fine", &busy, &file("fine"), ""),
            consumer("lossy", &bad, &file("lossy"), "on_bad_message = \"skip\""),
            consumer("lettered", &bad, &file("lettered"), letters),
            consumer("halted", &bad, &file("halted"), ""),
            consumer("missing", "dashboard-none", &file("missing"), ""),
            consumer(
                "stuck",
                &large,
                &format!("type = \"http\", url = \"http://{nobody}\""),
                "memory = \"1MiB\"\nbatch = { max_bytes = \"256KiB\" }",
            ),
            format!("[[watch]]\nstream = \"{busy}\"\nreferences = [\"of-another-program\"]\n"),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    daemon.until_halted("halted").await;
    let prometheus = Prometheus::watching(&programs, &[daemon.admin_address()], None);
    let load = Load::on(broker, &busy, Pace { messages: 10, pause: Duration::from_millis(50) });

    let dashboard = dashboard();
    let missing = RefCell::new(queries(&dashboard));
    assert!(missing.borrow().len() >= 30, "{missing:?}");
    let all_found = || async {
        let mut still = BTreeSet::new();
        for query in missing.take() {
            if prometheus.series(&query).await.is_empty() {
                still.insert(query);
            }
        }
        missing.replace(still);
        missing.borrow().is_empty().then_some(())
    };
    let found = tokio::time::timeout(SOON, eventually("all are found", SOON * 2, all_found)).await;
    assert!(found.is_ok(), "these find nothing: {missing:#?}\n{}", daemon.tail());
    for (query, label) in variables(&dashboard) {
        let values = prometheus.query(&query, &label).await;
        assert!(values.iter().any(|(value, _)| !value.is_empty()), "{label} of {query}");
    }
    picture(&prometheus).await;
    load.stop().await;
    daemon.kill();
    Ok(())
}

#[tokio::test]
async fn every_query_finds_something() {
    or_skip!(each_query_finds_something().await);
}
