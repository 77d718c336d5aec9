//! Whether an existing table takes the rows, and columns that it lacks.
//!
//! On request, missing columns are added within the transaction that opens the sink, so that no other process
//! can write in between; one that writes to the table too looks at it again before its next batch. Nothing is
//! ever dropped or declared anew.

use std::path::Path;

use rusqlite::Connection;

use super::error::Tried;
use super::row::Rows;
use super::table;
use crate::sink::SinkError;
use crate::sink::columns::POSITION_COLUMNS;
use crate::types::column::ColumnType;

/// Checks that the table takes the rows; the error says why not, and what to do.
pub(super) fn fits(
    database: &Connection,
    path: &Path,
    name: &str,
    rows: &Rows,
) -> Result<Result<(), String>, SinkError> {
    if !table::exists(database, name).tried("read", path)? {
        return Ok(Err(format!(
            "{} has no table {name:?}. Create it: {};",
            path.display(),
            table::create_statement(name, rows.names_and_types(), rows.key())
        )));
    }
    let mut wrong = table::misfits(database, name, rows.names_and_types()).tried("read", path)?;
    if wrong.is_empty() && !rows.key().is_empty() {
        wrong.extend(table::key_problem(database, name, rows.key()).tried("read", path)?);
    }
    if wrong.is_empty() {
        return Ok(Ok(()));
    }
    if let Some(how) = remedy(database, name, rows).tried("read", path)? {
        wrong.push(how);
    }
    Ok(Err(unfit(path, name, &wrong)))
}

/// The text of an error about a table that does not take the rows, for these reasons.
pub(super) fn unfit(path: &Path, name: &str, wrong: &[String]) -> String {
    format!(
        "the table {name:?} in {} does not fit: {}. Change it, or set another `table`.",
        path.display(),
        wrong.join("; ")
    )
}

/// Adds the configured columns that the table lacks.
pub(super) fn add_missing(
    database: &Connection,
    path: &Path,
    table: &str,
    rows: &Rows,
) -> Result<(), SinkError> {
    if !table::exists(database, table).tried("read", path)? {
        return Ok(());
    }
    for (name, kind) in addable(database, table, rows).tried("read", path)? {
        let sql = table::add_statement(database, table, name, kind).tried("read", path)?;
        database.execute_batch(&sql).tried(&format!("add the column {name:?} in"), path)?;
        tracing::info!(database = %path.display(), table, column = name, "column added");
    }
    Ok(())
}

/// Checks that the table takes the rows once these columns are added.
pub(super) fn would_fit(
    database: &Connection,
    path: &Path,
    table: &str,
    rows: &Rows,
) -> Result<(), SinkError> {
    let missing = addable(database, table, rows).tried("read", path)?;
    let present = rows.names_and_types().filter(|column| !missing.contains(column));
    let mut wrong = table::misfits(database, table, present).tried("read", path)?;
    if wrong.is_empty() && !rows.key().is_empty() {
        wrong.extend(table::key_problem(database, table, rows.key()).tried("read", path)?);
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(SinkError::Fatal(unfit(path, table, &wrong))),
    }
}

/// What adds all that the table lacks; `None` if that is nothing, or not to be added.
pub(super) fn remedy(
    database: &Connection,
    table: &str,
    rows: &Rows,
) -> rusqlite::Result<Option<String>> {
    let addable = addable(database, table, rows)?;
    let statements = addable
        .iter()
        .map(|(name, kind)| table::add_statement(database, table, name, *kind))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((!statements.is_empty()).then(|| {
        format!(
            "to have missing columns added at the start, set evolve = \"add\", or add them yourself: {};",
            statements.join("; ")
        )
    }))
}

/// The configured columns that the table lacks. The first three and those of the key are not among them:
/// without these, it is another table.
fn addable<'r>(
    database: &Connection,
    table: &str,
    rows: &'r Rows,
) -> rusqlite::Result<Vec<(&'r str, ColumnType)>> {
    let views = "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE \
         AND type = 'view'";
    if database.query_row(views, [table], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(Vec::new());
    }
    let columns = rows.names_and_types().skip(POSITION_COLUMNS);
    let addable = columns.filter(|(name, _)| !rows.key().iter().any(|of_key| of_key == name));
    table::missing(database, table, addable)
}
