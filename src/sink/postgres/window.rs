//! Rows that are tried one by one, all in one round trip.
//!
//! How the server continues after a refused row without waiting for us: after each INSERT a savepoint of
//! the same name is set, and then the transaction goes back to the savepoint of that name. If the INSERT
//! was accepted, that is the new one, and the row stays. If it was refused, the transaction sets no new
//! savepoint, and goes back to the one before the row.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{MaybeDone, join3, maybe_done};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Statement};

use super::copy::{Open, PIECE_BYTES};
use super::error::is_about_records;
use crate::types::Offset;
use crate::wire::block::Record;

/// Tries these records, or as many of them as fill a piece, after the statements in `before`. The last of
/// those sets a savepoint or goes back to one. Returns how many were tried, and which of them were
/// refused and why. The others stay, after that savepoint.
pub(super) async fn try_rows<'r>(
    open: &Open<'_>,
    before: &str,
    insert: &Statement,
    records: impl Iterator<Item = Record<'r>>,
) -> Result<(usize, Vec<(Offset, Error)>), Error> {
    let client = &open.session.client;
    let mut begun = Box::pin(maybe_done(client.batch_execute(before)));
    send(begun.as_mut()).await;
    let mut first = Box::pin(maybe_done(client.batch_execute("SAVEPOINT row")));
    send(first.as_mut()).await;
    let (mut out, mut row, mut bytes) = (BytesMut::new(), Vec::new(), 0);
    let (mut sent, mut tried) = (Vec::new(), 0);
    for record in records {
        tried += 1;
        let offset = record.offset;
        // Records that cannot be encoded were left out before.
        if open.shape.append(record, &open.target.types, &mut row, &mut out).is_ok() {
            bytes += out.len();
            let mut asked = Box::pin(maybe_done(one(client, insert, fields(out.split().freeze()))));
            send(asked.as_mut()).await;
            sent.push((offset, asked));
        }
        if bytes >= PIECE_BYTES {
            break;
        }
    }
    answer(begun).await?;
    answer(first).await?;
    let mut refused = Vec::new();
    for (offset, asked) in sent {
        if let Some(error) = answer(asked).await? {
            refused.push((offset, error));
        }
    }
    Ok((tried, refused))
}

/// Inserts one row. `Some`: its content was refused.
async fn one(
    client: &Client,
    insert: &Statement,
    fields: Vec<Field>,
) -> Result<Option<Error>, Error> {
    let (inserted, saved, back) = join3(
        client.execute_raw(insert, fields),
        client.batch_execute("SAVEPOINT row"),
        client.batch_execute("ROLLBACK TO SAVEPOINT row"),
    )
    .await;
    match inserted {
        Ok(_) => {
            saved?;
            back?;
            Ok(None)
        }
        Err(error) if is_about_records(&error) => back.map(|()| Some(error)),
        Err(error) => Err(error),
    }
}

/// Sends a request without waiting for the answer: it is sent when its future is first polled.
async fn send<F: Future>(mut asked: Pin<&mut MaybeDone<F>>) {
    poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_ready())).await;
}

/// Waits for the answer to a sent request.
async fn answer<T: Default, F: Future<Output = Result<T, Error>>>(
    mut asked: Pin<Box<MaybeDone<F>>>,
) -> Result<T, Error> {
    asked.as_mut().await;
    asked.as_mut().take_output().unwrap_or_else(|| Ok(T::default()))
}

/// A field of a row, in the binary form that the server takes; `None`: NULL.
#[derive(Debug)]
struct Field(Option<Bytes>);

/// The fields of a row as in a COPY: their number, and each after its length.
fn fields(mut row: Bytes) -> Vec<Field> {
    row.advance(2);
    let mut fields = Vec::new();
    while row.len() >= 4 {
        let length = usize::try_from(row.get_i32()).ok();
        fields.push(Field(length.map(|length| row.split_to(length))));
    }
    fields
}

impl ToSql for Field {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    /// The types are those that were looked up, in the same transaction.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
