//! What happens when the position is lost: the policy decides.

use super::linking::Link;
use super::sinking::Restarting;
use super::{Action, Brain, Caller, Moment, Note, Outcome};
use crate::consumer::resumption::{Anew, Own, is_of_a_former_stream};
use crate::flow::resume::{self, HEARSAY_MAX, Lost, Origin, Start};
use crate::source::Prefer;
use crate::telemetry::RestartReason;
use crate::types::Checkpoint;

impl<W: Caller> Brain<W> {
    /// Handles the loss of the position.
    pub(super) fn on_lost(&mut self, lost: Lost, of: Option<Origin>, now: Moment) {
        self.note(Note::Lost(lost));
        if of == Some(Origin::Beginning) && is_of_a_former_stream(&lost) {
            self.note(Note::ReCreatedUnread(lost));
            return self.begin_anew(Anew::first(&lost), now);
        }
        if lost.is_new_history() {
            // The durable position is of another incarnation than the one that the broker would store it
            // for.
            self.storing.suspend();
        }
        let Some(start) = resume::after_loss(self.spec.on_lost) else {
            if lost.is_new_history() {
                self.storing.give_up();
            }
            let what = self.words_for(&lost);
            return self.end(Outcome::Halted(what), now);
        };
        if !planted!(self, LosesInSilence) {
            self.note(Note::GoingOn { lost, policy: self.spec.on_lost });
        }
        let from = match (&lost, start) {
            // So that later losses by retention are noticed.
            (Lost::Evicted { first, .. }, Start::First) => Some(*first),
            _ => None,
        };
        let lost_at = |offset| Checkpoint { offset, chunk: None };
        let own = self.reading.own.position.map(|(_, checkpoint)| checkpoint);
        let instead_of = own.or(lost.position().map(lost_at));
        let is_new_history = lost.is_new_history();
        self.begin_anew(Anew { start, from, instead_of, is_new_history }, now);
    }

    /// A node that is not the leader says that the position is lost, and the leader is out of reach.
    pub(super) fn on_hearsay(&mut self, lost: Lost, of: Option<Origin>, why: &str, now: Moment) {
        let what = format!("{lost}, says a node that is not the leader, and {why}");
        if !lost.is_proved_by_any_member() {
            self.reading.doubts.interrupted();
            let what = format!(
                "{what}. That node may be behind, so nothing is decided before the leader can be asked"
            );
            return self.try_again(what, RestartReason::Stream, now);
        }
        if self.reading.doubts.hearsay_lasted(now.at, &lost) {
            return self.on_lost(lost, of, now);
        }
        let limit = HEARSAY_MAX.as_secs();
        let what = format!(
            "{what}. If no leader says otherwise within {limit} s, the position is taken for lost"
        );
        self.try_again(what, RestartReason::Stream, now);
    }

    fn words_for(&self, lost: &Lost) -> String {
        let hint = match lost {
            Lost::Forgotten { .. } => {
                format!("; the state file is {}", self.state_file.display())
            }
            Lost::Evicted { .. } | Lost::PastEnd { .. } | Lost::Rewritten { .. } => String::new(),
        };
        format!(
            "the position of reference {:?} on stream {:?} is lost: {lost}{hint}. Set on_offset_lost to \"first\" or \"next\" to continue all the same",
            self.spec.reference.as_str(),
            self.spec.stream.as_str()
        )
    }

    /// Begins anew, once everything in flight is settled.
    pub(super) fn begin_anew(&mut self, anew: Anew, now: Moment) {
        self.cut(now);
        self.reading.doubts.clear();
        self.reading.own =
            Own { position: None, remembered: None, anew: Some(anew), prefer: Prefer::Replica };
        self.restarting =
            if anew.is_new_history { Restarting::Wanted } else { Restarting::Settling };
        if matches!(self.link, Link::Resuming) {
            // The broker waits to be told where to begin.
            self.link = Link::Waiting;
            return;
        }
        self.link = Link::Down { until: now.at };
        self.act(Action::Disconnect);
        self.note(Note::Connecting);
        self.lose_activity(now);
    }
}
