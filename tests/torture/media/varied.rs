//! A sink under other circumstances: fed over AMQP 0.9.1, or behind a program.

use async_trait::async_trait;
use rillway::faults::Point;

use crate::common::Broker;
use crate::common::daemon::Home;
use crate::torture::oracle::{Landed, Oracle};

/// What differs from the sink's own test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Fed over AMQP 0.9.1, where no offset is stored.
    OverAmqp,
    /// Behind a program that leaves out every fifth message, and makes another body of the others.
    Reshaped,
}

/// A sink, by the name that the table has for it.
pub(super) struct Varied<O> {
    pub(super) how: How,
    pub(super) name: &'static str,
    pub(super) of: O,
}

#[async_trait]
impl<O: Oracle> Oracle for Varied<O> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn uri(&self, broker: &Broker) -> String {
        match self.how {
            How::OverAmqp => format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port),
            How::Reshaped => self.of.uri(broker),
        }
    }

    fn stores_offsets(&self) -> bool {
        self.how != How::OverAmqp && self.of.stores_offsets()
    }

    fn broker_lines(&self) -> &'static str {
        self.of.broker_lines()
    }

    fn consumer_lines(&self) -> &'static str {
        match self.how {
            How::OverAmqp => self.of.consumer_lines(),
            How::Reshaped => "where = '.i % 5 != 3'\nmap = '{i: (.i * 2 + 1)}'\n",
        }
    }

    fn is_kept(&self, number: u64) -> bool {
        self.how != How::Reshaped || number % 5 != 3
    }

    fn sink(&self, stream: &str) -> String {
        self.of.sink(stream)
    }

    async fn landed(&mut self, home: &Home, stream: &str) -> Landed {
        let Landed { mut records, torn } = self.of.landed(home, stream).await;
        if self.how == How::Reshaped {
            for (offset, number) in &mut records {
                assert_eq!(*number % 2, 1, "the body at {offset} is not what `map` makes");
                *number /= 2;
            }
        }
        Landed { records, torn }
    }

    fn may_repeat(&self) -> bool {
        self.of.may_repeat()
    }

    fn points(&self) -> &'static [Point] {
        self.of.points()
    }

    async fn after_kill(&mut self, home: &Home, stream: &str) -> u64 {
        self.of.after_kill(home, stream).await
    }
}
