//! `state_dir`: does it belong to only one daemon at a time?

use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, streams};

/// Small batches, so that there is progress at once.
const SMALL: &str = "batch = { max_messages = 50, max_age = \"50ms\" }";

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {sink}\n{SMALL}\n")
}

/// A second daemon with the same reference waits, whatever its sink, and continues when the first one has
/// ended, however it ended.
async fn one_reference_twice() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let web = Web::start(|_| Reply::Keep).await;
    let http = format!("{{ type = \"http\", url = \"http://{}/in\" }}", web.address);
    let counter = "{ type = \"metrics\", metrics = [{ name = \"seen_total\", type = \"counter\", \
                   help = \"x\" }] }";
    for (name, sink) in [
        ("nowhere", "{ type = \"null\" }"),
        ("printer", "{ type = \"stdout\" }"),
        ("sender", http.as_str()),
        ("counter", counter),
    ] {
        let stream = streams::create(broker, "twice").await;
        streams::publish(broker, &stream, (0..10).map(body)).await;
        let consumers = consumer(name, &stream, sink) + "start = \"first\"\n";
        let (first, second) =
            (Home::new(&broker.uri(), &consumers), Home::new(&broker.uri(), &consumers));
        second.share_state(&first);
        let mut running = first.start();
        running.until_durable(name, 9).await;
        let mut waiting = second.start();
        let waits =
            |c: &Value| c["reason"].as_str().is_some_and(|why| why.contains("is in use by"));
        let shown = waiting.until(name, "it waits", Duration::from_secs(60), waits).await;
        let reason = shown["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("the process with pid {}", running.pid())), "{reason}");
        assert!(shown["durable_offset"].is_null(), "{shown}");
        let check = second.command(&["check"]).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        running.kill();
        streams::publish(broker, &stream, (10..20).map(body)).await;
        let last = |c: &Value| c["durable_offset"].as_u64() >= Some(19);
        waiting.until(name, "it has gone on", Duration::from_secs(60), last).await;
        waiting.terminate().await;
    }
    Ok(())
}

#[tokio::test]
async fn two_daemons_on_one_reference_do_not_run_at_once() {
    or_skip!(one_reference_twice().await);
}
