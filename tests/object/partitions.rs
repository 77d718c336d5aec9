//! `partition_by`: the folders are read by DuckDB and pyarrow, with every value that a folder can have.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use rillway::faults::Point;
use serde_json::{Value, json};

use super::archive;
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, duckdb, env_or, python, streams};

const VALUES: [&str; 9] = [
    "eu",
    "a/b\\c",
    "São Paulo",
    "..",
    "50%",
    "__HIVE_DEFAULT_PARTITION__",
    "x=y&z",
    "日本",
    "tab\tline\n",
];

/// Region and number of rows, as pyarrow's dataset reads the folder.
fn by_pyarrow(folder: &str) -> Result<Vec<Vec<Value>>, Unavailable> {
    const PROGRAM: &str = "import sys, json, collections, pyarrow as pa, pyarrow.dataset as ds\n\
        schema = pa.schema([('region', pa.string()), ('date', pa.string())])\n\
        table = ds.dataset(sys.argv[1], partitioning=ds.partitioning(schema, flavor='hive'), exclude_invalid_files=False).to_table()\n\
        print(json.dumps(list(collections.Counter(table['region'].to_pylist()).items())))";
    let python = python::of("pyarrow")?;
    let output = Command::new(python).args(["-c", PROGRAM, folder]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

fn sorted(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    rows.sort_by_key(|row| row[0].to_string());
    rows
}

async fn read_by_others() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "partitions").await;
    let body = |i: usize| match i % (VALUES.len() + 1) {
        nth if nth < VALUES.len() => json!({ "i": i, "customer": { "region": VALUES[nth] } }),
        // An empty one, and none.
        _ if i.is_multiple_of(2) => json!({ "i": i, "customer": { "region": "" } }),
        _ => json!({ "i": i }),
    };
    let total = 1_000;
    streams::publish(broker, &stream, (0..total).map(|i| body(i).to_string())).await;
    let by = "partition_by = [\"/customer/region\", \"date\"], open_partitions = 4, rotate_records = 40, rotate_age = \"300ms\"";
    let consumer = |name: &str, more: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             batch = {{ max_messages = 50, max_age = \"20ms\" }}\n\
             sink = {{ type = \"object\", url = \"{name}\", {by}, {more} }}\n"
        )
    };
    let consumers = consumer("table", "body = \"text\"")
        + &consumer("lines", "format = \"ndjson\", compression = \"none\"");
    let home = Home::new(&broker.uri(), &consumers);
    let checked = home.command(&["check"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("rows:       one of each message, in folders by region, date"), "{text}");
    let mut daemon = home.start();
    for name in ["table", "lines"] {
        daemon.until_durable(name, total as u64 - 1).await;
    }
    daemon.terminate().await;
    let mut expected: Vec<Vec<Value>> =
        VALUES.iter().map(|value| vec![json!(value), json!(total / 10)]).collect();
    expected.push(vec![Value::Null, json!(total / 10)]);
    let expected = sorted(expected);
    let table = home.path("table").join(&stream);
    let reads = [
        format!("read_parquet('{}/**/*.parquet', hive_partitioning = true)", table.display()),
        format!(
            "read_json('{}/**/*.ndjson', hive_partitioning = true)",
            home.path("lines").join(&stream).display()
        ),
    ];
    for read in reads {
        let counts = duckdb::ask(&format!("SELECT region, count(*) FROM {read} GROUP BY 1"))?;
        assert_eq!(sorted(counts), expected, "{read}");
        let whole = format!("SELECT count(*), count(DISTINCT \"offset\") FROM {read}");
        assert_eq!(duckdb::ask(&whole)?, [[json!(total), json!(total)]], "{read}");
        let one =
            format!("SELECT count(*) FROM {read} WHERE region = 'a/b\\c' AND date IS NOT NULL");
        assert_eq!(duckdb::ask(&one)?, [[json!(total / 10)]], "{read}");
    }
    assert_eq!(sorted(by_pyarrow(table.to_str().unwrap())?), expected);
    assert!(archive::files(&table).len() >= 25, "rotated by records");
    Ok(())
}

#[tokio::test]
async fn folders_of_any_value_are_read_by_duckdb_and_pyarrow() {
    or_skip!(read_by_others().await);
}

/// Kills at every point of a write, with several open objects.
async fn killed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "partitions-killed").await;
    let seed = env_or("SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"kept\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             batch = {{ max_messages = 50, max_age = \"20ms\" }}\n\
             restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\n\
             sink = {{ type = \"object\", url = \"kept\", format = \"ndjson\", compression = \"none\", \
             partition_by = [\"/region\"], open_partitions = 5, rotate_records = 30, rotate_age = \"200ms\" }}\n"
        ),
    );
    let (kills, piece) = (env_or("KILLS", 8), 400);
    let mut total = 0;
    for kill in 0..=kills {
        let body = |i: u64| {
            // Some are frequent, some rare.
            let region = random.u64(0..10).min(random.u64(0..10));
            format!("{{\"i\":{i},\"region\":\"r{region}\"}}")
        };
        let bodies: Vec<String> = (total..total + piece).map(body).collect();
        streams::publish(broker, &stream, bodies).await;
        total += piece;
        if kill == kills {
            break;
        }
        let points = [Point::Received, Point::Written, Point::Flushed];
        let point = points[random.usize(..points.len())];
        let fault = format!("die@{}:{}", point.name(), random.u64(1..=6));
        let status = home.start_with_fault(&fault).ended(Duration::from_secs(90)).await;
        assert_eq!(status.signal(), Some(9), "SEED={seed} {fault}: {status}\n{}", home.log_tail());
    }
    let mut daemon = home.start();
    daemon
        .until("kept", "all is durable", Duration::from_secs(90), |c| {
            c["durable_offset"].as_u64().max(c["stored_offset"].as_u64()) >= Some(total - 1)
        })
        .await;
    daemon.terminate().await;
    let mut found: Vec<u64> = Vec::new();
    for path in archive::files(&home.path("kept").join(&stream)) {
        let mut last = None;
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let folder = format!("/region={}/", line["body"]["region"].as_str().unwrap());
            assert!(path.to_str().unwrap().contains(&folder), "{path:?}: {line}");
            let offset = line["offset"].as_u64();
            assert!(last < offset, "{path:?}: out of order");
            last = offset;
            found.extend(offset);
        }
    }
    found.sort_unstable();
    assert_eq!(found, (0..total).collect::<Vec<_>>(), "SEED={seed}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_kills() {
    or_skip!(killed().await);
}
