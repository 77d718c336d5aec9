//! Columns that an existing table lacks: what adds them.
//!
//! They are added by one statement before anything is written. A session that writes to the table meanwhile
//! notices at its next transaction that the table is another one, and looks it up again (`target.rs`).
//! Nothing is ever dropped or retyped.

use tokio_postgres::{Client, Error};

use super::error::transient;
use super::rows::Shape;
use super::table::{self, Names, quoted};
use crate::sink::SinkError;
use crate::sink::columns::POSITION_COLUMNS;

/// Adds the configured columns that the table lacks.
pub(super) async fn add_missing(
    client: &Client,
    place: &str,
    names: &Names,
    shape: &Shape,
) -> Result<(), SinkError> {
    let failed = |error| transient(&format!("look at the table {}", names.table), place, &error);
    let missing = missing(client, names, shape).await.map_err(failed)?;
    if missing.is_empty() {
        return Ok(());
    }
    let sql = statement(names, &missing);
    // Another session may add them at the same time.
    match client.batch_execute(&adding(names, &missing, "IF NOT EXISTS ")).await {
        Ok(()) => {
            tracing::info!(table = %names.table, %sql, "columns added");
            Ok(())
        }
        Err(error) => {
            let tried = format!("add columns (only the table's owner may; let it run: {sql})");
            Err(transient(&tried, place, &error))
        }
    }
}

/// The configured columns that the table lacks, as they are added. The first three and those of the key are
/// not among them: without these, it is another table.
pub(super) async fn missing(
    client: &Client,
    names: &Names,
    shape: &Shape,
) -> Result<Vec<String>, Error> {
    let found = table::column_names(client, &names.table).await?;
    let columns = shape.columns().skip(POSITION_COLUMNS);
    let missing = columns
        .filter(|(name, _)| !found.iter().any(|found| found == name))
        .filter(|(name, _)| !shape.key().iter().any(|of_key| of_key == name));
    Ok(missing.map(|(name, kind)| format!("{} {}", quoted(name), table::created(kind))).collect())
}

/// The statement that adds these columns.
pub(super) fn statement(names: &Names, missing: &[String]) -> String {
    adding(names, missing, "")
}

fn adding(names: &Names, missing: &[String], how: &str) -> String {
    let all: Vec<String> =
        missing.iter().map(|column| format!("ADD COLUMN {how}{column}")).collect();
    format!("ALTER TABLE {} {}", names.table, all.join(", "))
}

/// Whether the role may add columns to the table.
pub(super) async fn may(client: &Client, names: &Names) -> Result<bool, Error> {
    const SQL: &str = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class \
                       WHERE oid = to_regclass($1::text)";
    let row = client.query_opt(SQL, &[&names.table]).await?;
    row.map_or(Ok(false), |row| row.try_get(0))
}
