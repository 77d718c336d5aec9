//! `create`: is what a consumer reads created if it is absent, with the arguments that were asked for, and
//! is nothing else ever created or changed?
//!
//! What the broker holds is told by its own tools (`rabbitmqctl`), and by other clients.

mod races;
mod refusals;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::{assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

/// The arguments in a consumer's keys, and as the broker names them.
const ARGUMENTS: &str = "max_length = \"2MB\", max_age = \"7d\", segment = \"500kB\"";
const AS_BROKER: [(&str, &str); 3] = [
    ("x-max-age", "604800s"),
    ("x-max-length-bytes", "2000000"),
    ("x-stream-max-segment-size-bytes", "500000"),
];

/// A consumer with small batches; `source` is `stream = …` or `super_stream = …`.
fn consumer(name: &str, source: &str, create: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\n{source}\ncreate = {{ {create} }}\n\
         batch = {{ max_age = \"20ms\" }}\nrestart = {{ min_backoff = \"50ms\", max_backoff = \"500ms\" }}\n\
         sink = {{ type = \"file\", dir = \"{name}\" }}\n"
    )
}

/// Arguments of every stream whose name begins like this, by the broker's own tool.
async fn arguments(broker: &Broker, prefix: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let list = ["rabbitmqctl", "-q", "list_queues", "name", "arguments", "--formatter", "json"];
    let said = broker.ctl(&list).await;
    let all: Vec<Value> = serde_json::from_str(&said).unwrap_or_else(|why| panic!("{why}: {said}"));
    let of = |queue: &Value| {
        let each = queue["arguments"].as_array().unwrap().iter();
        each.map(|argument| {
            let value = &argument[2];
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (argument[0].as_str().unwrap().to_owned(), text)
        })
        .collect()
    };
    all.iter()
        .map(|queue| (queue["name"].as_str().unwrap().to_owned(), of(queue)))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect()
}

fn assert_arguments(found: &BTreeMap<String, String>) {
    for (key, value) in AS_BROKER {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key} in {found:?}");
    }
    assert_eq!(found["x-queue-type"], "stream");
}

/// `rillway check --connect`: its exit code and all that it said.
fn check(home: &Home) -> (Option<i32>, String) {
    let output = home.command(&["check", "--connect"]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

async fn created(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::unique("created");
    let home =
        Home::new(&broker.uri(), &consumer("c", &format!("stream = \"{stream}\""), ARGUMENTS));
    // Only told by `check`.
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("does not exist; it would be created, with max-length-bytes"), "{said}");
    assert_eq!(arguments(broker, &stream).await, BTreeMap::new(), "check creates nothing");

    let mut daemon = home.start();
    daemon.until("c", "it runs", LONG, |c| c["state"] == "running").await;
    assert_arguments(&arguments(broker, &stream).await[&stream]);
    streams::publish(broker, &stream, (0..100).map(body)).await;
    daemon.until_durable("c", 99).await;
    daemon.terminate().await;
    assert!(home.log().contains("stream created, because it did not exist"), "{}", home.log());
    assert_exact("c", &home.lines("c", &stream), 100);

    // It exists now, as it is wanted: nothing to tell.
    let before = home.log().len();
    let mut daemon = home.start();
    daemon.until("c", "it runs again", LONG, |c| c["state"] == "running").await;
    daemon.terminate().await;
    let log = &home.log()[before..];
    assert!(!log.contains("created, because") && !log.contains("exists otherwise"), "{log}");
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("create:     if it is absent, with max-length-bytes"), "{said}");

    // With other arguments it is told, and left as it is.
    let other = ARGUMENTS.replace("7d", "8d");
    home.configure(
        &format!("uri = \"{}\"", broker.uri()),
        &consumer("c", &format!("stream = \"{stream}\""), &other),
    );
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("exists otherwise than `create` says, and is not changed"), "{said}");
    let mut daemon = home.start();
    daemon.until("c", "it runs all the same", LONG, |c| c["state"] == "running").await;
    streams::publish(broker, &stream, (100..200).map(body)).await;
    home.until_landed(&daemon, "c", &stream, 200).await;
    daemon.terminate().await;
    assert!(home.log()[before..].contains("exists otherwise than `create` says"), "{}", home.log());
    assert_arguments(&arguments(broker, &stream).await[&stream]);
    assert_exact("c", &home.lines("c", &stream), 200);
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_created_if_it_is_absent_on_rabbitmq_3_10() {
    or_skip!(created(Version::V3_10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_created_if_it_is_absent_on_rabbitmq_4_0() {
    or_skip!(created(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_created_if_it_is_absent_on_rabbitmq_4_3() {
    or_skip!(created(Version::V4_3).await);
}

async fn created_super(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let orders = streams::unique("created-super");
    let source = format!("super_stream = \"{orders}\"\nstart = \"next\"");
    let home =
        Home::new(&broker.uri(), &consumer("c", &source, &format!("partitions = 3, {ARGUMENTS}")));
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("it would be created, with 3 partitions, max-length-bytes"), "{said}");
    assert_eq!(arguments(broker, &orders).await, BTreeMap::new(), "check creates nothing");

    let daemon = home.start();
    let names: Vec<String> = (0..3).map(|nth| format!("{orders}-{nth}")).collect();
    until_rows(&daemon, &names).await;
    let made = arguments(broker, &orders).await;
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), names);
    made.values().for_each(assert_arguments);
    // Another client's publisher finds the partitions by their keys.
    for name in &names {
        streams::publish(broker, name, (0..50).map(body)).await;
        home.until_landed(&daemon, "c", name, 50).await;
    }
    daemon.terminate().await;
    for name in &names {
        assert_exact(name, &home.lines("c", name), 50);
    }
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("exists otherwise"), "{said}");

    // With other partitions, or other arguments, it is told, and left as it is.
    for (create, says) in [
        (format!("partitions = 4, {ARGUMENTS}"), "it has the partitions"),
        ("partitions = 3".to_owned(), "has other arguments than the broker's defaults"),
    ] {
        home.configure(&format!("uri = \"{}\"", broker.uri()), &consumer("c", &source, &create));
        let (code, said) = check(&home);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(says) && said.contains("exists otherwise"), "{said}");
        assert_eq!(arguments(broker, &orders).await, made);
    }
    let before = home.log().len();
    let daemon = home.start();
    until_rows(&daemon, &names).await;
    daemon.terminate().await;
    assert!(home.log()[before..].contains("exists otherwise than `create` says"), "{}", home.log());
    streams::delete_super(broker, &orders).await;
    Ok(())
}

/// Waits until these streams are read, and no other row is shown.
async fn until_rows(daemon: &crate::common::daemon::Daemon, names: &[String]) {
    eventually("all partitions run", LONG, || async {
        let (_, text) = daemon.http("GET", "/api/v1/consumers").await?;
        let all: Value = serde_json::from_str(&text).ok()?;
        let rows = all["consumers"].as_array()?;
        let runs = |name: &String| {
            rows.iter().any(|row| row["stream"] == **name && row["state"] == "running")
        };
        (rows.len() == names.len() && names.iter().all(runs)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_super_stream_is_created_if_it_is_absent_on_rabbitmq_4_0() {
    or_skip!(created_super(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_super_stream_is_created_if_it_is_absent_on_rabbitmq_4_3() {
    or_skip!(created_super(Version::V4_3).await);
}

async fn binding_keys() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let orders = streams::unique("created-keys");
    let home = Home::new(
        &broker.uri(),
        &consumer("c", &format!("super_stream = \"{orders}\""), "binding_keys = [\"eu\", \"us\"]"),
    );
    let daemon = home.start();
    let names = [format!("{orders}-eu"), format!("{orders}-us")];
    until_rows(&daemon, &names).await;
    daemon.terminate().await;
    let list =
        ["rabbitmqctl", "-q", "list_bindings", "source_name", "destination_name", "routing_key"];
    let bindings = broker.ctl(&list).await;
    for key in ["eu", "us"] {
        let bound = format!("{orders}\t{orders}-{key}\t{key}");
        assert!(bindings.contains(&bound), "{bound:?} is not in\n{bindings}");
    }
    streams::delete_super(broker, &orders).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_bound_by_the_keys_that_were_given() {
    or_skip!(binding_keys().await);
}

/// Others write the same arguments in another way: a longer unit, a way to choose the leader.
async fn in_other_words(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let others = [
        ("max-length-bytes", "2000000"),
        ("max-age", "7D"),
        ("stream-max-segment-size-bytes", "500000"),
        ("queue-leader-locator", "least-leaders"),
    ];
    let stream = streams::create_with(broker, "created-others", &others).await;
    let home =
        Home::new(&broker.uri(), &consumer("c", &format!("stream = \"{stream}\""), ARGUMENTS));
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("exists otherwise"), "{said}");
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_arguments_in_other_words_are_the_same() {
    for version in Version::ALL {
        or_skip!(in_other_words(version).await);
    }
}
