//! `rillway dead-letters show`: why each is bad, and its original message, printed as `rillway tail` prints it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};

use super::Of;
use super::letters::{Letter, Source};
use crate::cli::exit::Failure;
use crate::cli::print::{PrintArgs, Printer, Style, visible};
use crate::cli::schema::{write, write_bytes};
use crate::config::ConsumerConfig;
use crate::sink::envelope::Envelope;
use crate::types::StreamName;
use crate::wire::block::Record;

/// Arguments of `dead-letters show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    pub(super) of: Of,
    /// Only that of the message at this offset
    #[arg(long, value_name = "N")]
    offset: Option<u64>,
    /// Print at most this many, the oldest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    print: PrintArgs,
}

/// Prints them, as they are read.
///
/// # Errors
/// If they cannot be read, or there is none at the offset that was asked for.
pub(super) async fn show(
    consumer: &ConsumerConfig,
    source: &Source,
    args: &ShowArgs,
    as_json: bool,
) -> anyhow::Result<()> {
    let style = args.print.style(false);
    let mut printer = Printer::new(&consumer.stream, &style);
    let mut letters = source.read();
    let (mut shown, mut seen) = (0, 0_u64);
    while let Some(letter) = letters.recv().await {
        let letter = letter?;
        seen += 1;
        if args.offset.is_some_and(|offset| letter.offset.0 != offset) {
            continue;
        }
        if shown == args.limit {
            let more = format!("there are more than {shown}: use --limit or --offset");
            eprintln!("{more}");
            return Ok(());
        }
        shown += 1;
        match as_json {
            true => write(&format!("{}\n", as_value(&letter, &consumer.stream)))?,
            false => write_bytes(&as_printed(&letter, &style, &mut printer))?,
        }
    }
    match args.offset {
        Some(offset) if shown == 0 => {
            let name = consumer.name.as_str();
            Err(Failure::Unavailable(format!(
                "consumer {name:?} has no dead letter of a message at offset {offset} in {source} (of {seen} letters): \
                 `rillway dead-letters list {name}` counts them"
            ))
            .into())
        }
        _ => Ok(()),
    }
}

/// The message as Rillway's sinks write it; `None` if it is no AMQP message.
fn envelope(letter: &Letter, stream: &StreamName) -> Option<Value> {
    let Letter { offset, timestamp, message, .. } = letter;
    let record = Record { offset: *offset, timestamp: *timestamp, message };
    let mut line = Vec::new();
    Envelope::ndjson(stream).append(record, &mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

fn as_value(letter: &Letter, stream: &StreamName) -> Value {
    json!({
        "stream": stream,
        "offset": letter.offset,
        "timestamp": letter.timestamp.to_string(),
        "reason": letter.reason,
        "error": letter.error,
        "message": envelope(letter, stream),
        "encoded_base64": STANDARD.encode(&letter.message),
    })
}

/// Why it is bad, if that is for people, and the message.
fn as_printed(letter: &Letter, style: &Style, printer: &mut Printer) -> Vec<u8> {
    let Letter { offset, timestamp, reason, error, message } = letter;
    let mut out = Vec::new();
    if style.is_for_people() {
        let error = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        out.extend_from_slice(visible(&format!("{reason}{error}")).as_bytes());
        out.push(b'\n');
    }
    printer.print(Record { offset: *offset, timestamp: *timestamp, message }, &mut out);
    if style.is_for_people() {
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Offset, Timestamp};

    fn letter(message: &[u8]) -> Letter {
        Letter {
            offset: Offset(7),
            timestamp: Timestamp(0),
            reason: "misfit".to_owned(),
            error: Some("column \"n\": no number\u{1b}[2J".to_owned()),
            message: message.to_vec(),
        }
    }

    /// A message with one data section.
    fn data(body: &[u8]) -> Vec<u8> {
        let length = u8::try_from(body.len()).unwrap();
        [&[0x00, 0x53, 0x75, 0xa0, length], body].concat()
    }

    #[test]
    fn json_text_bytes_and_what_is_no_message() {
        let stream = StreamName::from("events");
        let shown = |message: &[u8]| {
            let style = Style::of_envelopes();
            let mut printer = Printer::new(&stream, &style);
            String::from_utf8(as_printed(&letter(message), &style, &mut printer)).unwrap()
        };
        let json = shown(&data(b"{\"a\":[1]}"));
        let head = "misfit: column \"n\": no number\\u{1b}[2J\n-- offset 7, 1970-01-01T00:00:00Z\n";
        assert_eq!(json, format!("{head}{{\"a\":[1]}}\n\n"));
        assert!(shown(&data("grüße\u{7}".as_bytes())).ends_with("grüße\\u{7}\n\n"));
        assert!(shown(&data(&[0xff, 0x00, 0x10])).contains("(3 bytes, base64) /wAQ\n"));
        assert!(shown(b"\x01").contains("not an AMQP message, by its bytes"));
        let value = as_value(&letter(&data(b"{\"a\":1}")), &stream);
        assert_eq!((&value["message"]["body"]["a"], &value["offset"]), (&json!(1), &json!(7)));
    }
}
