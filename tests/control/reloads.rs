//! Reloads under load.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::pace::Watch;
use super::{LONG, SMALL, broker_lines, command, filer, post};
use crate::common::broker::blocking;
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, assert_exact, body};
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, eventually, streams};

/// For this long the consumers are watched without a reload, to compare with.
const QUIET: Duration = Duration::from_secs(2);

/// Exit of `rillway reload`, SIGHUP and the API, in turn.
async fn reload(home: &Home, daemon: &Daemon, round: u64) -> Value {
    match round % 3 {
        0 => {
            let output = command(home, &["reload", "--json", "--wait", "50s"]).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "round {round}: {said}\n{}", home.log_tail());
            serde_json::from_slice(&output.stdout).unwrap()
        }
        1 => {
            let before = daemon.metric("rillway_config_reloads_total", &["applied"]).await.unwrap();
            daemon.signal("HUP");
            eventually("SIGHUP has reloaded", LONG, || async {
                let now = daemon.metric("rillway_config_reloads_total", &["applied"]).await?;
                (now > before).then_some(())
            })
            .await;
            Value::Null
        }
        _ => {
            let (status, answer) = post(daemon, "reload?wait=50s").await;
            assert_eq!(status, 200, "round {round}: {answer}\n{}", home.log_tail());
            answer
        }
    }
}

/// The configuration of one round: one consumer never changes, and one each has other settings, comes and
/// goes, has another name, or exchanges its destination with another one.
fn consumers(stream: &str, postgres: &str, round: u64) -> String {
    let even = round.is_multiple_of(2);
    let memory = if even { "memory = \"8MiB\"" } else { "memory = \"9MiB\"" };
    let name = if even { "left" } else { "right" };
    let mut all = vec![
        filer("steady", stream, "steady", ""),
        filer("changing", stream, "changing", memory),
        format!(
            "[[consumer]]\nname = \"rows\"\nstream = \"{stream}\"\n{SMALL}\n{memory}\n\
             sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"rows\" }}\n"
        ),
        format!(
            "[[consumer]]\nname = \"server\"\nstream = \"{stream}\"\n{SMALL}\n{memory}\nsink = {postgres}\n"
        ),
        // Another name, and the same reference and destination: the two must not overlap.
        filer(name, stream, "moved", "reference = \"mover\""),
    ];
    if even {
        all.push(filer("coming", stream, "coming", ""));
    } else {
        all.rotate_left(2);
    }
    all.concat()
}

async fn under_load() -> Result<(), Unavailable> {
    let rounds = env_or("RILLWAY_RELOADS", 50);
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let sink = format!(
        "{{ type = \"postgres\", url = \"{}\", schema = \"{schema}\", table = \"rows\" }}",
        postgres.url()
    );
    let stream = streams::create(broker, "reloads").await;
    let home = Home::new(&broker.uri(), &consumers(&stream, &sink, 0));
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut daemon = home.start();
    let began = Instant::now();
    let written = |c: &Value| c["durable_offset"].is_u64() && c["ready"] == true;
    let steady = daemon.until("steady", "it writes", LONG, written).await;
    let ready_since = began.elapsed();
    let mut durable = steady["durable_offset"].as_u64();
    let quiet = Watch::of(home.path("steady"), &load);
    tokio::time::sleep(QUIET).await;
    let quiet = quiet.ended(&load);
    let watch = Watch::of(home.path("steady"), &load);
    for round in 1..=rounds {
        home.configure(&broker_lines(&broker.uri()), &consumers(&stream, &sink, round));
        let answer = reload(&home, &daemon, round).await;
        if answer != Value::Null {
            let sets = |key: &str| -> Vec<String> {
                let names = answer[key].as_array().unwrap().iter();
                names.map(|name| name.as_str().unwrap().to_owned()).collect()
            };
            let mut added = sets("added");
            added.sort();
            let (came, went): (&[&str], &[&str]) = match round % 2 {
                0 => (&["coming", "left"], &["right"]),
                _ => (&["right"], &["left", "coming"]),
            };
            assert_eq!(added, came, "round {round}");
            assert_eq!(sets("removed"), went, "round {round}");
            let mut changed = sets("changed");
            changed.sort();
            assert_eq!(changed, ["changing", "rows", "server"], "round {round}");
            assert_eq!(answer["unchanged"], 1, "round {round}");
            assert_eq!(answer["finished"], true, "round {round}: {answer}");
        }
        // What is not touched goes on meanwhile.
        let goes_on = |c: &Value| c["durable_offset"].as_u64() > durable;
        let steady = daemon.until("steady", "it goes on", LONG, goes_on).await;
        durable = steady["durable_offset"].as_u64();
        assert_eq!((&steady["restarts"], &steady["ready"]), (&json!(0), &json!(true)));
    }
    let watched = watch.ended(&load);
    let total = load.stop().await;
    let name = if rounds.is_multiple_of(2) { "left" } else { "right" };
    let mut exact = vec!["steady", "changing", name];
    exact.extend(rounds.is_multiple_of(2).then_some("coming"));
    for name in exact.iter().chain(&["rows", "server"]) {
        daemon.until_durable(name, total - 1).await;
    }
    // It was never started again, and never lost its connection or its readiness.
    let asked = began.elapsed();
    let steady = daemon.consumer("steady").await.unwrap();
    assert_eq!(steady["restarts"], 0);
    let ready_for = Duration::from_secs_f64(steady["ready_age_seconds"].as_f64().unwrap());
    assert!(asked.saturating_sub(ready_for) <= ready_since, "{steady}");
    let log = home.log();
    let starts =
        log.lines().filter(|line| line.contains("consumer=steady") && line.contains("subscribed"));
    assert!(starts.count() <= 1, "it subscribed again");
    assert_eq!(daemon.metric("rillway_config_reload_success", &[]).await, Some(1.0));
    daemon.terminate().await;

    for name in exact {
        let dir = if ["left", "right"].contains(&name) { "moved" } else { name };
        assert_exact(name, &home.lines(dir, &stream), total);
    }
    let rows = Connection::open(home.path("rows.db")).unwrap();
    let counted: (i64, i64, i64) = rows
        .query_row(
            "SELECT count(*), count(DISTINCT offset), count(DISTINCT body) FROM rows",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    let all = i64::try_from(total).unwrap();
    assert_eq!(counted, (all, all, all), "0 lost, 0 doubled");
    let sql =
        format!("SELECT count(*), count(DISTINCT \"offset\"), max(\"offset\") FROM {schema}.rows");
    let row = postgres.client().await.query_one(&sql, &[]).await.unwrap();
    let counted: (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(counted, (all, all), "0 lost, 0 doubled in PostgreSQL");
    let log = home.log();
    for word in ["panicked", "has taken over", "is locked", "in use by"] {
        assert!(!log.contains(word), "{word}: two of one reference or destination overlapped");
    }
    println!("{rounds} reloads, {total} messages, {:?}", began.elapsed());
    println!("the untouched consumer before the reloads: {quiet}");
    println!("the untouched consumer during the reloads: {watched}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_lose_and_double_nothing() {
    or_skip!(under_load().await);
}

/// Two consumers exchange their destinations, with their references; a third one is renamed into a
/// destination that another one leaves.
async fn exchanged() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "exchanged").await;
    let of = |pairs: &[(&str, &str)]| -> String {
        let one = |(name, place): &(&str, &str)| {
            filer(name, &stream, place, &format!("reference = \"{place}\""))
        };
        pairs.iter().map(one).collect()
    };
    let home = Home::new(&broker.uri(), &of(&[("a", "one"), ("b", "two")]));
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut daemon = home.start();
    let writes = |c: &Value| c["durable_offset"].is_u64();
    for name in ["a", "b"] {
        daemon.until(name, "it writes", LONG, writes).await;
    }
    for pairs in [[("a", "two"), ("b", "one")], [("b", "two"), ("c", "one")]] {
        home.configure(&broker_lines(&broker.uri()), &of(&pairs));
        let (status, answer) = post(&daemon, "reload?wait=50s").await;
        assert_eq!((status, &answer["finished"]), (200, &json!(true)), "{answer}");
        for (name, _) in pairs {
            let moved = |c: &Value| c["ready"] == true && c["durable_offset"].is_u64();
            let consumer = daemon.until(name, "it goes on", LONG, moved).await;
            assert_eq!(consumer["restarts"], 0, "nothing was in its way");
        }
    }
    let total = load.stop().await;
    for name in ["b", "c"] {
        daemon.until_durable(name, total - 1).await;
    }
    daemon.terminate().await;
    for place in ["one", "two"] {
        assert_exact(place, &home.lines(place, &stream), total);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_are_exchanged_without_an_overlap() {
    or_skip!(exchanged().await);
}

/// The former owner of a reference is stuck: its successor waits for its end, however often it is changed
/// meanwhile, and does not run into its lock.
async fn waited_for() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "waited-for").await;
    streams::publish(broker, &stream, (0..20_000).map(body)).await;
    let of = |name: &str, rest: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nreference = \"one\"\n{SMALL}\n{rest}\n"
        )
    };
    let home = Home::new(&broker.uri(), &of("former", "sink = { type = \"stdout\" }"));
    home.set("shutdown_grace = \"20s\"");
    let (mut daemon, pipe) = home.start_piped();
    let is_stuck = |c: &Value| c["durable_offset"].is_u64() && c["lag_messages"].as_u64() > Some(0);
    daemon.until("former", "it has printed something", LONG, is_stuck).await;
    for memory in ["8MiB", "9MiB"] {
        let rest = format!("memory = \"{memory}\"\nsink = {{ type = \"null\" }}");
        home.configure(&broker_lines(&broker.uri()), &of("later", &rest));
        home.set("shutdown_grace = \"20s\"");
        let (status, answer) = post(&daemon, "reload?wait=0s").await;
        assert_eq!((status, &answer["finished"]), (202, &json!(false)), "{answer}");
        let waits = |c: &Value| {
            c["state"] == "starting"
                && c["reason"].as_str().is_some_and(|reason| reason.contains("waiting for the end"))
        };
        daemon.until("later", "it says what it waits for", LONG, waits).await;
        assert_eq!(daemon.consumer("former").await.unwrap()["state"], "draining");
    }
    daemon.until_durable("later", 19_999).await;
    assert_eq!(daemon.consumer("later").await.unwrap()["restarts"], 0, "{}", home.log_tail());
    assert_eq!(daemon.consumer("former").await, None);
    assert!(!home.log().contains("is in use by"), "{}", home.log_tail());
    drop(pipe);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_owner_that_is_stuck_is_waited_for() {
    or_skip!(waited_for().await);
}

/// What an earlier reload has ended is stuck: a consumer that takes over from it waits, and one that has nothing in
/// common with it does not.
async fn beside() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "beside").await;
    streams::publish(broker, &stream, (0..20_000).map(body)).await;
    let printer = |name: &str, sink: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nreference = \"one\"\n{SMALL}\n\
             sink = {{ type = \"{sink}\" }}\n"
        )
    };
    let other = |memory: &str| filer("other", &stream, "other", &format!("memory = \"{memory}\""));
    // Longer than anything is waited for here.
    let grace = "shutdown_grace = \"10m\"";
    let home = Home::new(&broker.uri(), &[other("8MiB"), printer("former", "stdout")].concat());
    home.set(grace);
    let (mut daemon, mut pipe) = home.start_piped();
    let is_stuck = |c: &Value| c["durable_offset"].is_u64() && c["lag_messages"].as_u64() > Some(0);
    daemon.until("former", "it has printed something", LONG, is_stuck).await;
    daemon.until_durable("other", 19_999).await;
    for consumers in [other("8MiB"), [other("9MiB"), printer("later", "null")].concat()] {
        home.configure(&broker_lines(&broker.uri()), &consumers);
        home.set(grace);
        let (status, answer) = post(&daemon, "reload?wait=0s").await;
        assert_eq!((status, &answer["finished"]), (202, &json!(false)), "{answer}");
        daemon.until("former", "it drains", LONG, |c| c["state"] == "draining").await;
    }
    // The one that has changed goes on, beside the one that is stuck.
    streams::publish(broker, &stream, (20_000..20_100).map(body)).await;
    daemon.until_durable("other", 20_099).await;
    let later = daemon.consumer("later").await.unwrap();
    let reason = later["reason"].as_str().unwrap();
    assert!(later["state"] == "starting" && reason.contains("waiting for the end"), "{later}");
    assert_eq!(daemon.consumer("former").await.unwrap()["state"], "draining");

    let reading = blocking(move || std::io::copy(&mut pipe, &mut std::io::sink()).unwrap());
    let reading = tokio::spawn(reading);
    daemon.until_durable("later", 20_099).await;
    for name in ["other", "later"] {
        assert_eq!(daemon.consumer(name).await.unwrap()["restarts"], 0, "{}", home.log_tail());
    }
    assert_eq!(daemon.consumer("former").await, None);
    assert!(!home.log().contains("is in use by"), "{}", home.log_tail());
    daemon.terminate().await;
    reading.await.unwrap();
    assert_exact("other", &home.lines("other", &stream), 20_100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_takes_over_from_a_stuck_one_waits() {
    or_skip!(beside().await);
}

/// What changes for all consumers, what changes for none, and what is shown of it.
async fn inherited() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "inherited").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let both = [filer("a", &stream, "a", ""), filer("b", &stream, "b", "")].concat();
    let home = Home::new(&broker.uri(), &both);
    let mut daemon = home.start();
    for name in ["a", "b"] {
        daemon.until_durable(name, 99).await;
    }
    let config = async |daemon: &Daemon| -> Value {
        let (_, body) = daemon.http("GET", "/api/v1/config").await.unwrap();
        serde_json::from_str(&body).unwrap()
    };
    let at_first = config(&daemon).await;
    assert_eq!((&at_first["consumers"], &at_first["last_reload"]), (&json!(2), &Value::Null));
    let bytes = std::fs::read(home.path("rillway.toml")).unwrap();
    assert_eq!(at_first["sha256"], rillway::config::sha256(&bytes));

    // The same file, and one that means the same.
    let (status, answer) = post(&daemon, "reload").await;
    assert_eq!((status, &answer["result"]), (200, &json!("unchanged")));
    assert_eq!(config(&daemon).await["loaded_at"], at_first["loaded_at"]);
    home.set("# A comment, and a default that is written out.\nshutdown_grace = \"10s\"");
    let (_, answer) = post(&daemon, "reload").await;
    assert_eq!((&answer["result"], &answer["unchanged"]), (&json!("unchanged"), &json!(2)));
    let now = config(&daemon).await;
    assert_ne!(now["sha256"], at_first["sha256"]);
    assert_eq!(now["last_reload"]["result"], "unchanged");

    // The broker's settings are those of all.
    let lines = broker_lines(&broker.uri()).replace("30s", "31s");
    home.configure(&lines, &both);
    let (status, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!((status, &answer["changed"]), (200, &json!(["a", "b"])), "{answer}");
    // The log's level is nobody's.
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("level = \"debug\"", "level = \"info\"")).unwrap();
    let (_, answer) = post(&daemon, "reload").await;
    assert_eq!((&answer["changed"], &answer["log_filter"]), (&json!([]), &json!("info")));
    let (_, body) = daemon.http("GET", "/api/v1/log-level").await.unwrap();
    assert_eq!(body, "{\"filter\":\"info\"}\n");

    // References of other programs.
    let watch = format!("[[watch]]\nstream = \"{stream}\"\nreference = \"a\"\n");
    home.configure(&lines, &[both.as_str(), &watch].concat());
    let (_, answer) = post(&daemon, "reload").await;
    assert_eq!((&answer["changed"], &answer["watches_changed"]), (&json!([]), &json!(true)));
    eventually("it is watched", LONG, || async {
        let lag = daemon.metric("rillway_watch_offset_known", &["reference=\"a\""]).await?;
        (lag == 1.0).then_some(())
    })
    .await;
    home.configure(&lines, &both);
    post(&daemon, "reload").await;
    assert_eq!(daemon.metric("rillway_watch_offset_known", &["reference=\"a\""]).await, None);
    let (_, body) = daemon.http("GET", "/api/v1/watches").await.unwrap();
    assert_eq!(body, "{\"watches\":[]}\n");

    // The last one goes, and its metrics with it.
    home.configure(&lines, &filer("a", &stream, "a", ""));
    let (_, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!(answer["removed"], json!(["b"]), "{answer}");
    assert_eq!(daemon.consumer("b").await, None);
    assert_eq!(daemon.metric("rillway_consumer_ready", &["consumer=\"b\""]).await, None);
    assert_eq!(streams::stored_offset(broker, &stream, "b").await, Some(99));
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn only_what_has_changed_is_touched() {
    or_skip!(inherited().await);
}

/// Two reloads at once, and reloads while the daemon ends.
async fn at_once() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "at-once").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let home = Home::new(&broker.uri(), &filer("a", &stream, "a", ""));
    let mut daemon = home.start();
    daemon.until_durable("a", 99).await;
    let both = [filer("a", &stream, "a", ""), filer("b", &stream, "b", "")].concat();
    home.configure(&broker_lines(&broker.uri()), &both);
    let (one, other, third) = tokio::join!(
        post(&daemon, "reload?wait=50s"),
        post(&daemon, "reload?wait=50s"),
        post(&daemon, "reload?wait=50s")
    );
    let mut results: Vec<_> = [one, other, third]
        .map(|(status, answer)| (status, answer["result"].as_str().unwrap().to_owned()))
        .into();
    results.sort();
    let unchanged = || (200, "unchanged".to_owned());
    assert_eq!(results, [(200, "applied".to_owned()), unchanged(), unchanged()]);
    daemon.until_durable("b", 99).await;

    // A stuck pipe holds the shutdown, so that there is time to ask.
    let printer = format!(
        "[[consumer]]\nname = \"stuck\"\nstream = \"{stream}\"\n{SMALL}\nsink = {{ type = \"stdout\" }}\n"
    );
    daemon.terminate().await;
    let streams_of_many: Vec<String> = (100..20_000).map(body).collect();
    streams::publish(broker, &stream, streams_of_many).await;
    home.configure(&broker_lines(&broker.uri()), &[both.as_str(), &printer].concat());
    home.set("shutdown_grace = \"20s\"");
    let (mut daemon, pipe) = home.start_piped();
    daemon.until_durable("a", 19_999).await;
    daemon.signal("TERM");
    daemon.until("stuck", "it drains", LONG, |c| c["state"] == "draining").await;
    home.configure(&broker_lines(&broker.uri()), &filer("c", &stream, "c", ""));
    let (status, answer) = post(&daemon, "reload").await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("shutting down"));
    for verb in ["pause", "resume", "restart"] {
        assert_eq!(post(&daemon, &format!("consumers/a/{verb}")).await.0, 409, "{verb}");
    }
    daemon.signal("HUP");
    assert_eq!(daemon.consumer("c").await, None, "nothing starts any more");
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(75), "the stuck one was late");
    drop(pipe);
    assert!(!home.path("c").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_at_the_same_time_and_at_the_end() {
    or_skip!(at_once().await);
}
