//! What a sqlite sink is opened with.

use std::path::PathBuf;

use crate::types::column::Column;
use crate::types::{StreamName, table_name};

/// What a sqlite sink needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct SqliteOptions {
    /// The database's file.
    pub path: PathBuf,
    /// The table that takes the records.
    pub table: String,
    /// Its columns behind `stream`, `offset` and `timestamp`; without, those of the whole envelope.
    pub columns: Option<Vec<Column>>,
    /// Whether file and table are made where they are missing.
    pub create: bool,
}

impl SqliteOptions {
    /// The whole envelope, into a table that is named after the stream, all of it made where missing.
    pub fn new(path: impl Into<PathBuf>, stream: &StreamName) -> SqliteOptions {
        let table = table_name::of(stream);
        SqliteOptions { path: path.into(), table, columns: None, create: true }
    }
}
