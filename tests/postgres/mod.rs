//! The `postgres` sink against a real server: what it keeps, what the server refuses, what happens when
//! the server or the connection fails, and who may write. [`crate::torture`] has kills and freezes of the
//! whole daemon.

mod backlog;
mod changes;
mod daemon;
mod encrypted;
mod examine;
mod owners;
mod poison;
mod sharing;
mod tables;
mod trouble;
mod upsert;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rillway::flow::batch::{Batch, Part};
use rillway::sink::conformance::{self, Medium, Owners, STREAM};
use rillway::sink::postgres::{Claim, PostgresOptions, PostgresSink};
use rillway::sink::{BadRecord, Durability, Sink, SinkError};
use rillway::types::column::{Column, ColumnType, OnMisfit};
use rillway::types::upsert::Missing;
use rillway::types::{Reference, Secret, StreamName};

use crate::common::postgres::Postgres;
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};

/// The sink's defaults, on this server, in this schema.
fn options(url: &str, schema: &str) -> PostgresOptions {
    PostgresOptions {
        url: Secret::new(url),
        tls: None,
        schema: Some(schema.to_owned()),
        table: "events".to_owned(),
        columns: None,
        create: true,
        upsert: None,
        missing: Missing::Refuse,
        connect_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(60),
        lock_timeout: Duration::from_secs(1),
    }
}

/// Opens a sink, as a process of its own would.
async fn open(options: PostgresOptions) -> Result<PostgresSink, SinkError> {
    let (stream, reference) = (StreamName::from(STREAM), Reference::from("r"));
    PostgresSink::open(options, stream, reference, Claim::new()).await
}

async fn write(sink: &mut PostgresSink, batch: Batch) -> Result<Durability, SinkError> {
    sink.write(&Arc::new(batch)).await
}

/// A batch of one chunk of these messages.
fn batch_of(first: u64, messages: &[Vec<u8>]) -> Batch {
    let part: Part = conformance::part(first, messages).unwrap();
    Batch::new(StreamName::from(STREAM), vec![part]).unwrap()
}

/// The same, of bodies.
fn bodies<B: AsRef<[u8]>>(first: u64, bodies: &[B]) -> Batch {
    let messages: Vec<_> = bodies.iter().map(|body| conformance::message(body.as_ref())).collect();
    batch_of(first, &messages)
}

fn column(name: &str, from: &str, kind: ColumnType) -> Column {
    let (name, from) = (name.to_owned(), from.parse().unwrap());
    Column { name, from, kind, required: false, on_misfit: OnMisfit::BadMessage }
}

fn poison(result: Result<Durability, SinkError>) -> Vec<BadRecord> {
    match result {
        Err(SinkError::Poison(bad)) => bad,
        other => panic!("{other:?}"),
    }
}

fn transient<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Transient { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

fn fatal<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Fatal(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// The offsets in the table, in order.
async fn offsets(postgres: &Postgres, schema: &str) -> Vec<i64> {
    let sql = format!("SELECT \"offset\" FROM {schema}.events ORDER BY 1");
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A schema for each, on a server behind a proxy.
struct Table {
    postgres: &'static Postgres,
    proxy: Option<Proxy>,
    schema: String,
    locking: Option<tokio_postgres::Client>,
}

impl Table {
    fn new(postgres: &'static Postgres) -> Table {
        static NTH: AtomicU32 = AtomicU32::new(0);
        let schema = format!("conformance_{}", NTH.fetch_add(1, Ordering::Relaxed));
        Table { postgres, proxy: None, schema, locking: None }
    }
}

#[async_trait]
impl Medium for Table {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        if self.proxy.is_none() {
            self.postgres.run(&format!("CREATE SCHEMA {}", self.schema)).await;
            self.proxy = Some(Proxy::to(self.postgres.port).await);
        }
        let port = self.proxy.as_ref().unwrap().port;
        let options = PostgresOptions {
            connect_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(8),
            ..options(&self.postgres.url_of("rillway", port), &self.schema)
        };
        open(options).await.map(|sink| Box::new(sink) as Box<dyn Sink>)
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        // In the order of transactions. The physical order tells nothing, because the server reuses the
        // space of aborted ones.
        let sql = format!(
            "SELECT \"offset\" FROM {}.events ORDER BY xmin::text::bigint, \"offset\"",
            self.schema
        );
        let rows = self.postgres.client().await.query(&sql, &[]).await.unwrap();
        Some(rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()).collect())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }

    async fn break_next(&mut self) -> bool {
        self.proxy.as_ref().unwrap().cut_after(5_000);
        true
    }

    async fn refuse(&mut self, on: bool) -> bool {
        if on {
            let client = self.postgres.client().await;
            let lock = format!("BEGIN; LOCK TABLE {}.events IN SHARE MODE", self.schema);
            client.batch_execute(&lock).await.unwrap();
            self.locking = Some(client);
        } else if let Some(client) = self.locking.take() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        true
    }

    async fn vanish(&mut self, on: bool) -> bool {
        let proxy = self.proxy.as_ref().unwrap();
        if on {
            proxy.refuse()
        } else {
            proxy.resume()
        }
        true
    }

    async fn slow(&mut self, on: bool) -> bool {
        let proxy = self.proxy.as_ref().unwrap();
        if on {
            proxy.silence()
        } else {
            proxy.resume()
        }
        true
    }
}

#[tokio::test]
async fn does_what_every_sink_must() {
    let postgres = or_skip!(Postgres::shared().await);
    let told = conformance::all(|| Table::new(postgres)).await.unwrap();
    assert_eq!(told.not_asked(), WRITES_A_BATCH_AT_ONCE, "{told:?}");
}

/// Questions that are not asked of a sink that writes a batch at once.
const WRITES_A_BATCH_AT_ONCE: [&str; 5] = [
    "gives_up_what_is_held",
    "holds_until_flushed",
    "repeats_a_failed_flush",
    "tells_of_durable_parts_in_order",
    "winds_up_what_it_has_begun",
];
