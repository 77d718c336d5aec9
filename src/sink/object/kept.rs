//! Values as a Parquet column's writer takes them, in buffers that it may keep.
//!
//! The writer keeps references to some of the values that it is given: to each one that is new to its dictionary, until
//! the dictionary is written, and to the smallest and the largest one of a page and of the column. A reference keeps
//! the whole buffer that it points into, and the buffer of a piece is up to a million times as large as a value. So
//! values are copied into small buffers, and it is checked which of these the writer has kept. Where that becomes too much, as of a
//! dictionary that grows slowly, each new value is copied into a buffer of new ones. To find out which are new costs
//! more than the small buffers, and few columns need it.

use std::collections::HashSet;
use std::hash::BuildHasher;

use bytes::{Bytes, BytesMut};
use foldhash::{fast, quality};
use parquet::data_type::ByteArray;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// Bytes of a buffer that values share. A larger value has its own.
const BUFFER_BYTES: usize = 4 << 10;

/// Bytes of values that are written at once, and of buffers that may be kept before new values are told apart.
const KEPT_BYTES_MAX: usize = 32 << 10;

/// Makes the values of one column of a row group.
pub(super) struct Kept {
    has_dictionary: bool,
    has_statistics: bool,
    /// Buffers that the writer has kept, and those of the values that it was given last.
    buffers: Vec<Bytes>,
    /// New values, once they are told apart.
    new: Option<NewValues>,
    /// The writer gives its dictionary up when it is as large as this.
    dictionary_bytes_max: usize,
}

impl Kept {
    /// For a column that is written with these properties.
    pub(super) fn new(column: &ColumnPath, properties: &WriterProperties) -> Kept {
        Kept {
            has_dictionary: properties.dictionary_enabled(column),
            has_statistics: properties.statistics_enabled(column) != EnabledStatistics::None,
            buffers: Vec::new(),
            new: None,
            dictionary_bytes_max: properties.column_dictionary_page_size_limit(column),
        }
    }

    /// Whether the writer keeps anything.
    pub(super) fn is_needed(&self) -> bool {
        self.has_dictionary || self.has_statistics
    }

    /// Number of values to write at once, which begin at `start`, of those that end at these places.
    pub(super) fn at_once(start: usize, ends: &[usize]) -> usize {
        up_to(KEPT_BYTES_MAX, start, ends)
    }

    /// Appends the values of `all` that begin at `start` and end at these places.
    pub(super) fn append(
        &mut self,
        all: &[u8],
        mut start: usize,
        mut ends: &[usize],
        values: &mut Vec<ByteArray>,
    ) {
        while !ends.is_empty() {
            let (some, rest) = ends.split_at(up_to(BUFFER_BYTES, start, ends));
            let from = start;
            let buffer = copy(&all[from..some[some.len() - 1]]);
            match &mut self.new {
                None => values.extend(some.iter().map(|end| {
                    let value = buffer.slice(start - from..*end - from);
                    start = *end;
                    ByteArray::from(value)
                })),
                Some(new) => values.extend(some.iter().map(|end| {
                    let value = new.copied(&all[start..*end]);
                    let value = value.unwrap_or_else(|| buffer.slice(start - from..*end - from));
                    start = *end;
                    ByteArray::from(value)
                })),
            }
            self.buffers.push(buffer);
            ends = rest;
        }
    }

    /// Drops the buffers that the writer no longer refers to, once it was given the values and they are dropped.
    /// With `has_pages`, it has given its dictionary up.
    pub(super) fn written(&mut self, has_pages: bool) {
        self.buffers.retain(|buffer| !buffer.is_unique());
        if has_pages {
            (self.has_dictionary, self.new) = (false, None);
        }
        let kept_bytes: usize = self.buffers.iter().map(Bytes::len).sum();
        if self.has_dictionary && self.new.is_none() && kept_bytes > KEPT_BYTES_MAX {
            self.new = Some(NewValues::of(self.dictionary_bytes_max));
        }
    }
}

/// How many values make up to this many bytes, but at least one, if there is one.
fn up_to(bytes: usize, start: usize, ends: &[usize]) -> usize {
    ends.partition_point(|end| *end - start <= bytes).max(1).min(ends.len())
}

/// Values that were not seen before.
struct NewValues {
    seen: Seen,
    /// Bytes that are left before the writer gives its dictionary up in any case.
    bytes_left: usize,
    /// Where the next one is copied to.
    buffer: BytesMut,
}

impl NewValues {
    fn of(bytes_max: usize) -> NewValues {
        NewValues { seen: Seen::default(), bytes_left: bytes_max, buffer: BytesMut::new() }
    }

    /// A copy of the value, if it is new.
    #[inline]
    fn copied(&mut self, value: &[u8]) -> Option<Bytes> {
        if self.bytes_left == 0 || !self.seen.insert(value) {
            return None;
        }
        self.bytes_left = self.bytes_left.saturating_sub(value.len());
        if value.len() > BUFFER_BYTES / 8 {
            return Some(copy(value));
        }
        if self.buffer.capacity() < value.len() {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        self.buffer.extend_from_slice(value);
        Some(self.buffer.split().freeze())
    }
}

/// A buffer of exactly these bytes, whose clones are cheaper than those of a `Bytes` that was made of a slice.
fn copy(bytes: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.split().freeze()
}

/// A set of values, by their hashes. If two values have one, the second keeps a buffer of a few KiB.
#[derive(Default)]
struct Seen {
    hashes: HashSet<u64, fast::RandomState>,
    hasher: quality::RandomState,
}

impl Seen {
    /// Adds the value; false if it was there.
    #[inline]
    fn insert(&mut self, value: &[u8]) -> bool {
        self.hashes.insert(self.hasher.hash_one(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let properties =
            WriterProperties::builder().set_statistics_enabled(EnabledStatistics::Chunk).build();
        Kept::new(&ColumnPath::from("c"), &properties)
    }

    /// The values as the writer is given them; `keeps` takes those that it keeps.
    fn write(kept: &mut Kept, texts: &[String], mut keeps: impl FnMut(usize, &ByteArray)) {
        let (mut all, mut ends, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            all.extend_from_slice(text.as_bytes());
            ends.push(all.len());
        }
        let (mut start, mut at) = (0, 0);
        while at < ends.len() {
            let count = Kept::at_once(start, &ends[at..]);
            kept.append(&all, start, &ends[at..at + count], &mut values);
            assert_eq!(values.len(), count);
            for (value, text) in values.iter().zip(&texts[at..]) {
                assert_eq!(value.data(), text.as_bytes());
            }
            values.iter().zip(at..).for_each(|(value, nth)| keeps(nth, value));
            values.clear();
            kept.written(false);
            (start, at) = (ends[at + count - 1], at + count);
        }
    }

    #[test]
    fn values_stay_what_they_are() {
        let widths = [0, 1, 5, 7, 8, 9, 16, 17, 400, 600, 4_095, 4_096, 4_097, 40_000];
        let text = |nth: usize| format!("{:0width$}", nth % 170, width = widths[nth % 14]);
        let texts: Vec<String> = (0..3_000).map(text).collect();
        for told_apart in [false, true] {
            let mut kept = kept();
            kept.new = told_apart.then(|| NewValues::of(1 << 20));
            texts.chunks(700).for_each(|piece| write(&mut kept, piece, |_, _| {}));
            assert!(kept.buffers.is_empty() && kept.new.is_some() == told_apart);
        }
    }

    /// A dictionary that gets a short value of each piece keeps little else.
    #[test]
    fn slow_growth_keeps_no_other_values() {
        let mut kept = kept();
        let frequent = "x".repeat(200);
        let mut dictionary = Vec::new();
        for piece in 0..2_000 {
            let text = |nth| if nth == 30 { format!("{piece:08}") } else { frequent.clone() };
            let texts: Vec<String> = (0..50).map(text).collect();
            write(&mut kept, &texts, |nth, value| {
                if nth == 30 {
                    dictionary.push(value.clone());
                }
            });
            let bytes: usize = kept.buffers.iter().map(Bytes::len).sum();
            assert!(bytes <= 2 * KEPT_BYTES_MAX, "{bytes} bytes after {piece} pieces");
        }
        // The new values lie together, so that they keep nothing else.
        let at: Vec<usize> = dictionary.iter().map(|value| value.data().as_ptr().addr()).collect();
        let together = at.windows(2).filter(|two| two[1].wrapping_sub(two[0]) == 8).count();
        assert!(together > 1_900, "{together}");
    }

    /// Without a dictionary only a few values are kept.
    #[test]
    fn new_values_are_told_apart_for_a_dictionary_only() {
        let texts: Vec<String> = (0..5_000).map(|nth| format!("{nth:0100}")).collect();
        let mut all = Vec::new();
        let mut kept = kept();
        kept.written(true);
        write(&mut kept, &texts, |_, value| all.push(value.clone()));
        assert!(kept.new.is_none() && kept.buffers.len() > 100);
        all.clear();
        kept.written(true);
        assert!(kept.buffers.is_empty());
    }

    #[test]
    fn values_are_told_apart() {
        let mut seen = Seen::default();
        let texts: Vec<String> =
            (0..20_000).map(|nth| format!("{nth:0width$}", width = nth % 30)).collect();
        let new: Vec<bool> = texts.iter().map(|text| seen.insert(text.as_bytes())).collect();
        let mut distinct = HashSet::new();
        assert!(texts.iter().map(|text| distinct.insert(text)).eq(new));
        assert!(texts.iter().all(|text| !seen.insert(text.as_bytes())));
    }
}
