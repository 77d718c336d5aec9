//! Messages into SQLite: are they there to be queried, typed, each once, in whatever way the daemon
//! ends?
//!
//! `KILLS=100 cargo test --test all sqlite::` is the long form.

use std::time::Duration;

use rusqlite::Connection;

use crate::common::daemon::Home;
use crate::common::load::{Load, Pace};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

const SMALL: &str = r#"
batch = { max_messages = 40, max_age = "20ms" }
commit = { every_messages = 100, every = "100ms" }
restart = { min_backoff = "10ms", max_backoff = "100ms" }
"#;

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\nsink = {sink}\n"
    )
}

fn database(home: &Home) -> Connection {
    Connection::open(home.path("data.db")).unwrap()
}

/// One number, where there is one already.
fn number(home: &Home, sql: &str) -> Option<i64> {
    if !home.path("data.db").exists() {
        return None;
    }
    database(home).query_row(sql, [], |row| row.get(0)).ok()
}

async fn queries(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "sql").await;
    let body = |i: u32| match i {
        500 => "not JSON".to_owned(),
        501 => "{\"user\":{\"id\":\"u1\"},\"amount\":\"much\"}".to_owned(),
        i => format!("{{\"user\":{{\"id\":\"u{}\"}},\"amount\":{i}.25}}", i % 3),
    };
    streams::publish(broker, &stream, (0..1000).map(body)).await;
    let columns = "{ user_id = \"/user/id\", amount = { from = \"/amount\", type = \"numeric\" } }";
    let typed = format!(
        "{{ type = \"sqlite\", path = \"data.db\", table = \"orders\", columns = {columns} }}"
    );
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("all", &stream, "{ type = \"sqlite\", path = \"data.db\" }"),
            consumer("typed", &stream, &typed),
            "on_bad_message = \"skip\"\n".to_owned(),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    for name in ["all", "typed"] {
        daemon.until_durable(name, 999).await;
    }
    // Asked while the daemon has the database open.
    let table = rillway::sink::sqlite::name_for(&stream);
    let asked = format!("SELECT count(*) || ' ' || min(offset) || ' ' || max(offset) FROM {table}");
    let all: String = database(&home).query_row(&asked, [], |row| row.get(0)).unwrap();
    assert_eq!(all, "1000 0 999");
    let sql = "SELECT user_id, count(*), sum(amount) FROM orders GROUP BY 1 ORDER BY 1";
    let database = database(&home);
    let mut asked = database.prepare(sql).unwrap();
    let rows: Vec<(String, i64, f64)> = asked
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let expected = |of: u32| {
        let those = (0..1000).filter(|i| i % 3 == of && *i != 500 && *i != 501);
        let (n, sum) = those.fold((0, 0.0), |(n, sum), i| (n + 1, sum + f64::from(i) + 0.25));
        (format!("u{of}"), n, sum)
    };
    assert_eq!(rows, [expected(0), expected(1), expected(2)]);
    let labels = ["consumer=\"typed\"", "reason=\"misfit\""];
    let skipped = daemon.metric("rillway_lost_messages_total", &labels).await;
    assert_eq!(skipped, Some(2.0));
    daemon.terminate().await;
    assert_eq!(streams::stored_offset(broker, &stream, "typed").await, Some(999));

    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{text}{}", String::from_utf8_lossy(&checked.stderr));
    assert!(text.contains("data.db") && text.contains("1000"), "{text}");
    Ok(())
}

#[tokio::test]
async fn queries_on_rabbitmq_3_10() {
    or_skip!(queries(Version::V3_10).await);
}

#[tokio::test]
async fn queries_on_rabbitmq_4_3() {
    or_skip!(queries(Version::V4_3).await);
}

/// Each number once, in the stream's order, and the position at the last of them.
fn assert_exact(home: &Home, total: u64) {
    let database = database(home);
    let mut asked =
        database.prepare("SELECT body ->> '$.i', offset FROM events ORDER BY rowid").unwrap();
    let rows: Vec<(i64, i64)> = asked
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let wrong = rows.iter().enumerate().find(|(nth, (i, _))| i64::try_from(*nth).unwrap() != *i);
    assert!(wrong.is_none(), "lost, twice or out of order: {wrong:?}");
    assert_eq!(rows.len() as u64, total);
    assert!(rows.is_sorted_by(|a, b| a.1 < b.1), "offsets do not increase");
    let position = number(home, "SELECT \"offset\" FROM rillway_positions");
    assert!(position >= rows.last().map(|row| row.1), "{position:?}");
    let checked: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
}

fn sink_home(broker: &Broker, stream: &str) -> Home {
    let sink = "{ type = \"sqlite\", path = \"data.db\", table = \"events\" }";
    Home::new(&broker.uri(), &[&consumer("analytics", stream, sink), SMALL].concat())
}

async fn until_all(home: &Home, total: u64) {
    eventually("every message is in the table", LONG, || async {
        (number(home, "SELECT count(*) FROM events") >= i64::try_from(total).ok()).then_some(())
    })
    .await;
}

async fn killed_at_random() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (kills, seed) = (env_or("KILLS", 8), env_or("SEED", fastrand::u64(..)));
    eprintln!("{kills} kills, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = streams::create(broker, "sql-crash").await;
    let home = sink_home(broker, &stream);
    let load = Load::on(broker, &stream, Pace::BRISK);
    for _ in 0..kills {
        let daemon = home.start();
        let count = || number(&home, "SELECT count(*) FROM events");
        let before = count();
        eventually("progress", LONG, || async { (count() > before).then_some(()) }).await;
        // The moment is what is tested, not something to wait for.
        tokio::time::sleep(Duration::from_micros(random.u64(0..150_000))).await;
        daemon.kill();
    }
    let total = load.stop().await;
    let daemon = home.start();
    until_all(&home, total).await;
    daemon.terminate().await;
    assert_exact(&home, total);
    Ok(())
}

#[tokio::test]
async fn kill_9_at_random_moments() {
    or_skip!(killed_at_random().await);
}

/// Needs a build with debug assertions, as tests are.
async fn killed_at_each_point() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_0).await?;
    let stream = streams::create(broker, "sql-points").await;
    let home = sink_home(broker, &stream);
    let load = Load::on(broker, &stream, Pace::BRISK);
    for point in ["received", "written", "flushed", "committed", "offset_stored"] {
        for nth in [1, 3] {
            let mut child = home
                .command(&["run"])
                .env("RILLWAY_FAULT", format!("die@{point}:{nth}"))
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let ended = eventually(&format!("it dies at {point}"), LONG, || {
                let ended = child.try_wait().unwrap();
                async move { ended }
            })
            .await;
            assert!(!ended.success() && ended.code().is_none(), "{point}: {ended}");
        }
    }
    let total = load.stop().await;
    let daemon = home.start();
    until_all(&home, total).await;
    daemon.terminate().await;
    assert_exact(&home, total);
    Ok(())
}

#[tokio::test]
async fn kill_9_at_each_named_point() {
    or_skip!(killed_at_each_point().await);
}

/// Frozen between its inserts and its commit it holds SQLite's lock: nobody can take over. Frozen
/// elsewhere, the second goes on, and the first, woken, writes nothing.
async fn frozen() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "sql-frozen").await;
    let home = sink_home(broker, &stream);
    let second = sink_home(broker, &stream);
    let text = std::fs::read_to_string(second.path("rillway.toml")).unwrap();
    let shared = home.path("data.db").display().to_string();
    std::fs::write(second.path("rillway.toml"), text.replace("data.db", &shared)).unwrap();

    streams::publish(broker, &stream, (0..500).map(|i| format!("{{\"i\":{i}}}"))).await;
    let mut first = home.start();
    first.until_durable("analytics", 499).await;
    first.signal("STOP");
    let mut other = second.start();
    streams::publish(broker, &stream, (500..1000).map(|i| format!("{{\"i\":{i}}}"))).await;
    other
        .until("analytics", "all of it", LONG, |c| c["durable_offset"].as_u64() >= Some(999))
        .await;
    first.signal("CONT");
    let reason = first.until_halted("analytics").await;
    assert!(reason.contains(&format!("the process with pid {}", other.pid())), "{reason}");
    other.terminate().await;
    first.terminate().await;
    assert_exact(&home, 1000);
    Ok(())
}

#[tokio::test]
async fn a_frozen_daemon_that_wakes_after_another_took_over() {
    or_skip!(frozen().await);
}
