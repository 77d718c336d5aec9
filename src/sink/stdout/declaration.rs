//! Declaration of the `stdout` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::{StdoutOptions, StdoutSettings, StdoutSink};
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, JSON_GROWTH_MAX, Opening, Readable, ReplayPlace, Use,
    bad_records_up_to_the_limit,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks_nowhere, opens};
use crate::sink::format::Format;
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

impl Declaration for StdoutSettings {
    fn about() -> &'static About {
        &About {
            kind: "stdout",
            guarantee: Guarantee::AtLeastOnce,
            least: "",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
    }

    fn validate_together(_: &[Use<'_, Self>], _: Option<&BrokerConfig>, _: &mut Vec<Problem>) {}

    fn place(&self) -> Option<PathBuf> {
        None
    }

    fn rows(&self) -> Option<String> {
        None
    }

    fn exclusive(&self) -> Option<Exclusive> {
        None
    }

    fn overhead_bytes(&self) -> u64 {
        2 << 20
    }

    fn growth_max(&self) -> u64 {
        JSON_GROWTH_MAX
    }

    fn bad_records_max(&self, batch_messages: u64) -> u64 {
        bad_records_up_to_the_limit(batch_messages)
    }

    fn start(&self) -> Start {
        Start::First
    }

    fn replay_place(&self) -> ReplayPlace {
        ReplayPlace::Printed
    }

    fn turn_to_replay(&mut self, _: &str) {}

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        Vec::new()
    }

    fn fill(&mut self, _: &Names) {}

    fn readable(&self) -> Option<Readable> {
        None
    }

    fn read_again(&self) -> &'static str {
        "are printed again"
    }

    fn audit(&self, _: &Opening) -> Auditing {
        Auditing::Not(
            "what was written to standard output cannot be read back: verify where it went to, or give the stream another consumer with a sink that can be read"
                .to_owned(),
        )
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let options = StdoutOptions { format: Format::of(self.format, &self.delimiter) };
        let stream = opening.stream.clone();
        (opens(move || StdoutSink::open(options.clone(), stream.clone())), looks_nowhere())
    }

    fn renaming(&self, _: &Opening) -> Option<Renaming> {
        None
    }
}
