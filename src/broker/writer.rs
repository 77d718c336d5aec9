//! The task that writes one connection's socket: requests, credit, and heartbeats when idle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::dial::WriteHalf;
use super::error::BrokerError;
use super::shared::Shared;
use crate::wire::commands;

/// Longest time of one write if no heartbeat was agreed.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// Frames up to this size are copied together; larger ones are written directly.
const TOGETHER_BYTES_MAX: usize = 4096;

/// Time limit for the last frames.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Writes until the connection has ended, and stops by itself soon after that. Dropping a
/// connection must not abort the answer to the broker's Close.
pub(super) async fn run(socket: WriteHalf, outgoing: mpsc::Receiver<Bytes>, shared: Arc<Shared>) {
    let mut ended = shared.ended.subscribe();
    let overdue = async {
        drop(ended.wait_for(Option::is_some).await);
        tokio::time::sleep(GOODBYE_LIMIT * 2).await;
    };
    tokio::select! {
        written = write_all(socket, outgoing, &shared) => match written {
            Ok(()) => {}
            // Frames that the peer sent before it closed are still to be read, and say more.
            Err(_) if !shared.heard.load(Ordering::Relaxed) => {}
            Err(BrokerError::Lost(what)) => shared.end(shared.broken(what)),
            Err(reason) => shared.end(reason),
        },
        () = overdue => {}
    }
}

async fn write_all(
    mut socket: WriteHalf,
    mut outgoing: mpsc::Receiver<Bytes>,
    shared: &Shared,
) -> Result<(), BrokerError> {
    let mut heartbeat = shared.heartbeat.subscribe();
    let mut ended = shared.ended.subscribe();
    loop {
        let period_s = *heartbeat.borrow_and_update();
        let write_limit =
            if period_s == 0 { WRITE_LIMIT } else { Duration::from_secs(u64::from(period_s) * 2) };
        let idle = async {
            match period_s {
                0 => std::future::pending().await,
                s => tokio::time::sleep(Duration::from_millis(u64::from(s) * 500)).await,
            }
        };
        tokio::select! {
            biased;
            () = shared.replies.ready() => {
                let replies = shared.replies.take();
                send(&mut socket, &replies, write_limit).await?;
            }
            frame = outgoing.recv() => {
                let Some(frame) = frame else { return Ok(()) };
                let frame = with_others(frame, &mut outgoing);
                send(&mut socket, &frame, write_limit).await?;
            }
            () = shared.credit.ready() => {
                for (subscription, mut owed) in shared.credit.take() {
                    while owed > 0 {
                        let credits = u16::try_from(owed).unwrap_or(u16::MAX);
                        owed -= u32::from(credits);
                        let frame = commands::credit(subscription, credits);
                        send(&mut socket, &frame, write_limit).await?;
                    }
                }
            }
            () = idle => send(&mut socket, &commands::heartbeat(), write_limit).await?,
            changed = heartbeat.changed() => if changed.is_err() { return Ok(()) },
            () = async { drop(ended.wait_for(Option::is_some).await) } => {
                // The last frames (a CloseResponse) are sent, if the peer still reads.
                while let Ok(frame) = outgoing.try_recv() {
                    send(&mut socket, &frame, GOODBYE_LIMIT).await?;
                }
                let bye = tokio::time::timeout(GOODBYE_LIMIT, socket.shutdown());
                return match bye.await {
                    Ok(Err(error)) => Err(BrokerError::Lost(error.to_string().into())),
                    Ok(Ok(())) | Err(_) => Ok(()),
                };
            }
        }
    }
}

/// The frame together with small ones that wait after it: one system call for all.
fn with_others(frame: Bytes, outgoing: &mut mpsc::Receiver<Bytes>) -> Bytes {
    if frame.len() > TOGETHER_BYTES_MAX || outgoing.is_empty() {
        return frame;
    }
    let mut together = BytesMut::from(frame);
    while together.len() <= TOGETHER_BYTES_MAX
        && let Ok(next) = outgoing.try_recv()
    {
        together.extend_from_slice(&next);
    }
    together.freeze()
}

async fn send(
    socket: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
    limit: Duration,
) -> Result<(), BrokerError> {
    match tokio::time::timeout(limit, socket.write_all(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(BrokerError::Lost(error.to_string().into())),
        Err(_) => Err(BrokerError::Lost("the broker does not read from the connection".into())),
    }
}
