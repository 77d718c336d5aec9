//! Reads dead letters back from their sink.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::broker::{ConnectOptions, StreamReader};
use crate::cli::exit::Failure;
use crate::config::{Config, ConsumerConfig};
use crate::sink::declaration::Readable;
use crate::sink::file;
use crate::supervisor;
use crate::types::{ConsumerName, Offset, StreamName, Timestamp};
use crate::wire::amqp::{Message, Value, carried};

/// Number of dead letters that are read ahead.
const AHEAD: usize = 64;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Letter {
    /// Offset of the original message.
    pub(in crate::cli) offset: Offset,
    pub(super) timestamp: Timestamp,
    pub(super) reason: String,
    /// Why it is bad; `None` if that is missing.
    pub(super) error: Option<String>,
    /// The message as its publisher encoded it.
    pub(super) message: Vec<u8>,
}

/// Destination of a consumer's dead letters.
#[derive(Clone)]
pub(in crate::cli) struct Source {
    consumer: ConsumerName,
    stream: StreamName,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Files(PathBuf),
    Stream(Box<ConnectOptions>, StreamName),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Files(dir) => dir.display().fmt(f),
            Place::Stream(_, stream) => write!(f, "stream {:?}", stream.as_str()),
        }
    }
}

type Read = Result<Letter, Failure>;

impl Source {
    pub(in crate::cli) fn of(
        config: &Config,
        consumer: &ConsumerConfig,
    ) -> Result<Source, Failure> {
        let name = consumer.name.as_str();
        let Some(sink) = &consumer.dead_letter else {
            return Err(Failure::Usage(format!(
                "consumer {name:?} has no dead letters: it has no `dead_letter`"
            )));
        };
        let place = match sink.readable() {
            Some(Readable::Files(dir)) => Place::Files(dir),
            Some(Readable::Stream { stream, broker }) => {
                let to = stream.as_str();
                let connect = supervisor::stream_sink_options(config, to, broker.as_deref());
                Place::Stream(Box::new(connect), stream)
            }
            None => {
                return Err(Failure::Usage(format!(
                    "the dead letters of consumer {name:?} go into a sink of type {:?}, which \
                     cannot be read back: only \"file\" and \"stream\" can",
                    sink.kind()
                )));
            }
        };
        Ok(Source { consumer: consumer.name.clone(), stream: consumer.stream.clone(), place })
    }

    /// The dead letters, in the order in which they were written. The last item may be an error.
    pub(in crate::cli) fn read(&self) -> mpsc::Receiver<Read> {
        let (to, letters) = mpsc::channel(AHEAD);
        let source = self.clone();
        match source.place.clone() {
            Place::Files(dir) => {
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = source.read_files(&dir, &to) {
                        // The receiver may be gone; this is the last item in any case.
                        drop(to.blocking_send(Err(error)));
                    }
                });
            }
            Place::Stream(connect, stream) => {
                tokio::spawn(async move {
                    if let Err(error) = source.read_stream(&connect, &stream, &to).await {
                        drop(to.send(Err(error)).await);
                    }
                });
            }
        }
        letters
    }

    fn read_files(&self, dir: &std::path::Path, to: &mpsc::Sender<Read>) -> Result<(), Failure> {
        for segment in file::segments(dir, &self.stream).map_err(Failure::unavailable)? {
            let path = segment.path().display().to_string();
            if !segment.is_ndjson() {
                return Err(Failure::Usage(format!(
                    "{path} holds the messages without the reason of the error: only \
                     format = \"ndjson\" can be read back"
                )));
            }
            let lines = segment.open().map_err(Failure::unavailable)?.lines();
            for (number, line) in lines.enumerate() {
                let bad = |what: &dyn fmt::Display| {
                    Failure::Unavailable(format!("{path}, line {}: {what}", number + 1))
                };
                let line = line.map_err(|error| bad(&error))?;
                let letter = from_line(&line, &self.consumer).map_err(|what| bad(&what))?;
                if let Some(letter) = letter
                    && to.blocking_send(Ok(letter)).is_err()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn read_stream(
        &self,
        connect: &ConnectOptions,
        stream: &StreamName,
        to: &mpsc::Sender<Read>,
    ) -> Result<(), Failure> {
        let mut reader = StreamReader::open(connect, stream).await.map_err(Failure::unavailable)?;
        while let Some(blocks) = reader.next().await.map_err(Failure::unavailable)? {
            for block in blocks {
                for record in block.records() {
                    let letter = from_message(record.message, &self.consumer, &self.stream);
                    let letter = letter.map_err(|error| {
                        Failure::Unavailable(format!(
                            "the message at offset {} of stream {stream} is a dead letter of this \
                             consumer and cannot be read: {error}",
                            record.offset
                        ))
                    })?;
                    if let Some(letter) = letter
                        && to.send(Ok(letter)).await.is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
        reader.close().await;
        Ok(())
    }
}

/// The dead letter in a message; `None` if it is not one, or belongs to another consumer: several
/// may share a stream.
///
/// # Errors
/// If it is a dead letter of this consumer with a missing part.
fn from_message(
    encoded: &[u8],
    consumer: &ConsumerName,
    stream: &StreamName,
) -> Result<Option<Letter>, String> {
    let Ok(message) = Message::parse(encoded) else { return Ok(None) };
    let Some(map) = message.message_annotations() else { return Ok(None) };
    let value = |key: &str| map.get(key).ok().flatten();
    let text = |key: &str| value(key)?.as_str();
    if text("x-rillway-consumer") != Some(consumer.as_str())
        || text("x-rillway-stream") != Some(stream.as_str())
    {
        return Ok(None);
    }
    let missing = |key: &str| format!("its annotation {key} is missing");
    let Some(Value::Ulong(offset)) = value("x-rillway-offset") else {
        return Err(missing("x-rillway-offset"));
    };
    let Some(Value::Timestamp(timestamp)) = value("x-rillway-timestamp") else {
        return Err(missing("x-rillway-timestamp"));
    };
    let reason = text("x-rillway-reason").ok_or_else(|| missing("x-rillway-reason"))?;
    Ok(Some(Letter {
        offset: Offset(offset),
        timestamp: Timestamp(timestamp),
        reason: reason.to_owned(),
        error: text("x-rillway-error").map(str::to_owned),
        message: carried(&message).map_err(|error| error.to_string())?.into_owned(),
    }))
}

/// The fields of a file sink's line that a dead letter needs.
#[derive(Deserialize)]
struct Line<'a> {
    offset: u64,
    #[serde(borrow)]
    message_annotations: Annotations<'a>,
    #[serde(borrow)]
    body: &'a RawValue,
    body_encoding: &'a str,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(rename = "x-rillway-reason")]
    reason: Cow<'a, str>,
    #[serde(rename = "x-rillway-error", default)]
    error: Option<String>,
    #[serde(rename = "x-rillway-consumer")]
    consumer: Cow<'a, str>,
    #[serde(rename = "x-rillway-timestamp", borrow)]
    timestamp: &'a RawValue,
}

fn from_line(line: &str, consumer: &ConsumerName) -> Result<Option<Letter>, String> {
    let line: Line<'_> =
        serde_json::from_str(line).map_err(|error| format!("not a dead letter: {error}"))?;
    let why = line.message_annotations;
    if why.consumer != consumer.as_str() {
        return Ok(None);
    }
    let text = || serde_json::from_str::<String>(line.body.get()).map_err(|e| e.to_string());
    let message = match line.body_encoding {
        // The message is the text itself.
        "json" => line.body.get().as_bytes().to_vec(),
        "text" => text()?.into_bytes(),
        "base64" | "amqp" => STANDARD.decode(text()?).map_err(|error| error.to_string())?,
        other => return Err(format!("unknown body_encoding {other:?}")),
    };
    Ok(Some(Letter {
        offset: Offset(line.offset),
        timestamp: timestamp(why.timestamp.get())?,
        reason: why.reason.into_owned(),
        error: why.error,
        message,
    }))
}

/// Format of the file sink: RFC 3339, or milliseconds for a year that RFC 3339 cannot express.
fn timestamp(text: &str) -> Result<Timestamp, String> {
    let bad = |error: &dyn fmt::Display| format!("x-rillway-timestamp {text}: {error}");
    if let Ok(ms) = text.parse() {
        return Ok(Timestamp(ms));
    }
    let date: String = serde_json::from_str(text).map_err(|error| bad(&error))?;
    date.parse().map_err(|error: jiff::Error| bad(&error))
}

/// Totals of the dead letters.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) letters: u64,
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) first: Option<Offset>,
    pub(super) last: Option<Offset>,
    /// Number of dead letters from old incarnations of the stream: their offsets mean other
    /// messages now.
    pub(super) former: u64,
    /// First dead letter of the current incarnation, if there are older ones before it. Retention
    /// drops from the front.
    pub(super) begins: Option<(Offset, Timestamp)>,
    last_at: Option<Timestamp>,
}

impl Summary {
    pub(super) async fn of(source: &Source) -> Result<Summary, Failure> {
        let mut summary = Summary::default();
        let mut letters = source.read();
        while let Some(letter) = letters.recv().await {
            summary.add(&letter?);
        }
        Ok(summary)
    }

    pub(super) fn add(&mut self, letter: &Letter) {
        // A repeated one has the same time.
        let at_last = self.last == Some(letter.offset) && self.last_at != Some(letter.timestamp);
        if at_last || self.last.is_some_and(|last| letter.offset < last) {
            self.former = self.letters;
            self.begins = Some((letter.offset, letter.timestamp));
            self.first = None;
        }
        self.last_at = Some(letter.timestamp);
        self.letters += 1;
        *self.reasons.entry(letter.reason.clone()).or_default() += 1;
        self.first = self.first.or(Some(letter.offset));
        self.last = Some(letter.offset);
    }
}

/// Fuzz target: reads the bytes as a line of a file, and as a message of a stream.
pub(in crate::cli) fn fuzz_letter(data: &[u8]) {
    let (consumer, stream) = (ConsumerName::from("c"), StreamName::from("s"));
    if let Ok(line) = std::str::from_utf8(data) {
        drop(from_line(line, &consumer));
    }
    drop(from_message(data, &consumer, &stream));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::envelope::Envelope;
    use crate::wire::amqp::tests::encode::any_message;
    use crate::wire::amqp::{Annotation, carrying};
    use crate::wire::block::Record;

    /// The message, as it comes back out of its letter: out of a line of NDJSON, and out of a stream.
    fn there_and_back(message: &[u8], consumer: &str) -> [Vec<u8>; 2] {
        let name = ConsumerName::from(consumer);
        let stream = StreamName::from("events");
        let encoded = carrying(
            &[
                ("x-rillway-reason", Annotation::Text("undecodable")),
                ("x-rillway-error", Annotation::Text("no \"AMQP\"\n")),
                ("x-rillway-consumer", Annotation::Text(consumer)),
                ("x-rillway-stream", Annotation::Text(stream.as_str())),
                ("x-rillway-offset", Annotation::Number(7)),
                ("x-rillway-timestamp", Annotation::Timestamp(1_700_000_000_123)),
            ],
            message,
        );
        let record = Record { offset: Offset(7), timestamp: Timestamp(5), message: &encoded };
        let mut line = Vec::new();
        Envelope::ndjson(&stream).append(record, &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        let from_line = from_line(line.trim_end_matches('\n'), &name).unwrap().unwrap();
        let from_stream = from_message(&encoded, &name, &stream).unwrap().unwrap();
        for letter in [&from_line, &from_stream] {
            assert_eq!(letter.offset, Offset(7));
            assert_eq!(letter.timestamp, Timestamp(1_700_000_000_123));
            assert_eq!(letter.reason, "undecodable");
        }
        [from_line.message, from_stream.message]
    }

    /// Over AMQP 0.9.1 the time is the one that the publisher gave the message.
    #[test]
    fn a_letter_may_be_of_any_time() {
        for (ms, text) in [
            (253_402_300_799_000, "\"9999-12-31T23:59:59.000Z\""),
            (-62_167_219_200_000, "\"0000-01-01T00:00:00.000Z\""),
            (i64::MAX, "9223372036854775807"),
        ] {
            assert_eq!(timestamp(text), Ok(Timestamp(ms)));
        }
    }

    /// JSON, with what may stand around and within it.
    fn json_text() -> impl Strategy<Value = String> {
        let blank = "[ \t\r\n\u{b}\u{c}\u{a0}\u{feff}]{0,3}";
        let json = prop_oneof![
            Just(r#"{"a":[1.50,"x",null]}"#.to_owned()),
            Just("\"\\ud83d\"".to_owned()),
            Just("1e999".to_owned()),
            Just("{\n  \"a\": 1\r\n}".to_owned()),
            "-?[0-9]{1,3}",
            "\"[ -!#-\\[\\]-~]{0,9}\"",
        ];
        (blank, json, blank).prop_map(|(before, json, behind)| [before, json, behind].concat())
    }

    #[test]
    fn blanks_around_json_stay() {
        for message in
            [" {\"a\":1}", "{\"a\":1}\t", " 1 ", "\t\"x\"", "\n1", "1\r\n", " ", "\t", ""]
        {
            for back in there_and_back(message.as_bytes(), "c") {
                assert_eq!(String::from_utf8(back).unwrap(), message);
            }
        }
    }

    proptest! {
        #[test]
        fn a_letter_gives_back_every_byte(message in prop_oneof![
            json_text().prop_map(String::into_bytes),
            any::<String>().prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..400),
            any_message(),
        ]) {
            for back in there_and_back(&message, "a \"quoted\" \\ näme") {
                prop_assert_eq!(&back, &message);
            }
        }
    }
}
