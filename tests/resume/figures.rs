//! Figures of a re-created stream: is anything of the old incarnation shown as the new one's?

use std::time::Duration;

use super::{FILE, NULL, STDOUT, bodies, consumer};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const SOON: Duration = Duration::from_secs(60);

const FIRST: &str = "on_offset_lost = \"first\"";

/// Offsets of the old incarnation are other messages: they are not shown as the new one's.
async fn figures_of_a_re_created_stream() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "figures").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let consumers = [
        consumer("p", &stream, STDOUT, ""),
        consumer("f", &stream, FILE, FIRST),
        consumer("n", &stream, NULL, FIRST),
    ];
    let home = Home::new(&broker.uri(), &consumers.concat());
    let mut daemon = home.start();
    for name in ["p", "f", "n"] {
        daemon.until_durable(name, 19).await;
        let seen = daemon.http("POST", &format!("/api/v1/consumers/{name}/commit")).await;
        assert_eq!(seen.unwrap().0, 200);
        let label = format!("consumer=\"{name}\"");
        for of in ["durable", "stored"] {
            let metric = daemon.metric(&format!("rillway_{of}_offset"), &[&label]).await;
            assert_eq!(metric, Some(19.0), "{name}");
        }
    }
    streams::delete(broker, &stream).await;
    for name in ["p", "f", "n"] {
        daemon.until(name, "it misses the stream", SOON, |c| c["state"] == "backoff").await;
    }
    streams::create_named(broker, &stream, &[]).await;
    for name in ["f", "n"] {
        daemon.until(name, "it waits in the new one", SOON, |c| c["state"] == "running").await;
    }
    let offsets = ["durable", "stored", "received"];
    for name in ["f", "n"] {
        let said = daemon.consumer(name).await.unwrap();
        let label = format!("consumer=\"{name}\"");
        for of in offsets {
            let metric = daemon.metric(&format!("rillway_{of}_offset"), &[&label]).await;
            assert_eq!(metric, None, "{name}, {of}: {said}");
        }
        assert!(said["durable_offset"].is_null() && said["stored_offset"].is_null(), "{said}");
    }
    streams::publish(broker, &stream, bodies(0..3)).await;
    daemon.until_halted("p").await;
    let label = ["consumer=\"p\""];
    assert_eq!(daemon.metric("rillway_durable_offset", &label).await, None);
    for name in ["f", "n"] {
        let label = format!("consumer=\"{name}\"");
        daemon.until(name, "three messages", SOON, |c| c["durable_offset"] == 2).await;
        assert_eq!(daemon.metric("rillway_durable_offset", &[&label]).await, Some(2.0), "{name}");
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn figures_of_the_old_incarnation_are_not_shown_for_the_new_one() {
    or_skip!(figures_of_a_re_created_stream().await);
}
