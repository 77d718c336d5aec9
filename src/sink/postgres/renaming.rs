//! Gives rows of positions another reference: one transaction.

use tokio_postgres::Client;

use super::error::transient;
use super::options::PostgresOptions;
use super::session::within;
use super::table::{self, Names};
use crate::sink::SinkError;
use crate::sink::factory::Former;
use crate::types::{Reference, StreamName};

/// Has the rows of the former reference on this stream, and those of its replays, belong to `reference`.
///
/// # Errors
/// If both have rows, or the server cannot be reached or refuses.
pub(super) async fn rename(
    options: &PostgresOptions,
    stream: &StreamName,
    reference: &Reference,
    former: &Former,
) -> Result<(), SinkError> {
    let door = options.door(reference)?;
    let session = door.open().await?;
    let place = &door.place;
    let failed = |error| transient("rename a reference", place, &error);
    let renaming = async {
        let client = &session.client;
        session.set_up(options.lock_timeout, options.write_timeout).await.map_err(failed)?;
        let schema = options.schema.as_deref();
        let names = Names::find(client, place, schema, &options.table).await?;
        if !table::exists(client, &names.positions).await.map_err(failed)? {
            return Ok(());
        }
        client.batch_execute("BEGIN").await.map_err(failed)?;
        // Nobody takes a row over meanwhile: its owner waits, and then finds no row.
        let all = references(client, &names, stream).await.map_err(failed)?;
        let pairs = former.renamed(&all, reference, place)?;
        if former.is_trial {
            return client.batch_execute("ROLLBACK").await.map_err(failed);
        }
        let sql = format!(
            "UPDATE {} SET reference = $3, epoch = epoch + 1 WHERE stream = $1 AND reference = $2",
            names.positions
        );
        for (from, to) in &pairs {
            client.execute(&sql, &[&stream.as_str(), from, to]).await.map_err(failed)?;
        }
        client.batch_execute("COMMIT").await.map_err(failed)
    };
    let done = within(options.write_timeout, place, "rename a reference", renaming).await;
    // Closing it rolls back what was not committed.
    session.close().await;
    done
}

async fn references(
    client: &Client,
    names: &Names,
    stream: &StreamName,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = format!("SELECT reference FROM {} WHERE stream = $1 FOR UPDATE", names.positions);
    let rows = client.query(&sql, &[&stream.as_str()]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
