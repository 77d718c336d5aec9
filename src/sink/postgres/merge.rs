//! Rows that are replaced by their key: a table of changes, and the statement that merges it.
//!
//! The changes of a batch are copied into a temporary table of the session, whose columns have the names and
//! types of the table's (with a last one that marks deletes), and no constraints: a delete has only its key.
//! One statement then deletes and upserts, the last change of each key. The server itself decides which keys
//! are equal, with the type and collation of the column. Rows come to lie in the order of the key, so two
//! sessions that write to one table take their locks in the same order.
//!
//! A row keeps the stream and the offset of its message, and no earlier message of the same stream replaces
//! or deletes it. That matters only if messages are written again, by a replay or from a position that was
//! moved back: otherwise the position in the same transaction prevents it. When the stream was re-created, or
//! the consumer begins anew, its rows get the offset -1, which every message may replace.
//!
//! The temporary table is emptied at the end of each transaction, and by the merge itself, because a search
//! for bad records merges several times in one.

use tokio_postgres::{Client, Error};

use super::rows::Shape;
use super::table::{Names, quoted};

/// The temporary table's name.
const CHANGES: &str = "pg_temp.rillway_changes";

/// How changes are copied and merged.
pub(super) struct Merge {
    /// The statement that copies them into the temporary table.
    pub(super) copy: String,
    /// The statements that merge them, and empty the temporary table.
    pub(super) apply: String,
}

/// Makes the temporary table, for the table's columns as they are now. `None` if each record is a row of its
/// own.
pub(super) async fn find(
    client: &Client,
    names: &Names,
    shape: &Shape,
) -> Result<Option<Merge>, Error> {
    if shape.key().is_empty() {
        return Ok(None);
    }
    let columns: Vec<String> = shape.columns().map(|(name, _)| quoted(name)).collect();
    let deletes = quoted(&unused(shape));
    let (list, table) = (columns.join(", "), &names.table);
    let create = format!(
        "DROP TABLE IF EXISTS {CHANGES}; CREATE TEMPORARY TABLE {CHANGES} ON COMMIT DELETE ROWS \
         AS SELECT {list}, false AS {deletes} FROM {table} WITH NO DATA"
    );
    client.batch_execute(&create).await?;
    let copy = format!("COPY {CHANGES} ({list}, {deletes}) FROM STDIN (FORMAT binary)");
    Ok(Some(Merge { copy, apply: apply(table, &columns, &deletes, shape.key()) }))
}

fn apply(table: &str, columns: &[String], deletes: &str, key: &[String]) -> String {
    let list = columns.join(", ");
    let key: Vec<String> = key.iter().map(|name| quoted(name)).collect();
    let same: Vec<String> = key.iter().map(|name| format!("present.{name} = c.{name}")).collect();
    let sets: Vec<String> = columns
        .iter()
        .filter(|name| !key.contains(name))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let (key, same, sets) = (key.join(", "), same.join(" AND "), sets.join(", "));
    let not_later = |of: &str| {
        format!(
            "present.stream IS DISTINCT FROM {of}.stream OR present.\"offset\" <= {of}.\"offset\""
        )
    };
    format!(
        "WITH c AS (SELECT DISTINCT ON ({key}) * FROM {CHANGES} ORDER BY {key}, \"offset\" DESC), \
         gone AS (DELETE FROM {table} AS present USING c WHERE c.{deletes} AND {same} AND ({})) \
         INSERT INTO {table} AS present ({list}) SELECT {list} FROM c WHERE NOT c.{deletes} \
         ON CONFLICT ({key}) DO UPDATE SET {sets} WHERE {}; \
         DELETE FROM {CHANGES}",
        not_later("c"),
        not_later("excluded")
    )
}

/// A name that no column has.
fn unused(shape: &Shape) -> String {
    let mut name = "rillway_deletes".to_owned();
    while shape.columns().any(|(column, _)| column == name) {
        name.push('_');
    }
    name
}

/// The statement after which any message of the stream may replace its rows: its offsets begin again.
pub(super) fn forget(names: &Names) -> String {
    format!(
        "UPDATE {} SET \"offset\" = -1 WHERE stream = $1::text AND \"offset\" <> -1",
        names.table
    )
}

/// Why rows of the table cannot be replaced by this key, with the remedy; `None` if they can: then exactly
/// these columns have a unique index.
pub(super) async fn key_problem(
    client: &Client,
    names: &Names,
    shape: &Shape,
) -> Result<Option<String>, Error> {
    let key = shape.key();
    // An index of a part of the rows or of an expression is no help to ON CONFLICT. It has to compare as the
    // column does. A deferrable constraint is refused even beside a good index.
    const SQL: &str = "WITH over_key AS (SELECT i.indexrelid, i.indimmediate FROM pg_index AS i \
         WHERE i.indrelid = to_regclass($1::text) AND i.indisunique AND i.indisvalid \
         AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = cardinality($2::text[]) \
         AND NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS n \
           JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n] \
           WHERE a.attname::text <> ALL ($2::text[]) OR i.indcollation[n] <> a.attcollation)) \
         SELECT EXISTS (SELECT FROM over_key WHERE indimmediate), \
         (SELECT min(quote_ident(conname)) FROM pg_constraint \
          WHERE conindid IN (SELECT indexrelid FROM over_key WHERE NOT indimmediate))";
    let row = client.query_one(SQL, &[&names.table, &key]).await?;
    let (has_index, deferrable): (bool, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let table = &names.table;
    let columns: Vec<String> = key.iter().map(|name| quoted(name)).collect();
    let create = format!("CREATE UNIQUE INDEX ON {table} ({})", columns.join(", "));
    Ok(match (deferrable, has_index) {
        (Some(name), has_index) => Some(format!(
            "the unique constraint {name} over the key is deferrable, and then no row can be replaced: ALTER \
             TABLE {table} DROP CONSTRAINT {name}{}",
            if has_index { String::new() } else { format!("; {create}") }
        )),
        (None, false) => {
            Some(format!("the key has no unique index of exactly its columns: {create}"))
        }
        (None, true) => other_index(client, names, shape).await?.map(|name| {
            format!(
                "the index {name} keeps other columns that Rillway writes unique. The last changes of several keys are \
                 merged at once, in no order that it would allow: DROP INDEX {name} (or the constraint of that name), or \
                 leave these columns out"
            )
        }),
    })
}

/// A unique index, or one of an exclusion constraint, that two rows with different keys can violate by columns
/// that are written here.
async fn other_index(
    client: &Client,
    names: &Names,
    shape: &Shape,
) -> Result<Option<String>, Error> {
    const SQL: &str = "SELECT min(quote_ident(c.relname)) FROM pg_index AS i \
         JOIN pg_class AS c ON c.oid = i.indexrelid \
         CROSS JOIN LATERAL (SELECT array_agg(a.attname::text) AS names FROM pg_attribute AS a \
           WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) AS covered \
         WHERE i.indrelid = to_regclass($1::text) AND (i.indisunique OR i.indisexclusion) \
         AND NOT coalesce(covered.names @> $2::text[], false) \
         AND (i.indexprs IS NOT NULL OR coalesce(covered.names && $3::text[], false))";
    let written: Vec<&str> = shape.columns().map(|(name, _)| name).collect();
    let row = client.query_one(SQL, &[&names.table, &shape.key(), &written]).await?;
    row.try_get(0)
}
