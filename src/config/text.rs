//! The configuration file as text: TOML syntax errors, and the line of each key.
//!
//! Knows nothing of the keys' meaning.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use crate::settings::{Problem, join};

/// Line numbers of a file's keys, by path: `consumer[1].batch.max_messages`.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Line of the key, or else of the nearest key above it.
    pub(super) fn of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Reads the file.
///
/// # Errors
/// If the file cannot be read, or is not UTF-8, or not TOML.
pub(super) fn read(path: &Path) -> Result<(String, Lines), ConfigError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, bytes)
}

/// Parses the bytes as the file's content.
///
/// # Errors
/// They are not UTF-8, or not TOML.
pub(super) fn parse(path: &Path, bytes: Vec<u8>) -> Result<(String, Lines), ConfigError> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let (bytes, byte) = (error.as_bytes(), error.as_bytes().get(good).copied());
        let before = String::from_utf8_lossy(&bytes[..good]).into_owned();
        let message = format!(
            "the byte 0x{:02x} is not UTF-8, which TOML is written in; save the file as UTF-8",
            byte.unwrap_or_default()
        );
        syntax(path, &before, before.len(), message)
    })?;
    let table = DeTable::parse(&text).map_err(|error| not_toml(path, &text, &error))?;
    let mut walk = Walk { text: &text, lines: BTreeMap::new(), problems: Vec::new() };
    walk.table(table.get_ref(), "");
    let Walk { lines, problems, .. } = walk;
    match problems.is_empty() {
        true => Ok((text, Lines(lines))),
        false => Err(ConfigError::Invalid { file: Some(path.to_owned()), problems }),
    }
}

struct Walk<'t> {
    text: &'t str,
    lines: BTreeMap<String, usize>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, at: &str) {
        for (key, value) in table {
            let path = join(at, key.get_ref());
            self.value(value.get_ref(), value.span(), key.span(), path);
        }
    }

    /// `key` is the position of the key; a table's value may begin elsewhere.
    fn value(&mut self, value: &DeValue<'_>, span: Range<usize>, key: Range<usize>, path: String) {
        let line = line_of(self.text, key.start);
        match value {
            DeValue::Table(table) => self.table(table, &path),
            DeValue::Array(list) => {
                for (i, value) in list.iter().enumerate() {
                    let span = value.span();
                    self.value(value.get_ref(), span.clone(), span, format!("{path}[{i}]"));
                }
            }
            DeValue::Integer(number)
                if i64::from_str_radix(number.as_str(), number.radix()).is_err() =>
            {
                let written = self.text.get(span).unwrap_or_default();
                let message = format!(
                    "{written} is out of range: a whole number in TOML lies between {} and {}",
                    i64::MIN,
                    i64::MAX
                );
                let line = Some(line_of(self.text, key.start));
                self.problems.push(Problem { line, ..Problem::new(path.clone(), message) });
            }
            _ => {}
        }
        self.lines.insert(path, line);
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

/// The parser's error with advice, without the line that it would quote.
fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or_default();
    let said = error.message();
    let message = if said == "duplicate key" {
        // The span covers the key only, so nothing else is quoted.
        let key = text.get(span.clone()).unwrap_or_default();
        format!("the key `{key}` is given twice in one table; remove one of them")
    } else if said.starts_with("string values must be quoted") || said.starts_with("invalid float")
    {
        "this is not a TOML value: put a text in quotes, as in level = \"info\"".to_owned()
    } else {
        format!("not valid TOML: {said}")
    };
    syntax(path, text, span.start, message)
}

fn syntax(path: &Path, text: &str, at: usize, message: String) -> ConfigError {
    let before = text.get(..at).unwrap_or_default();
    ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, at),
        column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
        message,
    }
}
