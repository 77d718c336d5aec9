//! Messages into SQLite: are they there to be queried, and typed? What becomes of them when the daemon
//! is killed or frozen, or the medium fails, `torture` asks.

use rusqlite::Connection;

use crate::common::daemon::Home;
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
