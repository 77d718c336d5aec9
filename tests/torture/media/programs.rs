//! Exactly-once sinks behind a program that leaves out every fifth message, and makes another body of the
//! others: the position moves over what is left out, and what is kept is written once.

use super::file::Files;
use super::object::Folder;
use super::varied::{How, Varied};
use super::{postgres, sqlite, stream};
use crate::common::skip::or_skip;
use crate::torture::kills::killed;

fn reshaped<O>(name: &'static str, of: O) -> Varied<O> {
    Varied { how: How::Reshaped, name, of }
}

#[tokio::test]
async fn kills_of_files() {
    or_skip!(killed(reshaped("file, where and map", Files::new(false))).await);
}

#[tokio::test]
async fn kills_of_a_database() {
    let database = sqlite::Database::with_a_program();
    or_skip!(killed(reshaped("sqlite, where and map", database)).await);
}

#[tokio::test]
async fn kills_of_a_server() {
    let database = or_skip!(postgres::Database::shared().await);
    or_skip!(killed(reshaped("postgres, where and map", database)).await);
}

#[tokio::test]
async fn kills_of_an_archive() {
    or_skip!(killed(reshaped("object, where and map", Folder::new())).await);
}

#[tokio::test]
async fn kills_of_a_copy() {
    let copy = or_skip!(stream::Copy::new().await);
    or_skip!(killed(reshaped("stream, where and map", copy)).await);
}
