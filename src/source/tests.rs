//! Does a stream in memory keep the contract, whatever it can do?

use std::sync::Arc;

use async_trait::async_trait;

use super::conformance::{self, Stage};
use super::scripted::{ABLE, Scripted};
use super::{Abilities, Activation, Source};
use crate::types::Timestamp;

struct InMemory(Scripted);

#[async_trait]
impl Stage for InMemory {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.0.clone())
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(Scripted::missing())
    }

    async fn publish(&self, messages: u64, bytes: usize) {
        let messages: Vec<_> = (0..messages).map(|_| vec![0; bytes]).collect();
        self.0.publish(&messages, Timestamp(0));
    }

    async fn cut(&self) {
        self.0.cut();
    }
}

#[tokio::test]
async fn it_keeps_the_contract_whatever_it_can_do() {
    let unable = Abilities { bounds: false, emptiness: false, probes: false, offsets: false };
    let (at_once, by_broker) = (Activation::AtOnce, Activation::ByBroker);
    for (abilities, activation) in [(ABLE, at_once), (unable, at_once), (ABLE, by_broker)] {
        let stage = || async { InMemory(Scripted::activated(abilities, activation)) };
        assert_eq!(conformance::all(stage).await, Ok(10), "{abilities:?}, {activation:?}");
    }
}
