//! Declaration of the `null` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::{NullSettings, NullSink};
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, Opening, Readable, ReplayPlace, Use,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks_nowhere, opens};
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

impl Declaration for NullSettings {
    fn about() -> &'static About {
        &About {
            kind: "null",
            guarantee: Guarantee::None,
            least: "",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, _: &mut Check<'_>) {}

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
        0
    }

    fn bad_records_max(&self, _: u64) -> u64 {
        0
    }

    fn start(&self) -> Start {
        Start::First
    }

    fn replay_place(&self) -> ReplayPlace {
        ReplayPlace::Apart
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
        "are counted again"
    }

    fn audit(&self, _: &Opening) -> Auditing {
        Auditing::Not("the sink `null` keeps nothing, so there is nothing to compare".to_owned())
    }

    fn prepare(&self, _: &Opening) -> (SinkFactory, Look) {
        (opens(|| async { Ok(NullSink::new()) }), looks_nowhere())
    }

    fn renaming(&self, _: &Opening) -> Option<Renaming> {
        None
    }
}
