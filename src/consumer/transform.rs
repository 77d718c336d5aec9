//! A consumer's programs on one message: `where` keeps it or leaves it out, `map` makes another body of it.
//!
//! They see the body as JSON, as columns do, and the rest of the message as `$message`: what the file sink
//! writes of it, without the body. The result of `map` is the body of the message from there on, in one data
//! section. Everything else of the message stays as it is, and so does the message that becomes a dead
//! letter.

use std::borrow::Cow;
use std::sync::Mutex;

use crate::sink::columns::json_of_body;
use crate::sink::envelope::Envelope;
use crate::sink::{BadReason, BadRecord, discreet, undecodable};
use crate::sync::lock;
use crate::transform::{Failure, Input, Program, RESULT_BYTES_MAX};
use crate::types::{Offset, StreamName};
use crate::wire::amqp::{AmqpError, Message, append_with_body, single_data, with_body};
use crate::wire::block::Record;

/// A consumer's programs.
#[derive(Debug)]
pub struct Transform {
    keep: Option<Program>,
    reshape: Option<Program>,
    /// True if the report of a bad message may quote what the program says of it.
    show_values: bool,
    /// Writes what `$message` holds; `None` if no program asks for it.
    about: Option<Mutex<About>>,
}

struct About(Envelope);

impl std::fmt::Debug for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("About")
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written as it is.
    Kept,
    /// It is written as the message that was added to [`Made`].
    Made,
    /// It is left out.
    Dropped,
}

/// New messages, in order. They share one buffer, so that none is allocated.
#[derive(Default)]
pub struct Made {
    bytes: Vec<u8>,
    /// Offset of each message, and where it ends.
    ends: Vec<(Offset, usize)>,
    /// The body of the message that is being made.
    body: Vec<u8>,
}

impl Made {
    /// The messages, with the offsets of those that they replace.
    pub fn messages(&self) -> impl Iterator<Item = (Offset, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(offset, end)| {
            let message = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            (*offset, message)
        })
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the message of this record, with the body that was made for it.
    fn add(&mut self, record: Record<'_>) -> Result<(), AmqpError> {
        append_with_body(&mut self.bytes, record.message, &self.body)?;
        self.ends.push((record.offset, self.bytes.len()));
        if self.body.capacity() > RESULT_BYTES_MAX {
            self.body = Vec::new();
        }
        Ok(())
    }
}

/// Leaves the messages out: they may be confidential.
impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("messages", &self.ends.len()).finish_non_exhaustive()
    }
}

impl Transform {
    /// The programs `where` and `map` for the messages of one stream; `None` if there is none.
    pub fn new(
        stream: StreamName,
        keep: Option<Program>,
        reshape: Option<Program>,
        show_values: bool,
    ) -> Option<Transform> {
        if keep.is_none() && reshape.is_none() {
            return None;
        }
        let asks = [&keep, &reshape].into_iter().flatten().any(Program::wants_message);
        let about = asks.then(|| Mutex::new(About(Envelope::ndjson(&stream))));
        Some(Transform { keep, reshape, show_values, about })
    }

    /// What becomes of this message. A message that is made of it is added to `made`.
    ///
    /// # Errors
    /// If a program fails on it.
    pub fn judge(&self, record: Record<'_>, made: &mut Made) -> Result<Verdict, BadRecord> {
        let judged = self.judged(record, made);
        judged.map_err(|bad| if self.show_values { bad } else { discreet::hide(bad) })
    }

    fn judged(&self, record: Record<'_>, made: &mut Made) -> Result<Verdict, BadRecord> {
        let undecodable = |error| undecodable(record.offset, &error);
        let body = match single_data(record.message) {
            Some(body) => Some(Cow::Borrowed(body)),
            None => {
                let message = Message::parse(record.message).map_err(undecodable)?;
                json_of_body(&message).map_err(undecodable)?
            }
        };
        let message = self.about.as_ref().map(|about| of_message(about, record)).transpose()?;
        // A message without a body is null.
        let body = body.as_deref().unwrap_or(b"null");
        let input = Input { body, message: message.as_deref() };
        if let Some(program) = &self.keep
            && !program.keeps(input).map_err(|failure| bad("where", record.offset, failure))?
        {
            return Ok(Verdict::Dropped);
        }
        let Some(program) = &self.reshape else { return Ok(Verdict::Kept) };
        let is_made = program.reshape_into(input, &mut made.body);
        if !is_made.map_err(|failure| bad("map", record.offset, failure))? {
            return Ok(Verdict::Dropped);
        }
        made.add(record).map_err(undecodable)?;
        Ok(Verdict::Made)
    }
}

/// Everything of a message but its body, as JSON.
fn of_message(about: &Mutex<About>, record: Record<'_>) -> Result<Vec<u8>, BadRecord> {
    let without =
        with_body(record.message, b"").map_err(|error| undecodable(record.offset, &error))?;
    let mut line = Vec::new();
    lock(about).0.append(Record { message: &without, ..record }, &mut line)?;
    // Of no bytes the body is the last member, and the line's end.
    const BODY: &[u8] = b",\"body\":\"\",\"body_encoding\":\"text\"}\n";
    if line.ends_with(BODY) {
        line.truncate(line.len() - BODY.len());
        line.push(b'}');
    }
    Ok(line)
}

fn bad(key: &str, offset: Offset, failure: Failure) -> BadRecord {
    let reason = if failure.is_over_limit { BadReason::OverLimit } else { BadReason::Program };
    BadRecord::about(format!("`{key}`"), offset, reason, failure)
}
