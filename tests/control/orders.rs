//! Pause, resume, restart, commit, drain and log level, over HTTP and on the command line.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LONG, broker_lines, call, command, filer, post, told};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

async fn paused_gauge(daemon: &Daemon, name: &str) -> Option<f64> {
    daemon.metric("rillway_consumer_paused", &[&format!("consumer=\"{name}\"")]).await
}

async fn paused_and_resumed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "paused").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let both = [filer("a", &stream, "a", ""), filer("b", &stream, "b", "")].concat();
    let home = Home::new(&broker.uri(), &both);
    let mut daemon = home.start();
    for name in ["a", "b"] {
        daemon.until_durable(name, 99).await;
    }
    assert_eq!(paused_gauge(&daemon, "a").await, Some(0.0));
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, None);

    // By HTTP: what was read is stored, and the answer says so.
    let (status, answer) = post(&daemon, "consumers/a/pause").await;
    assert_eq!(status, 200, "{answer}");
    let state = &answer["streams"][0];
    assert_eq!((&answer["consumer"], &answer["verb"]), (&json!("a"), &json!("pause")));
    assert_eq!((&answer["finished"], &state["state"]), (&json!(true), &json!("paused")));
    assert_eq!((&state["stream"], &state["stored_offset"]), (&json!(stream), &json!(99)));
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, Some(99));
    assert_eq!(paused_gauge(&daemon, "a").await, Some(1.0));
    let (status, ready) = daemon.http("GET", "/readyz").await.unwrap();
    assert!(status == 503 && ready.contains("paused by an operator"), "{status} {ready}");
    assert!(home.log().contains("by order of an operator: pause"), "{}", home.log_tail());
    streams::publish(broker, &stream, (100..200).map(body)).await;
    daemon.until_durable("b", 199).await;

    // A pause outlives a reload that changes its consumer, one that does not, and a restart order.
    let changed = both.replace("name = \"a\"", "name = \"a\"\nmemory = \"9MiB\"");
    home.configure(&broker_lines(&broker.uri()), &changed);
    let (status, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!((status, &answer["changed"]), (200, &json!(["a"])), "{answer}");
    let (_, answer) = post(&daemon, "consumers/a/restart").await;
    assert_eq!(
        (&answer["finished"], &answer["streams"][0]["state"]),
        (&json!(true), &json!("paused"))
    );
    let is_known = |c: &Value| c["state"] == "paused" && c["stored_offset"] == 99;
    daemon.until("a", "its position is known, and it is paused", LONG, is_known).await;
    assert_eq!(home.lines("a", &stream).len(), 100);
    let (status, refused) = post(&daemon, "consumers/a/commit").await;
    assert!(status == 503 && refused["error"].as_str().unwrap().contains("paused"), "{refused}");

    // By the command line. The broker's own chunk with the stored offset lies before the last hundred.
    let (code, said) = told(&home, &["resume", "a"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(&format!("a runs again ({stream}")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(paused_gauge(&daemon, "a").await, Some(0.0));
    daemon.until_durable("a", 200).await;
    let (code, said) = told(&home, &["commit", "a"]).await;
    assert_eq!((code, said.trim_end()), (Some(0), format!("a: stored {stream} at 200").as_str()));
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, Some(200));
    let (code, said) = told(&home, &["pause", "a", "--wait", "50s"]).await;
    assert_eq!(
        (code, said.trim_end()),
        (Some(0), format!("a is paused ({stream}, offset 200 is stored)").as_str())
    );
    let output = command(&home, &["resume", "a", "--json"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["finished"]), (Some(0), &json!(true)));
    let (code, said) = told(&home, &["restart", "b"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("b was restarted, and runs"), "{said}");

    // Orders for what does not exist, and in other words.
    for (arguments, code, part) in [
        (vec!["pause", "nobody"], 64, "no consumer is named \"nobody\""),
        (
            vec!["pause", "a", "--stream", "nowhere"],
            64,
            "does not read stream \"nowhere\": it reads",
        ),
        (vec!["commit", "nobody"], 64, "no consumer is named"),
        (vec!["restart", "a", "--wait", "2h"], 64, "at most 1m"),
        (vec!["restart", "a", "--wait", "soon"], 64, "not a duration"),
        (vec!["log-level", "loud"], 64, "not a level"),
        (vec!["pause", "a", "--url", "http://127.0.0.1:1"], 69, "Is rillway running"),
        (vec!["pause", "a", "--url", "nonsense"], 64, "Expected http://HOST:PORT"),
    ] {
        let (got, said) = told(&home, &arguments).await;
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    for (method, path, status) in [
        ("POST", "consumers/nobody/pause", 404),
        ("POST", "consumers/a/pause?stream=nowhere", 404),
        ("POST", "consumers/a/stop", 404),
        ("GET", "consumers/a/pause", 405),
        ("DELETE", "consumers/a/pause", 405),
        ("GET", "drain", 405),
        ("POST", "consumers/a/pause?wait=1h", 400),
        ("POST", "log-level", 405),
    ] {
        let got = daemon.http(method, &format!("/api/v1/{path}")).await.unwrap();
        assert_eq!(got.0, status, "{method} {path}: {}", got.1);
    }
    daemon.until("a", "none of these had an effect", LONG, |c| c["ready"] == true).await;
    daemon.terminate().await;
    for name in ["a", "b"] {
        assert_exact(name, &home.lines(name, &stream), 200);
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_is_paused_resumed_restarted_and_committed() {
    or_skip!(paused_and_resumed().await);
}

async fn logged() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "logged").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let home = Home::new(&broker.uri(), &filer("a", &stream, "a", ""));
    let mut daemon = home.start();
    daemon.until_durable("a", 9).await;
    let path = "/api/v1/log-level";
    assert_eq!(call(&daemon, "GET", path, "").await, (200, json!({ "filter": "debug" })));
    let filter = "warn,rillway::cli=info";
    assert_eq!(call(&daemon, "PUT", path, filter).await, (200, json!({ "filter": filter })));
    let (code, said) = told(&home, &["log-level"]).await;
    assert_eq!((code, said.trim_end()), (Some(0), filter));
    // Below the filter, nothing is logged any more; what it names is.
    let before = home.log().len();
    let (code, said) = told(&home, &["restart", "a"]).await;
    assert_eq!(code, Some(0), "{said}");
    let quiet = home.log()[before..].to_owned();
    assert!(!quiet.contains(" INFO ") && !quiet.contains("DEBUG"), "{quiet}");
    let (code, said) = told(&home, &["log-level", "info,rillway::consumer=debug"]).await;
    assert_eq!((code, said.trim_end()), (Some(0), "info,rillway::consumer=debug"));
    streams::publish(broker, &stream, (10..20).map(body)).await;
    daemon
        .until("a", "it has more to store", LONG, |c| c["durable_offset"].as_u64() > Some(9))
        .await;
    told(&home, &["restart", "a"]).await;
    let loud = home.log()[before..].to_owned();
    assert!(loud.contains("by order of an operator: restart"), "{loud}");
    assert!(loud.contains("DEBUG rillway::consumer"), "{loud}");
    for bad in ["loud", "info,rillway=loud", "rillway"] {
        let (status, answer) = call(&daemon, "PUT", path, bad).await;
        assert_eq!(status, 400, "{bad}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("{bad:?} is not a log filter")), "{error}");
    }
    let (status, answer) = call(&daemon, "PUT", path, "").await;
    assert_eq!(status, 400, "{answer}");
    let filter = json!({ "filter": "info,rillway::consumer=debug" });
    assert_eq!(call(&daemon, "GET", path, "").await, (200, filter), "a bad one changes nothing");
    // A reload leaves it alone, unless the level in the file has changed.
    post(&daemon, "reload").await;
    let (_, shown) = call(&daemon, "GET", path, "").await;
    assert_eq!(shown["filter"], "info,rillway::consumer=debug");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn the_log_is_louder_and_quieter_while_it_runs() {
    or_skip!(logged().await);
}

async fn drained() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "drained").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let home = Home::new(&broker.uri(), &filer("a", &stream, "a", ""));
    let mut daemon = home.start();
    daemon.until_durable("a", 99).await;
    let (code, said) = told(&home, &["drain", "--wait", "50s"]).await;
    assert_eq!(code, Some(0), "{said}");
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0), "{}", home.log_tail());
    assert!(home.log().contains("shutdown complete"), "{}", home.log_tail());
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, Some(99));
    let (code, said) = told(&home, &["drain"]).await;
    assert_eq!(code, Some(69), "nothing is there any more: {said}");

    // As in a Kubernetes pod: `preStop` drains, and then SIGTERM comes. It is the first signal.
    let printer = format!(
        "[[consumer]]\nname = \"stuck\"\nstream = \"{stream}\"\nsink = {{ type = \"stdout\" }}\n"
    );
    streams::publish(broker, &stream, (100..20_000).map(body)).await;
    home.configure(&broker_lines(&broker.uri()), &[filer("a", &stream, "a", ""), printer].concat());
    home.set("shutdown_grace = \"15s\"");
    let (mut daemon, pipe) = home.start_piped();
    // The broker's own chunk with the stored offset lies in between.
    daemon.until_durable("a", 20_000).await;
    let (status, answer) = post(&daemon, "drain").await;
    assert_eq!((status, answer), (202, json!({ "draining": true, "grace_seconds": 15.0 })));
    daemon.until("stuck", "it drains", LONG, |c| c["state"] == "draining").await;
    assert_eq!(post(&daemon, "drain").await.0, 202, "again is no other order");
    daemon.signal("TERM");
    eventually("the signal is the first one", Duration::from_secs(60), || async {
        home.log().contains("already draining").then_some(())
    })
    .await;
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(75), "it waited for the stuck one");
    assert!(!home.log().contains("stopped at once"), "{}", home.log_tail());
    assert!(
        home.log().contains("not finished within shutdown_grace: stuck"),
        "{}",
        home.log_tail()
    );
    drop(pipe);
    assert_eq!(streams::stored_offset(broker, &stream, "a").await, Some(20_000));
    assert_exact("a", &home.lines("a", &stream), 20_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_the_daemon_as_a_signal_does() {
    or_skip!(drained().await);
}
