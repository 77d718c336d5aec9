//! Can any message end the process, halt a consumer, or affect another consumer? Generated messages go
//! through every sink of one daemon at once, with the default columns and with typed ones, beside a
//! bystander consumer. The daemon is a debug build, in which overflowing sums panic.
//!
//! By default 4,000 messages for each of 23 consumers. Over a million in all:
//!
//! ```text
//! ANY_MESSAGES=80000 cargo test --test all any_message:: -- --nocapture
//! ```

pub(crate) mod generate;
mod old_protocol;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rillway::wire::amqp::Message;

use crate::common::daemon::{Daemon, Home, sample};
use crate::common::postgres::Postgres;
use crate::common::reading::{messages, put};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, duckdb, env_or, streams};

use generate::{is_neighbour, message};

/// Memory for the program itself: a debug build, with the libraries of all sinks in one process.
const PROCESS_BYTES: u64 = 64 << 20;

/// Every type of column, each with both policies for a misfit.
fn columns(numeric: bool) -> String {
    let types = ["integer", "float", "boolean", "timestamp", "json", "bytes", "text"];
    let mut columns: Vec<String> = types
        .iter()
        .chain(numeric.then_some(&"numeric"))
        .map(|kind| {
            format!("c_{kind} = {{ from = \"/n\", type = \"{kind}\", on_misfit = \"null\" }}")
        })
        .collect();
    columns.extend([
        "n = { from = \"/n\", type = \"integer\" }".to_owned(),
        "txt = { from = \"/text\", type = \"text\" }".to_owned(),
        "at = { from = \"/at\", type = \"timestamp\" }".to_owned(),
        "whole = { from = \"\", type = \"json\", on_misfit = \"null\" }".to_owned(),
        "id = { from = \"properties.message_id\", on_misfit = \"null\" }".to_owned(),
        "app = { from = \"application_properties.n\", type = \"numeric\", on_misfit = \"null\" }"
            .to_owned(),
        "note = { from = \"message_annotations.text\", type = \"json\" }".to_owned(),
    ]);
    format!("{{ {} }}", columns.join(", "))
}

/// The sinks with the default columns: they take every valid message.
const DEFAULT: [&str; 10] =
    ["file", "stdout", "null", "lite", "pg", "parquet", "parquetb", "lines", "folders", "http"];
const TYPED: [&str; 12] = [
    "lite_typed",
    "pg_typed",
    "lite_keyed",
    "pg_keyed",
    "lite_evolved",
    "pg_evolved",
    "parquet_typed",
    "parquet_folders",
    "lettered",
    "mapped",
    "shaped",
    "metrics",
];

/// A program that runs without the interpreter, and one that needs it.
const PROGRAMS: [&str; 2] = [
    "where = '.n != -5 and .text != \"drop\"'\nmap = '{n, text, at: (.at // \"none\"), all: .}'\n",
    "where = '(.any? // 0 | tostring | length) < 3000'\nmap = '{n: (.n | tonumber? // null), text: (.text? | tojson), \
     at: (try (.at | fromdate | todate) catch \"none\"), every: [.. | numbers | . + 1], \
     id: ($message.properties.message_id? // null)}'\n",
];

/// A table that lacks most columns.
const POOR: &str = "(stream text, \"offset\" bigint, \"timestamp\" TIME, n bigint)";

fn configuration(
    stream: &str,
    quiet: &str,
    schema: &str,
    postgres: &Postgres,
    web: &Web,
) -> String {
    let columns = columns(true);
    let url = postgres.url();
    let keyed = "mode = \"upsert\", key = [\"id\"], delete_when = { from = \"/n\", equals = 1 }";
    let sinks = [
        ("file", "type = \"file\", dir = \"file\"".to_owned()),
        ("stdout", "type = \"stdout\"".to_owned()),
        ("null", "type = \"null\"".to_owned()),
        ("lite", "type = \"sqlite\", path = \"lite.db\", table = \"t\"".to_owned()),
        ("lite_typed", format!("type = \"sqlite\", path = \"typed.db\", table = \"t\", columns = {columns}")),
        ("pg", format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"t\"")),
        ("pg_typed", format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"typed\", columns = {columns}")),
        ("lite_keyed", format!("type = \"sqlite\", path = \"keyed.db\", table = \"t\", columns = {columns}, {keyed}")),
        ("pg_keyed", format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"keyed\", columns = {columns}, {keyed}")),
        ("lite_evolved", format!("type = \"sqlite\", path = \"evolved.db\", table = \"t\", columns = {columns}, evolve = \"add\"")),
        ("pg_evolved", format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"evolved\", columns = {columns}, evolve = \"add\"")),
        ("lettered", format!("type = \"sqlite\", path = \"lettered.db\", table = \"t\", columns = {columns}")),
        ("mapped", "type = \"file\", dir = \"mapped\"".to_owned()),
        ("shaped", "type = \"sqlite\", path = \"shaped.db\", table = \"t\", columns = { n = { from = \"/n\", type = \"numeric\", on_misfit = \"null\" }, every = { from = \"/every\", type = \"json\" } }".to_owned()),
        ("parquet", "type = \"object\", url = \"parquet\"".to_owned()),
        ("parquet_folders", format!("type = \"object\", url = \"parquet_folders\", columns = {columns}, partition_by = [\"c_boolean\"]")),
        ("folders", "type = \"object\", url = \"folders\", format = \"ndjson\", compression = \"none\", partition_by = [{ name = \"app\", from = \"application_properties.ok\" }], open_partitions = 32".to_owned()),
        ("parquetb", "type = \"object\", url = \"parquetb\", body = \"bytes\"".to_owned()),
        ("parquet_typed", format!("type = \"object\", url = \"parquet_typed\", columns = {columns}")),
        ("lines", "type = \"object\", url = \"lines\", format = \"ndjson\", compression = \"none\"".to_owned()),
        ("http", format!("type = \"http\", url = \"{}\"", web.url())),
        (
            "metrics",
            "type = \"metrics\", max_series = 50, metrics = [{ name = \"any_total\", type = \"counter\", value = \"/n\", labels = { text = \"/text\" }, on_misfit = \"null\" }]".to_owned(),
        ),
        ("stream", format!("type = \"stream\", stream = \"{stream}-copy\", create = true")),
    ];
    let mut text = String::new();
    for (name, sink) in sinks {
        let more = match name {
            "lettered" => "dead_letter = { type = \"file\", dir = \"letters\" }\n",
            "mapped" => PROGRAMS[0],
            "shaped" => PROGRAMS[1],
            _ => "",
        };
        let policy = if name == "lettered" { "dead_letter" } else { "skip" };
        text.push_str(&format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\nmemory = \"16MiB\"\n\
             on_bad_message = \"{policy}\"\n{more}batch = {{ max_messages = 500, max_bytes = \"1MiB\", max_age = \"50ms\" }}\nsink = {{ {sink} }}\n"
        ));
    }
    text.push_str(&format!(
        "[[consumer]]\nname = \"bystander\"\nstream = \"{quiet}\"\nstart = \"first\"\nsink = {{ type = \"file\", dir = \"bystander\" }}\n"
    ));
    text
}

/// The metrics of all consumers, of one moment.
struct Metrics(String);

impl Metrics {
    async fn of(daemon: &Daemon) -> Metrics {
        Metrics(daemon.http("GET", "/metrics").await.unwrap().1)
    }

    fn count(&self, name: &str, consumer: &str, reason: &str) -> u64 {
        let labels = [&*format!("consumer=\"{consumer}\""), &*format!("reason=\"{reason}\"")];
        sample(&self.0, name, &labels).unwrap_or(0.0) as u64
    }

    fn lost(&self, consumer: &str, reason: &str) -> u64 {
        self.count("rillway_lost_messages_total", consumer, reason)
    }

    fn restarts(&self, consumer: &str, reason: &str) -> u64 {
        self.count("rillway_restarts_total", consumer, reason)
    }
}

async fn every_sink() -> Result<(), Unavailable> {
    let total = env_or("ANY_MESSAGES", 4_000);
    let seed = env_or("ANY_SEED", 7);
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let web = Web::start(|_| Reply::Keep).await;
    let (stream, quiet) =
        (streams::create(broker, "any").await, streams::create(broker, "quiet").await);
    let began = Instant::now();
    let all: Vec<Vec<u8>> = (0..total).map(|offset| message(seed, offset)).collect();
    for piece in all.chunks(1_000) {
        put(broker, &stream, piece).await;
    }
    let poor = |time: &str| POOR.replace("TIME", time);
    let sql = format!("CREATE TABLE {schema}.evolved {}", poor("timestamptz"));
    postgres.run(&sql).await;
    put(broker, &quiet, &(0..100).map(generate::neighbour).collect::<Vec<_>>()).await;
    let home = Home::new(&broker.uri(), &configuration(&stream, &quiet, &schema, postgres, &web));
    let evolved = rusqlite::Connection::open(home.path("evolved.db")).unwrap();
    evolved.execute_batch(&format!("CREATE TABLE t {}", poor("text"))).unwrap();
    let mut daemon = home.start();
    daemon.until_durable("bystander", 99).await;
    let mut waited = String::new();
    let within = Duration::from_secs(120) + Duration::from_millis(total * 10);
    let consumers = || DEFAULT.iter().chain(&TYPED).chain(&["stream"]);
    for name in consumers() {
        // An archive's objects are written when the consumer drains.
        let archive = name.starts_with("parquet") || ["lines", "folders"].contains(name);
        let what = format!("{name} has read everything");
        daemon
            .until(name, &what, within, |c| {
                assert_ne!(c["state"], "halted", "{name}: {c}");
                let durable = c["durable_offset"].as_u64().unwrap_or(0) + 1 >= total;
                durable
                    || (archive && c["received_offset"].as_u64().is_some_and(|o| o + 1 >= total))
            })
            .await;
        waited.push_str(&format!(" {name} {:.1}", began.elapsed().as_secs_f64()));
    }
    let decodable: u64 =
        all.iter().filter(|m| Message::parse(m).is_ok_and(|m| m.validate().is_ok())).count() as u64;
    let metrics = Metrics::of(&daemon).await;
    for name in DEFAULT {
        for reason in ["misfit", "refused"] {
            assert_eq!(metrics.lost(name, reason), 0, "{name} refused some: {reason}");
        }
    }
    let mut tally = String::new();
    for name in consumers() {
        let mut counts = Vec::new();
        for reason in ["undecodable", "over_limit", "misfit", "refused", "program"] {
            counts.push(metrics.lost(name, reason));
        }
        for reason in
            ["sink", "panic", "broker", "stream", "reread", "connection", "locked", "other"]
        {
            let restarts = metrics.restarts(name, reason);
            assert_eq!(restarts, 0, "{name}: {reason}\n{}", home.log_tail());
        }
        tally.push_str(&format!("\n  {name}: left out {counts:?}"));
    }
    // The bystander is not affected.
    put(broker, &quiet, &(100..200).map(generate::neighbour).collect::<Vec<_>>()).await;
    daemon.until_durable("bystander", 199).await;
    waited.push_str(&format!(" all {:.1}", began.elapsed().as_secs_f64()));
    let (most, bound) = (daemon.memory_bytes("VmHWM"), home.memory_bound_bytes() + PROCESS_BYTES);
    assert!(most <= bound, "VmHWM {most} above {bound}");
    daemon.terminate().await;
    waited.push_str(&format!(" stopped {:.1}", began.elapsed().as_secs_f64()));

    let neighbours: BTreeSet<u64> = (0..total).filter(|offset| is_neighbour(*offset)).collect();
    let check = |name: &str, found: BTreeSet<u64>, least: u64| {
        let missing: Vec<_> = neighbours.difference(&found).take(5).collect();
        assert!(missing.is_empty(), "{name} misses neighbours: {missing:?}");
        assert!(found.len() as u64 >= least, "{name} holds {} of {least}", found.len());
    };
    check("file", home.offsets("file", &stream).into_iter().collect(), decodable);
    check("http", web.kept().into_iter().collect(), decodable);
    check("mapped", home.offsets("mapped", &stream).into_iter().collect(), 0);
    let letters: BTreeSet<u64> = home.offsets("letters", &stream).into_iter().collect();
    for (name, table, least) in [
        ("lite.db", "t", decodable),
        ("typed.db", "t", 0),
        ("evolved.db", "t", 0),
        ("shaped.db", "t", 0),
        ("lettered.db", "t", total - letters.len() as u64),
    ] {
        let database = rusqlite::Connection::open(home.path(name)).unwrap();
        let mut asked = database.prepare(&format!("SELECT offset FROM {table}")).unwrap();
        let found = asked.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        let found: BTreeSet<u64> = found.map(|offset| offset.unwrap() as u64).collect();
        assert!(name != "lettered.db" || found.is_disjoint(&letters));
        check(name, found, least);
    }
    for (table, least) in [("t", decodable), ("typed", 0), ("evolved", 0)] {
        let sql = format!("SELECT \"offset\" FROM {schema}.{table}");
        let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
        check(table, rows.iter().map(|row| row.get::<_, i64>(0) as u64).collect(), least);
    }
    check(
        "stream",
        (0..messages(broker, &format!("{stream}-copy")).await.len() as u64).collect(),
        total,
    );
    let folders = home.path("folders").join(&stream).join("**/*.ndjson").display().to_string();
    let sql = format!(
        "SELECT \"offset\" FROM read_ndjson('{folders}', columns = {{\"offset\": 'BIGINT'}})"
    );
    let rows = duckdb::ask(&sql)?;
    let found: BTreeSet<u64> = rows.iter().map(|row| row[0].as_u64().unwrap()).collect();
    assert_eq!(rows.len(), found.len(), "written twice into folders");
    check("folders", found, decodable);
    for (name, least) in [
        ("parquet", decodable),
        ("parquetb", decodable),
        ("parquet_typed", 0),
        ("parquet_folders", 0),
    ] {
        let files = home.path(name).join(&stream).join("**/*.parquet").display().to_string();
        let rows = duckdb::ask(&format!("SELECT \"offset\" FROM read_parquet('{files}')"))?;
        check(name, rows.iter().map(|row| row[0].as_u64().unwrap()).collect(), least);
    }
    eprintln!(
        "{total} messages of which {decodable} are AMQP 1.0, {} consumers, {} s; VmHWM {} MiB of {} MiB;\n  \
         seconds:{waited}\n  [undecodable, over_limit, misfit, refused, program]:{tally}",
        consumers().count(),
        began.elapsed().as_secs(),
        most >> 20,
        bound >> 20
    );
    Ok(())
}

/// The reason of a misfit shows the beginning of the value, unless that is disabled.
async fn hidden_values() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "hidden").await;
    streams::publish(broker, &stream, ["{\"n\":\"sesame\"}".to_owned()]).await;
    let consumer = |name: &str, key: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n{key}\n\
             sink = {{ type = \"sqlite\", path = \"{name}.db\", columns = {{ n = {{ from = \"/n\", type = \"integer\" }} }} }}\n"
        )
    };
    let home = Home::new(&broker.uri(), &consumer("shy", "show_values = false"));
    let mut daemon = home.start();
    let reason = daemon.until_halted("shy").await;
    assert!(reason.contains("column \"n\": the value is not shown"), "{reason}");
    daemon.terminate().await;
    assert!(!home.log().contains("sesame"), "{}", home.log_tail());
    let home = Home::new(&broker.uri(), &consumer("open", ""));
    let mut daemon = home.start();
    let reason = daemon.until_halted("open").await;
    assert!(reason.contains("sesame"), "{reason}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn values_are_shown_unless_that_is_switched_off() {
    or_skip!(hidden_values().await);
}

#[tokio::test]
async fn no_message_ends_the_process() {
    or_skip!(every_sink().await);
}
