//! The `null` sink: counts records and drops them.
//!
//! For measuring everything before the sink, and for consumers that only need the metrics. It never
//! decodes a message, so it never finds a bad one. It has no keys; so all of it is in one file.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::audit::Auditing;
use super::declaration::{
    About, Check, Declaration, Exclusive, Opening, Readable, ReplayPlace, Use,
};
use super::factory::{Look, SinkFactory, looks_nowhere, opens};
use super::placeholders::Names;
use super::{Durability, Sink, SinkError};
use crate::flow::batch::Batch;
use crate::settings::{BrokerConfig, Problem, Start};
use crate::types::{Checkpoint, Guarantee};

/// Counts messages and bytes; always succeeds; keeps no position.
#[derive(Debug, Default)]
pub struct NullSink {
    messages: u64,
    bytes: u64,
}

impl NullSink {
    /// A sink that has counted nothing yet.
    pub fn new() -> NullSink {
        NullSink::default()
    }

    /// Number of records given so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the encoded messages so far, including their length prefixes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[async_trait]
impl Sink for NullSink {
    fn kind(&self) -> &'static str {
        NullSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        NullSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.messages += batch.messages();
        self.bytes += batch.bytes();
        Ok(Durability::Durable)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A sink that keeps nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct NullSettings {}

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::{self, Medium, batch};

    struct Nothing;

    #[async_trait]
    impl Medium for Nothing {
        async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
            Ok(Box::new(NullSink::new()))
        }

        async fn visible(&mut self) -> Option<Vec<u64>> {
            None
        }

        fn decodes(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn conforms() {
        conformance::all(|| Nothing).await.unwrap();
    }

    #[tokio::test]
    async fn counts_exactly_and_does_not_count_excluded_records() {
        let mut sink = NullSink::new();
        let whole = batch(10..15);
        sink.write(&Arc::new(whole.clone())).await.unwrap();
        assert_eq!((sink.messages(), sink.bytes()), (5, whole.bytes()));

        let fewer = whole.without(vec![crate::types::Offset(11)]);
        sink.write(&Arc::new(fewer)).await.unwrap();
        assert_eq!(sink.messages(), 9);
    }
}
