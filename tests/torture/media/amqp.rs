//! Sinks that are fed over AMQP 0.9.1, where no offset is stored: the position is the sink's own, or in
//! `state_dir`.

use super::file::Files;
use super::sqlite::Database;
use super::stdout::Lines;
use super::varied::{How, Varied};
use crate::common::skip::or_skip;
use crate::torture::kills::killed;

fn over_amqp<O>(name: &'static str, of: O) -> Varied<O> {
    Varied { how: How::OverAmqp, name, of }
}

#[tokio::test]
async fn kills_of_files() {
    or_skip!(killed(over_amqp("file, over AMQP 0.9.1", Files::new(false))).await);
}

#[tokio::test]
async fn kills_of_a_database() {
    or_skip!(killed(over_amqp("sqlite, over AMQP 0.9.1", Database::new())).await);
}

#[tokio::test]
async fn kills_of_lines() {
    or_skip!(killed(over_amqp("stdout, over AMQP 0.9.1", Lines)).await);
}
