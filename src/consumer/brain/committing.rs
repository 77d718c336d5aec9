//! Storing the offset on the broker, and answering the callers of forced commits.

use super::storing::{ReadBack, StoreEnd};
use super::{Action, Brain, Caller, Moment, Note};
use crate::source::SourceError;
use crate::types::Offset;

impl<W: Caller> Brain<W> {
    /// Stores the durable offset, if that is due and possible.
    pub(super) fn start_storing(&mut self, now: Moment) {
        self.storing.forget_waiters();
        let (done, stored) = self.storing.answerable();
        for caller in done {
            self.act(Action::Answer(caller, Ok(stored)));
        }
        if let Some(checkpoint) = self.storing.next_store(now.at, self.link.can_store()) {
            self.act(Action::Store(checkpoint));
        }
    }

    pub(super) fn on_stored(&mut self, stored: Result<Option<Offset>, SourceError>, now: Moment) {
        let read_back = match &stored {
            Ok(held) => ReadBack::Held(*held),
            Err(_) => ReadBack::Failed,
        };
        match self.storing.stored(read_back, now.at) {
            StoreEnd::Outdated => {}
            end => self.note(Note::Store(end, stored.err())),
        }
    }
}
