//! Does the stream protocol, as a source, keep the contract of `rillway::source` on real brokers?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rillway::broker::{Endpoint, Mechanism};
use rillway::source::conformance::{self, Stage};
use rillway::source::stream::StreamSource;
use rillway::source::{ConnectOptions, Source};
use rillway::types::{Reference, Secret, StreamName};

use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

struct OnBroker {
    broker: &'static Broker,
    proxy: Proxy,
    stream: String,
}

impl OnBroker {
    async fn new(broker: &'static Broker) -> OnBroker {
        let proxy = Proxy::to(broker.stream_port).await;
        OnBroker { broker, proxy, stream: streams::create(broker, "source").await }
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
            name: "rillway source test".to_owned(),
            sharing: None,
        };
        Arc::new(StreamSource::new(options, StreamName::new(stream), Reference::from("r")))
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

async fn keeps_the_contract(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    assert_eq!(conformance::all(|| OnBroker::new(broker)).await, Ok(10));
    Ok(())
}

#[tokio::test]
async fn it_keeps_the_contract_on_rabbitmq_3_10() {
    or_skip!(keeps_the_contract(Version::V3_10).await);
}

#[tokio::test]
async fn it_keeps_the_contract_on_rabbitmq_4_3() {
    or_skip!(keeps_the_contract(Version::V4_3).await);
}
