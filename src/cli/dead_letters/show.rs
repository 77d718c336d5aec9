//! `rillway dead-letters show`: why each is bad, and its original message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};

use super::Of;
use super::letters::{Letter, Source};
use crate::cli::exit::Failure;
use crate::cli::schema::write;
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
}

/// Bytes in one line of hexadecimal.
const HEX_LINE: usize = 32;

/// Most bytes of a message that are shown in hexadecimal.
const HEX_MAX: usize = 4096;

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
        write(&match as_json {
            true => format!("{}\n", as_value(&letter, &consumer.stream)),
            false => as_text(&letter, &consumer.stream),
        })?;
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

fn as_text(letter: &Letter, stream: &StreamName) -> String {
    let Letter { offset, timestamp, reason, error, message } = letter;
    let mut text =
        format!("offset {offset} of {stream}, written {timestamp}: {}\n", printable(reason));
    if let Some(error) = error {
        text.extend(["  ", &printable(error), "\n"]);
    }
    match envelope(letter, stream) {
        None => {
            text.push_str("  no AMQP message; its bytes:\n");
            text.push_str(&hex(message));
        }
        Some(line) => text.push_str(&body(&line)),
    }
    text.push('\n');
    text
}

/// The body of a line: JSON in lines, text as it is, anything else in hexadecimal.
fn body(line: &Value) -> String {
    let body = &line["body"];
    match (line["body_encoding"].as_str(), body.as_str()) {
        (Some("text"), Some(text)) => indented(&printable(text)),
        (Some("base64"), Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(bytes) => hex(&bytes),
            Err(_) => indented(encoded),
        },
        _ => indented(&printable(&format!("{body:#}"))),
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        all.extend(["  ", line, "\n"]);
        all
    })
}

/// Without what would command a terminal.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    let shown = bytes.get(..HEX_MAX).unwrap_or(bytes);
    for (nth, line) in shown.chunks(HEX_LINE).enumerate() {
        text.push_str(&format!("  {:06x} ", nth * HEX_LINE));
        for byte in line {
            text.push_str(&format!(" {byte:02x}"));
        }
        text.push('\n');
    }
    if bytes.len() > HEX_MAX {
        text.push_str(&format!("  … {} bytes in all\n", bytes.len()));
    }
    text
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
        let shown = |message: &[u8]| as_text(&letter(message), &stream);
        let json = shown(&data(b"{\"a\":[1]}"));
        assert!(json.starts_with("offset 7 of events, written 1970-01-01T00:00:00Z: misfit\n"));
        assert!(json.contains("  {\n    \"a\": [\n"), "{json}");
        assert!(json.contains("no number\u{fffd}[2J") && !json.contains('\u{1b}'), "{json}");
        assert!(shown(&data("grüße\u{7}".as_bytes())).contains("  grüße\u{fffd}\n"));
        assert!(shown(&data(&[0xff, 0x00, 0x10])).contains("  000000  ff 00 10\n"));
        assert!(shown(b"\x01").contains("no AMQP message; its bytes:\n  000000  01\n"));
        let long = shown(&data(&[0xfe; 200]));
        assert!(long.contains("  0000c0 "), "{long}");
        let value = as_value(&letter(&data(b"{\"a\":1}")), &stream);
        assert_eq!((&value["message"]["body"]["a"], &value["offset"]), (&json!(1), &json!(7)));
    }
}
