//! A session that only reads, the columns of the table, and rows as they are compared, for `rillway verify`.

use std::time::Duration;

use bytes::BufMut;
use tokio_postgres::{Error, Row};

use super::encode::PgType;
use super::error::transient;
use super::options::PostgresOptions;
use super::raw::Raw;
use super::rows::Shape;
use super::session::{Door, Session};
use super::table::{self, Names};
use crate::sink::SinkError;
use crate::sink::audit::{AuditError, Contents, Entry};
use crate::types::Offset;

/// Shortest time limit for a window: a table whose index is not up to date is read as a whole.
const WINDOW_TIME_MIN: Duration = Duration::from_secs(600);

/// A column of the table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: PgType,
    /// The type as it is written in SQL, with its length or precision.
    pub(super) written: String,
}

/// A read-only session, and the names of the tables.
pub(super) struct Reader {
    pub(super) session: Session,
    pub(super) place: String,
    pub(super) names: Names,
}

/// A session that can only read.
pub(super) async fn read_only(
    door: &Door,
    options: &PostgresOptions,
) -> Result<Session, SinkError> {
    let session = door.open().await?;
    let failed = |error| transient("set up a session", &door.place, &error);
    let limit = options.write_timeout.max(WINDOW_TIME_MIN);
    session.set_up(options.lock_timeout, limit).await.map_err(failed)?;
    let sql = "SET default_transaction_read_only = on";
    session.client.batch_execute(sql).await.map_err(failed)?;
    Ok(session)
}

impl Reader {
    pub(super) fn failed(&self) -> impl Fn(Error) -> SinkError + use<> {
        let (tried, place) = (format!("read {}", self.names.table), self.place.clone());
        move |error| transient(&tried, &place, &error)
    }

    /// The columns that the sink writes, as the table has them.
    pub(super) async fn columns(&self, shape: &Shape) -> Result<Vec<Column>, AuditError> {
        let found = table::columns(&self.session.client, &self.names.table).await;
        let found = found.map_err(self.failed())?;
        let fit = |(name, kind): (&str, _)| {
            let column = found.iter().find(|column| column.name == name);
            let kind = column?.kind.filter(|found| found.takes(kind))?;
            let written = column?.shown.clone();
            Some(Column { name: name.to_owned(), kind, written })
        };
        let mut columns = Vec::new();
        for (name, kind) in shape.columns() {
            columns.push(fit((name, kind)).ok_or_else(|| {
                AuditError::Cannot(format!(
                    "the table {} at {} has no column {name:?} for values of this kind: its rows are not those \
                     of this configuration",
                    self.names.table, self.place
                ))
            })?);
        }
        Ok(columns)
    }
}

/// The row in the form in which two are compared: each field after its length, as in a COPY, and what `end` adds.
pub(super) fn entry(
    row: &Row,
    width: usize,
    contents: &mut Contents,
    end: impl FnOnce(&mut Vec<u8>),
) -> Result<Entry, Error> {
    let content = contents.begin();
    for nth in 0..width {
        match row.try_get::<_, Option<Raw<'_>>>(nth)? {
            None => content.put_i32(-1),
            Some(Raw(value)) => {
                content.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                content.extend_from_slice(value);
            }
        }
    }
    end(content);
    let offset = row.try_get::<_, i64>(width)?;
    Ok(Entry { offset: Offset(offset.cast_unsigned()), content: contents.end() })
}

/// The fields of a row; `None` for NULL.
pub(super) fn fields(mut content: &[u8]) -> Vec<Option<&[u8]>> {
    let mut fields = Vec::new();
    while let Some((length, rest)) = content.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => {
                fields.push(None);
                content = rest;
            }
            Ok(length) => {
                let Some((value, rest)) = rest.split_at_checked(length) else { break };
                fields.push(Some(value));
                content = rest;
            }
        }
    }
    fields
}
