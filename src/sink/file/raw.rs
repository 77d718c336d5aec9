//! Reads bare bodies back, for `rillway verify`: each ends with the delimiter, and none tells its offset.
//!
//! So they are compared by their order, file by file: the name of a file tells the first offset in it. A body
//! that holds the delimiter is several records.

use std::io::{self, BufRead, Read};

use async_trait::async_trait;

use super::read::Segment;
use crate::sink::audit::{
    AuditError, Contents, Difference, Entry, Found, Judge, MakesEach, Order, Pair, Sides, Stop,
    shown, turning_blocking,
};
use crate::sink::envelope::Envelope;
use crate::sink::{BadRecord, SinkError};
use crate::types::StreamName;
use crate::wire::block::Record;

/// Longest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 1 << 30;

/// Both sides of these segments.
pub(super) fn sides(
    stream: &StreamName,
    delimiter: &[u8],
    segments: Vec<Segment>,
) -> Result<Sides, AuditError> {
    if delimiter.is_empty() {
        return Err(AuditError::Cannot(format!(
            "the bodies of stream {stream:?} are written without a delimiter (format = \"raw\", delimiter = \"\"), so \
             where one ends is not known. Use format = \"ndjson\" where the files are to be verified"
        )));
    }
    if overlaps_itself(delimiter) {
        return Err(AuditError::Cannot(format!(
            "the bodies of stream {stream:?} end with a delimiter whose end is also its beginning ({:?}), so where a \
             body that ends with a part of it ends is not known. Use format = \"ndjson\" where the files are to be verified",
            String::from_utf8_lossy(delimiter)
        )));
    }
    let ends_with = delimiter.to_vec();
    let kept = turning_blocking(move |to| {
        let mut contents = Contents::default();
        for segment in segments {
            let mut bytes = match segment.open() {
                Ok(bytes) => bytes,
                // Its records count as missing; the other segments are compared all the same.
                Err(error) => {
                    to.push(Found::Unreadable(error.to_string()))?;
                    continue;
                }
            };
            loop {
                match next(&mut *bytes, &ends_with, contents.begin()) {
                    Ok(0) => break,
                    Ok(_) => {
                        let (offset, content) = (segment.first_offset(), contents.end());
                        to.push(Found::Record(Entry { offset, content }))?;
                    }
                    Err(error) => {
                        let what = format!("{} cannot be read: {error}", segment.path().display());
                        to.push(Found::Unreadable(what))?;
                        break;
                    }
                }
            }
        }
        Ok::<(), Stop>(())
    });
    let note = "format = \"raw\" keeps no offsets, so the bodies are compared by their order, file by file. Which one \
                of several equal ones in a row is missing or doubled cannot be told, and what stands behind the last \
                one is not compared";
    Ok(Sides {
        kept,
        maker: Box::new(BodyMaker {
            envelope: Envelope::raw(delimiter.to_vec()),
            delimiter: delimiter.to_vec(),
            contents: Contents::default(),
        }),
        judge: Box::new(BodyJudge),
        order: Order::Alone { lost_beginning: false, in_pieces: true },
        times: Vec::new(),
        notes: vec![note.to_owned()],
    })
}

fn overlaps_itself(delimiter: &[u8]) -> bool {
    (1..delimiter.len()).any(|n| delimiter.ends_with(delimiter.split_at(n).0))
}

/// Appends the next bytes up to a delimiter, with it. Their number; 0 at the end.
fn next(bytes: &mut dyn BufRead, delimiter: &[u8], record: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = bytes.take(RECORD_BYTES_MAX);
    let Some(last) = delimiter.last() else { return Ok(0) };
    while bytes.read_until(*last, record)? > 0 && !record.ends_with(delimiter) {}
    Ok(record.len())
}

/// Makes the bodies as they are written.
struct BodyMaker {
    envelope: Envelope,
    delimiter: Vec<u8>,
    contents: Contents,
}

impl MakesEach for BodyMaker {
    fn each(&mut self, record: Record<'_>, into: &mut Vec<Entry>) -> Result<(), BadRecord> {
        let mut body = Vec::with_capacity(record.message.len());
        self.envelope.append(record, &mut body)?;
        let mut rest = &*body;
        // Bytes in memory are always read.
        while let Ok(1..) = next(&mut rest, &self.delimiter, self.contents.begin()) {
            into.push(Entry { offset: record.offset, content: self.contents.end() });
        }
        Ok(())
    }
}

/// Shows both bodies.
struct BodyJudge;

#[async_trait]
impl Judge for BodyJudge {
    async fn judge(&mut self, pairs: &[Pair]) -> Result<Vec<Vec<Difference>>, SinkError> {
        let differs = |pair: &Pair| {
            vec![Difference {
                part: "body".to_owned(),
                expected: shown(&pair.expected),
                found: shown(&pair.found),
            }]
        };
        Ok(pairs.iter().map(differs).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, delimiter: &str) -> Vec<String> {
        let mut rest = text.as_bytes();
        let all = std::iter::from_fn(|| {
            let mut record = Vec::new();
            let bytes = next(&mut rest, delimiter.as_bytes(), &mut record).unwrap();
            (bytes > 0).then(|| String::from_utf8(record).unwrap())
        });
        all.collect()
    }

    #[test]
    fn records_end_with_the_whole_delimiter() {
        assert_eq!(pieces("a\nb\n\nc", "\n"), ["a\n", "b\n", "\n", "c"]);
        assert_eq!(pieces("a\n-b\r\nc\r\n", "\r\n"), ["a\n-b\r\n", "c\r\n"]);
        assert_eq!(pieces("x--y-", "--"), ["x--", "y-"]);
        assert_eq!(pieces("", "\n"), Vec::<String>::new());
        for (delimiter, overlaps) in
            [("\n", false), ("\r\n", false), ("--", true), ("\n\n", true), ("aba", true)]
        {
            assert_eq!(overlaps_itself(delimiter.as_bytes()), overlaps, "{delimiter:?}");
        }
    }
}
