//! Reads the rows of a table back, for `rillway verify`.
//!
//! Everything is read in read-only transactions, one for each window of offsets, and the role needs the
//! right to SELECT alone. The index that comes with the table finds a window without an index on `offset`.
//!
//! Rows are compared in the binary form of COPY, in which the sink sends them. A server may store a value
//! otherwise: `jsonb` sorts the keys, `numeric(12,2)` rounds, `char(9)` is padded. Where the bytes differ,
//! the server is asked what it makes of the expected value.
//!
//! Where rows are replaced by their key, all of them are read in one transaction, in which the position is read
//! too: what they should be is known for one moment only ([`latest`](super::latest)).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::claim::Rows;
use super::encode::PgType;
use super::error::transient;
use super::latest::{self, RowKeys};
use super::options::PostgresOptions;
use super::raw::{Raw, RawArray};
use super::reading::{Column, Reader, entry, fields, read_only};
use super::rows::Shape;
use super::session::{Door, Session, within};
use super::table::{self, Names, quoted};
use crate::flow::batch::Batch;
use crate::sink::audit::{
    AuditError, Auditor, Contents, Difference, Entry, Found, Judge, Maker, Order, Pair,
    SHARED_TABLE, Sides, Span, Stop, Turner, shown, times, turning,
};
use crate::sink::columns::Value;
use crate::sink::{BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Offsets of a window.
const WINDOW: u64 = 1 << 16;

/// Reads what a sink with these options has committed.
pub(super) struct PostgresAuditor {
    pub(super) options: PostgresOptions,
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
}

impl PostgresAuditor {
    /// The position, as the session sees it.
    async fn position_in(&self, reader: &Reader) -> Result<Option<Checkpoint>, SinkError> {
        let (client, names) = (&reader.session.client, &reader.names);
        if !table::exists(client, &names.positions).await.map_err(reader.failed())? {
            return Ok(None);
        }
        let rows = Rows {
            client,
            table: &names.positions,
            stream: self.stream.as_str(),
            reference: self.reference.as_str(),
            into: &names.bare,
        };
        rows.look().await.map_err(reader.failed())
    }

    async fn reader(&self) -> Result<Reader, SinkError> {
        let door = self.options.door(&self.reference)?;
        let session = read_only(&door, &self.options).await?;
        let PostgresOptions { schema, table, write_timeout, .. } = &self.options;
        let finding = Names::find(&session.client, &door.place, schema.as_deref(), table);
        let names = within(*write_timeout, &door.place, "look at the tables", finding).await?;
        Ok(Reader { session, place: door.place, names })
    }

    fn shape(&self) -> Shape {
        let PostgresOptions { columns, upsert, .. } = &self.options;
        Shape::new(&self.stream, columns.clone(), upsert.as_ref())
    }
}

#[async_trait]
impl Auditor for PostgresAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let reader = self.reader().await?;
        let found = self.position_in(&reader).await?;
        reader.session.close().await;
        Ok(found)
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        let reader = self.reader().await?;
        let table = &reader.names.table;
        let sql = format!(
            "SELECT min(\"offset\")::int8 FROM {table} WHERE stream = $1::text AND \"offset\" >= 0"
        );
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
        let within = match self.options.upsert {
            None => "AND t.\"offset\" >= $2::int8 AND t.\"offset\" <= $3::int8",
            Some(_) => "",
        };
        let select = format!(
            "SELECT {}, t.\"offset\"::int8 FROM {} AS t WHERE t.stream = $1::text {within} ORDER BY t.\"offset\"",
            names.join(", "),
            reader.names.table
        );
        let mut notes = Vec::new();
        let mut order = Order::ByOffset;
        if !shape.key().is_empty() {
            let keys = RowKeys::of(&reader, &columns, shape.key()).await?;
            if latest::has_other_streams(&reader, &self.stream, shape.key()).await? {
                notes.push(SHARED_TABLE.to_owned());
            }
            latest::begin(&reader).await?;
            let position = self.position_in(&reader).await?.ok_or_else(|| {
                SinkError::transient(format!(
                    "{} at {} has lost the position",
                    reader.names.positions, reader.place
                ))
            })?;
            order = Order::Latest { keys: Box::new(keys), upto: position.offset };
        }
        let is_latest = !shape.key().is_empty();
        let reading = Reading { reader, stream: self.stream.clone(), select, width: columns.len() };
        let types = columns.iter().map(|column| column.kind).collect();
        let maker = RowMaker { shape, types, contents: Contents::default() };
        let judge = RowJudge {
            door: self.options.door(&self.reference)?,
            options: self.options.clone(),
            columns,
            session: None,
        };
        let kept = turning(move |mut to| async move {
            let read = match is_latest {
                true => reading.latest(&mut to).await,
                false => reading.run(span, &mut to).await,
            };
            (to, read)
        });
        let times = times(self.options.columns.as_deref());
        Ok(Sides { kept, maker: Box::new(maker), judge: Box::new(judge), order, times, notes })
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
        let mut contents = Contents::default();
        let mut from = span.from.0;
        loop {
            let last = from.saturating_add(WINDOW - 1).min(span.to.0);
            let (stream, first, end) =
                (self.stream.as_str(), from.cast_signed(), last.cast_signed());
            let values: [&(dyn ToSql + Sync); 3] = [&stream, &first, &end];
            let rows = client.query_raw(&statement, values).await.map_err(&failed)?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                let entry = entry(&row, self.width, &mut contents, |_| {}).map_err(&failed)?;
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

    /// All rows of the stream, in the open transaction. A cursor, because one long statement would run into the
    /// time limit while the other side is waited for.
    async fn latest(self, to: &mut Turner) -> Result<(), Stop> {
        let failed = self.reader.failed();
        let client = &self.reader.session.client;
        let declare = format!("DECLARE rillway_verify NO SCROLL CURSOR FOR {}", self.select);
        client.execute(&declare, &[&self.stream.as_str()]).await.map_err(&failed)?;
        let mut contents = Contents::default();
        let fetch = client.prepare("FETCH 2000 FROM rillway_verify").await.map_err(&failed)?;
        loop {
            let none: [&(dyn ToSql + Sync); 0] = [];
            let rows = client.query_raw(&fetch, none).await.map_err(&failed)?;
            let mut rows = std::pin::pin!(rows);
            let mut is_over = true;
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                is_over = false;
                let entry = entry(&row, self.width, &mut contents, latest::mark_present)
                    .map_err(&failed)?;
                to.push_async(Found::Record(entry)).await?;
            }
            if is_over {
                break;
            }
        }
        client.batch_execute("COMMIT").await.map_err(&failed)?;
        self.reader.session.close().await;
        Ok(())
    }
}

/// Makes rows as they are sent to the server.
struct RowMaker {
    shape: Shape,
    types: Vec<PgType>,
    contents: Contents,
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
                    content: self.contents.copy(out.get(2..).unwrap_or_default()),
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
