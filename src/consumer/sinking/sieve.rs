//! The consumer's own filter at work on a batch.
//!
//! Messages whose value cannot be read are bad ones, and go where `on_bad_message` says. Dead letters have
//! to be written in the stream's order, and the sink may find bad messages of its own before them. So with
//! dead letters, what stands before such a message is written first.

use std::sync::Arc;

use metrics::Counter;

use crate::consumer::filter::{Filter, Sifted};
use crate::consumer::joined::Members;
use crate::consumer::spec::OnBad;
use crate::flow::batch::Batch;
use crate::sink::BadRecord;

/// The filter, and the counter of what it leaves out.
pub(in crate::consumer) struct Sieve {
    pub(in crate::consumer) filter: Arc<Filter>,
    pub(in crate::consumer) left_out: Counter,
}

/// What to do with a batch next.
pub(super) enum Next {
    /// Write all of it.
    Write,
    /// Write this part of it, which ends right before a bad message.
    WriteBefore(Batch),
    /// Do as the policy says with these bad messages.
    Poison(Vec<BadRecord>),
}

/// How far a batch was looked through.
#[derive(Default)]
pub(super) struct Sieving {
    /// Bad messages that are still in the batch, in order.
    bad: Vec<BadRecord>,
    is_complete: bool,
}

impl Sieving {
    /// Leaves out what is not wanted, and says what to do next.
    pub(super) fn next(
        &mut self,
        sieve: Option<&Sieve>,
        batch: &mut Arc<Batch>,
        members: &mut Members,
        on_bad: OnBad,
    ) -> Next {
        let Some(sieve) = sieve else { return Next::Write };
        if self.bad.is_empty() && !self.is_complete {
            let Sifted { unwanted, bad, is_complete } = sieve.filter.sift(batch);
            (self.bad, self.is_complete) = (bad, is_complete);
            sieve.left_out.increment(unwanted.len() as u64);
            members.leave_out(unwanted.iter().copied());
            if !unwanted.is_empty() {
                *batch = Arc::new(Batch::clone(batch).without(unwanted));
            }
        }
        let Some(first) = self.bad.first() else { return Next::Write };
        if on_bad != OnBad::DeadLetter {
            return Next::Poison(std::mem::take(&mut self.bad));
        }
        if let Some(before) = batch.before(first.offset).filter(|before| before.messages() > 0) {
            return Next::WriteBefore(before);
        }
        // Those before the first good one.
        let mut good = batch.records().map(|record| record.offset);
        let run = self.bad.iter().take_while(|bad| good.next() == Some(bad.offset)).count();
        Next::Poison(self.bad.drain(..run.max(1)).collect())
    }
}
