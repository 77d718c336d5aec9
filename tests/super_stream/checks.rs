//! Does `rillway check` show the partitions and the sum of a super stream?

use serde_json::Value;

use super::{consumer, publish};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

async fn lists() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, partitions) = streams::create_super(broker, "checked", 3).await;
    publish(broker, &partitions[1], 0, 10).await;
    let sink = "sink = { type = \"file\", dir = \"files/{partition}\" }";
    let home = Home::new(&broker.uri(), &consumer("files", &orders, sink));
    let plan = |arguments: &[&str]| -> Value {
        let output = home.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let alone = plan(&["check", "--json"]);
    let asked = plan(&["check", "--connect", "--json"]);
    let of = |plan: &Value| plan["consumers"][0].clone();
    assert_eq!(of(&alone)["partitions"], Value::Null);
    let listed = of(&asked)["partitions"].as_array().unwrap().clone();
    let names: Vec<_> = listed.iter().map(|one| one["stream"].as_str().unwrap()).collect();
    assert_eq!(names, partitions);
    assert!(listed.iter().all(|one| one["resume"]["position"].is_string()), "{listed:?}");
    let memory = |plan: &Value| of(plan)["memory_bound_bytes"].as_u64().unwrap();
    assert_eq!(memory(&asked), 3 * memory(&alone));
    let text = home.command(&["check", "--connect"]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for partition in &partitions {
        assert!(text.contains(&format!("partition:  {partition:?}, resumes ")), "{text}");
    }
    let text = home.command(&["check"]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("for each partition") && text.contains("{partition}"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_lists_the_partitions() {
    or_skip!(lists().await);
}

#[test]
fn a_missing_super_stream_without_a_broker_is_a_problem_of_the_connection() {
    // Port 1 has no broker.
    let sink = "sink = { type = \"null\" }";
    let home = Home::new("rabbitmq-stream://localhost:1/%2f", &consumer("files", "orders", sink));
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(69), "{said}");
    assert!(said.contains("cannot connect to localhost:1"), "{said}");
}
