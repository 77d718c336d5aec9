//! Rows that are replaced by their key. The configuration parses this, sinks apply it.

use super::column::Source;

/// How messages become the latest row of each key.
#[derive(Clone, Debug, PartialEq)]
pub struct Upsert {
    /// Names of the key's columns; at least one.
    pub key: Vec<String>,
    /// True if a message without a body deletes the row of its key.
    pub empty_body_deletes: bool,
    /// The source and the value, as text, that make a message delete the row of its key; `None`: no value
    /// does.
    pub delete_if: Option<(Source, String)>,
}

/// What a sink does with `columns` that an existing table lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Writes nothing until someone has added them.
    #[default]
    Refuse,
    /// Adds them.
    Add,
}
