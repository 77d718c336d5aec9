//! Rows as bytes, for sinks with columns: for each value a letter for its kind, its length, and the value.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Difference, Judge, Pair, shown};
use crate::sink::SinkError;

/// A value that is null.
pub(crate) const NULL: u8 = b'n';
/// Bytes.
pub(crate) const BYTES: u8 = b'b';
/// Text.
pub(crate) const TEXT: u8 = b't';
/// A whole number of eight bytes, little endian.
pub(crate) const INTEGER: u8 = b'i';
/// A binary64 of eight bytes, little endian.
pub(crate) const FLOAT: u8 = b'f';
/// A byte, 0 or 1.
pub(crate) const BOOLEAN: u8 = b'l';
/// The destination did not have the column yet: nothing is compared.
pub(crate) const ABSENT: u8 = b'-';

/// Appends a value.
pub(crate) fn put(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    // No destination has longer values.
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(value);
}

/// The values of a row, each with its kind.
pub(crate) fn values(mut content: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, rest) = content.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (value, rest) = rest.split_at_checked(length)?;
        content = rest;
        Some((*kind, value))
    })
}

fn text((kind, value): (u8, &[u8])) -> String {
    let number = || value.first_chunk::<8>().copied().unwrap_or_default();
    match kind {
        NULL => "null".to_owned(),
        INTEGER => i64::from_le_bytes(number()).to_string(),
        FLOAT => f64::from_le_bytes(number()).to_string(),
        BOOLEAN => (value == [1]).to_string(),
        BYTES => format!("bytes {}", shown(value)),
        _ => shown(value),
    }
}

/// Names the columns that differ.
pub(crate) struct RowJudge(pub(crate) Arc<[String]>);

#[async_trait]
impl Judge for RowJudge {
    async fn judge(&mut self, pairs: &[Pair]) -> Result<Vec<Vec<Difference>>, SinkError> {
        let compare = |pair: &Pair| {
            let both = values(&pair.expected).zip(values(&pair.found));
            let named = self.0.iter().zip(both);
            named
                .filter(|(_, (expected, found))| found.0 != ABSENT && expected != found)
                .map(|(name, (expected, found))| Difference {
                    part: name.clone(),
                    expected: text(expected),
                    found: text(found),
                })
                .collect()
        };
        Ok(pairs.iter().map(compare).collect())
    }
}
