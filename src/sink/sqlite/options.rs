//! Options of a sqlite sink.

use std::path::PathBuf;

use crate::types::column::Column;
use crate::types::upsert::{Missing, Upsert};
use crate::types::{StreamName, table_name};

/// Options of a sqlite sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SqliteOptions {
    /// The database's file.
    pub path: PathBuf,
    /// The table that takes the records.
    pub table: String,
    /// Columns behind `stream`, `offset` and `timestamp`; by default those of the whole envelope.
    pub columns: Option<Vec<Column>>,
    /// Whether a missing file or table is created.
    pub create: bool,
    /// How rows are replaced by their key; `None`: each record is a row of its own.
    pub upsert: Option<Upsert>,
    /// What is done about columns that an existing table lacks.
    pub missing: Missing,
}

impl SqliteOptions {
    /// The whole envelope, into a table that is named after the stream; missing parts are created.
    pub fn new(path: impl Into<PathBuf>, stream: &StreamName) -> SqliteOptions {
        let table = table_name::of(stream);
        SqliteOptions {
            path: path.into(),
            table,
            columns: None,
            create: true,
            upsert: None,
            missing: Missing::Refuse,
        }
    }
}
