//! A consumer that begins anew, or whose stream was re-created: its position is forgotten, and, where rows are
//! replaced by their key, the offsets of its rows, in one transaction.

use tokio_postgres::{Error, Statement};

use super::claim::{Claim, NotMoved, Rows};
use super::merge;
use super::rows::Shape;
use super::table::Names;
use crate::types::Checkpoint;

/// Forgets the position `from`, and whatever depends on it. `Some`: nothing was done, because the position is
/// not this owner's, or another one.
pub(super) async fn forget(
    (rows, names, shape): (&Rows<'_>, &Names, &Shape),
    advance: &Statement,
    owned: (&Claim, i64),
    from: Option<Checkpoint>,
) -> Result<Option<NotMoved>, Error> {
    if shape.key().is_empty() {
        // A single statement is a transaction of its own.
        return match rows.advance(advance, owned, from, None).await? {
            true => Ok(None),
            false => rows.why_not_moved(owned).await.map(Some),
        };
    }
    rows.client.batch_execute("BEGIN").await?;
    if !rows.advance(advance, owned, from, None).await? {
        let why = rows.why_not_moved(owned).await?;
        rows.client.batch_execute("ROLLBACK").await?;
        return Ok(Some(why));
    }
    rows.client.execute(&merge::forget(names), &[&rows.stream]).await?;
    rows.client.batch_execute("COMMIT").await?;
    Ok(None)
}
