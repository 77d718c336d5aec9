//! Is `docs/versions.md` true? Every cell of its table is tried on the broker of its column, with the
//! built binary, and what a broker does not have is refused with the version that has it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rillway::broker::{Feature, Prefer, connect_to_stream, stream_bounds};
use rillway::flow::lag::Tail;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, reading, streams};

const LONG: Duration = Duration::from_secs(60);

/// A row of the table: the version that a feature needs (empty for any), and what each column says.
struct Row {
    needs: String,
    cells: BTreeMap<&'static str, String>,
}

/// The table, by feature.
fn table() -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/versions.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("| feature |"));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let head = cells(lines.next().expect("a table that begins with `| feature |`"));
    let columns = Version::ALL.map(Version::as_str);
    assert_eq!(head, [&["feature", "needs"][..], &columns].concat(), "columns of the table");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells);
    rows.map(|row| {
        assert_eq!(row.len(), head.len(), "{row:?}");
        let cells = columns.into_iter().zip(row[2..].iter().cloned()).collect();
        (row[0].clone(), Row { needs: row[1].clone(), cells })
    })
    .collect()
}

/// How a feature is tried.
#[derive(Clone, Copy)]
enum Trial {
    /// A consumer with this `start`, of a stream with messages, writes them.
    Start(&'static str),
    /// Each partition of a super stream is read.
    SuperStream,
    SingleActive,
    Filter,
    Create,
    CreateSuperStream,
    Watch,
    Amqp,
    StreamSink,
}

/// Every feature in the table.
const TRIALS: [(&str, Trial); 10] = [
    ("`stream`", Trial::Start("\"first\"")),
    ("`start` at a time", Trial::Start("{ timestamp = \"2020-01-01T00:00:00Z\" }")),
    ("`create` of a stream", Trial::Create),
    ("`[[watch]]`", Trial::Watch),
    ("the sink `stream`", Trial::StreamSink),
    ("`amqp://`", Trial::Amqp),
    ("`super_stream`", Trial::SuperStream),
    ("`single_active`", Trial::SingleActive),
    ("`filter` by the broker", Trial::Filter),
    ("`create` of a super stream", Trial::CreateSuperStream),
];

/// The one row whose cells are words.
const END: &str = "the end of a stream, for the lag";

/// A key of the configuration in words of the table.
fn row_of(feature: Feature) -> String {
    match feature {
        Feature::CreateSuperStream => "`create` of a super stream".to_owned(),
        Feature::Filter => "`filter` by the broker".to_owned(),
        Feature::SuperStream | Feature::SingleActive => format!("`{}`", feature.key()),
    }
}

#[test]
fn the_table_has_every_feature_with_the_version_that_the_code_asks_for() {
    let table = table();
    for feature in Feature::ALL {
        let name = row_of(*feature);
        let row = table.get(&name).unwrap_or_else(|| panic!("no row {name}"));
        let (major, minor) = feature.since();
        assert_eq!(row.needs, format!("{major}.{minor}"), "{name}");
    }
    let known: Vec<&str> = TRIALS.iter().map(|(name, _)| *name).chain([END]).collect();
    for (name, row) in &table {
        assert!(known.contains(&name.as_str()), "{name} is in the table, and is not tried");
        let of_code = Feature::ALL.iter().any(|feature| row_of(*feature) == *name);
        assert_eq!(row.needs.is_empty(), !of_code, "{name}: {}", row.needs);
    }
    assert_eq!(known.len(), table.len(), "not every feature that is tried is in the table");
}

/// A configuration that uses the feature; the second value is what to do once it runs.
async fn consumer_with(trial: Trial, broker: &Broker) -> (String, String) {
    let consumer = |source: &str, sink: &str| {
        format!(
            "[[consumer]]\nname = \"c\"\n{source}\nbatch = {{ max_age = \"20ms\" }}\n\
             sink = {{ {sink} }}\n"
        )
    };
    let file = "type = \"file\", dir = \"c\"";
    match trial {
        Trial::Create | Trial::CreateSuperStream => {
            let name = streams::unique("versions");
            let (source, create, read) = match trial {
                Trial::Create => ("stream", "{}", name.clone()),
                _ => ("super_stream", "{ partitions = 1 }", format!("{name}-0")),
            };
            (consumer(&format!("{source} = \"{name}\"\ncreate = {create}"), file), read)
        }
        // Without one, the broker's version is told before that.
        Trial::SuperStream if broker.version == Version::V3_10 => {
            (consumer("super_stream = \"versions\"", file), String::new())
        }
        Trial::SuperStream => {
            let (name, partitions) = streams::create_super(broker, "versions", 1).await;
            (consumer(&format!("super_stream = \"{name}\""), file), partitions[0].clone())
        }
        _ => {
            let stream = streams::create(broker, "versions").await;
            let text = match trial {
                Trial::Start(start) => {
                    consumer(&format!("stream = \"{stream}\"\nstart = {start}"), file)
                }
                Trial::SingleActive => {
                    consumer(&format!("stream = \"{stream}\"\nsingle_active = true"), file)
                }
                Trial::Filter => {
                    let filter = "{ values = [\"eu\"], match_unfiltered = true }";
                    consumer(&format!("stream = \"{stream}\"\nfilter = {filter}"), file)
                }
                Trial::StreamSink => {
                    let to = streams::create(broker, "versions-copy").await;
                    let sink = format!("type = \"stream\", stream = \"{to}\"");
                    consumer(&format!("stream = \"{stream}\""), &sink)
                }
                Trial::Watch => format!("[[watch]]\nstream = \"{stream}\"\nreference = \"r\"\n"),
                _ => consumer(&format!("stream = \"{stream}\""), file),
            };
            (text, stream)
        }
    }
}

/// Uses the feature: `yes` if it works; otherwise the error at the start.
async fn try_out(trial: Trial, broker: &Broker) -> Result<(), String> {
    let (text, stream) = consumer_with(trial, broker).await;
    let uri = match trial {
        Trial::Amqp => format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port),
        _ => broker.uri(),
    };
    let home = Home::new(&uri, &text);
    let check = home.command(&["check", "--connect"]).output().unwrap();
    let checked = String::from_utf8_lossy(&check.stderr).into_owned();
    let mut daemon = home.start();
    let messages = || (0..10).map(body);
    if let Trial::Watch = trial {
        streams::publish(broker, &stream, messages()).await;
        streams::store_offset(broker, &stream, "r", 4).await;
        eventually("the lag of the other one", LONG, || async {
            (daemon.metric("rillway_watch_lag_messages", &[]).await == Some(5.0)).then_some(())
        })
        .await;
        daemon.terminate().await;
        return Ok(());
    }
    let started = daemon
        .until("c", "it runs, or says why not", LONG, |c| {
            c["state"] == "running" || c["reason"].as_str().is_some_and(|r| r.contains("RabbitMQ"))
        })
        .await;
    if let Some(reason) = started["reason"].as_str() {
        assert_eq!(check.status.code(), Some(69), "{checked}");
        assert!(checked.contains(reason), "check says something else: {checked}");
        daemon.terminate().await;
        return Err(reason.to_owned());
    }
    assert_eq!(check.status.code(), Some(0), "{checked}");
    streams::publish(broker, &stream, messages()).await;
    daemon.until_durable("c", 9).await;
    daemon.terminate().await;
    Ok(())
}

/// How the end of a stream is known on this broker.
async fn end_on(broker: &Broker) -> &'static str {
    let stream = streams::create(broker, "versions-end").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let options = reading::connect_options(broker.stream_port);
    let name = stream.as_str().into();
    let connection = connect_to_stream(&options, &name, Prefer::Replica).await.unwrap();
    let is_told = connection.supports(rillway::wire::commands::keys::STREAM_STATS, 1);
    let tail = stream_bounds(&connection, &name).await.unwrap().tail;
    connection.close().await;
    match (is_told, tail) {
        (true, Tail::Offset(offset)) if offset.0 == 9 => "its last offset",
        (true, Tail::Chunk(_)) => "its last chunk",
        (false, Tail::Offset(offset)) if offset.0 == 9 => "by reading a chunk, every 5 s",
        (_, other) => panic!("{other:?}"),
    }
}

async fn column(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let mut table = table();
    for (name, trial) in TRIALS {
        let Row { needs, cells } = table.remove(name).unwrap_or_else(|| panic!("no row {name}"));
        let cell = cells[version.as_str()].as_str();
        match (try_out(trial, broker).await, cell) {
            (Ok(()), "yes") => {}
            (Err(reason), "no") => {
                let says = format!("needs RabbitMQ {needs} or later");
                assert!(reason.contains(&says), "{name}: {reason}");
                assert!(reason.contains(version.as_str()), "{name}: {reason}");
            }
            (tried, _) => panic!("{name} on {version:?}: the table says {cell}, but {tried:?}"),
        }
    }
    assert_eq!(end_on(broker).await, table[END].cells[version.as_str()], "{END} on {version:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_column_of_rabbitmq_3_10_is_true() {
    or_skip!(column(Version::V3_10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_column_of_rabbitmq_4_0_is_true() {
    or_skip!(column(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_column_of_rabbitmq_4_3_is_true() {
    or_skip!(column(Version::V4_3).await);
}
