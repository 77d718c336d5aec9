//! The table as it was looked up, and whether it is still the same.
//!
//! A COPY in binary form is correct only while the columns have the types that were looked up: 8 bytes
//! may be a `bigint` or a `double precision`, and the server cannot tell. So each transaction reads the
//! table's [definition](Definition) again, after its COPY. From there to the end of the transaction
//! COPY's own lock (ROW EXCLUSIVE) prevents every change. The query is sent together with the update of
//! the position, so it costs no round trip. If the definition differs, the transaction is rolled back,
//! and the table is looked up again.
//!
//! LOCK TABLE would not do: it needs rights on the whole table even if only columns are granted, locks
//! every partition, and does not take foreign tables.
//!
//! Where rows are replaced by their key, the COPY goes into a table of changes of this session, which has the
//! types that were looked up (`merge.rs`). The merge takes the same lock on the table, and converts values
//! by their types, so that no value is stored as another one in any case. There the definition also has the unique
//! indexes: one that is added is no fault of the messages that it refuses, and the table is refused with its name.
//!
//! The definition is read before the types: so a change in between shows as a difference, too.

use tokio_postgres::{Client, Error, Statement};

use super::encode::PgType;
use super::error::transient;
use super::rows::Shape;
use super::table::{self, Names};
use super::{evolve, fit, merge};
use crate::sink::SinkError;
use crate::types::upsert::Missing;

/// The table of this name as it is now: its identity (with the schema's row, because another schema may
/// get this name), the kind of relation, all of its columns, and, if that is wanted, all indexes that keep
/// values apart. The rules tell whether an INSERT does what a COPY does. NULL if there is no such table.
const DEFINITION: &str = "SELECT concat_ws(' ', c.oid, c.relkind, c.relhasrules, n.oid, n.xmin, (\
       SELECT string_agg(i.indexrelid::text, ' ' ORDER BY i.indexrelid) FROM pg_index i \
       WHERE $2::bool AND i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)), (\
       SELECT string_agg(concat_ws(' ', a.attnum, quote_ident(a.attname), a.atttypid, a.atttypmod, \
         a.attnotnull, a.atthasdef, a.attidentity, a.attgenerated), ', ' ORDER BY a.attnum) \
       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.oid = to_regclass($1::text)";

/// Properties of a table on which the meaning of copied rows depends.
#[derive(Debug)]
pub(super) struct Definition {
    table: String,
    /// Whether the indexes count.
    is_keyed: bool,
    statement: Statement,
    known: Option<String>,
}

impl Definition {
    async fn of(client: &Client, names: &Names, is_keyed: bool) -> Result<Definition, Error> {
        let (table, statement) = (names.table.clone(), client.prepare(DEFINITION).await?);
        let mut definition = Definition { table, is_keyed, statement, known: None };
        definition.known = definition.now(client).await?;
        Ok(definition)
    }

    async fn now(&self, client: &Client) -> Result<Option<String>, Error> {
        let row = client.query_opt(&self.statement, &[&self.table, &self.is_keyed]).await?;
        row.map_or(Ok(None), |row| row.try_get(0))
    }

    /// Whether the table is still the one that was looked up. This is certain for the whole transaction
    /// only after it has copied into the table.
    pub(super) async fn holds(&self, client: &Client) -> Result<bool, Error> {
        let now = self.now(client).await?;
        Ok(now.is_some() && now == self.known)
    }
}

/// A suitable table, and how rows are written into it.
pub(super) struct Target {
    pub(super) names: Names,
    /// Types of the columns, in the order of a row.
    pub(super) types: Vec<PgType>,
    pub(super) definition: Definition,
    /// The statement that copies rows.
    pub(super) copy: Statement,
    /// Text of the statement that inserts a single row.
    pub(super) insert: String,
    /// Whether no rule rewrites that statement, and a row is all that a record does.
    pub(super) inserts_as_copied: bool,
    /// Where rows are replaced by their key: the statements that merge the copied changes.
    pub(super) merge: Option<String>,
}

impl Target {
    /// Looks the table up; creates it if it is missing and `create` allows that, and adds missing columns if
    /// `missing` says so.
    pub(super) async fn find(
        client: &Client,
        place: &str,
        names: Names,
        shape: &Shape,
        (create, missing): (bool, Missing),
    ) -> Result<Target, SinkError> {
        table::make(client, place, &names, shape, create).await?;
        if missing == Missing::Add {
            evolve::add_missing(client, place, &names, shape).await?;
        }
        let failed =
            |error| transient(&format!("look at the table {}", names.table), place, &error);
        let definition =
            Definition::of(client, &names, !shape.key().is_empty()).await.map_err(failed)?;
        let types = fit::fit(client, place, &names, shape, (true, missing)).await?;
        let merge = merge::find(client, &names, shape).await.map_err(failed)?;
        let copy = match &merge {
            Some(merge) => &merge.copy,
            None => &table::copy(&names, shape),
        };
        let copy = client.prepare(copy).await.map_err(failed)?;
        let rules = "SELECT relhasrules FROM pg_class WHERE oid = to_regclass($1::text)";
        let rules = client.query_opt(rules, &[&names.table]).await.map_err(failed)?;
        let has_none = rules.is_some_and(|row| row.try_get::<_, bool>(0).is_ok_and(|has| !has));
        let inserts_as_copied = merge.is_none() && has_none;
        let insert = table::insert(&names, shape);
        let merge = merge.map(|merge| merge.apply);
        Ok(Target { names, types, definition, copy, insert, inserts_as_copied, merge })
    }
}
