//! The table as it was looked up, and whether it still is.
//!
//! A COPY in binary form means what it should only while the columns are of the types that were
//! looked up: 8 bytes are a `bigint` and a `double precision`, and the server cannot tell. So each
//! transaction asks for the table's [definition](Definition) once more, behind its COPY. From there
//! to the end of the transaction COPY's own lock (ROW EXCLUSIVE) keeps everybody from changing it.
//! The question goes out together with the update of the position, so it costs no round trip. Where
//! the answer is another, the transaction is rolled back, and the table looked up again.
//!
//! Not by LOCK TABLE: that needs rights on the whole table where columns would do, locks every
//! partition, and takes no foreign tables.
//!
//! The definition is read before the types are: a change in between makes a difference, too.

use tokio_postgres::{Client, Error, Statement};

use super::encode::PgType;
use super::error::transient;
use super::rows::Shape;
use super::table::{self, Names};
use crate::sink::SinkError;

/// The table with this name as it is now: which one it is (also by the schema's row, which another
/// schema of that name has not), what kind of relation, and all of its columns. The rules tell
/// whether an INSERT does what a COPY does. NULL where there is none.
const DEFINITION: &str = "SELECT concat_ws(' ', c.oid, c.relkind, c.relhasrules, n.oid, n.xmin, (\
       SELECT string_agg(concat_ws(' ', a.attnum, quote_ident(a.attname), a.atttypid, a.atttypmod, \
         a.attnotnull, a.atthasdef, a.attidentity, a.attgenerated), ', ' ORDER BY a.attnum) \
       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.oid = to_regclass($1::text)";

/// What a table is, as far as the rows that are copied into it depend on that.
#[derive(Debug)]
pub(super) struct Definition {
    table: String,
    statement: Statement,
    known: Option<String>,
}

impl Definition {
    async fn of(client: &Client, names: &Names) -> Result<Definition, Error> {
        let statement = client.prepare(DEFINITION).await?;
        let mut definition = Definition { table: names.table.clone(), statement, known: None };
        definition.known = definition.now(client).await?;
        Ok(definition)
    }

    async fn now(&self, client: &Client) -> Result<Option<String>, Error> {
        let row = client.query_opt(&self.statement, &[&self.table]).await?;
        row.map_or(Ok(None), |row| row.try_get(0))
    }

    /// Whether the table is what was looked up. Says so for the whole transaction only once that has
    /// copied into it.
    pub(super) async fn holds(&self, client: &Client) -> Result<bool, Error> {
        let now = self.now(client).await?;
        Ok(now.is_some() && now == self.known)
    }
}

/// A table that fits, and how rows are written into it.
pub(super) struct Target {
    pub(super) names: Names,
    /// Of the columns, in the order of a row.
    pub(super) types: Vec<PgType>,
    pub(super) definition: Definition,
    /// The statement that takes rows.
    pub(super) copy: Statement,
    /// The text of the one that takes a single row.
    pub(super) insert: String,
    /// Whether that one is not rewritten by a rule.
    pub(super) inserts_as_copied: bool,
}

impl Target {
    /// Looks the table up, and makes it where it is missing and `create` allows that.
    pub(super) async fn find(
        client: &Client,
        place: &str,
        names: Names,
        shape: &Shape,
        create: bool,
    ) -> Result<Target, SinkError> {
        table::make(client, place, &names, shape, create).await?;
        let failed =
            |error| transient(&format!("look at the table {}", names.table), place, &error);
        let definition = Definition::of(client, &names).await.map_err(failed)?;
        let types = table::fit(client, place, &names, shape, true).await?;
        let copy = client.prepare(&table::copy(&names, shape)).await.map_err(failed)?;
        let rules = "SELECT relhasrules FROM pg_class WHERE oid = to_regclass($1::text)";
        let rules = client.query_opt(rules, &[&names.table]).await.map_err(failed)?;
        let inserts_as_copied =
            rules.is_some_and(|row| row.try_get::<_, bool>(0).is_ok_and(|has| !has));
        let insert = table::insert(&names, shape);
        Ok(Target { names, types, definition, copy, insert, inserts_as_copied })
    }
}
