//! COPY of records within a transaction; where rows are replaced by their key, into a table of changes that
//! are then merged.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::future::join;
use tokio_postgres::{Error, Statement};

use super::claim::{Claim, Rows};
use super::encode::{HEADER, TRAILER};
use super::rows::Shape;
use super::session::Session;
use super::target::Target;
use crate::sink::{BAD_RECORDS_MAX, BadRecord};
use crate::wire::block::Record;

/// Bytes that are encoded before they are handed to the connection, where at most two such pieces wait.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// What is needed for a transaction.
pub(super) struct Open<'a> {
    pub(super) session: &'a Session,
    pub(super) shape: &'a Shape,
    pub(super) target: &'a Target,
    /// The statement that sets the position.
    pub(super) advance: &'a Statement,
    pub(super) rows: Rows<'a>,
    pub(super) claim: &'a Claim,
    pub(super) epoch: i64,
}

/// Copies records, except the bad ones, after the statements in `before`. Stops at the last bad record
/// that can be reported. The server reports refused rows only at the end. Afterwards the table's lock is held
/// that prevents a change of its columns.
pub(super) async fn copy<'r>(
    open: &Open<'_>,
    before: &str,
    records: impl Iterator<Item = Record<'r>>,
    bad: &mut Vec<BadRecord>,
) -> Result<(), Error> {
    let client = &open.session.client;
    let begun = client.batch_execute(before);
    let (begun, to) = join(begun, client.copy_in::<_, Bytes>(&open.target.copy)).await;
    begun?;
    let mut to = pin!(to?);
    let mut out = BytesMut::with_capacity(PIECE_BYTES);
    out.extend_from_slice(HEADER);
    let mut row = Vec::new();
    for record in records {
        if let Err(record) = open.shape.append(record, &open.target.types, &mut row, &mut out) {
            bad.push(record);
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        if out.len() >= PIECE_BYTES {
            to.feed(out.split().freeze()).await?;
        }
    }
    out.extend_from_slice(TRAILER);
    to.feed(out.freeze()).await?;
    to.finish().await?;
    match &open.target.merge {
        Some(merge) => client.batch_execute(merge).await,
        None => Ok(()),
    }
}
