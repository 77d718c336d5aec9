//! The log as a machine reads it: is every field a plain value, and does every line about a consumer name
//! it?

use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// Text written by `{:?}` of a Rust type, which is not for a reader.
const DEBUG_FORMS: [&str; 5] = ["Some(", "None", "Offset(", "Timestamp(", " { "];

/// A run with a dead service, a missing stream, a skipped message, and one healthy consumer.
async fn trouble_in_json() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "logs").await;
    let bodies = (0..9).map(body).chain(["not json".to_owned()]);
    streams::publish(broker, &stream, bodies).await;
    let closed = crate::common::ports::nobody().port();
    let consumer = |name: &str, stream: &str, keys: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\non_bad_message = \"skip\"\nsink = {keys}\n"
        )
    };
    let dead = format!("{{ type = \"http\", url = \"http://127.0.0.1:{closed}/\" }}");
    let typed = "{ type = \"sqlite\", path = \"x.db\", columns = { i = { from = \"/nowhere\", \
                 type = \"integer\", required = true } } }";
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("dead", &stream, &dead),
            consumer("missing", "there-is-no-such-stream", "{ type = \"null\" }"),
            consumer("misfits", &stream, typed),
            consumer("fine", &stream, "{ type = \"file\", dir = \"out\" }"),
        ]
        .concat(),
    );
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[log]", "[log]\nformat = \"json\"")).unwrap();
    let mut daemon = home.start();
    daemon.until_durable("fine", 9).await;
    daemon.until_durable("misfits", 9).await;
    let failing = |c: &Value| c["reason"].is_string();
    daemon.until("dead", "its sink fails", Duration::from_secs(60), failing).await;
    daemon.until("missing", "it backs off", Duration::from_secs(60), failing).await;
    daemon.terminate().await;

    let log = home.log();
    let mut named = std::collections::BTreeSet::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for (key, value) in event.as_object().unwrap() {
            assert!(!value.is_object() && !value.is_array(), "{key} is not flat: {line}");
            let text = value.as_str().unwrap_or_default();
            for form in DEBUG_FORMS {
                assert!(!text.contains(form), "{key} shows {form:?}: {line}");
            }
        }
        let target = event["target"].as_str().unwrap();
        if target.starts_with("rillway::consumer") || target.starts_with("rillway::sink") {
            assert!(event["consumer"].is_string() && event["stream"].is_string(), "{line}");
        }
        named.extend(event["consumer"].as_str().map(str::to_owned));
    }
    let all = ["dead", "fine", "misfits", "missing"];
    assert!(named.iter().eq(all.iter()), "{named:?} have lines in\n{log}");
    Ok(())
}

#[tokio::test]
async fn every_field_is_plain_whatever_goes_wrong() {
    or_skip!(trouble_in_json().await);
}
