//! The `null` sink: counts records and drops them.
//!
//! For measuring everything before the sink, and for consumers that only need the metrics. It never
//! decodes a message, so it never finds a bad one.

mod declaration;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::settings::NullSettings;
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::{Durability, Sink, SinkError};
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
