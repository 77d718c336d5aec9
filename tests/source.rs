//! Does the stream protocol keep the contract of `rillway::source` on real brokers?

use std::sync::Arc;

use rillway::source::stream::StreamSource;
use rillway::types::Reference;

use crate::common::Version;
use crate::common::skip::or_skip;
use crate::common::stage::{Kind, keeps_the_contract};

const STREAM: Kind = Kind {
    port: |broker| broker.stream_port,
    source: |options, stream| Arc::new(StreamSource::new(options, stream, Reference::from("r"))),
};

#[tokio::test]
async fn it_keeps_the_contract_on_rabbitmq_3_10() {
    or_skip!(keeps_the_contract(Version::V3_10, STREAM).await);
}

#[tokio::test]
async fn it_keeps_the_contract_on_rabbitmq_4_3() {
    or_skip!(keeps_the_contract(Version::V4_3, STREAM).await);
}
