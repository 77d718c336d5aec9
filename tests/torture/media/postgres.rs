//! The `postgres` sink, on a server of the test's own.

use async_trait::async_trait;
use tokio_postgres::Client;

use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::torture::frozen::frozen;
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle, number_in};
use crate::torture::outage::outages;

struct Table {
    server: Postgres,
    /// Keeps the table locked.
    locking: Option<Client>,
}

impl Table {
    async fn new() -> Result<Table, Unavailable> {
        Ok(Table { server: Postgres::private(&[]).await?, locking: None })
    }
}

#[async_trait]
impl Oracle for Table {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn sink(&self, _stream: &str) -> String {
        let url = self.server.url();
        format!(
            "{{ type = \"postgres\", url = \"{url}\", table = \"events\", lock_timeout = \"1s\" }}"
        )
    }

    async fn landed(&mut self, _home: &Home, stream: &str) -> Landed {
        let client = self.server.client().await;
        let sql = "SELECT \"offset\", body FROM events WHERE stream = $1 ORDER BY \"offset\"";
        let rows = client.query(sql, &[&stream]).await.unwrap();
        let record = |row: &tokio_postgres::Row| {
            let (offset, body): (i64, String) = (row.get(0), row.get(1));
            (offset.cast_unsigned(), number_in(body.as_bytes()))
        };
        Landed { records: rows.iter().map(record).collect(), torn: 0 }
    }

    /// A server that crashes, one that takes no writes, and a table that somebody has locked.
    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match (how, on) {
            (Failure::Gone, true) => self.server.crash().await,
            (Failure::Gone, false) => self.server.start().await,
            (Failure::Refuses, on) => {
                let on = if on { "on" } else { "off" };
                let set = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
                self.server.run(&set).await;
                self.server.run("SELECT pg_reload_conf()").await;
            }
            (Failure::Hangs, true) => {
                let client = self.server.client().await;
                let lock = "BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE";
                client.batch_execute(lock).await.unwrap();
                self.locking = Some(client);
            }
            (Failure::Hangs, false) => drop(self.locking.take()),
        }
        true
    }
}

#[tokio::test]
async fn kills() {
    let table = or_skip!(Table::new().await);
    or_skip!(killed(table).await);
}

#[tokio::test]
async fn one_that_was_frozen_writes_nothing_after_another_took_over() {
    let table = or_skip!(Table::new().await);
    or_skip!(frozen(table).await);
}

#[tokio::test]
async fn a_server_that_crashes_refuses_and_a_locked_table() {
    let table = or_skip!(Table::new().await);
    or_skip!(outages(table).await);
}
