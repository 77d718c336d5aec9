//! Makes messages from lines of input, or generates them.
//!
//! Runs on a thread of its own, because reading blocks. A group of messages is passed on when it is
//! full, or when the input has no more at the moment, so that a typed line is sent at once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rabbitmq_stream_client::types::Message;
use tokio::sync::mpsc;

use super::args::PublishArgs;
use super::{envelope, generate};
use crate::types::Timestamp;

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Bytes from which a group of messages is passed on.
const RUN_BYTES_MAX: usize = 1 << 20;

/// A message with its id, and the size of its body.
pub(super) struct Item {
    pub(super) id: u64,
    pub(super) message: Message,
    pub(super) bytes: usize,
}

/// Messages that are passed on together.
pub(super) type Run = Vec<Item>;

/// Reason why the input ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("cannot read {from}: {source}")]
    Read { from: String, source: std::io::Error },
    #[error("{from}, line {line}: {what}. The lines before it were published")]
    Line { from: String, line: u64, what: String },
    #[error("the sender has stopped")]
    NobodyListens,
}

enum Source {
    Generate { count: u64, size: Option<usize> },
    Read { path: Option<PathBuf>, format: Format },
}

#[derive(Clone, Copy)]
enum Format {
    Lines,
    Ndjson,
    Envelope,
}

/// Source of messages, and the channel to the sender.
pub(super) struct Feed {
    source: Source,
    next_id: u64,
    run_messages: usize,
    run: Run,
    run_bytes: usize,
    to: mpsc::Sender<Run>,
}

impl Feed {
    pub(super) fn new(args: &PublishArgs, to: mpsc::Sender<Run>) -> Feed {
        let source = match args.generate {
            Some(count) => {
                let size = args.size.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
                Source::Generate { count, size }
            }
            None => Source::Read {
                path: args.file.clone().filter(|path| path != Path::new("-")),
                format: match (args.ndjson, args.envelope) {
                    (true, _) => Format::Ndjson,
                    (_, true) => Format::Envelope,
                    _ => Format::Lines,
                },
            },
        };
        Feed {
            source,
            next_id: 0,
            run_messages: args.batch as usize,
            run: Run::new(),
            run_bytes: 0,
            to,
        }
    }

    /// Passes all messages on.
    pub(super) fn run(mut self) -> Result<(), InputError> {
        match &self.source {
            Source::Generate { count, size } => {
                let (count, size) = (*count, *size);
                for seq in 0..count {
                    self.add(plain(generate::body(seq, Timestamp::now(), size), seq))?;
                }
                self.flush()
            }
            Source::Read { path, format } => {
                let format = *format;
                let (from, reader): (String, Box<dyn Read>) = match path {
                    None => ("standard input".to_owned(), Box::new(std::io::stdin())),
                    Some(path) => {
                        let from = path.display().to_string();
                        match File::open(path) {
                            Ok(file) => (from, Box::new(file)),
                            Err(source) => return Err(InputError::Read { from, source }),
                        }
                    }
                };
                self.read(BufReader::with_capacity(256 << 10, reader), &from, format)
            }
        }
    }

    fn read(
        &mut self,
        mut reader: BufReader<impl Read>,
        from: &str,
        format: Format,
    ) -> Result<(), InputError> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = LINE_BYTES_MAX as u64 + 2;
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut line);
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(source) => {
                    self.flush()?;
                    return Err(InputError::Read { from: from.to_owned(), source });
                }
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            match item(&line, format, self.next_id) {
                Ok(Some(item)) => self.add(item)?,
                Ok(None) => {}
                Err(what) => {
                    self.flush()?;
                    return Err(InputError::Line { from: from.to_owned(), line: number, what });
                }
            }
            if reader.buffer().is_empty() {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn add(&mut self, item: Item) -> Result<(), InputError> {
        self.next_id = item.id + 1;
        self.run_bytes += item.bytes;
        self.run.push(item);
        if self.run.len() >= self.run_messages || self.run_bytes >= RUN_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), InputError> {
        if self.run.is_empty() {
            return Ok(());
        }
        self.run_bytes = 0;
        let run = std::mem::take(&mut self.run);
        self.to.blocking_send(run).map_err(|_| InputError::NobodyListens)
    }
}

fn item(line: &[u8], format: Format, id: u64) -> Result<Option<Item>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
    }
    let blank = line.iter().all(u8::is_ascii_whitespace);
    match format {
        Format::Lines => Ok(Some(plain(line.to_vec(), id))),
        Format::Ndjson | Format::Envelope if blank => Ok(None),
        Format::Ndjson => match serde_json::from_slice::<serde::de::IgnoredAny>(line) {
            Ok(_) => Ok(Some(plain(line.to_vec(), id))),
            Err(error) => Err(format!("it is not JSON: {error}")),
        },
        Format::Envelope => {
            let (message, bytes) = envelope::message(line, id)?;
            Ok(Some(Item { id, message, bytes }))
        }
    }
}

fn plain(body: Vec<u8>, id: u64) -> Item {
    let bytes = body.len();
    Item { id, message: Message::builder().publishing_id(id).body(body).build(), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups of messages that come out, as bodies, and the result.
    fn feed(
        text: &[u8],
        format: Format,
        run_messages: usize,
    ) -> (Vec<Vec<Vec<u8>>>, Result<(), InputError>) {
        let (to, mut runs) = mpsc::channel(1000);
        let source = Source::Generate { count: 0, size: None };
        let mut feed = Feed { source, next_id: 0, run_messages, run: Run::new(), run_bytes: 0, to };
        let ended = feed.read(BufReader::with_capacity(64, text), "it", format);
        drop(feed);
        let mut out = Vec::new();
        while let Some(run) = runs.blocking_recv() {
            out.push(run.iter().map(|i| i.message.data().unwrap_or_default().to_vec()).collect());
        }
        (out, ended)
    }

    fn flat(runs: Vec<Vec<Vec<u8>>>) -> Vec<String> {
        runs.into_iter().flatten().map(|b| String::from_utf8(b).unwrap()).collect()
    }

    #[test]
    fn a_line_is_a_body() {
        for (text, wanted) in [
            ("", vec![]),
            ("\n", vec![""]),
            ("a", vec!["a"]),
            ("a\n", vec!["a"]),
            ("a\n\nb\r\n", vec!["a", "", "b\r"]),
        ] {
            let (runs, ended) = feed(text.as_bytes(), Format::Lines, 100);
            assert_eq!(flat(runs), wanted, "{text:?}");
            ended.unwrap();
        }
    }

    #[test]
    fn runs_are_cut_by_count_and_lose_nothing() {
        let text: String = (0..1000).map(|i| format!("{i}\n")).collect();
        for size in [1, 3, 7] {
            let (runs, ended) = feed(text.as_bytes(), Format::Lines, size);
            ended.unwrap();
            assert!(runs.iter().all(|run| (1..=size).contains(&run.len())));
            let wanted: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
            assert_eq!(flat(runs), wanted);
        }
    }

    #[test]
    fn a_bad_line_is_named_and_the_lines_before_it_are_published() {
        let (runs, ended) = feed(b"{\"a\":1}\n\n  \n[2]\nnope\n{}\n", Format::Ndjson, 100);
        assert_eq!(flat(runs), ["{\"a\":1}", "[2]"]);
        let error = ended.unwrap_err().to_string();
        assert!(error.starts_with("it, line 5: it is not JSON"), "{error}");
        let (runs, ended) = feed(b"{\"body\":1}\n{\"bdy\":1}\n", Format::Envelope, 100);
        assert_eq!(flat(runs), ["1"]);
        assert!(ended.unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn it_stops_when_nobody_listens() {
        let (to, runs) = mpsc::channel(1);
        drop(runs);
        let source = Source::Generate { count: u64::MAX, size: Some(10) };
        let feed = Feed { source, next_id: 0, run_messages: 5, run: Run::new(), run_bytes: 0, to };
        assert!(matches!(feed.run(), Err(InputError::NobodyListens)));
    }
}
