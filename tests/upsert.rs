//! The latest row of each key: is the table what is left of the stream, whatever kills the daemon?
//!
//! By default 50,000 changes over 1,000 keys. A million over 10,000:
//!
//! ```text
//! UPSERT_CHANGES=1000000 UPSERT_KEYS=10000 UPSERT_KILLS=30 cargo test --test all upsert:: -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rabbitmq_stream_client::types::Message;
use rillway::faults::Point;

use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::rstream::Rstream;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, streams};

/// The offset and the value of each key.
type State = BTreeMap<u64, (u64, u64)>;

/// A kill comes after at most this many passes of a point.
const PASSED_MAX: u64 = 4;

const LONG: Duration = Duration::from_secs(120);

const CONSUMERS: [&str; 2] = ["lite", "pg"];

fn configuration(stream: &str, url: &str, schema: &str) -> String {
    let rows = "table = \"latest\", mode = \"upsert\", key = [\"id\"], \
                delete_when = { from = \"/op\", equals = \"d\" }, \
                columns = { id = { from = \"/id\", type = \"integer\" }, v = { from = \"/v\", type = \"integer\", required = true } }";
    let sinks = [
        format!("type = \"sqlite\", path = \"data.db\", {rows}"),
        format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", {rows}"),
    ];
    let consumer = |(name, sink): (&str, String)| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             batch = {{ max_messages = 100, max_bytes = \"1MiB\", max_age = \"20ms\" }}\n\
             restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\nsink = {{ {sink} }}\n"
        )
    };
    CONSUMERS.into_iter().zip(sinks).map(consumer).collect()
}

fn in_sqlite(home: &Home) -> State {
    let database = rusqlite::Connection::open(home.path("data.db")).unwrap();
    let mut asked = database.prepare("SELECT id, offset, v FROM latest").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)));
    let rows = asked.query_map([], row).unwrap();
    unsigned(rows.map(Result::unwrap))
}

async fn in_postgres(postgres: &Postgres, schema: &str) -> State {
    let sql = format!("SELECT id, \"offset\", v FROM {schema}.latest");
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    unsigned(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))))
}

fn unsigned(rows: impl Iterator<Item = (i64, (i64, i64))>) -> State {
    let unsigned = i64::cast_unsigned;
    rows.map(|(id, (offset, v))| (unsigned(id), (unsigned(offset), unsigned(v)))).collect()
}

fn assert_same(what: &str, found: &State, expected: &State) {
    let wrong = |id: &&u64| found.get(id) != expected.get(id);
    let wrong: Vec<_> = found.keys().chain(expected.keys()).filter(wrong).take(5).collect();
    let shown: Vec<_> = wrong.iter().map(|id| (id, found.get(id), expected.get(id))).collect();
    assert!(
        wrong.is_empty(),
        "{what}: of {} keys: (key, found, expected) {shown:?}",
        expected.len()
    );
}

async fn changes() -> Result<(), Unavailable> {
    let (total, keys) = (env_or("UPSERT_CHANGES", 50_000), env_or("UPSERT_KEYS", 1_000));
    let kills = env_or("UPSERT_KILLS", 5);
    let seed = env_or("SEED", fastrand::u64(..));
    let broker = Broker::shared(Version::V4_3).await?;
    let (rstream, postgres) = (Rstream::at(broker).await?, Postgres::shared().await?);
    let schema = postgres.schema().await;
    let stream = streams::create(broker, "changes").await;
    let home = Home::new(&broker.uri(), &configuration(&stream, &postgres.url(), &schema));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let began = Instant::now();
    let piece = total / (kills + 1);
    for kill in 0..=kills {
        let published = kill * piece;
        let until = if kill == kills { total } else { published + piece };
        let mut bodies = Vec::new();
        for v in published..until {
            let id = random.u64(0..keys);
            if random.u8(0..10) < 3 {
                last.remove(&id);
                bodies.push(format!("{{\"id\":{id},\"op\":\"d\"}}"));
            } else {
                last.insert(id, v);
                bodies.push(format!("{{\"id\":{id},\"v\":{v}}}"));
            }
        }
        for part in bodies.chunks(20_000) {
            streams::publish(broker, &stream, part.iter().cloned()).await;
        }
        if kill == kills {
            break;
        }
        let points = [Point::Received, Point::Written, Point::Flushed, Point::Committed];
        let point = points[random.usize(..points.len())];
        let fault = format!("die@{}:{}", point.name(), random.u64(1..=PASSED_MAX));
        let status = home.start_with_fault(&fault).ended(LONG).await;
        assert_eq!(status.signal(), Some(9), "SEED={seed} {fault}: {status}\n{}", home.log_tail());
    }
    let within = LONG + Duration::from_millis(total / 2);
    let mut daemon = home.start();
    for name in CONSUMERS {
        daemon
            .until(name, "all is durable", within, |c| {
                assert_ne!(c["state"], "halted", "{c}");
                c["durable_offset"].as_u64().max(c["stored_offset"].as_u64()) >= Some(total - 1)
            })
            .await;
    }
    daemon.terminate().await;
    let took = began.elapsed();
    let left = rstream.latest(&stream, total).await;
    let values: BTreeMap<u64, u64> = left.iter().map(|(id, (_, v))| (*id, *v)).collect();
    assert_eq!(values, last, "SEED={seed}: the other client, and what was published");
    assert_same("sqlite", &in_sqlite(&home), &left);
    assert_same("postgres", &in_postgres(postgres, &schema).await, &left);
    eprintln!(
        "{total} changes of {keys} keys, {kills} kills, SEED={seed}: {} rows are left in both; {} s",
        left.len(),
        took.as_secs()
    );
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test]
async fn the_tables_are_what_another_client_makes_of_the_stream() {
    or_skip!(changes().await);
}

/// Keys in the properties, and messages without a body.
async fn tombstones() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "tombstones").await;
    let message = |id: &str, body: &str| {
        Message::builder()
            .properties()
            .message_id(id.to_owned())
            .message_builder()
            .body(body)
            .build()
    };
    let sink = "{ type = \"sqlite\", path = \"data.db\", table = \"t\", mode = \"upsert\", key = [\"id\"], \
                columns = { id = \"properties.message_id\", v = { from = \"/v\", required = true } } }";
    let envelope = "{ type = \"sqlite\", path = \"data.db\", table = \"e\", mode = \"upsert\", key = [\"message_id\"] }";
    let consumer = |name: &str, sink: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\nsink = {sink}\n"
        )
    };
    let consumers = consumer("typed", sink) + &consumer("whole", envelope);
    let home = Home::new(&broker.uri(), &consumers);
    let checked = home.command(&["check"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    let says =
        "rows:       one for each (id), of its latest message; a message without a body deletes it";
    assert!(text.contains(says), "{text}");
    let messages =
        [("a", "{\"v\":1}"), ("b", "{\"v\":2}"), ("a", ""), ("c", "{\"v\":3}"), ("c", "null")];
    let all = messages.iter().map(|(id, body)| message(id, body)).collect();
    streams::publish_messages(broker, &stream, all).await;
    let mut daemon = home.start();
    for name in ["typed", "whole"] {
        daemon.until_durable(name, 4).await;
    }
    let database = rusqlite::Connection::open(home.path("data.db")).unwrap();
    for (sql, expected) in [
        ("SELECT group_concat(id || v || offset) FROM t", "b21"),
        ("SELECT group_concat(message_id || body) FROM e", "b{\"v\":2}"),
    ] {
        let found: String = database.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(found, expected, "{sql}");
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_message_without_a_body_deletes_the_row_of_its_key() {
    or_skip!(tombstones().await);
}

#[tokio::test]
async fn a_key_that_a_message_without_a_body_does_not_have_is_refused() {
    let sink = "{ type = \"sqlite\", path = \"data.db\", mode = \"upsert\", key = [\"id\"], \
                delete_when = \"empty_body\", columns = { id = \"/id\" } }";
    let home = Home::new(
        "rabbitmq-stream://localhost:1",
        &format!("[[consumer]]\nname = \"c\"\nstream = \"s\"\nsink = {sink}\n"),
    );
    let checked = home.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("delete_when") && said.contains("equals = \"d\""), "{said}");
}
