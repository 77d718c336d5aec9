//! The `stream` sink: publishes messages to another RabbitMQ stream, byte for byte.
//!
//! # Why nothing is lost or duplicated
//! Each message is published under the id *source offset + 1*, by a publisher whose name never
//! changes. (Plus one, because the broker's answer 0 to "last id" also means "none".) The stream's
//! leader keeps, for each name, the highest id that it accepted: the *sequence*. It drops an id
//! that is not above it, but still confirms it. The sequence is in the same chunk as the messages
//! that it counts, so a crash keeps both or neither.
//!
//! The claim: *at any time the target holds exactly the messages of the source with ids up to the
//! sequence, each once and in order.* It holds at the beginning, when there are none. Suppose that
//! the leader accepts a message with id n while its sequence is s < n. The sender of n
//! - began right after a sequence that the target had then, so at or below s;
//! - sent all messages from there up to n in order, on one connection;
//! - sent nothing more on a connection after one of its messages was refused.
//!
//! The leader accepts the messages of a connection in order. So each message between s and n came
//! before n on this connection, and would have been accepted, and moved the sequence. Hence there
//! is none: n is the one that follows s.
//!
//! *Two processes at once*, one of them perhaps frozen for an hour, need no fencing: the argument
//! does not depend on the sender of n. Messages of the slower one are dropped until it has caught
//! up. (Both must leave out the same messages, so both must have the same configuration.)
//!
//! After a connection broke, perhaps within a batch, the sequence is read on the next connection,
//! *after* the publisher was declared there, so that it is not that of an earlier leader.
//! Publishing continues with the message at the sequence: it is dropped, but its confirmation
//! proves that all before it is on a majority of the replicas. A confirmation proves that for
//! everything before it in the same leader's log.
//!
//! # Detected losses
//! A sequence below the confirmed one, or below the position (the target was deleted and
//! re-created, restored from a copy, or lost its end), is fatal: continuing would leave a gap. A
//! higher sequence that a leader reports may go back with the next leader: it belongs to the
//! current batch, which is sent again from there.
//!
//! # Limits of the guarantee
//! - The broker keeps the sequences of 255 names per stream, and forgets the one that was idle for
//!   longest. A forgotten one looks like a new one.
//! - When a segment of the target is full, the broker stores the sequences *before* the messages of
//!   that moment. A broker that dies between the two, without another replica that takes over,
//!   drops these few messages when they are sent again.
//! - A position is an offset without a chunk: a re-created source is detected by the state file, or
//!   because it is shorter.
//!
//! # A re-created source
//! Offsets that begin anew would all be dropped. So [`Sink::restart`] continues under another name:
//! `NAME~1`, `NAME~2`, … The current number is stored in the target before anything is published
//! under it. Otherwise a process that starts before that would find the position of the old
//! incarnation. It is stored as an offset under the reference `NAME~`, above all offsets of a
//! stream, because retention evicts those below the first offset. A sequence under a higher name
//! has precedence. The leader's copy is read back; the copies of other replicas cannot be, so it is
//! stored again with each connection until the first message. Only if leader and this process die
//! together before that can the old incarnation be found.
//!
//! Records excluded by a policy move the sequence only with the next one that is not: after a
//! restart, excluded records at the very end are read, and excluded, again.
//!
//! Knows nothing of connections (it has a [`Publisher`]), retries or metrics.

mod audit;
mod conflicts;
mod declaration;
mod options;
mod publisher;
mod settings;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::audit::{StreamAudit, TargetJudge};
pub use self::options::StreamOptions;
pub use self::publisher::{Destination, PublishError, Publisher, TargetLimits};
pub use self::settings::StreamSettings;
use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::declaration::Declaration;
use crate::sink::{BAD_RECORDS_MAX, BadReason, BadRecord, Durability, Sink, SinkError};
use crate::types::{Checkpoint, Guarantee, Offset, Reference};

use self::publisher::{GENERATION_BYTES, NAME_BYTES_MAX, PUBLISHER_BYTES_MAX};

/// Number of names in a row without a sequence after which the search ends: the broker may have
/// forgotten some.
const GENERATIONS_AHEAD: u32 = 4;

/// Offset of incarnation 0 in the stored mark.
const GENERATIONS_FROM: u64 = 1 << 62;

/// Publishes records to a stream, each once.
pub struct StreamSink {
    options: StreamOptions,
    publisher: Box<dyn Publisher>,
    generation: u32,
    limits: TargetLimits,
    /// The highest id that was confirmed, or belongs to the position: a lower sequence is a loss.
    held: u64,
    /// The sequence when this connection began: lower ids need not be sent.
    since: u64,
    /// The last acknowledged offset, or the position.
    covered: Option<Offset>,
}

/// Publishing id of the message at this offset.
fn id_of(offset: Offset) -> u64 {
    // The last possible offset would share its id with the one before; no stream reaches it.
    offset.0.saturating_add(1)
}

fn name_of(publisher: &str, generation: u32) -> String {
    match generation {
        0 => publisher.to_owned(),
        n => format!("{publisher}~{n}"),
    }
}

/// Reference of the stored incarnation number.
fn mark_of(publisher: &str) -> Reference {
    Reference::from(format!("{publisher}~").as_str())
}

/// Stores the incarnation number in the target.
async fn mark(
    publisher: &mut dyn Publisher,
    name: &str,
    generation: u32,
) -> Result<(), PublishError> {
    let at = Offset(GENERATIONS_FROM + u64::from(generation));
    match publisher.store(&mark_of(name), at).await? {
        Some(held) if held == at => Ok(()),
        _ => Err(PublishError::Transient(format!(
            "{} did not store the offset under {:?}, which marks the current incarnation of the source",
            publisher.target(),
            mark_of(name).as_str()
        ))),
    }
}

/// The current incarnation number, and its sequence.
async fn find(publisher: &mut dyn Publisher, name: &str) -> Result<(u32, u64), PublishError> {
    let kept = publisher.stored(&mark_of(name)).await?;
    let kept = kept.and_then(|at| at.0.checked_sub(GENERATIONS_FROM));
    let kept = kept.and_then(|generation| u32::try_from(generation).ok()).unwrap_or(0);
    let (mut found, mut ahead) = ((kept, 0), kept);
    while ahead <= found.0 + GENERATIONS_AHEAD {
        let sequence = publisher.sequence(&name_of(name, ahead)).await?;
        if sequence > 0 {
            found = (ahead, sequence);
        }
        ahead += 1;
    }
    Ok(found)
}

fn position_of(sequence: u64) -> Option<Offset> {
    sequence.checked_sub(1).map(Offset)
}

/// The position that a sink with these options would find. Does not become a publisher.
///
/// # Errors
/// If the target cannot be asked.
pub async fn committed(
    options: &StreamOptions,
    mut publisher: Box<dyn Publisher>,
) -> Result<Option<Checkpoint>, SinkError> {
    publisher.connect().await?;
    let (_, sequence) = find(&mut *publisher, &options.publisher).await?;
    publisher.disconnect().await;
    Ok(position_of(sequence).map(|offset| Checkpoint { offset, chunk: None }))
}

impl StreamSink {
    /// Connects to the target's leader and reads the position there.
    ///
    /// # Errors
    /// Transient if the target cannot be reached; fatal if the name is too long.
    pub async fn open(
        options: StreamOptions,
        mut publisher: Box<dyn Publisher>,
    ) -> Result<StreamSink, SinkError> {
        if options.publisher.len() > NAME_BYTES_MAX {
            return Err(SinkError::Fatal(format!(
                "stream sink: the publisher's name has {} bytes; the broker accepts \
                 {PUBLISHER_BYTES_MAX}, of which {GENERATION_BYTES} are reserved",
                options.publisher.len()
            )));
        }
        publisher.connect().await?;
        let (generation, _) = find(&mut *publisher, &options.publisher).await?;
        let (sequence, limits) =
            publisher.declare(&name_of(&options.publisher, generation)).await?;
        let covered = position_of(sequence);
        Ok(StreamSink {
            options,
            publisher,
            generation,
            limits,
            held: sequence,
            since: sequence,
            covered,
        })
    }

    /// Connects again if the connection is gone.
    async fn ready(&mut self) -> Result<(), SinkError> {
        if self.publisher.is_up() {
            return Ok(());
        }
        self.publisher.connect().await?;
        if self.generation > 0 && self.held == 0 {
            mark(&mut *self.publisher, &self.options.publisher, self.generation).await?;
        }
        let name = name_of(&self.options.publisher, self.generation);
        let (sequence, limits) = self.publisher.declare(&name).await?;
        if sequence < self.held {
            self.publisher.disconnect().await;
            return Err(SinkError::Fatal(format!(
                "{} no longer holds what it confirmed: its last publishing id of publisher {name:?} \
                 is {sequence}, it was {}. It was re-created or restored from a copy, or has lost \
                 its end; or it has forgotten this publisher, because it keeps only 255. After a restart \
                 the consumer continues after the last message that the target holds",
                self.publisher.target(),
                self.held
            )));
        }
        (self.since, self.limits) = (sequence, limits);
        Ok(())
    }

    /// Refuses the batch if it holds records that the target would not accept.
    fn check(&self, batch: &Batch) -> Result<(), SinkError> {
        let most = self.limits.message_bytes_max;
        let bad: Vec<BadRecord> = batch
            .records()
            .filter_map(|record| {
                let (reason, detail) = match self.options.outgoing(&record) {
                    Ok(message) if message.len() <= most => return None,
                    Ok(message) => (
                        BadReason::Refused,
                        format!(
                            "the message has {} bytes, and {} accepts at most {most} (the broker's \
                             stream.frame_max)",
                            message.len(),
                            self.publisher.target()
                        ),
                    ),
                    Err(error) if error.is_over_limit() => {
                        (BadReason::OverLimit, error.to_string())
                    }
                    Err(error) => (BadReason::Undecodable, error.to_string()),
                };
                Some(BadRecord { about: None, offset: record.offset, reason, detail })
            })
            .take(BAD_RECORDS_MAX)
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(SinkError::Poison(bad)) }
    }

    /// Publishes the messages that the target does not have, and waits until all are confirmed.
    async fn publish(&mut self, batch: &Batch) -> Result<(), PublishError> {
        let Some(last) = batch.records().last().map(|record| id_of(record.offset)) else {
            return Ok(()); // All were left out.
        };
        // At least one is sent: its confirmation proves all before it.
        let from = self.since.min(last);
        for record in batch.records().filter(|record| id_of(record.offset) >= from) {
            let message = self.options.outgoing(&record).map_err(|error| {
                PublishError::Fatal(format!("internal error: {error} after it was checked"))
            })?;
            while !self.publisher.push(id_of(record.offset), &message)? {
                self.publisher.send().await?;
                faults::reach(Point::Written);
            }
        }
        self.publisher.send().await?;
        faults::reach(Point::Written);
        faults::reach(Point::Flushed);
        self.publisher.confirmed().await?;
        self.held = self.held.max(last);
        Ok(())
    }
}

#[async_trait]
impl Sink for StreamSink {
    fn kind(&self) -> &'static str {
        StreamSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        StreamSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.ready().await?;
        self.held = self.held.max(self.since);
        self.covered = self.covered.max(position_of(self.held));
        Ok(self.covered.map(|offset| Checkpoint { offset, chunk: None }))
    }

    /// A write waits for the last confirmation, however many come before it.
    fn joins_batches(&self) -> bool {
        true
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if let Some(covered) = self.covered.filter(|covered| batch.first_offset() <= *covered) {
            return Err(SinkError::Fatal(format!(
                "internal error: a batch from offset {} on was given to {}, whose position is {covered}; \
                 please report it",
                batch.first_offset(),
                self.publisher.target()
            )));
        }
        self.ready().await?;
        self.check(batch)?;
        if let Err(error) = self.publish(batch).await {
            // It is unknown how much of it was accepted: the next connection asks.
            self.publisher.disconnect().await;
            return Err(error.into());
        }
        self.covered = Some(batch.last_offset());
        Ok(Durability::Durable)
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        let generation = self.generation + 1;
        self.publisher.connect().await?;
        mark(&mut *self.publisher, &self.options.publisher, generation).await?;
        self.publisher.disconnect().await;
        self.generation = generation;
        (self.held, self.since, self.covered) = (0, 0, None);
        let name = name_of(&self.options.publisher, self.generation);
        tracing::warn!(
            target = self.publisher.target(),
            publisher = name,
            "publishing under another name: offsets of the source begin anew, or are published again"
        );
        Ok(())
    }

    /// A lower sequence cannot be set, but another name has none. A higher one comes with the next message.
    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        let at = self.position().await?.map(|at| at.offset);
        if at > to.map(|to| to.offset) {
            self.restart().await?;
        }
        self.position().await
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.publisher.disconnect().await;
        Ok(())
    }
}
