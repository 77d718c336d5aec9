//! A server that stops, refuses, or lacks what it confirmed; a connection that is cut at every point.

use rillway::sink::conformance::batch;

use super::*;

/// Writes again and again, as the consumer does, until it is durable.
async fn until_written(sink: &mut PostgresSink, batch: &Arc<Batch>) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match sink.write(batch).await {
            Ok(_) => return told,
            Err(SinkError::Transient { what, .. }) => told.push(what),
            Err(other) => panic!("{other} after {told:?}"),
        }
        assert!(told.len() < 200, "{told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The connection is cut after every few bytes of a transaction: within the COPY, in the update of the
/// position, at the COMMIT and before its answer.
#[tokio::test]
async fn a_line_that_is_cut_anywhere() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let proxy = Proxy::to(postgres.port).await;
    let mut sink = open(options(&postgres.url_of("rillway", proxy.port), &schema)).await.unwrap();
    let (mut next, mut cuts) = (0, 0);
    // A transaction of ten rows is some 1,200 bytes.
    let mut bytes = 1;
    loop {
        let batch = Arc::new(batch(next..next + 10));
        proxy.cut_after(bytes);
        until_written(&mut sink, &batch).await;
        next += 10;
        if proxy.is_to_cut() {
            break;
        }
        cuts += 1;
        bytes += 23;
    }
    assert!(cuts > 30, "{cuts} cuts");
    let expected: Vec<i64> = (0..next.cast_signed()).collect();
    assert_eq!(offsets(postgres, &schema).await, expected, "{cuts} cuts");
}

#[tokio::test]
async fn a_server_that_is_stopped_and_started() {
    let postgres = or_skip!(Postgres::private(&[]).await);
    let schema = postgres.schema().await;
    let options = options(&postgres.url(), &schema);
    let mut sink = open(options.clone()).await.unwrap();
    write(&mut sink, batch(0..10)).await.unwrap();
    postgres.stop().await;
    let what = transient(write(&mut sink, batch(10..20)).await);
    assert!(what.contains(&format!("127.0.0.1:{}", postgres.port)), "{what}");
    let what = transient(open(options).await.map(drop));
    assert!(what.contains("could not connect to PostgreSQL at"), "{what}");
    postgres.start().await;
    until_written(&mut sink, &Arc::new(batch(10..20))).await;
    postgres.crash().await;
    postgres.start().await;
    until_written(&mut sink, &Arc::new(batch(20..30))).await;
    assert_eq!(offsets(&postgres, &schema).await.len(), 30);
}

/// Each refusal of the server gives the reason and what to do; and all of them are transient.
#[tokio::test]
async fn errors_that_an_operator_can_fix_on_the_server() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();

    let locking = postgres.client().await;
    locking.batch_execute(&format!("BEGIN; LOCK TABLE {schema}.events")).await.unwrap();
    let what = transient(write(&mut sink, batch(0..3)).await);
    assert!(what.contains("55P03") && what.contains("pg_locks"), "{what}");
    locking.batch_execute("ROLLBACK").await.unwrap();
    until_written(&mut sink, &Arc::new(batch(0..3))).await;

    let told = |role: &'static str, schema: String| {
        let url = postgres.url_of(role, postgres.port);
        async move { transient(open(options(&url, &schema)).await.map(drop)) }
    };
    postgres.run("DO $$ BEGIN CREATE ROLE locked LOGIN PASSWORD 'hunter2'; EXCEPTION WHEN duplicate_object THEN END $$").await;
    let what = told("locked:wrong-one", schema.clone()).await;
    assert!(what.contains("28P01") && what.contains("Correct the user and password"), "{what}");
    assert!(!what.contains("wrong-one"), "{what}");
    let what = told("nobody-here", schema.clone()).await;
    assert!(what.contains("28000"), "{what}");
    postgres.run("DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN CONNECTION LIMIT 0").await;
    let what = told("few", schema.clone()).await;
    assert!(what.contains("53300") && what.contains("connection limit"), "{what}");
    let what = told("rillway", "no_such_schema".to_owned()).await;
    assert!(what.contains("3F000"), "{what}");
    let url = format!("{}x", postgres.url());
    let what = transient(open(options(&url, &schema)).await.map(drop));
    assert!(what.contains("3D000") && what.contains("Create the database"), "{what}");
    // The right password: now it fails only for its missing rights.
    let what = told("locked:hunter2", schema).await;
    assert!(what.contains("42501"), "{what}");
}

/// Settings of the role and the database do not weaken the guarantee.
#[tokio::test]
async fn settings_that_would_weaken_it() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let role = format!("weak_{schema}");
    postgres
        .run(&format!(
            "CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET synchronous_commit = off; \
         ALTER ROLE {role} SET default_transaction_isolation = 'serializable'"
        ))
        .await;
    // A trigger records the session's settings.
    let mut sink = open(options(&postgres.url_of(&role, postgres.port), &schema)).await.unwrap();
    postgres.run(&format!(
        "CREATE FUNCTION {schema}.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         new.subject = concat_ws(' ', current_setting('synchronous_commit'), \
         current_setting('transaction_isolation'), current_setting('lock_timeout'), \
         current_setting('idle_in_transaction_session_timeout')); RETURN new; END $$; \
         CREATE TRIGGER tell BEFORE INSERT ON {schema}.events FOR EACH ROW EXECUTE FUNCTION {schema}.tell()"
    )).await;
    write(&mut sink, batch(0..1)).await.unwrap();
    let sql = format!("SELECT subject FROM {schema}.events");
    let told: String = postgres.client().await.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(told, "on read committed 1s 1min");
}
