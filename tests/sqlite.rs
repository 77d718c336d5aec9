//! Messages into SQLite: can they be queried, with their types? `torture` tests what happens when the
//! daemon is killed or frozen, or the disk fails.

use rusqlite::Connection;

use crate::common::daemon::{Home, halted_one};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\nsink = {sink}\n"
    )
}

fn database(home: &Home) -> Connection {
    Connection::open(home.path("data.db")).unwrap()
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
    // Queried while the daemon has the database open.
    let table = rillway::types::table_name::of(&stream.as_str().into());
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

/// A renamed consumer does not write every row twice: it is refused with a remedy, which then works; and
/// `check --connect` says so before.
async fn a_renamed_consumer() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "renamed").await;
    let sink = "{ type = \"sqlite\", path = \"data.db\", table = \"events\" }";
    let home = Home::new(&broker.uri(), &consumer("before", &stream, sink));
    streams::publish(broker, &stream, (0..10).map(|i| i.to_string())).await;
    let mut daemon = home.start();
    daemon.until_durable("before", 9).await;
    daemon.terminate().await;

    let broker_uri = format!("uri = \"{}\"", broker.uri());
    home.configure(&broker_uri, &consumer("after", &stream, sink));
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned()
        + &String::from_utf8_lossy(&checked.stdout);
    assert!(!checked.status.success() && said.contains("reference = \"before\""), "{said}");
    let mut daemon = home.start();
    let reason = daemon.until_halted("after").await;
    assert!(reason.contains("reference = \"before\""), "{reason}");
    daemon.terminate().await;

    let kept = consumer("after", &stream, sink) + "reference = \"before\"\n";
    home.configure(&broker_uri, &kept);
    streams::publish(broker, &stream, (10..15).map(|i| i.to_string())).await;
    let mut daemon = home.start();
    daemon.until_durable("after", 14).await;
    daemon.terminate().await;
    let sql = "SELECT count(*), count(DISTINCT offset) FROM events";
    let counts: (i64, i64) =
        database(&home).query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(counts, (15, 15));
    Ok(())
}

#[tokio::test]
async fn a_renamed_consumer_keeps_its_rows_single() {
    or_skip!(a_renamed_consumer().await);
}

/// The table's own name and the stream's name, one file by two paths: only one of the two consumers
/// writes, and the other halts with the remedy.
async fn one_file_by_two_paths() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "linked").await;
    streams::publish(broker, &stream, (0..10).map(|i| i.to_string())).await;
    let table = rillway::types::table_name::of(&stream.as_str().into());
    let linked = format!("{{ type = \"sqlite\", path = \"link.db\", table = \"{table}\" }}");
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("plain", &stream, "{ type = \"sqlite\", path = \"data.db\" }"),
            consumer("linked", &stream, &linked),
        ]
        .concat(),
    );
    std::os::unix::fs::symlink(home.path("data.db"), home.path("link.db")).unwrap();
    let mut daemon = home.start();
    let (other, reason) = halted_one(&daemon, ["plain", "linked"]).await;
    assert!(reason.contains(&format!("reference = \"{other}\"")), "{reason}");
    assert!(reason.contains("(up to offset 9)") || reason.contains("no offset yet"), "{reason}");
    daemon.until_durable(other, 9).await;
    daemon.terminate().await;
    let sql = format!("SELECT count(*), count(DISTINCT offset) FROM {table}");
    let counts: (i64, i64) =
        database(&home).query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(counts, (10, 10));
    Ok(())
}

#[tokio::test]
async fn two_consumers_do_not_write_one_table_by_two_paths() {
    or_skip!(one_file_by_two_paths().await);
}

/// A deferred foreign key, with dead letters, and a message behind it that the client refuses at once:
/// both become dead letters, in order, and nothing halts.
async fn deferred_with_letters() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "deferred").await;
    let bodies = ["{\"id\":1}", "{\"id\":2}", "{\"id\":1}", "no JSON", "{\"id\":1}"];
    streams::publish(broker, &stream, bodies).await;
    let sink = "{ type = \"sqlite\", path = \"data.db\", table = \"events\", \
                columns = { id = { from = \"/id\", type = \"integer\" } } }";
    let home = Home::new(
        &broker.uri(),
        &(consumer("c", &stream, sink)
            + "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"dead\" }\n"),
    );
    database(&home)
        .execute_batch(
            "CREATE TABLE known (id INTEGER PRIMARY KEY); INSERT INTO known VALUES (1); \
             CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, \
             id INTEGER REFERENCES known DEFERRABLE INITIALLY DEFERRED)",
        )
        .unwrap();
    let mut daemon = home.start();
    daemon.until_durable("c", 4).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("dead", &stream), [1, 3]);
    let sql = "SELECT group_concat(offset) FROM (SELECT offset FROM events ORDER BY 1)";
    let rows: String = database(&home).query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, "0,2,4");
    Ok(())
}

#[tokio::test]
async fn a_deferred_foreign_key_with_dead_letters_halts_no_consumer() {
    or_skip!(deferred_with_letters().await);
}
