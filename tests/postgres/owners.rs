//! Who may write, if two processes try to.

use rillway::sink::conformance::batch;
use rillway::types::Checkpoint;

use super::*;

/// The new owner cannot end the former owner's session, because it has another role: the epoch alone
/// keeps the former owner out.
#[tokio::test]
async fn the_epoch_fences_without_help() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let mut former = open(options(&postgres.url(), &schema)).await.unwrap();
    write(&mut former, batch(0..3)).await.unwrap();
    let role = format!("heir_{schema}");
    postgres
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {role}"
        ))
        .await;
    let mut heir = open(options(&postgres.url_of(&role, postgres.port), &schema)).await.unwrap();
    assert_eq!(heir.position().await.unwrap().map(|at| at.offset.0), Some(2));
    // Its connection is still good.
    let what = fatal(write(&mut former, batch(3..6)).await);
    assert!(what.contains("another process took over at"), "{what}");
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2]);
    write(&mut heir, batch(3..5)).await.unwrap();
    fatal(write(&mut former, batch(5..6)).await);
    fatal(former.restart().await);
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2, 3, 4]);
}

/// A process that lost the row does not take it back, though it opens the sink again.
#[tokio::test]
async fn a_claim_is_made_once() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let again = |claim: &Claim| {
        let (stream, reference) = (StreamName::from(STREAM), Reference::from("r"));
        PostgresSink::open(options(&postgres.url(), &schema), stream, reference, claim.clone())
    };
    let (first, second) = (Claim::new(), Claim::new());
    let mut sink = again(&first).await.unwrap();
    write(&mut sink, batch(0..3)).await.unwrap();
    drop(sink);
    let mut sink = again(&first).await.unwrap();
    write(&mut sink, batch(3..4)).await.unwrap();
    let mut heir = again(&second).await.unwrap();
    let what = fatal(again(&first).await.map(drop));
    assert!(what.contains("another process took over"), "{what}");
    write(&mut heir, batch(4..5)).await.unwrap();
    // Its session was ended by the take-over: it notices when it connects again, or has noticed before.
    let mut told = write(&mut sink, batch(4..6)).await;
    if matches!(told, Err(SinkError::Transient { .. })) {
        told = write(&mut sink, batch(4..6)).await;
    }
    fatal(told);
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2, 3, 4]);
}

/// A server that lost confirmed transactions: this is reported, and a restart resolves it.
#[tokio::test]
async fn a_server_that_forgets() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
    write(&mut sink, batch(0..3)).await.unwrap();
    write(&mut sink, batch(3..6)).await.unwrap();
    // As after a restored backup.
    postgres
        .run(&format!(
            "DELETE FROM {schema}.events WHERE \"offset\" > 2; \
         UPDATE {schema}.rillway_positions SET \"offset\" = 2, chunk_crc = NULL; \
         SELECT pg_terminate_backend(backend) FROM {schema}.rillway_positions"
        ))
        .await;
    let mut told = write(&mut sink, batch(6..9)).await;
    if matches!(told, Err(SinkError::Transient { .. })) {
        told = write(&mut sink, batch(6..9)).await;
    }
    let what = fatal(told);
    assert!(what.contains("is offset 2, where offset 5 had been committed"), "{what}");
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
    let at: Option<Checkpoint> = sink.position().await.unwrap();
    assert_eq!(at.map(|at| at.offset.0), Some(2));
    write(&mut sink, batch(3..9)).await.unwrap();
    assert_eq!(offsets(postgres, &schema).await.len(), 9);
}

/// A position that somebody moves while the sink is connected is not used, neither for a batch nor for a
/// reset.
#[tokio::test]
async fn a_changed_position_is_not_used() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    for changed in ["1", "7", "NULL"] {
        let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
        let next = sink.position().await.unwrap().map_or(0, |at| at.offset.0 + 1);
        write(&mut sink, batch(next..next + 3)).await.unwrap();
        let set = |to: &str| format!("UPDATE {schema}.rillway_positions SET \"offset\" = {to}");
        postgres.run(&set(changed)).await;
        let what = fatal(write(&mut sink, batch(next + 3..next + 4)).await);
        assert!(what.contains(&format!("where offset {} had been committed", next + 2)), "{what}");
        assert!(fatal(sink.restart().await).contains("had been committed"));
        let rows = offsets(postgres, &schema).await;
        assert_eq!(rows, (0..i64::try_from(next).unwrap() + 3).collect::<Vec<_>>());
        // Once restored, it is the committed position again, and a new sink continues.
        postgres.run(&set(&(next + 2).to_string())).await;
    }
}
