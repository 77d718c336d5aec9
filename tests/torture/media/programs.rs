//! Exactly-once sinks behind a program that leaves out every fifth message, and makes another body of the
//! others: the position moves over what is left out, and what is kept is written once.

use async_trait::async_trait;
use rillway::faults::Point;

use super::file::Files;
use super::object::Folder;
use super::{postgres, sqlite, stream};
use crate::common::Broker;
use crate::common::daemon::Home;
use crate::common::skip::or_skip;
use crate::torture::kills::killed;
use crate::torture::oracle::{Landed, Oracle};

/// A sink, by the name that the table has for it.
struct Reshaped<O>(&'static str, O);

#[async_trait]
impl<O: Oracle> Oracle for Reshaped<O> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn consumer_lines(&self) -> &'static str {
        "where = '.i % 5 != 3'\nmap = '{i: (.i * 2 + 1)}'\n"
    }

    fn is_kept(&self, number: u64) -> bool {
        number % 5 != 3
    }

    fn uri(&self, broker: &Broker) -> String {
        self.1.uri(broker)
    }

    fn broker_lines(&self) -> &'static str {
        self.1.broker_lines()
    }

    fn sink(&self, stream: &str) -> String {
        self.1.sink(stream)
    }

    async fn landed(&mut self, home: &Home, stream: &str) -> Landed {
        let Landed { mut records, torn } = self.1.landed(home, stream).await;
        for (offset, number) in &mut records {
            assert_eq!(*number % 2, 1, "the body at {offset} is not what `map` makes");
            *number /= 2;
        }
        Landed { records, torn }
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
    or_skip!(killed(Reshaped("file, where and map", Files::new(false))).await);
}

#[tokio::test]
async fn kills_of_a_database() {
    let database = sqlite::Database::with_a_program();
    or_skip!(killed(Reshaped("sqlite, where and map", database)).await);
}

#[tokio::test]
async fn kills_of_a_server() {
    let database = or_skip!(postgres::Database::shared().await);
    or_skip!(killed(Reshaped("postgres, where and map", database)).await);
}

#[tokio::test]
async fn kills_of_an_archive() {
    or_skip!(killed(Reshaped("object, where and map", Folder::new())).await);
}

#[tokio::test]
async fn kills_of_a_copy() {
    let copy = or_skip!(stream::Copy::new().await);
    or_skip!(killed(Reshaped("stream, where and map", copy)).await);
}
