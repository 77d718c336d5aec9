//! Answers to the broker's own requests, on their way to the writer.
//!
//! They are not queued behind requests, for which a writer waits that many streams may share: the broker
//! ends the whole connection where an answer is missing, and with it all of these streams. An answer is
//! small, and the broker asks again only after an answer, so a limit is no restriction.

use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::sync::lock;

/// Most bytes of answers that wait: a few for each of the 256 subscriptions. With more of them the broker
/// does not read from the connection.
const WAITING_BYTES_MAX: usize = 128 * 1024;

/// Answers that wait for the writer.
#[derive(Default)]
pub(super) struct Replies {
    frames: Mutex<BytesMut>,
    wake: Notify,
}

/// Too many answers wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RepliesExceeded;

impl Replies {
    /// Adds an answer. Never waits.
    pub(super) fn add(&self, frame: &[u8]) -> Result<(), RepliesExceeded> {
        let mut frames = lock(&self.frames);
        if frames.len() + frame.len() > WAITING_BYTES_MAX {
            return Err(RepliesExceeded);
        }
        frames.extend_from_slice(frame);
        drop(frames);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits until there may be some. Cancel-safe.
    pub(super) async fn ready(&self) {
        self.wake.notified().await;
    }

    /// All that wait, in order.
    pub(super) fn take(&self) -> Bytes {
        std::mem::take(&mut *lock(&self.frames)).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_their_order_and_have_a_limit() {
        let replies = Replies::default();
        replies.add(b"one").unwrap();
        replies.add(b"two").unwrap();
        assert_eq!(&replies.take()[..], b"onetwo");
        assert!(replies.take().is_empty());
        let large = vec![0; WAITING_BYTES_MAX];
        replies.add(&large).unwrap();
        assert_eq!(replies.add(b"x"), Err(RepliesExceeded));
        assert_eq!(replies.take().len(), WAITING_BYTES_MAX);
        replies.add(b"x").unwrap();
    }
}
