//! What a consumer does with a batch before it writes it, for whoever compares a sink with its stream.

use super::sifting::Sifter;
use super::spec::Spec;
use crate::flow::batch::Batch;
use crate::sink::BadRecord;
use crate::transform::on_large_stack;
use crate::types::Offset;

/// What a consumer makes of a batch before its sink gets it.
pub struct Sieved {
    /// What the sink gets, as the programs made it.
    pub batch: Batch,
    /// Messages that are not wanted.
    pub unwanted: Vec<Offset>,
    /// Messages that cannot be judged: the policy for bad ones applies.
    pub bad: Vec<BadRecord>,
}

impl Spec {
    /// Does with a batch what the consumer does before it writes it, for whoever compares a sink with its
    /// stream.
    ///
    /// # Errors
    /// If the programs cannot run, or what they made is too long.
    pub fn sieve(&self, batch: Batch) -> Result<Sieved, String> {
        let sifter = Sifter { filter: self.filter.clone(), transform: self.transform.clone() };
        let mut sieved = Sieved { batch, unwanted: Vec::new(), bad: Vec::new() };
        if sifter.filter.is_none() && sifter.transform.is_none() {
            return Ok(sieved);
        }
        let has_programs = sifter.transform.is_some();
        let job = move || sieved.by(&sifter).map(|()| sieved);
        if has_programs { on_large_stack(job)? } else { job() }
    }
}

impl Sieved {
    fn by(&mut self, sifter: &Sifter) -> Result<(), String> {
        let mut done = None;
        loop {
            let mut sifted = sifter.sift(&self.batch, done, || false);
            self.unwanted.extend(&sifted.unwanted);
            if let Some(changed) = sifted.apply(&self.batch)? {
                self.batch = changed;
            }
            if !sifted.bad.is_empty() {
                let bad = sifted.bad.iter().map(|bad| bad.offset).collect();
                self.batch = self.batch.clone().without(bad);
                self.bad.append(&mut sifted.bad);
            }
            if sifted.is_complete {
                return Ok(());
            }
            done = sifted.done;
        }
    }
}
