//! Each sink: an hour, killed and continued.

use super::*;
use crate::common::postgres::Postgres;
use crate::common::reading;
use crate::common::skip::or_skip;

async fn into_files(version: Version) -> Result<(), Unavailable> {
    let sink = |_: &str| "{ type = \"file\", dir = \"out\" }".to_owned();
    let landed = async |home: &Home, stream: &str| {
        assert_eq!(home.offsets("out", stream), (0..TOTAL).collect::<Vec<_>>());
        home.offsets(&folder(home, "out.replay-"), stream)
    };
    beside_the_consumer(version, sink, &[], async |_, _| {}, landed).await
}

#[tokio::test]
async fn files_on_3_10() {
    or_skip!(into_files(Version::V3_10).await);
}

#[tokio::test]
async fn files_on_4_3() {
    or_skip!(into_files(Version::V4_3).await);
}

/// Rows that were deleted come again, once each, in the consumer's own table.
#[tokio::test]
async fn sqlite() {
    let sink = |_: &str| "{ type = \"sqlite\", path = \"it.db\", table = \"landed\" }".to_owned();
    let between = format!("\"offset\" BETWEEN {BEFORE} AND {}", BEFORE + HOUR - 1);
    let prepare = async |home: &Home, _: &str| {
        let database = rusqlite::Connection::open(home.path("it.db")).unwrap();
        database.busy_timeout(SOON).unwrap();
        let sql = format!("DELETE FROM landed WHERE {between}");
        assert_eq!(database.execute(&sql, []).unwrap() as u64, HOUR);
    };
    let landed = async |home: &Home, _: &str| {
        let database = rusqlite::Connection::open(home.path("it.db")).unwrap();
        let all = database.query_row("SELECT count(*) FROM landed", [], |row| row.get::<_, i64>(0));
        assert_eq!(all.unwrap().cast_unsigned(), TOTAL);
        let sql = format!("SELECT \"offset\" FROM landed WHERE {between} ORDER BY 1");
        let mut statement = database.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        rows.map(|offset| offset.unwrap().cast_unsigned()).collect()
    };
    or_skip!(beside_the_consumer(Version::V4_3, sink, &["--append"], prepare, landed).await);
}

#[tokio::test]
async fn postgres() {
    or_skip!(
        async {
            let server = Postgres::shared().await?;
            let schema = server.schema().await;
            let sink = |_: &str| {
                let url = server.url();
                format!("{{ type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"it\" }}")
            };
            let between = format!("\"offset\" BETWEEN {BEFORE} AND {}", BEFORE + HOUR - 1);
            let prepare = async |_: &Home, _: &str| {
                server.run(&format!("DELETE FROM {schema}.it WHERE {between}")).await;
            };
            let landed = async |_: &Home, _: &str| {
                let client = server.client().await;
                let all = format!("SELECT count(*) FROM {schema}.it");
                let all: i64 = client.query_one(&all, &[]).await.unwrap().get(0);
                assert_eq!(all.cast_unsigned(), TOTAL);
                let sql = format!("SELECT \"offset\" FROM {schema}.it WHERE {between} ORDER BY 1");
                let rows = client.query(&sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()).collect()
            };
            let append = ["--append"];
            beside_the_consumer(Version::V4_3, sink, &append, prepare, landed).await
        }
        .await
    );
}

#[tokio::test]
async fn objects() {
    let sink = |_: &str| {
        "{ type = \"object\", url = \"archive\", format = \"ndjson\", compression = \"none\", \
         rotate_records = 150, rotate_age = \"1h\" }"
            .to_owned()
    };
    let landed = async |home: &Home, _: &str| {
        let replayed = folder_below(home, "archive", "replay-");
        let mut offsets: Vec<u64> = Vec::new();
        for (path, content) in files(replayed) {
            if path.extension().is_none_or(|extension| extension != "ndjson") {
                continue;
            }
            for line in String::from_utf8(content).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                offsets.push(line["offset"].as_u64().unwrap());
            }
        }
        offsets.sort_unstable();
        offsets
    };
    // The consumer itself keeps the last messages for an hour, so it is not waited for.
    or_skip!(replayed_alone(sink, landed).await);
}

fn folder_below(home: &Home, below: &str, prefix: &str) -> PathBuf {
    let names = std::fs::read_dir(home.path(below)).unwrap();
    let mut found: Vec<PathBuf> = names
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The same without the consumer's daemon.
async fn replayed_alone(
    sink: impl Fn(&str) -> String,
    landed: impl AsyncFn(&Home, &str) -> Vec<u64>,
) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = stream(broker, "replay-alone").await;
    let (from, to) = times(broker, &stream).await;
    let home = Home::new(&broker.uri(), &consumer(&stream, &sink(&stream), ""));
    let kills = killed(&home, &["--from", &from, "--to", &to]).await;
    assert!(kills >= 3, "only {kills} kills");
    assert_eq!(landed(&home, &stream).await, hour());
    Ok(())
}

/// Behind what the consumer has written, in the same stream.
#[tokio::test]
async fn another_stream() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let sink = |stream: &str| {
                format!("{{ type = \"stream\", stream = \"{stream}-copy\", create = true }}")
            };
            let landed = async |_: &Home, stream: &str| {
                let bodies = reading::bodies(broker, &format!("{stream}-copy")).await;
                let nth = |body: &String| {
                    serde_json::from_str::<Value>(body).unwrap()["nth"].as_u64().unwrap()
                };
                let all: Vec<u64> = bodies.iter().map(nth).collect();
                let (own, replayed) = all.split_at(usize::try_from(TOTAL).unwrap());
                assert_eq!(own, (0..TOTAL).collect::<Vec<_>>());
                replayed.to_vec()
            };
            let append = ["--append"];
            beside_the_consumer(Version::V4_3, sink, &append, async |_, _| {}, landed).await
        }
        .await
    );
}

/// Into another place, which is named, as a table or by another consumer.
#[tokio::test]
async fn a_place_that_is_named() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = stream(broker, "replay-named").await;
            let sink = "{ type = \"sqlite\", path = \"it.db\" }";
            let home = Home::new(&broker.uri(), &consumer(&stream, sink, ""));
            let range = ["--from", "offset:300", "--to", "offset:1499", "--json"];
            let table = ["--sink", "{ type = \"file\", dir = \"again\" }"];
            let done = summary(&replay(&home, &[&range[..], &table].concat()).await);
            assert_eq!((&done["written"], &done["done_before"]), (&HOUR.into(), &Value::Null));
            assert_eq!((&done["from_offset"], &done["to_offset"]), (&300.into(), &1499.into()));
            assert_eq!(home.offsets("again", &stream), hour());
            let stdout = ["--sink", "stdout", "--quiet"];
            let printed = replay(&home, &[&range[..4], &stdout].concat()).await;
            let text = String::from_utf8(printed.stdout.clone()).unwrap();
            let offset = |line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64();
            assert_eq!(text.lines().map(|line| offset(line).unwrap()).collect::<Vec<_>>(), hour());
            assert!(said(&printed).starts_with("1200 messages of stream"), "{}", said(&printed));
            assert!(!home.path("it.db").exists());
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// The consumer's filter and its policy for bad messages apply, and all are counted.
#[tokio::test]
async fn filters_and_dead_letters_apply() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "replay-rules").await;
            let message = |nth: u64| match nth % 10 {
                7 => rillway::sink::conformance::BAD_MESSAGE.to_vec(),
                _ => rillway::sink::conformance::message(body(nth).as_bytes()),
            };
            reading::put(broker, &stream, &(0..100).map(message).collect::<Vec<_>>()).await;
            let more = "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"dead\" }\n\
                        filter = { values = [\"third\"], by = \"/kind\", client_side = true }";
            let sink = "{ type = \"file\", dir = \"out\" }";
            let home = Home::new(&broker.uri(), &consumer(&stream, sink, more));
            let output = replay(&home, &["--from", "offset:10", "--to", "offset:89", "--json"]).await;
            let done = summary(&output);
            let wanted = |nth: &u64| nth.is_multiple_of(3) && nth % 10 != 7;
            let wanted: Vec<u64> = (10..90).filter(wanted).collect();
            assert_eq!(home.offsets(&folder(&home, "out.replay-"), &stream), wanted);
            let dead = home.offsets(&folder(&home, "dead.replay-"), &stream);
            assert_eq!(dead, (10..90).filter(|nth| nth % 10 == 7).collect::<Vec<_>>());
            assert_eq!(done["written"], wanted.len());
            assert_eq!((&done["bad"], &done["filtered"]), (&8.into(), &(72 - wanted.len()).into()));
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

#[tokio::test]
async fn over_amqp() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = stream(broker, "replay-amqp").await;
            let uri = format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port);
            let sink = "{ type = \"file\", dir = \"out\" }";
            let home = Home::new(&uri, &consumer(&stream, sink, ""));
            killed(&home, &["--from", "offset:300", "--to", "offset:1499"]).await;
            assert_eq!(home.offsets(&folder(&home, "out.replay-"), &stream), hour());
            let named = ["--from", "first", "--to", "end", "--json", "--sink"];
            let table = ["{ type = \"file\", dir = \"all\" }"];
            summary(&replay(&home, &[&named[..], &table].concat()).await);
            assert_eq!(home.offsets("all", &stream), (0..TOTAL).collect::<Vec<_>>());
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
