//! Reads the rows of a table back, for `rillway verify`.
//!
//! Everything is read in read-only transactions, one for each window of offsets, and the role needs the
//! right to SELECT alone. The index that comes with the table finds a window without an index on `offset`.
//!
//! Rows are compared in the binary form of COPY, in which the sink sends them. A server may store a value
//! otherwise: `jsonb` sorts the keys, `numeric(12,2)` rounds, `char(9)` is padded. Where the bytes differ,
//! the server is asked what it makes of the expected value.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use futures_util::TryStreamExt;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Row};

use super::claim::Rows;
use super::encode::PgType;
use super::error::transient;
use super::options::PostgresOptions;
use super::rows::Shape;
use super::session::{Door, Session, within};
use super::table::{self, Names, quoted};
use crate::flow::batch::Batch;
use crate::sink::audit::{
    AuditError, Auditor, Difference, Entry, Found, Judge, Maker, Order, Pair, Sides, Span, Stop,
    Turner, shown, times, turning,
};
use crate::sink::columns::Value;
use crate::sink::{BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Offsets of a window.
const WINDOW: u64 = 1 << 16;

/// Shortest time limit for a window: a table whose index is not up to date is read as a whole.
const WINDOW_TIME_MIN: Duration = Duration::from_secs(600);

/// Reads what a sink with these options has committed.
pub(super) struct PostgresAuditor {
    pub(super) options: PostgresOptions,
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
}

/// A column of the table.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: PgType,
    /// The type as it is written in SQL, with its length or precision.
    written: String,
}

/// A read-only session, and the names of the tables.
struct Reader {
    session: Session,
    place: String,
    names: Names,
}

impl PostgresAuditor {
    async fn reader(&self) -> Result<Reader, SinkError> {
        let door = self.options.door(&self.reference)?;
        let session = read_only(&door, &self.options).await?;
        let PostgresOptions { schema, table, write_timeout, .. } = &self.options;
        let finding = Names::find(&session.client, &door.place, schema.as_deref(), table);
        let names = within(*write_timeout, &door.place, "look at the tables", finding).await?;
        Ok(Reader { session, place: door.place, names })
    }

    fn shape(&self) -> Shape {
        Shape::new(&self.stream, self.options.columns.clone(), None)
    }
}

async fn read_only(door: &Door, options: &PostgresOptions) -> Result<Session, SinkError> {
    let session = door.open().await?;
    let failed = |error| transient("set up a session", &door.place, &error);
    let limit = options.write_timeout.max(WINDOW_TIME_MIN);
    session.set_up(options.lock_timeout, limit).await.map_err(failed)?;
    let sql = "SET default_transaction_read_only = on";
    session.client.batch_execute(sql).await.map_err(failed)?;
    Ok(session)
}

impl Reader {
    fn failed(&self) -> impl Fn(Error) -> SinkError + use<> {
        let (tried, place) = (format!("read {}", self.names.table), self.place.clone());
        move |error| transient(&tried, &place, &error)
    }

    /// The columns that the sink writes, as the table has them.
    async fn columns(&self, shape: &Shape) -> Result<Vec<Column>, AuditError> {
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

#[async_trait]
impl Auditor for PostgresAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let reader = self.reader().await?;
        let (client, names) = (&reader.session.client, &reader.names);
        let rows = Rows {
            client,
            table: &names.positions,
            stream: self.stream.as_str(),
            reference: self.reference.as_str(),
            into: &names.bare,
        };
        if !table::exists(client, &names.positions).await.map_err(reader.failed())? {
            return Ok(None);
        }
        let found = rows.look().await.map_err(reader.failed())?;
        reader.session.close().await;
        Ok(found)
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        let reader = self.reader().await?;
        let table = &reader.names.table;
        let sql = format!("SELECT min(\"offset\")::int8 FROM {table} WHERE stream = $1::text");
        let stream = self.stream.as_str();
        let row = reader.session.client.query_one(&sql, &[&stream]).await;
        let first =
            row.and_then(|row| row.try_get::<_, Option<i64>>(0)).map_err(reader.failed())?;
        reader.session.close().await;
        Ok(first.map(|first| Offset(first.cast_unsigned())))
    }

    async fn open(&self, span: Span) -> Result<Sides, AuditError> {
        let reader = self.reader().await?;
        let shape = self.shape();
        let columns: Arc<[Column]> = reader.columns(&shape).await?.into();
        let names: Vec<String> =
            columns.iter().map(|column| format!("t.{}", quoted(&column.name))).collect();
        let select = format!(
            "SELECT {}, t.\"offset\"::int8 FROM {} AS t WHERE t.stream = $1::text \
             AND t.\"offset\" >= $2::int8 AND t.\"offset\" <= $3::int8 ORDER BY t.\"offset\"",
            names.join(", "),
            reader.names.table
        );
        let reading = Reading { reader, stream: self.stream.clone(), select, width: columns.len() };
        let maker = RowMaker { types: columns.iter().map(|column| column.kind).collect(), shape };
        let judge = RowJudge {
            door: self.options.door(&self.reference)?,
            options: self.options.clone(),
            columns,
            session: None,
        };
        let kept = turning(move |mut to| async move {
            let read = reading.run(span, &mut to).await;
            (to, read)
        });
        let times = times(self.options.columns.as_deref());
        Ok(Sides {
            kept,
            maker: Box::new(maker),
            judge: Box::new(judge),
            order: Order::ByOffset,
            times,
            notes: Vec::new(),
        })
    }
}

/// The rows of the table.
struct Reading {
    reader: Reader,
    stream: StreamName,
    select: String,
    width: usize,
}

impl Reading {
    async fn run(self, span: Span, to: &mut Turner) -> Result<(), Stop> {
        let failed = self.reader.failed();
        let client = &self.reader.session.client;
        let statement = client.prepare(&self.select).await.map_err(&failed)?;
        let mut from = span.from.0;
        loop {
            let last = from.saturating_add(WINDOW - 1).min(span.to.0);
            let (stream, first, end) =
                (self.stream.as_str(), from.cast_signed(), last.cast_signed());
            let values: [&(dyn ToSql + Sync); 3] = [&stream, &first, &end];
            let rows = client.query_raw(&statement, values).await.map_err(&failed)?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                let entry = entry(&row, self.width).map_err(&failed)?;
                to.push_async(Found::Record(entry)).await?;
            }
            if last >= span.to.0 {
                break;
            }
            from = last + 1;
        }
        self.reader.session.close().await;
        Ok(())
    }
}

/// A value in the server's binary form.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw<'a>, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The row in the form in which two are compared: each field after its length, as in a COPY.
fn entry(row: &Row, width: usize) -> Result<Entry, Error> {
    let mut content = Vec::with_capacity(128);
    for nth in 0..width {
        match row.try_get::<_, Option<Raw<'_>>>(nth)? {
            None => content.put_i32(-1),
            Some(Raw(value)) => {
                content.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                content.extend_from_slice(value);
            }
        }
    }
    let offset = row.try_get::<_, i64>(width)?;
    Ok(Entry { offset: Offset(offset.cast_unsigned()), content })
}

/// The fields of a row; `None` for NULL.
fn fields(mut content: &[u8]) -> Vec<Option<&[u8]>> {
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

/// Makes rows as they are sent to the server.
struct RowMaker {
    shape: Shape,
    types: Vec<PgType>,
}

impl Maker for RowMaker {
    fn make(
        &mut self,
        batch: &Batch,
        into: &mut Vec<Entry>,
        refused: &mut Vec<BadRecord>,
    ) -> Result<(), SinkError> {
        let mut out = BytesMut::new();
        let mut row: Vec<Value<'_>> = Vec::new();
        for record in batch.records() {
            out.clear();
            match self.shape.append(record, &self.types, &mut row, &mut out) {
                // The number of fields comes first.
                Ok(()) => into.push(Entry {
                    offset: record.offset,
                    content: out.get(2..).unwrap_or_default().to_vec(),
                }),
                Err(bad) => refused.push(bad),
            }
        }
        Ok(())
    }
}

/// Names the columns that differ, after it has asked the server.
struct RowJudge {
    door: Door,
    options: PostgresOptions,
    columns: Arc<[Column]>,
    /// Opened when it is first needed.
    session: Option<Session>,
}

#[async_trait]
impl Judge for RowJudge {
    async fn judge(&mut self, pairs: &[Pair]) -> Result<Vec<Vec<Difference>>, SinkError> {
        let mut all: Vec<Vec<Difference>> = pairs.iter().map(|_| Vec::new()).collect();
        let rows: Vec<_> =
            pairs.iter().map(|pair| (fields(&pair.expected), fields(&pair.found))).collect();
        for nth in 0..self.columns.len() {
            let mut doubtful = Vec::new();
            for (at, (expected, found)) in rows.iter().enumerate() {
                let both =
                    (expected.get(nth).copied().flatten(), found.get(nth).copied().flatten());
                if both.0 != both.1 {
                    doubtful.push((at, both));
                }
            }
            let stored = self.stored(nth, &doubtful).await?;
            let Some(column) = self.columns.get(nth) else { continue };
            for ((at, (expected, found)), stored) in doubtful.iter().zip(stored) {
                if stored.as_deref() == *found && stored.is_some() {
                    continue;
                }
                if let Some(differences) = all.get_mut(*at) {
                    differences.push(Difference {
                        part: column.name.clone(),
                        expected: text(column.kind, *expected),
                        found: text(column.kind, *found),
                    });
                }
            }
        }
        Ok(all)
    }
}

/// A pair's number, and the two values of a column.
type Doubtful<'a> = (usize, (Option<&'a [u8]>, Option<&'a [u8]>));

impl RowJudge {
    /// What the server makes of the expected values of a column; `None` if it does not take one.
    async fn stored(
        &mut self,
        nth: usize,
        doubtful: &[Doubtful<'_>],
    ) -> Result<Vec<Option<Vec<u8>>>, SinkError> {
        let none = doubtful.iter().map(|_| None).collect();
        let Some(column) = self.columns.get(nth) else { return Ok(none) };
        if doubtful.is_empty() || column.kind == PgType::Bytea {
            return Ok(none);
        }
        if self.session.is_none() {
            self.session = Some(read_only(&self.door, &self.options).await?);
        }
        let Some(session) = &self.session else { return Ok(none) };
        let expected = RawArray(doubtful.iter().map(|(_, (expected, _))| *expected).collect());
        match stored(&session.client, &column.written, &expected).await {
            Ok(stored) if stored.len() == doubtful.len() => Ok(stored),
            Ok(_) => Ok(none),
            // It is a value that the server does not take.
            Err(error) if error.as_db_error().is_some() => Ok(none),
            Err(error) => Err(transient("compare values", &self.door.place, &error)),
        }
    }
}

async fn stored(
    client: &Client,
    written: &str,
    expected: &RawArray<'_>,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let sql =
        format!("SELECT u.x FROM unnest($1::{written}[]) WITH ORDINALITY AS u(x, n) ORDER BY u.n");
    let rows = client.query(&sql, &[expected]).await?;
    rows.iter()
        .map(|row| Ok(row.try_get::<_, Option<Raw<'_>>>(0)?.map(|Raw(value)| value.to_vec())))
        .collect()
}

/// An array of values in the server's binary form.
#[derive(Debug)]
struct RawArray<'a>(Vec<Option<&'a [u8]>>);

impl ToSql for RawArray<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let Kind::Array(element) = kind.kind() else { return Err("not an array".into()) };
        out.put_i32(1); // Dimensions.
        out.put_i32(i32::from(self.0.contains(&None)));
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1); // Number of the first element.
        for value in &self.0 {
            match value {
                None => out.put_i32(-1),
                Some(value) => {
                    out.put_i32(i32::try_from(value.len())?);
                    out.put_slice(value);
                }
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value for people.
fn text(kind: PgType, value: Option<&[u8]>) -> String {
    let Some(value) = value else { return "NULL".to_owned() };
    let whole = |bytes: &[u8]| {
        let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { -1_i64 } else { 0 };
        bytes.iter().fold(fill, |sum, byte| sum << 8 | i64::from(*byte))
    };
    match kind {
        PgType::Int2 | PgType::Int4 | PgType::Int8 => whole(value).to_string(),
        PgType::Bool => (value == [1]).to_string(),
        PgType::Float8 => {
            value.first_chunk().map_or_else(String::new, |b| f64::from_be_bytes(*b).to_string())
        }
        PgType::Float4 => {
            value.first_chunk().map_or_else(String::new, |b| f32::from_be_bytes(*b).to_string())
        }
        // Behind the version of its binary form.
        PgType::Jsonb => shown(value.get(1..).unwrap_or_default()),
        PgType::Timestamp => format!("{} µs since 2000", whole(value)),
        PgType::Bytea => format!("bytes {}", shown(value)),
        PgType::Text | PgType::Json | PgType::Uuid | PgType::Numeric => shown(value),
    }
}
