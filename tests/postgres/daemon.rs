//! The whole path: the daemon, with a configuration as an operator writes it.

use rillway::types::Offset;

use super::*;
use crate::common::daemon::{Home, halted_one};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

async fn rows_and_poison() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    postgres
        .run(&format!(
            "CREATE TABLE {schema}.orders (stream text, \"offset\" bigint, timestamp timestamptz, \
             customer varchar(8), amount numeric(10, 2))"
        ))
        .await;
    let stream = streams::create(broker, "postgres").await;
    let body = |i: u32| match i {
        100 => r#"{"user":"much too long","amount":1}"#.to_owned(),
        200 => r#"{"user":"a\u0000","amount":1}"#.to_owned(),
        300 => "no JSON".to_owned(),
        400 => r#"{"user":"a","amount":"many"}"#.to_owned(),
        i => format!(r#"{{"user":"u{i}","amount":{i}.25}}"#),
    };
    streams::publish(broker, &stream, (0..500).map(body)).await;
    let url = postgres.url_of("secretive:hunter2", postgres.port);
    postgres.run("DO $$ BEGIN CREATE ROLE secretive SUPERUSER LOGIN; EXCEPTION WHEN duplicate_object THEN END $$").await;
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"orders\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             on_bad_message = \"skip\"\n[consumer.sink]\ntype = \"postgres\"\n\
             url = {{ file = \"url\" }}\nschema = \"{schema}\"\ntable = \"orders\"\n\
             columns = {{ customer = \"/user\", amount = {{ from = \"/amount\", type = \"numeric\" }} }}\n"
        ),
    );
    std::fs::write(home.path("url"), &url).unwrap();
    let mut daemon = home.start();
    daemon.until_durable("orders", 499).await;
    daemon.terminate().await;
    assert_eq!(streams::stored_offset(broker, &stream, "orders").await, Some(499));
    let sql = format!(
        "SELECT count(*), sum(amount)::text, count(*) FILTER (WHERE \"offset\" IN (100, 200, 300, 400)) FROM {schema}.orders"
    );
    let row = postgres.client().await.query_one(&sql, &[]).await.unwrap();
    let expected: u32 = (0..500).filter(|i| ![100, 200, 300, 400].contains(i)).sum();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(2)), (496, 0));
    assert_eq!(row.get::<_, String>(1), format!("{}.00", expected + 496 / 4));
    let log = home.log();
    for offset in [100, 200, 300, 400].map(Offset) {
        assert!(log.contains(&format!("offset={offset}")), "{offset} is not in the log");
    }
    assert!(!log.contains("hunter2"), "the password is in the log");
    // Where it would resume is shown without a take-over.
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && text.contains("exactly-once"), "{text}");
    assert!(text.contains("499") && !text.contains("hunter2"), "{text}");
    let sql = format!("SELECT epoch FROM {schema}.rillway_positions");
    let epoch: i64 = postgres.client().await.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(epoch, 1);
    Ok(())
}

#[tokio::test]
async fn typed_rows_without_the_bad_ones() {
    or_skip!(rows_and_poison().await);
}

/// A deferred constraint is added to a table under running consumers, over a slow connection: whatever
/// the policy, they get through, or halt right before the first refused record.
async fn a_constraint_that_comes_later() -> Result<(), Unavailable> {
    const POLICIES: [&str; 3] = ["skip", "dead_letter", "halt"];
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let proxy = Proxy::far_from(postgres.port, Duration::from_millis(4)).await;
    let schema = postgres.schema().await;
    let stream = streams::create(broker, "later").await;
    let url = postgres.url_of("rillway", proxy.port);
    let consumer = |policy: &str| {
        let letters = match policy {
            "dead_letter" => "dead_letter = { type = \"file\", dir = \"dead\" }\n",
            _ => "",
        };
        format!(
            "[[consumer]]\nname = \"{policy}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             on_bad_message = \"{policy}\"\n{letters}[consumer.sink]\ntype = \"postgres\"\n\
             url = \"{url}\"\nschema = \"{schema}\"\ntable = \"{policy}\"\n\
             columns = {{ v = {{ from = \"/v\", type = \"integer\" }} }}\n"
        )
    };
    let home = Home::new(&broker.uri(), &POLICIES.map(consumer).concat());
    let mut daemon = home.start();
    streams::publish(broker, &stream, (0..10).map(|i| format!("{{\"v\":{i}}}"))).await;
    for policy in POLICIES {
        daemon.until_durable(policy, 9).await;
        postgres
            .run(&format!(
                "CREATE FUNCTION {schema}.no_{policy}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF new.v % 4 <> 0 THEN RAISE EXCEPTION 'not by four'; END IF; RETURN NULL; END $$; \
                 CREATE CONSTRAINT TRIGGER no AFTER INSERT ON {schema}.{policy} \
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.no_{policy}()"
            ))
            .await;
    }
    // One of them is refused by the client, behind some that only the server refuses.
    let body = |i: u32| match i {
        1_500 => "no JSON".to_owned(),
        i => format!("{{\"v\":{i}}}"),
    };
    streams::publish(broker, &stream, (10..3_000).map(body)).await;
    for policy in ["skip", "dead_letter"] {
        daemon.until_durable(policy, 2_999).await;
    }
    let good = 10 + (10..3_000).filter(|i| i % 4 == 0 && *i != 1_500).count() as i64;
    daemon.until_halted("halt").await;
    for (policy, rows) in [("skip", good), ("dead_letter", good), ("halt", 10)] {
        let sql = format!("SELECT count(*) FROM {schema}.{policy}");
        let found: i64 = postgres.client().await.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(found, rows, "{policy}");
    }
    assert_eq!(home.lines("dead", &stream).len() as i64, 3_000 - good);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_backlog_gets_through_whatever_the_policy() {
    or_skip!(a_constraint_that_comes_later().await);
}

/// `schema` unset and `public`, `localhost` and `127.0.0.1`: one and the same table, and only one of the
/// two consumers writes. The remedy in the other one's error works.
async fn one_table_by_two_names() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let stream = streams::create(broker, "one-table").await;
    streams::publish(broker, &stream, (0..10).map(|i| i.to_string())).await;
    let table = streams::unique("one_table").replace('-', "_");
    let consumer = |name: &str, url: &str, keys: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             sink = {{ type = \"postgres\", url = \"{url}\", table = \"{table}\"{keys} }}\n"
        )
    };
    let (by_number, by_name) = (postgres.url(), postgres.url().replace("127.0.0.1", "localhost"));
    let both =
        [consumer("unset", &by_number, ""), consumer("public", &by_name, ", schema = \"public\"")];
    let home = Home::new(&broker.uri(), &both.concat());
    let mut daemon = home.start();
    let (other, reason) = halted_one(&daemon, ["unset", "public"]).await;
    assert!(reason.contains(&format!("reference = \"{other}\"")), "{reason}");
    daemon.until_durable(other, 9).await;
    daemon.terminate().await;
    let sql = format!("SELECT count(*), count(DISTINCT \"offset\") FROM public.{table}");
    let counts = async || {
        let row = postgres.client().await.query_one(&sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    assert_eq!(counts().await, (10, 10));

    // Renamed, with the reference that the error names.
    streams::publish(broker, &stream, (10..15).map(|i| i.to_string())).await;
    let renamed = consumer("renamed", &by_name, ", schema = \"public\"");
    let home = Home::new(&broker.uri(), &renamed);
    let mut daemon = home.start();
    let reason = daemon.until_halted("renamed").await;
    assert!(reason.contains(&format!("reference = \"{other}\"")), "{reason}");
    daemon.terminate().await;
    let renamed = renamed.replace("start =", &format!("reference = \"{other}\"\nstart ="));
    let home = Home::new(&broker.uri(), &renamed);
    let mut daemon = home.start();
    daemon
        .until("renamed", "all is there", Duration::from_secs(60), |c| {
            c["durable_offset"].as_u64() >= Some(14) && c["lag_messages"] == 0
        })
        .await;
    daemon.terminate().await;
    assert_eq!(counts().await, (15, 15));
    postgres.run(&format!("DROP TABLE public.{table}")).await;
    Ok(())
}

#[tokio::test]
async fn two_consumers_do_not_write_one_table_by_two_names() {
    or_skip!(one_table_by_two_names().await);
}
