//! The error for two references that write one stream into one table.

use super::claim::{Other, Rows};
use super::table::Names;
use crate::sink::SinkError;

/// Another reference writes the same stream into the same table, or may do so.
pub(super) fn shared(rows: &Rows<'_>, names: &Names, place: &str, other: &Other) -> SinkError {
    let Rows { stream, reference, .. } = rows;
    let Other { reference: former, offset, same_table } = other;
    let upto = offset.as_ref().map_or("no offset yet".to_owned(), |at| format!("offset {at}"));
    let (table, positions) = (&names.table, &names.positions);
    let row = format!("stream = '{stream}' AND reference = '{former}'");
    if *same_table {
        return SinkError::Fatal(format!(
            "the table {table} at {place} already takes the stream {stream:?}, under the reference \
             {former:?} (up to {upto}): under {reference:?} every message would be in it twice. Was \
             this consumer renamed? Then set reference = {former:?}, and it continues where that one \
             ended. Are these two consumers? Give this one a `table` of its own. Were the rows of \
             {former:?} deleted? Then DELETE FROM {positions} WHERE {row}"
        ));
    }
    SinkError::transient(format!(
        "the reference {former:?} has written the stream {stream:?} (up to {upto}) into a table at \
         {place}, and {positions}, which an older version created, does not say into which table. If it \
         was {table}, then under {reference:?} every message would be in it twice: set reference = \
         {former:?}. If it was another table, this error ends once the other consumer has been started \
         with this version, or with: ALTER TABLE {positions} ADD COLUMN IF NOT EXISTS table_name text; UPDATE \
         {positions} SET table_name = 'THE OTHER TABLE' WHERE {row}"
    ))
}
