//! The `stream` sink, to a stream of the same broker, through a proxy.

use async_trait::async_trait;
use rillway::faults::Point;
use rillway::wire::amqp::{Message, Value};

use crate::common::daemon::Home;
use crate::common::proxy::Proxy;
use crate::common::reading::messages;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version};
use crate::torture::frozen::frozen;
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle, Second, number_in};
use crate::torture::outage::outages;

pub(super) struct Copy {
    broker: &'static Broker,
    proxy: Proxy,
}

impl Copy {
    pub(super) async fn new() -> Result<Copy, Unavailable> {
        let broker = Broker::shared(Version::V4_3).await?;
        Ok(Copy { broker, proxy: Proxy::to(broker.stream_port).await })
    }
}

fn target(stream: &str) -> String {
    format!("{stream}-copy")
}

/// The source's offset, from the annotation, and the number.
fn record(message: &[u8]) -> (u64, u64) {
    let parsed = Message::parse(message).unwrap();
    let annotations = parsed.message_annotations().unwrap();
    let offset = match annotations.get("x-rillway-source-offset").unwrap() {
        Some(Value::Ulong(offset)) => offset,
        other => panic!("{other:?} is no offset"),
    };
    let body = message.iter().rposition(|byte| *byte == b'{').expect("a body");
    (offset, number_in(&message[body..]))
}

#[async_trait]
impl Oracle for Copy {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn sink(&self, stream: &str) -> String {
        let (target, uri) = (target(stream), self.broker.uri_by(self.proxy.port));
        format!(
            "{{ type = \"stream\", stream = \"{target}\", create = true, annotate = true, \
             uri = \"{uri}\", timeout = \"2s\" }}"
        )
    }

    fn broker_lines(&self) -> &'static str {
        "follow_advertised_hosts = false"
    }

    async fn landed(&mut self, _home: &Home, stream: &str) -> Landed {
        let all = messages(self.broker, &target(stream)).await;
        Landed { records: all.iter().map(|message| record(message)).collect(), torn: 0 }
    }

    /// Both publish under the same name.
    fn second(&self, _frozen_at: Option<Point>) -> Second {
        Second::IsRecognised
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match (how, on) {
            (Failure::Gone, true) => self.proxy.refuse(),
            (Failure::Hangs, true) => self.proxy.silence(),
            (Failure::Refuses, _) => return false,
            (_, false) => self.proxy.resume(),
        }
        true
    }
}

#[tokio::test]
async fn kills() {
    let copy = or_skip!(Copy::new().await);
    or_skip!(killed(copy).await);
}

#[tokio::test]
async fn two_of_which_one_was_frozen_write_everything_once() {
    let copy = or_skip!(Copy::new().await);
    or_skip!(frozen(copy).await);
}

#[tokio::test]
async fn a_broker_that_is_out_of_reach_or_silent() {
    let copy = or_skip!(Copy::new().await);
    or_skip!(outages(copy).await);
}
