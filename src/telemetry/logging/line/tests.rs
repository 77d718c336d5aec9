use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::telemetry::logging::{consumer_span, parse};

#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sheet {
    type Writer = Sheet;

    fn make_writer(&'a self) -> Sheet {
        self.clone()
    }
}

/// The lines that are logged meanwhile.
fn logged(lines: Lines, filter: &str, log: impl FnOnce()) -> String {
    let sheet = Sheet::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(parse(filter, false).unwrap())
        .with_writer(sheet.clone())
        .fmt_fields(JsonFields::new())
        .event_format(lines)
        .finish();
    tracing::subscriber::with_default(subscriber, log);
    String::from_utf8(sheet.0.lock().unwrap().clone()).unwrap()
}

const TEXT: Lines = Lines { format: LineFormat::Text, colours: false, journal: None };
const JSON: Lines = Lines { format: LineFormat::Json, ..TEXT };

fn in_a_consumer() {
    let (consumer, stream, reference) = ("archiver".into(), "events".into(), "archive".into());
    let span = consumer_span(&consumer, &stream, Some(&reference));
    let _in = span.enter();
    let wait = Duration::from_millis(1500);
    tracing::warn!(wait_ms = wait.as_millis(), offset = Some(7u64), none = None::<u64>, "a\nb");
}

#[test]
fn values_are_numbers_and_texts_and_the_consumer_stands_beside_them() {
    let line = logged(JSON, "info", in_a_consumer);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        line.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "timestamp",
            "level",
            "message",
            "wait_ms",
            "offset",
            "consumer",
            "stream",
            "reference",
            "target"
        ]
    );
    assert_eq!((&line["wait_ms"], &line["offset"]), (&1500.into(), &7.into()));
    assert_eq!((&line["consumer"], &line["stream"]), (&"archiver".into(), &"events".into()));
    let line = logged(TEXT, "info", in_a_consumer);
    let says = "a\\nb wait_ms=1500 offset=7 consumer=archiver stream=events reference=archive\n";
    assert!(line.ends_with(says), "{line}");
}

#[test]
fn the_consumer_is_named_whatever_the_filter_lets_through() {
    for filter in ["error,rillway::telemetry=warn", "rillway::telemetry=debug", "warn"] {
        let line = logged(TEXT, filter, in_a_consumer);
        assert!(line.contains("consumer=archiver"), "{filter}: {line:?}");
    }
    assert_eq!(logged(TEXT, "off", in_a_consumer), "");
}

#[test]
fn the_journal_gets_the_priority_of_each_line_first() {
    let lines = Lines { journal: Some(Journal::Line), ..TEXT };
    let log = logged(lines, "trace", || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
    });
    let priorities: Vec<&str> = log.lines().map(|line| &line[..3]).collect();
    assert_eq!(priorities, ["<3>", "<4>", "<6>", "<7>", "<7>"]);
    let json = logged(Lines { format: LineFormat::Json, ..lines }, "info", in_a_consumer);
    assert!(json.starts_with("<4>{"), "{json}");
}

#[test]
fn the_journal_gets_each_field() {
    let lines = Lines { journal: Some(Journal::Fields), ..TEXT };
    assert_eq!(
        logged(lines, "info", in_a_consumer),
        "MESSAGE=a\\nb wait_ms=1500 offset=7 consumer=archiver stream=events reference=archive\n\
         PRIORITY=4\nSYSLOG_IDENTIFIER=rillway\nTARGET=rillway::telemetry::logging::line::tests\n\
         WAIT_MS=1500\nOFFSET=7\nCONSUMER=archiver\nSTREAM=events\nREFERENCE=archive\n"
    );
    let json = logged(Lines { format: LineFormat::Json, ..lines }, "info", in_a_consumer);
    let (message, fields) = json.split_once('\n').unwrap();
    let message: Value = serde_json::from_str(message.strip_prefix("MESSAGE=").unwrap()).unwrap();
    assert_eq!((&message["level"], &message["message"]), (&"WARN".into(), &"a\nb".into()));
    assert!(fields.ends_with("CONSUMER=archiver\nSTREAM=events\nREFERENCE=archive\n"), "{fields}");
}
