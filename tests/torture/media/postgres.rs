//! The `postgres` sink: on the shared server, or, if it has to fail, on a private one, whose table is on
//! a disk that can be filled.

use async_trait::async_trait;

use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::small_disk::SmallDisk;
use crate::torture::frozen::frozen;
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle, number_in};
use crate::torture::outage::outages;

enum Server {
    Shared(&'static Postgres),
    Private(Postgres),
}

pub(super) struct Database {
    server: Server,
    schema: String,
    disk: Option<SmallDisk>,
    /// Holds the table's lock, so that nobody else can write.
    locking: Option<tokio_postgres::Client>,
}

impl Database {
    pub(super) async fn shared() -> Result<Database, Unavailable> {
        let server = Postgres::shared().await?;
        let schema = server.schema().await;
        Ok(Database { server: Server::Shared(server), schema, disk: None, locking: None })
    }

    /// On a private server, whose tables are on a disk of this many MiB.
    async fn on_a_small_disk() -> Result<Database, Unavailable> {
        let disk = SmallDisk::new(128)?;
        let server = Postgres::private(&[]).await?;
        let space = disk.path().join("space");
        std::fs::create_dir(&space).unwrap();
        open_up(disk.path());
        server.give(&space);
        server.run(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).await;
        server.run("ALTER DATABASE postgres SET default_tablespace = small").await;
        let schema = server.schema().await;
        Ok(Database { server: Server::Private(server), schema, disk: Some(disk), locking: None })
    }

    fn server(&self) -> &Postgres {
        match &self.server {
            Server::Shared(server) => server,
            Server::Private(server) => server,
        }
    }
}

/// So that the server's user may enter the folder.
fn open_up(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[async_trait]
impl Oracle for Database {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn sink(&self, stream: &str) -> String {
        format!(
            "{{ type = \"postgres\", url = \"{}\", schema = \"{}\", table = \"{stream}\", \
             lock_timeout = \"1s\", write_timeout = \"20s\" }}",
            self.server().url(),
            self.schema
        )
    }

    /// All rows, by one statement and so of one snapshot. Sorted by offset, because the server reuses the
    /// space of aborted rows.
    async fn landed(&mut self, _home: &Home, stream: &str) -> Landed {
        let sql = format!("SELECT \"offset\", body FROM {}.\"{stream}\" ORDER BY 1", self.schema);
        let rows = self.server().client().await.query(&sql, &[]).await.unwrap();
        let record = |row: &tokio_postgres::Row| {
            let (offset, body): (i64, String) = (row.get(0), row.get(1));
            (offset.cast_unsigned(), number_in(body.as_bytes()))
        };
        Landed { records: rows.iter().map(record).collect(), torn: 0 }
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match how {
            Failure::Gone if on => self.server().crash().await,
            Failure::Gone => self.server().start().await,
            Failure::Refuses => match (&self.disk, on) {
                (Some(disk), true) => disk.fill(),
                (Some(disk), false) => disk.free(),
                (None, _) => return false,
            },
            Failure::Hangs if on => {
                let client = self.server().client().await;
                // Not the positions: two locks, taken in the opposite order, would be a deadlock.
                let tables = "SELECT format('LOCK TABLE %I.%I', schemaname, tablename) \
                              FROM pg_tables WHERE schemaname = $1 \
                              AND tablename <> 'rillway_positions'";
                let rows = client.query(tables, &[&self.schema]).await.unwrap();
                client.batch_execute("BEGIN").await.unwrap();
                for row in rows {
                    client.batch_execute(row.get(0)).await.unwrap();
                }
                self.locking = Some(client);
            }
            Failure::Hangs => drop(self.locking.take()),
        }
        true
    }
}

#[tokio::test]
async fn kills() {
    or_skip!(killed(or_skip!(Database::shared().await)).await);
}

#[tokio::test]
async fn one_that_was_frozen_writes_nothing_after_another_took_over() {
    or_skip!(frozen(or_skip!(Database::shared().await)).await);
}

#[tokio::test]
async fn a_server_that_crashes_a_full_disk_and_locked_tables() {
    let database = or_skip!(Database::on_a_small_disk().await);
    or_skip!(outages(database).await);
}
