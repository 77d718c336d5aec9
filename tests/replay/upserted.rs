//! Into a table of the latest row of each key, through `where` and `map`: no row goes back in time.

use super::*;
use crate::common::postgres::Postgres;
use crate::common::skip::or_skip;

const CHANGES: u64 = 1_200;
const KEYS: u64 = 37;

/// The change at this offset; none if it is not wanted.
fn change(offset: u64) -> Option<(u64, Option<u64>)> {
    let wanted = !offset.is_multiple_of(5);
    wanted.then_some((offset * 17 % KEYS, (offset % 11 != 3).then_some(offset * 2)))
}

fn message(offset: u64) -> String {
    match change(offset) {
        None => "{\"kind\":\"other\"}".to_owned(),
        Some((key, Some(v))) => format!("{{\"kind\":\"user\",\"key\":{key},\"half\":{}}}", v / 2),
        Some((key, None)) => format!("{{\"kind\":\"user\",\"key\":{key},\"gone\":true}}"),
    }
}

const PROGRAMS: &str = "where = '.kind == \"user\"'\n\
    map = '{id: .key, v: (if .half then .half * 2 else null end), op: (if .gone then \"d\" else \"u\" end)}'\n";

const ROWS: &str = "mode = \"upsert\", key = [\"id\"], delete_when = { from = \"/op\", equals = \"d\" }, \
    columns = { id = { from = \"/id\", type = \"integer\" }, v = { from = \"/v\", type = \"integer\" } }";

type Rows = BTreeMap<u64, (u64, u64)>;

/// The rows after these changes, over those that are there: no message undoes a later one.
fn applied(rows: &Rows, range: std::ops::Range<u64>) -> Rows {
    let mut rows = rows.clone();
    for offset in range {
        let Some((key, value)) = change(offset) else { continue };
        if rows.get(&key).is_some_and(|(at, _)| *at > offset) {
            continue;
        }
        match value {
            Some(v) => rows.insert(key, (offset, v)),
            None => rows.remove(&key),
        };
    }
    rows
}

/// `run` executes a statement, `rows` reads the table.
async fn never_back(
    sink: String,
    run: impl AsyncFn(&Home, &str),
    rows: impl AsyncFn(&Home) -> Rows,
) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "replay-keys").await;
    streams::publish(broker, &stream, (0..CHANGES).map(message)).await;
    let home = Home::new(&broker.uri(), &consumer(&stream, &sink, PROGRAMS));
    let mut daemon = home.start();
    daemon.until_durable("it", CHANGES - 1).await;
    let latest = applied(&Rows::new(), 0..CHANGES);
    assert_eq!(rows(&home).await, latest);
    // Among the rows of the consumer, which runs.
    let half = ["--from", "offset:0", "--to", "offset:599"];
    let refused = replay(&home, &half).await;
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    let told = said(&refused);
    assert!(
        told.contains("change no row that a later message") && told.contains("--append"),
        "{told}"
    );
    let kills = killed(&home, &[&half[..], &["--append"]].concat()).await;
    assert!(kills >= 3, "only {kills} kills");
    // No row went back; those whose delete is not in the half came back, which is told.
    let expected = applied(&latest, 0..600);
    assert!(latest.iter().all(|(key, row)| expected.get(key) == Some(row)));
    assert!(expected.len() > latest.len());
    assert_eq!(rows(&home).await, expected);
    // With the deletes, all is as it was; also what was lost or altered.
    run(&home, "DELETE FROM latest WHERE id < 10").await;
    run(&home, "UPDATE latest SET v = -1 WHERE id > 20").await;
    killed(&home, &["--from", "first", "--to", "end", "--append"]).await;
    assert_eq!(rows(&home).await, latest);
    let own = daemon.consumer("it").await.unwrap();
    assert_eq!((&own["state"], &own["restarts"]), (&"running".into(), &0.into()), "{own}");
    daemon.terminate().await;
    let verified = output(home.command(&["verify", "it"])).await;
    assert!(verified.status.success(), "{}", said(&verified));
    Ok(())
}

#[tokio::test]
async fn rows_of_sqlite_never_go_back() {
    let sink = format!("{{ type = \"sqlite\", path = \"it.db\", table = \"latest\", {ROWS} }}");
    let open = |home: &Home| {
        let database = rusqlite::Connection::open(home.path("it.db")).unwrap();
        database.busy_timeout(SOON).unwrap();
        database
    };
    let run = async |home: &Home, sql: &str| assert!(open(home).execute(sql, []).unwrap() > 0);
    let rows = async |home: &Home| {
        let database = open(home);
        let mut asked = database.prepare("SELECT id, \"offset\", v FROM latest").unwrap();
        let unsigned =
            |nth, row: &rusqlite::Row<'_>| row.get::<_, i64>(nth).map(i64::cast_unsigned);
        let rows = asked
            .query_map([], |row| Ok((unsigned(0, row)?, (unsigned(1, row)?, unsigned(2, row)?))));
        rows.unwrap().map(Result::unwrap).collect()
    };
    or_skip!(never_back(sink, run, rows).await);
}

#[tokio::test]
async fn rows_of_postgres_never_go_back() {
    or_skip!(
        async {
            let server = Postgres::shared().await?;
            let (schema, url) = (server.schema().await, server.url());
            let sink = format!(
                "{{ type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"latest\", {ROWS} }}"
            );
            let table = format!("{schema}.latest");
            let run = async |_: &Home, sql: &str| server.run(&sql.replace("latest", &table)).await;
            let rows = async |_: &Home| {
                let sql = format!("SELECT id, \"offset\"::int8, v FROM {table}");
                let rows = server.client().await.query(&sql, &[]).await.unwrap();
                let unsigned = |row: &tokio_postgres::Row, nth: usize| row.get::<_, i64>(nth).cast_unsigned();
                rows.iter().map(|row| (unsigned(row, 0), (unsigned(row, 1), unsigned(row, 2)))).collect()
            };
            never_back(sink, run, rows).await
        }
        .await
    );
}
