//! Prints messages for people and for pipes: one printer for each stream.
//!
//! | format | prints |
//! |---|---|
//! | `envelope` | the offset, the time and the sections of a message, a line each, and then its body |
//! | `body` | the body alone, and a line break |
//! | `json` | the line that Rillway's sinks write (`sink/envelope`) |
//!
//! Bodies come from anyone: on a terminal, control characters are shown and not sent to it, and bytes
//! that are no text are shown as hex or base64. Into a pipe `body` passes bytes on as they are. A message
//! that is not AMQP is shown by its bytes. Knows nothing of brokers, or of where the text goes.

mod colours;
mod shown;

use std::io::IsTerminal;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use indexmap::IndexMap;
use serde_json::json;
use serde_json::value::RawValue;

use self::colours::{Colour, Colours};
use self::shown::hex;
pub(super) use self::shown::visible;
use crate::sink::BadRecord;
use crate::sink::envelope::Envelope;
use crate::types::StreamName;
use crate::wire::block::Record;

/// How messages are printed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct PrintArgs {
    /// What is printed of a message: all of it for people, its body, or one line of JSON
    #[arg(long, value_name = "FORMAT", default_value = "envelope")]
    format: Format,
    /// Print bodies that are no text as hex or base64 [default: base64; `--format body` into a pipe or a
    /// file passes their bytes on]
    #[arg(long, value_name = "AS")]
    binary: Option<Binary>,
    /// Colours [default: on a terminal, unless NO_COLOR is set]
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

/// What is printed of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// All of it, for people.
    Envelope,
    /// Its body.
    Body,
    /// One line of JSON, as Rillway's sinks write it.
    Json,
}

/// How bytes are printed that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Binary {
    /// Two digits for each byte.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe or a file.
    Always,
    /// Never.
    Never,
}

impl PrintArgs {
    /// The style for standard output; `as_json` is `--json`.
    pub(super) fn style(&self, as_json: bool) -> Style {
        let on_terminal = std::io::stdout().is_terminal();
        let coloured = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => on_terminal && colours::are_wanted(),
        };
        Style {
            format: if as_json { Format::Json } else { self.format },
            binary: self.binary,
            on_terminal,
            colours: Colours(coloured),
            names_stream: false,
        }
    }
}

/// How messages are printed, once everything is known that decides it.
#[derive(Clone, Debug)]
pub(super) struct Style {
    format: Format,
    /// `None`: see [`PrintArgs::binary`].
    binary: Option<Binary>,
    on_terminal: bool,
    colours: Colours,
    /// True if the messages of several streams are printed together.
    names_stream: bool,
}

impl Style {
    /// The same for messages of several streams: each names its own.
    pub(super) fn naming_streams(self) -> Style {
        Style { names_stream: true, ..self }
    }

    /// The default, into a pipe and without colours.
    #[cfg(test)]
    pub(super) fn of_envelopes() -> Style {
        let (binary, on_terminal, colours) = (None, false, Colours(false));
        Style { format: Format::Envelope, binary, on_terminal, colours, names_stream: false }
    }

    /// True if more than the message itself may be printed.
    pub(super) fn is_for_people(&self) -> bool {
        self.format == Format::Envelope
    }

    fn binary(&self) -> Binary {
        self.binary.unwrap_or(Binary::Base64)
    }
}

/// Prints the messages of one stream.
pub(super) struct Printer {
    stream: StreamName,
    style: Style,
    /// Lines of JSON, or bare bodies.
    envelope: Envelope,
    /// Buffer for the line of which the envelope's text is made.
    line: Vec<u8>,
}

impl Printer {
    /// A printer for this stream's messages.
    pub(super) fn new(stream: &StreamName, style: &Style) -> Printer {
        let envelope = match style.format {
            Format::Body => Envelope::raw(Vec::new()),
            Format::Envelope | Format::Json => Envelope::ndjson(stream),
        };
        Printer { stream: stream.clone(), style: style.clone(), envelope, line: Vec::new() }
    }

    /// Appends the message, up to and including a line break.
    pub(super) fn print(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        self.line.clear();
        let made = self.envelope.append(record, &mut self.line);
        match (self.style.format, made) {
            (Format::Json, Ok(())) => out.extend_from_slice(&self.line),
            (Format::Json, Err(bad)) => self.undecodable_as_json(record, &bad, out),
            (Format::Body, Ok(())) => self.body(&self.line, out),
            (Format::Body, Err(_)) => self.body(record.message, out),
            (Format::Envelope, made) => {
                self.head(record, out);
                let parts = match &made {
                    Ok(()) => serde_json::from_slice(&self.line).ok(),
                    Err(_) => None,
                };
                match (parts, made) {
                    (Some(parts), _) => self.parts(&parts, out),
                    (None, made) => {
                        let why = made.err().map_or("it cannot be shown".to_owned(), |b| b.detail);
                        let note = format!("not an AMQP message, by its bytes: {why}");
                        self.note(&note, out);
                        self.bytes(record.message, out);
                        out.push(b'\n');
                    }
                }
            }
        }
    }

    /// `-- offset 12, 2026-01-01T00:00:00.000Z`.
    fn head(&self, record: Record<'_>, out: &mut Vec<u8>) {
        let stream = match self.style.names_stream {
            true => format!("{} ", visible(self.stream.as_str())),
            false => String::new(),
        };
        let text = format!("-- {stream}offset {}, {}", record.offset, record.timestamp);
        self.style.colours.paint(Colour::Head, &text, out);
        out.push(b'\n');
    }

    /// The sections, and then the body.
    fn parts(&self, parts: &IndexMap<String, Box<RawValue>>, out: &mut Vec<u8>) {
        let mut encoding = "";
        for (name, value) in parts {
            match name.as_str() {
                "stream" | "offset" | "timestamp" | "body" => {}
                "body_encoding" => encoding = value.get().trim_matches('"'),
                section => self.section(section, value, out),
            }
        }
        let Some(body) = parts.get("body") else { return };
        let text = || serde_json::from_str::<String>(body.get()).unwrap_or_default();
        match encoding {
            "text" => self.text(&text(), out),
            "base64" => match STANDARD.decode(text()) {
                Ok(bytes) => self.bytes(&bytes, out),
                Err(_) => self.text(body.get(), out),
            },
            "amqp" if body.get() == "null" => self.note("no body", out),
            _ => self.text(body.get(), out),
        }
        if !matches!((encoding, body.get()), ("amqp", "null")) {
            out.push(b'\n');
        }
    }

    /// The values of a section, a line each.
    fn section(&self, section: &str, value: &RawValue, out: &mut Vec<u8>) {
        let values: Option<IndexMap<String, Box<RawValue>>> =
            serde_json::from_str(value.get()).ok();
        let Some(values) = values else { return self.entry(section, value, out) };
        for (name, value) in &values {
            self.entry(&format!("{section}.{name}"), value, out);
        }
    }

    fn entry(&self, name: &str, value: &RawValue, out: &mut Vec<u8>) {
        out.extend_from_slice(b"   ");
        self.style.colours.paint(Colour::Name, &visible(name), out);
        out.extend_from_slice(b": ");
        self.text(value.get(), out);
        out.push(b'\n');
    }

    fn note(&self, text: &str, out: &mut Vec<u8>) {
        self.style.colours.paint(Colour::Note, &format!("({})", visible(text)), out);
        out.push(b'\n');
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(visible(text).as_bytes());
    }

    fn bytes(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let (name, text) = match self.style.binary() {
            Binary::Hex => ("hex", hex(bytes)),
            Binary::Base64 => ("base64", STANDARD.encode(bytes)),
        };
        let note = format!("({} bytes, {name}) ", bytes.len());
        self.style.colours.paint(Colour::Note, &note, out);
        out.extend_from_slice(text.as_bytes());
    }

    /// A body alone, and a line break.
    fn body(&self, body: &[u8], out: &mut Vec<u8>) {
        match (std::str::from_utf8(body), self.style.binary) {
            (Ok(text), _) if self.style.on_terminal => self.text(text, out),
            (Ok(_), _) => out.extend_from_slice(body),
            (Err(_), None) if !self.style.on_terminal => out.extend_from_slice(body),
            (Err(_), _) => match self.style.binary() {
                Binary::Hex => out.extend_from_slice(hex(body).as_bytes()),
                Binary::Base64 => out.extend_from_slice(STANDARD.encode(body).as_bytes()),
            },
        }
        out.push(b'\n');
    }

    /// The line of a message that is not AMQP.
    fn undecodable_as_json(&self, record: Record<'_>, bad: &BadRecord, out: &mut Vec<u8>) {
        let line = json!({
            "stream": self.stream.as_str(),
            "offset": record.offset.0,
            "timestamp": record.timestamp.to_string(),
            "error": bad.detail,
            "message": STANDARD.encode(record.message),
            "message_encoding": "base64",
        });
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests;
