//! The set-up in which the contract of sources is checked: a stream on a real broker, reached through a
//! proxy that can cut the connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rillway::broker::{Endpoint, Mechanism};
use rillway::source::conformance::{self, Stage};
use rillway::source::{ConnectOptions, Source};
use rillway::types::{Secret, StreamName};

use super::broker::{Broker, Version};
use super::proxy::Proxy;
use super::skip::Unavailable;
use super::streams;

/// A kind of source: the broker's port for it, and how it is made.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) port: fn(&Broker) -> u16,
    pub(crate) source: fn(ConnectOptions, StreamName) -> Arc<dyn Source>,
}

struct OnBroker {
    broker: &'static Broker,
    kind: Kind,
    proxy: Proxy,
    stream: String,
}

impl OnBroker {
    async fn new(broker: &'static Broker, kind: Kind) -> OnBroker {
        let proxy = Proxy::to((kind.port)(broker)).await;
        OnBroker { broker, kind, proxy, stream: streams::create(broker, "source").await }
    }

    fn source_of(&self, stream: &str) -> Arc<dyn Source> {
        let options = ConnectOptions {
            seeds: vec![Endpoint { host: "localhost".to_owned(), port: self.proxy.port }],
            vhost: "/".to_owned(),
            mechanism: Mechanism::Plain {
                username: "guest".to_owned(),
                password: Secret::new("guest"),
            },
            tls: None,
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(20),
            follow_advertised_hosts: false,
            routing: Default::default(),
            name: "rillway source test".to_owned(),
            sharing: None,
        };
        (self.kind.source)(options, StreamName::new(stream))
    }
}

#[async_trait]
impl Stage for OnBroker {
    fn source(&self) -> Arc<dyn Source> {
        self.source_of(&self.stream)
    }

    fn missing(&self) -> Arc<dyn Source> {
        self.source_of(&streams::unique("missing"))
    }

    async fn publish(&self, messages: u64, bytes: usize) {
        let body = "x".repeat(bytes);
        streams::publish(self.broker, &self.stream, (0..messages).map(|_| body.clone())).await;
    }

    async fn cut(&self) {
        self.proxy.cut();
    }
}

/// Runs the whole conformance suite.
pub(crate) async fn keeps_the_contract(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    assert_eq!(conformance::all(|| OnBroker::new(broker, kind)).await, Ok(10));
    Ok(())
}
