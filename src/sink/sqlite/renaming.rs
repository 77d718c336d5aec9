//! Gives rows of positions another reference: one transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::database::Database;
use super::error::Tried;
use super::positions;
use crate::sink::SinkError;
use crate::sink::factory::Former;
use crate::types::{Reference, StreamName};

/// Has the rows of the former reference on this stream, and those of its replays, belong to `reference`.
///
/// # Errors
/// If both have rows, or the database cannot be read or written.
pub(super) fn rename(
    path: &Path,
    stream: &StreamName,
    reference: &Reference,
    former: &Former,
) -> Result<(), SinkError> {
    let Some(looking) = Database::look(path)? else { return Ok(()) };
    let renames = |database: &Connection| {
        let all = positions::references(database, stream).tried("read", path)?;
        former.renamed(&all, reference, &path.display().to_string())
    };
    if renames(&looking)?.is_empty() || former.is_trial {
        return Ok(());
    }
    drop(looking);
    let mut database = Database::open(path, false)?;
    let begun = database.connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.tried("begin to write to", path)?;
    for (from, to) in renames(&transaction)? {
        positions::rename(&transaction, stream, (&from, &to)).tried("rename", path)?;
    }
    transaction.commit().tried("rename a reference in", path)
}
