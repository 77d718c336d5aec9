//! The publishing window: messages that are not confirmed yet, and errors of the broker.
//!
//! The reader removes confirmed messages and never waits; the publisher waits for room.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::error::BrokerError;
use crate::sync::lock;
use crate::types::StreamName;
use crate::wire::commands::ResponseCode;

/// The publishing window that the reader and the publisher share.
pub(super) struct Window {
    stream: StreamName,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    /// In order of their ids: unconfirmed messages, and confirmed ones after an unconfirmed one.
    pub(super) sent: VecDeque<Sent>,
    pub(super) unconfirmed: usize,
    pub(super) bytes: usize,
    /// Number of confirmations so far, to notice progress.
    pub(super) confirmed: u64,
    pub(super) ended: Option<BrokerError>,
}

pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) bytes: usize,
    pub(super) confirmed: bool,
}

impl Window {
    pub(super) fn new(stream: &StreamName) -> Window {
        Window { stream: stream.clone(), state: Mutex::default(), changed: Notify::new() }
    }

    pub(super) fn stream(&self) -> &StreamName {
        &self.stream
    }

    pub(super) fn confirm(&self, ids: &[u64]) {
        let mut state = lock(&self.state);
        for id in ids {
            let Ok(at) = state.sent.binary_search_by_key(id, |sent| sent.id) else { continue };
            let Some(sent) = state.sent.get_mut(at) else { continue };
            if !std::mem::replace(&mut sent.confirmed, true) {
                let bytes = sent.bytes;
                state.unconfirmed -= 1;
                state.bytes -= bytes;
                state.confirmed += 1;
            }
        }
        while state.sent.front().is_some_and(|sent| sent.confirmed) {
            state.sent.pop_front();
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn refuse(&self, errors: &[(u64, ResponseCode)]) {
        let Some((id, code)) = errors.first() else { return };
        self.end(BrokerError::NotPublished {
            stream: self.stream.clone(),
            messages: errors.len(),
            id: *id,
            code: *code,
        });
    }

    pub(super) fn end(&self, reason: BrokerError) {
        lock(&self.state).ended.get_or_insert(reason);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window::new(&StreamName::from("s"))
    }

    fn sent(window: &Window, ids: impl IntoIterator<Item = u64>) {
        let mut state = lock(&window.state);
        for id in ids {
            state.sent.push_back(Sent { id, bytes: 10, confirmed: false });
            state.unconfirmed += 1;
            state.bytes += 10;
        }
    }

    fn left(window: &Window) -> (usize, usize, usize) {
        let state = lock(&window.state);
        (state.unconfirmed, state.bytes, state.sent.len())
    }

    #[test]
    fn confirmations_strike_off_in_any_order_and_once() {
        let window = window();
        sent(&window, [1, 5, 6, u64::MAX]);
        window.confirm(&[5, 5, 7, u64::MAX]);
        assert_eq!(left(&window), (2, 20, 4), "what was never sent, or twice, counts for nothing");
        window.confirm(&[1]);
        assert_eq!(left(&window), (1, 10, 2));
        window.confirm(&[6]);
        assert_eq!(left(&window), (0, 0, 0));
    }

    #[test]
    fn the_first_reason_to_end_stays() {
        let window = window();
        sent(&window, [1, 2]);
        window.refuse(&[(2, ResponseCode::PublisherDoesNotExist)]);
        window.end(BrokerError::Closed);
        let ended = lock(&window.state).ended.clone();
        assert!(matches!(ended, Some(BrokerError::NotPublished { id: 2, .. })), "{ended:?}");
    }
}
