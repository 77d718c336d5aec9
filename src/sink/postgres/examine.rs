//! `rillway check --connect`: the sink's position, and whether it could write. Takes nothing over and
//! changes nothing: everything is asked in a read-only transaction.

use tokio_postgres::{Client, Error};

use super::claim::Rows;
use super::error::transient;
use super::fit;
use super::options::PostgresOptions;
use super::rows::Shape;
use super::session::within;
use super::sharing::shared;
use super::table::{self, Names};
use crate::sink::SinkError;
use crate::types::{Checkpoint, Reference, StreamName};

/// The position that a sink with these options has committed.
///
/// # Errors
/// If the server cannot be reached or does not answer; or if such a sink could not write, with everything
/// that is wrong with the tables and with the role's rights.
pub async fn examine(
    options: &PostgresOptions,
    stream: &StreamName,
    reference: &Reference,
) -> Result<Option<Checkpoint>, SinkError> {
    let door = options.door(reference)?;
    let session = door.open().await?;
    let place = &door.place;
    let shape = Shape::new(stream, options.columns.clone(), options.upsert.as_ref());
    let looking = async {
        let failed = |error| transient("look at the tables", place, &error);
        let client = &session.client;
        session.set_up(options.lock_timeout, options.write_timeout).await.map_err(failed)?;
        client.batch_execute("BEGIN READ ONLY").await.map_err(failed)?;
        let (schema, table) = (options.schema.as_deref(), options.table.as_str());
        let names = Names::find(client, place, schema, table).await?;
        let there = places(client, &names).await.map_err(failed)?;
        there.check(options, place, &names, &shape)?;
        if there.table {
            let expected = (there.positions, options.missing);
            fit::fit(client, place, &names, &shape, expected).await?;
        }
        if !there.positions {
            return Ok(None);
        }
        let rows = Rows {
            client,
            table: &names.positions,
            stream: stream.as_str(),
            reference: reference.as_str(),
            into: &names.bare,
        };
        if let Some(other) = rows.other(there.positions_name_tables).await.map_err(failed)? {
            return Err(shared(&rows, &names, place, &other));
        }
        rows.look().await.map_err(failed)
    };
    let found = within(options.write_timeout, place, "look at the tables", looking).await;
    session.close().await;
    found
}

/// Which tables exist, and whether the role may create the others.
struct Places {
    role: String,
    is_standby: bool,
    schema: bool,
    /// Whether the role may use the schema.
    usage: bool,
    /// Whether the role may create tables in the schema, or the schema itself.
    create: bool,
    table: bool,
    positions: bool,
    positions_name_tables: bool,
}

async fn places(client: &Client, names: &Names) -> Result<Places, Error> {
    const SQL: &str = "SELECT current_user::text, pg_is_in_recovery(), \
         n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'), false), \
         coalesce(has_schema_privilege(n.oid, 'CREATE'), false) \
         FROM (SELECT to_regnamespace($1::text)::oid AS oid) AS n";
    let row = client.query_one(SQL, &[&table::quoted(&names.schema)]).await?;
    let mut places = Places {
        role: row.try_get(0)?,
        is_standby: row.try_get(1)?,
        schema: row.try_get(2)?,
        usage: row.try_get(3)?,
        create: row.try_get(4)?,
        table: false,
        positions: false,
        positions_name_tables: false,
    };
    if places.usage {
        places.table = table::exists(client, &names.table).await?;
        places.positions = table::exists(client, &names.positions).await?;
        places.positions_name_tables = table::names_tables(client, names).await?;
    }
    Ok(places)
}

impl Places {
    fn check(
        &self,
        options: &PostgresOptions,
        place: &str,
        names: &Names,
        shape: &Shape,
    ) -> Result<(), SinkError> {
        let (schema, role) = (table::quoted(&names.schema), table::quoted(&self.role));
        if self.is_standby {
            return Err(SinkError::transient(format!(
                "{place} is a standby, which takes no writes: name the primary in `url`, or all \
                 servers and target_session_attrs=read-write"
            )));
        }
        if !self.schema {
            return Err(SinkError::transient(format!(
                "there is no schema {schema} at {place}. Create it with: CREATE SCHEMA {schema} \
                 AUTHORIZATION {role}"
            )));
        }
        if !self.usage {
            return Err(SinkError::transient(format!(
                "the role may not use the schema {schema} at {place}: GRANT USAGE ON SCHEMA {schema} \
                 TO {role}"
            )));
        }
        let missing = [
            (self.positions, &names.positions, super::claim::create(&names.positions)),
            (self.table, &names.table, table::create_table(names, shape)),
        ];
        for (_, name, sql) in missing.iter().filter(|(there, ..)| !there) {
            if !options.create {
                return Err(SinkError::transient(format!(
                    "there is no table {name} at {place}, and `create` is false. Create it with: {sql}"
                )));
            }
            if !self.create {
                return Err(SinkError::transient(format!(
                    "there is no table {name} at {place}, and the role may not make one: GRANT CREATE \
                     ON SCHEMA {schema} TO {role}"
                )));
            }
        }
        Ok(())
    }
}
