//! Errors of `check --connect` about tables that cannot be written, before anything runs; and it creates
//! and changes nothing.

use rillway::sink::postgres::examine;

use super::*;
use crate::common::daemon::Home;
use crate::common::skip::Unavailable;
use crate::common::{Broker, Version, streams};

async fn look(options: &PostgresOptions) -> Result<(), SinkError> {
    examine(options, &STREAM.into(), &"r".into()).await.map(drop)
}

#[tokio::test]
async fn unwritable_tables_are_reported_before_a_start() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let there = PostgresOptions {
        columns: Some(vec![column("v", "/v", ColumnType::Text)]),
        ..options(&postgres.url(), &schema)
    };
    let own = "stream text, \"offset\" bigint, timestamp timestamptz";
    look(&there).await.unwrap();
    for (made, says) in [
        ("CREATE VIEW S.events AS SELECT 1 AS stream".to_owned(), "is no table"),
        (format!("CREATE TABLE S.events ({own})"), "ADD COLUMN \"v\" text"),
        (
            format!("CREATE TYPE S.mood AS ENUM ('fine'); CREATE TABLE S.events ({own}, v S.mood)"),
            "mood, and its values need text",
        ),
        (
            format!("CREATE TABLE S.events ({own}, v text, must text NOT NULL)"),
            "NOT NULL without a default",
        ),
    ] {
        let made = made.replace("S.", &format!("{schema}."));
        postgres.run(&made).await;
        let what = transient(look(&there).await);
        assert!(what.contains(says), "{made}: {what}");
        let kind = if made.contains("VIEW") { "VIEW" } else { "TABLE" };
        postgres.run(&format!("DROP {kind} {schema}.events")).await;
    }
    let strict = PostgresOptions { create: false, ..there.clone() };
    let what = transient(look(&strict).await);
    assert!(what.contains("`create` is false") && what.contains("CREATE TABLE"), "{what}");
    let nowhere = PostgresOptions { schema: Some("no_such".into()), ..there.clone() };
    let what = transient(look(&nowhere).await);
    assert!(what.contains("there is no schema \"no_such\""), "{what}");

    let role = format!("few_{schema}");
    postgres.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let few = PostgresOptions {
        url: Secret::new(postgres.url_of(&role, postgres.port)),
        ..there.clone()
    };
    let what = transient(look(&few).await);
    assert!(what.contains(&format!("GRANT USAGE ON SCHEMA \"{schema}\"")), "{what}");
    postgres.run(&format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).await;
    let what = transient(look(&few).await);
    assert!(what.contains(&format!("GRANT CREATE ON SCHEMA \"{schema}\"")), "{what}");
    // None of this has created anything.
    let sql =
        format!("SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace");
    let made: i64 = postgres.client().await.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(made, 0);
    // Nor does it take the position from its owner.
    let mut sink = open(there.clone()).await.unwrap();
    look(&there).await.unwrap();
    write(&mut sink, bodies(0, &[r#"{"v":"x"}"#])).await.unwrap();
    let what = transient(look(&few).await);
    assert!(
        what.contains("GRANT INSERT ON") && what.contains("GRANT SELECT, INSERT, UPDATE"),
        "{what}"
    );
}

/// The operator's view: also of the table of dead letters.
async fn as_it_is_printed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let stream = streams::create(broker, "checked").await;
    postgres.run(&format!("CREATE VIEW {schema}.view AS SELECT 1 AS stream")).await;
    let sink = |table: &str| {
        format!(
            "{{ type = \"postgres\", url = \"{}\", schema = \"{schema}\", table = \"{table}\" }}",
            postgres.url()
        )
    };
    for (table, letters, says) in [
        ("events", "letters", None),
        ("view", "letters", Some("is no table")),
        ("events", "view", Some("dead letters: ")),
    ] {
        let consumer = format!(
            "[[consumer]]\nname = \"a\"\nstream = \"{stream}\"\nsink = {}\n\
             on_bad_message = \"dead_letter\"\ndead_letter = {}\n",
            sink(table),
            sink(letters)
        );
        let home = Home::new(&broker.uri(), &consumer);
        let checked = home.command(&["check", "--connect"]).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned()
            + &String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(if says.is_some() { 69 } else { 0 }), "{said}");
        let says = says.unwrap_or("by `start`");
        assert!(said.contains(says), "{table} {letters}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn check_connect_reports_unwritable_tables() {
    or_skip!(as_it_is_printed().await);
}
