//! Lines of NDJSON: made by the sinks' own envelope, read back by their offsets.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use async_trait::async_trait;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pages::Gone;
use super::{Contents, Difference, Entry, Found, Judge, MakesEach, Pair, Span, Turner, shown};
use crate::sink::envelope::Envelope;
use crate::sink::{BadRecord, SinkError};
use crate::types::{Offset, StreamName};
use crate::wire::block::Record;

/// Longest line that is read, in bytes. A message's line is at most six times as long as the message.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// Makes the line of each record.
pub(crate) struct LineMaker {
    envelope: Envelope,
    contents: Contents,
}

impl LineMaker {
    pub(crate) fn new(stream: &StreamName) -> LineMaker {
        LineMaker { envelope: Envelope::ndjson(stream), contents: Contents::default() }
    }
}

impl MakesEach for LineMaker {
    fn each(&mut self, record: Record<'_>, into: &mut Vec<Entry>) -> Result<(), BadRecord> {
        self.envelope.append(record, self.contents.begin())?;
        into.push(Entry { offset: record.offset, content: self.contents.end() });
        Ok(())
    }
}

/// Reads lines of one stream.
pub(crate) struct LineReader {
    stream: StreamName,
    envelope: Envelope,
    span: Span,
}

/// The fields by which a line that was written again by another program is recognised.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    stream: Cow<'a, str>,
    offset: u64,
}

impl LineReader {
    pub(crate) fn new(stream: &StreamName, span: Span) -> LineReader {
        LineReader { stream: stream.clone(), envelope: Envelope::ndjson(stream), span }
    }

    /// Reads to the end. What is not a line of this stream, and an end that cannot be read, is
    /// reported with its place.
    pub(crate) fn read(
        &self,
        place: &str,
        lines: &mut dyn BufRead,
        to: &mut Turner,
    ) -> Result<(), Gone> {
        let mut number: u64 = 0;
        let mut contents = Contents::default();
        loop {
            number += 1;
            let line = contents.begin();
            match lines.take(LINE_BYTES_MAX).read_until(b'\n', line) {
                Ok(0) => return Ok(()),
                Ok(_) => match self.offset_of(line) {
                    Some(offset) if self.span.holds(offset) => {
                        to.push(Found::Record(Entry { offset, content: contents.end() }))?;
                    }
                    Some(_) => {}
                    None => to.push(Found::Unreadable(format!(
                        "{place}, line {number}: not a record of this stream"
                    )))?,
                },
                Err(error) => {
                    let what = format!("{place} cannot be read after line {}: {error}", number - 1);
                    return to.push(Found::Unreadable(what));
                }
            }
        }
    }

    fn offset_of(&self, line: &[u8]) -> Option<Offset> {
        if let Some(offset) = self.envelope.offset_of(line) {
            return Some(offset);
        }
        let head: Head<'_> = serde_json::from_slice(line).ok()?;
        (head.stream == self.stream.as_str()).then_some(Offset(head.offset))
    }
}

/// Names the fields of a line that differ.
pub(crate) struct LineJudge;

#[async_trait]
impl Judge for LineJudge {
    async fn judge(&mut self, pairs: &[Pair]) -> Result<Vec<Vec<Difference>>, SinkError> {
        Ok(pairs.iter().map(|pair| differences(&pair.expected, &pair.found)).collect())
    }
}

/// What differs in two lines, field by field.
pub(crate) fn differences(expected: &[u8], found: &[u8]) -> Vec<Difference> {
    type Fields = IndexMap<String, Box<RawValue>>;
    let whole = || {
        vec![Difference { part: "line".to_owned(), expected: shown(expected), found: shown(found) }]
    };
    let parse = |line| serde_json::from_slice::<Fields>(line);
    let (Ok(should), Ok(is)) = (parse(expected), parse(found)) else { return whole() };
    let text = |fields: &Fields, name: &str| match fields.get(name) {
        Some(value) => shown(value.get().as_bytes()),
        None => "nothing".to_owned(),
    };
    let names = should.keys().chain(is.keys().filter(|name| !should.contains_key(*name)));
    let differing: Vec<_> = names
        .filter(|name| should.get(*name).map(|v| v.get()) != is.get(*name).map(|v| v.get()))
        .map(|name| Difference {
            part: name.clone(),
            expected: text(&should, name),
            found: text(&is, name),
        })
        .collect();
    // The same fields, in another order or with other spaces.
    if differing.is_empty() { whole() } else { differing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(expected: &str, found: &str) -> Vec<String> {
        let all = differences(expected.as_bytes(), found.as_bytes());
        all.into_iter().map(|d| format!("{}: {} / {}", d.part, d.expected, d.found)).collect()
    }

    #[test]
    fn only_what_differs_is_named() {
        let line = r#"{"stream":"s","offset":7,"body":{"a":1},"body_encoding":"json"}"#;
        let other = line.replace(":1}", ":2}");
        assert_eq!(parts(line, &other), [r#"body: {"a":1} / {"a":2}"#]);
        let less = line.replace(r#","body_encoding":"json""#, "");
        assert_eq!(parts(line, &less), [r#"body_encoding: "json" / nothing"#]);
        let more = line.replace(r#""body":"#, r#""x":0,"body":"#);
        assert_eq!(parts(line, &more), ["x: nothing / 0"]);
        let torn = &line[..30];
        assert_eq!(parts(line, torn), [format!("line: {}… (63 bytes) / {torn}", &line[..60])]);
        assert_eq!(parts(line, &line.replace(',', ", ")).len(), 1, "spaces are another line");
    }

    #[test]
    fn a_line_tells_its_offset_also_if_another_program_wrote_it() {
        let span = Span { from: Offset(0), to: Offset(9) };
        let reader = LineReader::new(&"s".into(), span);
        for (line, offset) in [
            (r#"{"stream":"s","offset":7,"timestamp":"#, Some(7)),
            (r#"{ "offset": 8, "stream": "s" }"#, Some(8)),
            (r#"{"stream":"t","offset":7,"timestamp":1}"#, None),
            (r#"{"stream":"s","offset":"7"}"#, None),
            (r#"{"stream":"s","offset":"#, None),
            ("", None),
        ] {
            assert_eq!(reader.offset_of(line.as_bytes()), offset.map(Offset), "{line}");
        }
    }
}
