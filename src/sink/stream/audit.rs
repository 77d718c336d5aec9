//! Recognises the messages of a `stream` sink in its target, for `rillway verify`.
//!
//! A message in a stream does not show its publishing id. So its source is known only if the sink
//! annotates it; else the order of the messages has to tell it.

use async_trait::async_trait;

use super::options::{SOURCE_OFFSET, SOURCE_STREAM, StreamOptions};
use crate::settings::BrokerConfig;
use crate::sink::audit::{
    Contents, Difference, Entry, Judge, Maker, MakesEach, Pair, lines, shown,
};
use crate::sink::envelope::Envelope;
use crate::sink::factory::Look;
use crate::sink::{BadRecord, SinkError, undecodable};
use crate::types::{Offset, StreamName, Timestamp};
use crate::wire::amqp::{Message, Value};
use crate::wire::block::Record;

/// How a `stream` sink is audited.
#[derive(Clone)]
pub struct StreamAudit {
    pub(super) options: StreamOptions,
    /// Finds the sink's position.
    pub look: Look,
    /// The target.
    pub stream: StreamName,
    /// Its broker; `None` for the one that the consumer reads from.
    pub broker: Option<Box<BrokerConfig>>,
}

impl StreamAudit {
    /// True if the messages tell their source.
    pub fn is_annotated(&self) -> bool {
        self.options.annotate
    }

    /// The record in a message of the target; `None` if it says that it comes from elsewhere. If messages
    /// do not tell their source, its offset is the one in the target.
    pub fn entry(&self, record: Record<'_>, contents: &mut Contents) -> Option<Entry> {
        if !self.options.annotate {
            let content = contents.copy(record.message);
            return Some(Entry { offset: record.offset, content });
        }
        let parsed = Message::parse(record.message).ok()?;
        let annotations = parsed.message_annotations()?;
        let value = |key: &str| annotations.get(key).ok().flatten();
        if value(SOURCE_STREAM)?.as_str() != Some(self.options.source.as_str()) {
            return None;
        }
        let Some(Value::Ulong(offset)) = value(SOURCE_OFFSET) else { return None };
        Some(Entry { offset: Offset(offset), content: contents.copy(record.message) })
    }

    /// Makes the messages as they are published.
    pub fn maker(&self) -> Box<dyn Maker> {
        Box::new(TargetMaker(self.options.clone(), Contents::default()))
    }
}

/// Makes the messages as they are published.
struct TargetMaker(StreamOptions, Contents);

impl MakesEach for TargetMaker {
    fn each(&mut self, record: Record<'_>, into: &mut Vec<Entry>) -> Result<(), BadRecord> {
        let content = self.0.outgoing(&record);
        let content = content.map_err(|error| undecodable(record.offset, &error))?;
        into.push(Entry { offset: record.offset, content: self.1.copy(&content) });
        Ok(())
    }
}

/// Names the sections and fields of a message that differ.
pub struct TargetJudge;

#[async_trait]
impl Judge for TargetJudge {
    async fn judge(&mut self, pairs: &[Pair]) -> Result<Vec<Vec<Difference>>, SinkError> {
        let mut envelope = Envelope::ndjson(&StreamName::from(""));
        let mut line = |message: &[u8]| {
            let record = Record { offset: Offset(0), timestamp: Timestamp(0), message };
            let mut line = Vec::new();
            envelope.append(record, &mut line).ok().map(|()| line)
        };
        let compare = |pair: &Pair| match (line(&pair.expected), line(&pair.found)) {
            (Some(expected), Some(found)) if expected != found => {
                lines::differences(&expected, &found)
            }
            // The same values in another encoding, or no AMQP at all.
            _ => vec![Difference {
                part: "message".to_owned(),
                expected: shown(&pair.expected),
                found: shown(&pair.found),
            }],
        };
        Ok(pairs.iter().map(compare).collect())
    }
}
