//! Whether a filter selects anything of a stream from an offset on.
//!
//! The broker says nothing of the chunks that a filter leaves out, so silence alone proves nothing: the
//! broker may still be reading. Its order of work does. A connection's process
//! (`rabbit_stream_reader`) takes one request at a time, and for a new subscription it sends what there
//! is, as far as the credit goes, before it takes the next request. So what a subscription of one credit
//! was not sent before the next answer, the filter did not select, up to the last chunk that was
//! committed by then.
//!
//! Nothing of this is taken on trust:
//! - the last chunk comes from an unfiltered subscription of the same connection, so the stream's member
//!   on this node had committed it, and the broker does send before it answers;
//! - that subscription is ended last. The broker confirms its end only if the member was there all the
//!   time: another one could have committed less.

use tokio::sync::oneshot::error::TryRecvError;

use super::connection::Connection;
use super::error::BrokerError;
use super::subscription::Probing;
use crate::flow::resume::Start;
use crate::types::{Offset, StreamName};
use crate::wire::chunk::ProbedChunk;
use crate::wire::error::WireError;

/// Probes that run at the same time.
const PROBES: u32 = 2;

/// The stream's last chunk, if the filter of these properties selects no chunk from `from` on, up to and
/// including that one. `None` if it selects one, or if that cannot be told.
///
/// It is for the caller to find out, afterwards, whether retention has taken anything from `from` on.
///
/// # Errors
/// As any request. Cancel-safe.
pub async fn nothing_selected(
    connection: &Connection,
    stream: &StreamName,
    from: Offset,
    filter: &[(String, String)],
) -> Result<Option<ProbedChunk>, BrokerError> {
    let probes = &connection.shared().probes;
    let _permits = probes.acquire_many(PROBES).await.map_err(|_| BrokerError::Closed)?;
    let mut last = connection.begin_probe(stream, Start::Last, Vec::new()).await?;
    let at = Start::Offset(from);
    let mut selected = connection.begin_probe(stream, at, filter.to_vec()).await?;
    // The answer to the second subscription has come: the chunk of the first was sent before it.
    let last_chunk = arrived(&mut last, stream)?;
    let about = |error| connection.about(stream, error);
    connection.end_probe(&mut selected).await.map_err(about)?;
    let is_selected = arrived(&mut selected, stream)?.is_some();
    connection.end_probe(&mut last).await.map_err(about)?;
    Ok(match last_chunk {
        Some(Ok(chunk)) if chunk.sound && !is_selected => Some(chunk),
        _ => None,
    })
}

/// What has arrived for a probe.
fn arrived(
    probing: &mut Probing,
    stream: &StreamName,
) -> Result<Option<Result<ProbedChunk, WireError>>, BrokerError> {
    match probing.probed.try_recv() {
        Ok(probed) => Ok(Some(probed)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Closed) => Err(BrokerError::StreamUnavailable {
            stream: stream.clone(),
            detail: "its member on this node went away".into(),
        }),
    }
}
