//! What a consumer does with a batch before it writes it, for whoever compares a sink with its stream.

use super::filter::Sifted;
use super::spec::Spec;
use crate::flow::batch::Batch;
use crate::sink::BadRecord;
use crate::types::Offset;

/// What a consumer makes of a batch before its sink gets it.
pub struct Sieved {
    /// What the sink gets.
    pub batch: Batch,
    /// Messages that are not wanted.
    pub unwanted: Vec<Offset>,
    /// Messages that cannot be judged: the policy for bad ones applies.
    pub bad: Vec<BadRecord>,
}

impl Spec {
    /// Does with a batch what the consumer does before it writes it, for whoever compares a sink with its
    /// stream.
    pub fn sieve(&self, batch: Batch) -> Sieved {
        let mut sieved = Sieved { batch, unwanted: Vec::new(), bad: Vec::new() };
        let Some(filter) = &self.filter else { return sieved };
        loop {
            let Sifted { mut unwanted, mut bad, is_complete } = filter.sift(&sieved.batch);
            let left_out = unwanted.iter().copied().chain(bad.iter().map(|bad| bad.offset));
            sieved.batch = sieved.batch.without(left_out.collect());
            sieved.unwanted.append(&mut unwanted);
            sieved.bad.append(&mut bad);
            if is_complete {
                return sieved;
            }
        }
    }
}
