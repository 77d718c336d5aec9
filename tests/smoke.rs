//! Does the main job work at all, on every version? Events are published, three consumers write them, the
//! offset is stored, and a second run begins where the first one ended.

use crate::common::daemon::Home;
use crate::common::rstream::Rstream;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

async fn the_main_job(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "smoke").await;
    let bodies = |from: u32| (from..from + 1000).map(|i| format!("{{\"i\":{i}}}"));
    streams::publish(broker, &stream, bodies(0)).await;
    let consumer = |name: &str, sink: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\nsink = {sink}\n"
        )
    };
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("analytics", "{ type = \"file\", dir = \"out\" }"),
            consumer("monitoring", "{ type = \"stdout\" }"),
            consumer("counter", "{ type = \"null\" }"),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    for name in ["analytics", "monitoring", "counter"] {
        daemon.until_durable(name, 999).await;
    }
    daemon.terminate().await;
    assert_eq!(home.offsets("out", &stream), (0..1000).collect::<Vec<_>>());
    let printed = std::fs::read_to_string(home.path("stdout")).unwrap();
    assert_eq!(printed.lines().count(), 1000);
    for name in ["analytics", "monitoring", "counter"] {
        assert_eq!(streams::stored_offset(broker, &stream, name).await, Some(999), "{name}");
    }
    assert_eq!(Rstream::at(broker).await?.stored_offset(&stream, "analytics").await, Some(999));

    streams::publish(broker, &stream, bodies(1000)).await;
    let mut daemon = home.start();
    // Three stored offsets lie between the two thousand messages.
    let last = daemon.until("analytics", "all written", std::time::Duration::from_secs(60), |c| {
        c["durable_offset"].as_u64() >= Some(1999) && c["lag_messages"] == 0
    });
    let last = last.await["durable_offset"].as_u64().unwrap();
    daemon.terminate().await;
    let lines = home.lines("out", &stream);
    let seen: Vec<_> = lines.iter().map(|line| line["body"]["i"].as_u64().unwrap()).collect();
    assert_eq!(seen, (0..2000).collect::<Vec<_>>());
    assert_eq!(streams::stored_offset(broker, &stream, "analytics").await, Some(last));
    Ok(())
}

#[tokio::test]
async fn the_main_job_on_rabbitmq_3_10() {
    or_skip!(the_main_job(Version::V3_10).await);
}

#[tokio::test]
async fn the_main_job_on_rabbitmq_4_0() {
    or_skip!(the_main_job(Version::V4_0).await);
}

#[tokio::test]
async fn the_main_job_on_rabbitmq_4_3() {
    or_skip!(the_main_job(Version::V4_3).await);
}
