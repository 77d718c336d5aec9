//! `partition_by`: the folders are read by DuckDB and pyarrow, with every value that a folder can have; daemons
//! are killed and frozen in the middle of a commit, while `map` changes from start to start.
//!
//! `KILLS=100 cargo test --test all object::partitions` is the long form.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::archive;
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace};
use crate::common::s3::{BUCKET, S3};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, duckdb, env_or, eventually, python, streams};

const LONG: Duration = Duration::from_secs(90);

const VALUES: [&str; 9] = [
    "eu",
    "a/b\\c",
    "São Paulo",
    "..",
    "50%",
    "__HIVE_DEFAULT_PARTITION__",
    "x=y&z+~",
    "日本",
    "tab\tline\n",
];

/// Region and number of rows, as pyarrow's dataset reads the folder.
fn by_pyarrow(folder: &Path) -> Result<Vec<Vec<Value>>, Unavailable> {
    const PROGRAM: &str = "import sys, json, collections, pyarrow as pa, pyarrow.dataset as ds\n\
        schema = pa.schema([('region', pa.string()), ('n', pa.int64())])\n\
        table = ds.dataset(sys.argv[1], partitioning=ds.partitioning(schema, flavor='hive')).to_table()\n\
        assert set(table['n'].to_pylist()) == {0, 1}, table['n']\n\
        print(json.dumps(list(collections.Counter(table['region'].to_pylist()).items())))";
    let python = python::of("pyarrow")?;
    let output = Command::new(python).args(["-c", PROGRAM]).arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

fn sorted(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    rows.sort_by_key(|row| row[0].to_string());
    rows
}

/// The report of `verify`: how many are the same, which are missing, and the exit code.
fn verified(home: &Home, name: &str) -> (Value, Value, Option<i32>) {
    let output = home.command(&["verify", name, "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let report = &report["streams"][0];
    (report["same"].clone(), report["missing"]["count"].clone(), output.status.code())
}

async fn read_by_others() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "partitions").await;
    let body = |i: usize| match i % (VALUES.len() + 1) {
        nth if nth < VALUES.len() => {
            json!({ "i": i, "n": i / 10 % 2, "customer": { "region": VALUES[nth] } })
        }
        // An empty one, and none.
        _ if (i / 10).is_multiple_of(2) => json!({ "i": i, "n": 0, "customer": { "region": "" } }),
        _ => json!({ "i": i, "n": 1 }),
    };
    let total = 1_000;
    streams::publish(broker, &stream, (0..total).map(|i| body(i).to_string())).await;
    let consumer = |name: &str, more: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             batch = {{ max_messages = 50, max_age = \"20ms\" }}\n\
             sink = {{ type = \"object\", url = \"{name}\", rotate_records = 200, rotate_age = \"300ms\", \
             open_partitions = 12, {more} }}\n"
        )
    };
    // In the table, `n` is a column that moves into the path.
    let columns = "partition_by = [\"/customer/region\", \"n\"], \
                   columns = { i = { from = \"/i\", type = \"integer\" }, n = { from = \"/n\", type = \"integer\" } }";
    let lines =
        "partition_by = [\"/customer/region\"], format = \"ndjson\", compression = \"none\"";
    let consumers = consumer("table", columns) + &consumer("lines", lines);
    let home = Home::new(&broker.uri(), &consumers);
    let checked = home.command(&["check"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("rows:       one of each message, in folders by region, n"), "{text}");
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
    let lines = home.path("lines").join(&stream);
    for read in [
        format!("read_parquet('{}/**/*.parquet', hive_partitioning = true)", table.display()),
        format!("read_json('{}/**/*.ndjson', hive_partitioning = true)", lines.display()),
    ] {
        let counts = duckdb::ask(&format!("SELECT region, count(*) FROM {read} GROUP BY 1"))?;
        assert_eq!(sorted(counts), expected, "{read}");
        let whole = format!("SELECT count(*), count(DISTINCT \"offset\") FROM {read}");
        assert_eq!(duckdb::ask(&whole)?, [[json!(total), json!(total)]], "{read}");
        let one = format!("SELECT count(*) FROM {read} WHERE region = 'a/b\\c'");
        assert_eq!(duckdb::ask(&one)?, [[json!(total / 10)]], "{read}");
    }
    let by_n = format!(
        "SELECT count(*) FROM read_parquet('{}/**/*.parquet', hive_types = {{'n': BIGINT}}) \
         WHERE n != i // 10 % 2",
        table.display()
    );
    assert_eq!(duckdb::ask(&by_n)?, [[0]], "a value in the path is that of the message");
    // pyarrow takes the text of Hive's null folder for null, however it is escaped.
    let is_kept = |row: &Vec<Value>| row[0] != "__HIVE_DEFAULT_PARTITION__" && !row[0].is_null();
    let mut expected: Vec<Vec<Value>> = expected.into_iter().filter(is_kept).collect();
    expected.push(vec![Value::Null, json!(total / 5)]);
    assert_eq!(sorted(by_pyarrow(&table)?), sorted(expected));

    // The objects of a commit lie between each other; `verify` reads them by their offsets.
    for name in ["table", "lines"] {
        assert_eq!(verified(&home, name), (json!(total), json!(0), Some(0)), "{name}");
    }
    let file = archive::files(&lines).into_iter().find(|file| file.is_file());
    let file = file.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&file, rest).unwrap();
    assert_eq!(verified(&home, "lines"), (json!(total - 1), json!(1), Some(65)));
    Ok(())
}

#[tokio::test]
async fn folders_of_any_value_are_read_by_duckdb_and_pyarrow() {
    or_skip!(read_by_others().await);
}

/// A consumer whose `map` decides which message belongs to which region: some are frequent, some rare.
fn consumer(stream: &str, place: &str, modulus: u64) -> String {
    format!(
        "[[consumer]]\nname = \"archiver\"\nstream = \"{stream}\"\nstart = \"first\"\n\
         map = '. + {{region: \"r\\((.i * .i) % {modulus})\", by: {modulus}}}'\n\
         batch = {{ max_messages = 40, max_age = \"20ms\" }}\n\
         commit = {{ every_messages = 100, every = \"100ms\" }}\n\
         restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\n\
         sink = {{ type = \"object\", {place}, partition_by = [\"/region\"], open_partitions = 8, \
         rotate_records = 150, rotate_age = \"100ms\" }}\n"
    )
}

fn in_bucket(server: &S3) -> String {
    format!("url = \"s3://{BUCKET}/parts\", options = {}", S3::options(server.port))
}

/// Each message once, and each in the folder of the region that `map` gave it.
fn assert_exact(table: &Path, total: u64) -> Result<(), Unavailable> {
    archive::assert_exact(table, total)?;
    let read = format!(
        "read_parquet('{}/**/*.parquet', hive_partitioning = true, hive_types = {{'region': VARCHAR}})",
        table.display()
    );
    let astray = format!("SELECT count(*) FROM {read} WHERE region != body->>'$.region'");
    assert_eq!(duckdb::ask(&astray)?, [[0]], "in another folder than {}", table.display());
    let spread = duckdb::ask(&format!("SELECT count(DISTINCT region) > 3 FROM {read}"))?;
    assert_eq!(spread, [[json!(true)]]);
    Ok(())
}

async fn killed(in_cloud: bool) -> Result<(), Unavailable> {
    let server = if in_cloud { Some(S3::start()?) } else { None };
    let broker = Broker::shared(Version::V4_3).await?;
    let (kills, seed) = (env_or("KILLS", 7), env_or("SEED", fastrand::u64(..)));
    eprintln!("{kills} kills, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = streams::create(broker, "parts-killed").await;
    let place = server.as_ref().map_or("url = \"parts\"".to_owned(), in_bucket);
    let of = |round: u64| consumer(&stream, &place, [7, 13, 11][round as usize % 3]);
    let home = Home::new(&broker.uri(), &of(0));
    let load = Load::on(broker, &stream, Pace::BRISK);
    // `written` is reached before the claim of a commit and before each of its objects.
    let points = ["written", "received", "written", "flushed", "written", "committed", "written"];
    for round in 0..kills {
        home.configure(&format!("uri = \"{}\"", broker.uri()), &of(round));
        let point = points[round as usize % points.len()];
        let fault = format!("die@{point}:{}", random.u64(1..12));
        home.start_with_fault(&fault).ended(LONG).await;
    }
    let total = load.stop().await;
    home.configure(&format!("uri = \"{}\"", broker.uri()), &of(kills));
    let table = archive::finished(&home, total, "parts", server.as_ref()).await;
    let staged = table.join("_rillway").join(&stream).join("staged");
    assert_eq!(archive::files(&staged), Vec::<std::path::PathBuf>::new(), "something is left");
    assert_exact(&table.join(&stream), total)
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_kills_over_a_folder_while_map_changes() {
    or_skip!(killed(false).await);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_kills_over_a_store_while_map_changes() {
    or_skip!(killed(true).await);
}

/// One daemon is frozen amid the objects of a commit; the other finishes that, and goes on; then the first one
/// wakes up.
async fn frozen_amid_a_commit() -> Result<(), Unavailable> {
    let server = S3::start()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "parts-frozen").await;
    let place = in_bucket(&server);
    let former = Home::new(&broker.uri(), &consumer(&stream, &place, 7));
    let latter = Home::new(&broker.uri(), &consumer(&stream, &place, 11));
    let load = Load::on(broker, &stream, Pace::BRISK);
    // The stage and four objects of the first commit, the stage and an object of the second one.
    let frozen = former.start_with_fault("freeze@written:7");
    eventually("the first is frozen", LONG, || async { frozen.is_frozen().then_some(()) }).await;
    let mut daemon = latter.start();
    let before = load.confirmed();
    daemon.until_durable("archiver", before + 2000).await;
    let mut frozen = frozen;
    frozen.signal("CONT");
    let reason = frozen.until_halted("archiver").await;
    assert!(reason.contains("has taken over"), "{reason}");
    let total = load.stop().await;
    daemon.until_durable("archiver", total - 1).await;
    daemon.terminate().await;
    archive::fetch(server.port, "parts", &latter.path("fetched")).await;
    assert_exact(&latter.path("fetched/parts").join(&stream), total)
}

#[tokio::test]
async fn one_that_was_frozen_amid_a_commit_does_no_harm() {
    or_skip!(frozen_amid_a_commit().await);
}
