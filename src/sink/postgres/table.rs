//! The tables: created if allowed, and looked up with each connection, because they may have been changed
//! in between.
//!
//! Whether they fit is for `fit.rs`.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::claim;
use super::encode::{PgType, names};
use super::error::transient;
use super::rows::Shape;
use crate::sink::SinkError;
use crate::sink::columns::POSITION_COLUMNS;
use crate::types::column::ColumnType;

/// Names of the tables.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Quoted, with the schema.
    pub(super) table: String,
    /// The same for the table of positions.
    pub(super) positions: String,
    pub(super) schema: String,
    pub(super) bare: String,
}

/// A name as it is written in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Names {
    /// In the given schema, or in the first one of the role's `search_path`.
    pub(super) async fn find(
        client: &Client,
        place: &str,
        schema: Option<&str>,
        table: &str,
    ) -> Result<Names, SinkError> {
        let schema = match schema {
            Some(schema) => schema.to_owned(),
            None => {
                let row = client.query_one("SELECT current_schema()::text", &[]).await;
                let first = row.and_then(|row| row.try_get::<_, Option<String>>(0));
                let first = first.map_err(|e| transient("look for the schema", place, &e))?;
                first.ok_or_else(|| {
                    SinkError::transient(format!(
                        "no schema of the role's search_path exists at {place}: set `schema`"
                    ))
                })?
            }
        };
        Ok(Names {
            table: format!("{}.{}", quoted(&schema), quoted(table)),
            positions: format!("{}.{}", quoted(&schema), quoted(claim::TABLE)),
            schema,
            bare: table.to_owned(),
        })
    }
}

/// Whether the table of positions has a column that names the table of each row. It is added, if allowed:
/// an earlier version created the table without it. Otherwise the text behind the owner's name tells it
/// (`claim.rs`).
pub(super) async fn positions_name_tables(
    client: &Client,
    names: &Names,
    create: bool,
) -> Result<bool, Error> {
    if names_tables(client, names).await? {
        return Ok(true);
    }
    let alter = format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS table_name text", names.positions);
    if create {
        match client.batch_execute(&alter).await {
            Ok(()) => return Ok(true),
            // The table belongs to another role.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Whether the table of positions is of this version.
pub(super) async fn names_tables(client: &Client, names: &Names) -> Result<bool, Error> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attname = 'table_name' \
         AND attrelid = to_regclass($1::text) AND NOT attisdropped)";
    client.query_one(SQL, &[&names.positions]).await?.try_get(0)
}

pub(super) async fn exists(client: &Client, name: &str) -> Result<bool, Error> {
    let row = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name]).await?;
    row.try_get(0)
}

/// Adds to an error what was tried on the two tables.
pub(super) fn failed(
    what: &str,
    names: &Names,
    place: &str,
) -> impl Fn(Error) -> SinkError + use<> {
    let tried = format!("{what} {} and {}", names.table, names.positions);
    let place = place.to_owned();
    move |error: Error| transient(&tried, &place, &error)
}

/// Creates missing tables, if allowed.
pub(super) async fn make(
    client: &Client,
    place: &str,
    names: &Names,
    shape: &Shape,
    create: bool,
) -> Result<(), SinkError> {
    let looking = failed("look at the tables", names, place);
    for (name, bare, sql) in [
        (&names.positions, claim::TABLE, claim::create(&names.positions)),
        (&names.table, names.bare.as_str(), create_table(names, shape)),
    ] {
        // Looks first: even "IF NOT EXISTS" needs the right to create.
        if exists(client, name).await.map_err(&looking)? {
            continue;
        }
        if !create {
            return Err(SinkError::transient(format!(
                "there is no table {name} at {place}, and `create` is false. Create it with: {sql}"
            )));
        }
        let created = create_alone(client, (&names.schema, bare), &sql).await;
        if created.map_err(failed("create the tables", names, place))? {
            tracing::info!(table = %name, "table created");
        }
    }
    Ok(())
}

/// Creates a table, under a lock against other sessions of Rillway that create one of the same name: if
/// two do so at once, PostgreSQL lets one fail, "IF NOT EXISTS" or not. `false` if the table exists by
/// then.
async fn create_alone(
    client: &Client,
    (schema, bare): (&str, &str),
    sql: &str,
) -> Result<bool, Error> {
    // Not `to_regclass`, whose cache does not show tables that were created while this session waited.
    const IS_THERE: &str = "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n \
         ON n.oid = relnamespace WHERE nspname = $1::text AND relname = $2::text)";
    client.batch_execute("BEGIN").await?;
    let creating = async {
        // Released at the end of the transaction.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))";
        client.execute(lock, &[&format!("rillway creates {schema}.{bare}")]).await?;
        if client.query_one(IS_THERE, &[&schema, &bare]).await?.try_get(0)? {
            return Ok(false);
        }
        client.batch_execute(sql).await?;
        Ok(true)
    };
    let created = creating.await;
    let end = if created.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await;
    let created = created?;
    ended?;
    Ok(created)
}

pub(super) fn create_table(names: &Names, shape: &Shape) -> String {
    let mut columns: Vec<String> = shape
        .columns()
        .enumerate()
        .map(|(nth, (name, kind))| {
            let always = if nth < POSITION_COLUMNS { " NOT NULL" } else { "" };
            format!("{} {}{always}", quoted(name), created(kind))
        })
        .collect();
    if !shape.key().is_empty() {
        let key: Vec<String> = shape.key().iter().map(|name| quoted(name)).collect();
        columns.push(format!("PRIMARY KEY ({})", key.join(", ")));
        return format!("CREATE TABLE IF NOT EXISTS {} ({})", names.table, columns.join(", "));
    }
    // Rows are appended in the order of time, for which an index of a few pages is enough.
    format!(
        "CREATE TABLE IF NOT EXISTS {table} ({columns}); \
         CREATE INDEX ON {table} USING brin (\"timestamp\", \"offset\")",
        table = names.table,
        columns = columns.join(", ")
    )
}

/// The type of a column that is created here.
pub(super) fn created(kind: ColumnType) -> &'static str {
    names(kind).first().copied().unwrap_or("text")
}

/// A column as the server has it.
pub(super) struct Found {
    pub(super) name: String,
    /// The type as it is written in SQL, with its length or precision.
    pub(super) shown: String,
    pub(super) kind: Option<PgType>,
    /// NOT NULL, without a default or identity.
    pub(super) must_be_given: bool,
    pub(super) generated: bool,
}

pub(super) async fn columns(client: &Client, table: &str) -> Result<Vec<Found>, Error> {
    // A domain counts as the type beneath it.
    const SQL: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), \
         coalesce(b.typname, t.typname)::text, \
         a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', \
         a.attgenerated <> '' OR a.attidentity = 'a' \
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_type b ON b.oid = t.typbasetype \
         WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped";
    let rows = client.query(SQL, &[&table]).await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get(2)?;
            Ok(Found {
                name: row.try_get(0)?,
                shown: row.try_get(1)?,
                kind: PgType::of(&kind),
                must_be_given: row.try_get(3)?,
                generated: row.try_get(4)?,
            })
        })
        .collect()
}

/// The names of the existing table's columns.
pub(super) async fn column_names(client: &Client, table: &str) -> Result<Vec<String>, Error> {
    Ok(columns(client, table).await?.into_iter().map(|column| column.name).collect())
}

/// The statement that inserts one row.
pub(super) fn insert(names: &Names, shape: &Shape) -> String {
    let columns: Vec<String> = shape.columns().map(|(name, _)| quoted(name)).collect();
    let values: Vec<String> = (1..=columns.len()).map(|nth| format!("${nth}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", names.table, columns.join(", "), values.join(", "))
}

/// The statement that copies rows.
pub(super) fn copy(names: &Names, shape: &Shape) -> String {
    let columns: Vec<String> = shape.columns().map(|(name, _)| quoted(name)).collect();
    format!("COPY {} ({}) FROM STDIN (FORMAT binary)", names.table, columns.join(", "))
}
