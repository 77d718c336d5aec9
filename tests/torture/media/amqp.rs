//! Sinks that are fed over AMQP 0.9.1, where no offset is stored: the position is the sink's own, or in
//! `state_dir`.

use async_trait::async_trait;
use rillway::faults::Point;

use super::file::Files;
use super::sqlite::Database;
use super::stdout::Lines;
use crate::common::Broker;
use crate::common::daemon::Home;
use crate::common::skip::or_skip;
use crate::torture::kills::killed;
use crate::torture::oracle::{Landed, Oracle};

/// A sink, by the name that the table has for it.
struct OverAmqp<O>(&'static str, O);

#[async_trait]
impl<O: Oracle> Oracle for OverAmqp<O> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn uri(&self, broker: &Broker) -> String {
        format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port)
    }

    fn stores_offsets(&self) -> bool {
        false
    }

    fn sink(&self, stream: &str) -> String {
        self.1.sink(stream)
    }

    async fn landed(&mut self, home: &Home, stream: &str) -> Landed {
        self.1.landed(home, stream).await
    }

    fn may_repeat(&self) -> bool {
        self.1.may_repeat()
    }

    fn points(&self) -> &'static [Point] {
        self.1.points()
    }

    async fn after_kill(&mut self, home: &Home, stream: &str) -> u64 {
        self.1.after_kill(home, stream).await
    }
}

#[tokio::test]
async fn kills_of_files() {
    or_skip!(killed(OverAmqp("file, over AMQP 0.9.1", Files::new(false))).await);
}

#[tokio::test]
async fn kills_of_a_database() {
    or_skip!(killed(OverAmqp("sqlite, over AMQP 0.9.1", Database::new())).await);
}

#[tokio::test]
async fn kills_of_lines() {
    or_skip!(killed(OverAmqp("stdout, over AMQP 0.9.1", Lines)).await);
}
