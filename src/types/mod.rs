//! Types shared by all modules: positions, names and times.
//!
//! Knows nothing of the rest of the crate. Newtypes keep a bare `u64` or `String` from being passed
//! as the wrong argument.

pub mod bearer;
pub mod column;
pub mod file_name;
pub mod quote;
pub mod table_name;
pub mod time;
pub mod upsert;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The position of one message in a stream. Offsets grow, but are not contiguous: the broker's own
/// tracking chunks take offsets too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset that follows this one; saturates at the end of the range.
    pub fn next(self) -> Offset {
        Offset(self.0.saturating_add(1))
    }

    /// The offset before this one, if there is one.
    pub fn prev(self) -> Option<Offset> {
        self.0.checked_sub(1).map(Offset)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch, as the broker stamps its chunks (the leader's wall clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The current wall-clock time.
    pub fn now() -> Timestamp {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Seconds from `self` to `later`; 0 if `later` is not later.
    pub fn seconds_until(self, later: Timestamp) -> f64 {
        (later.0.saturating_sub(self.0)).max(0) as f64 / 1000.0
    }
}

/// RFC 3339 in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.checked_mul(1000).and_then(time::civil) {
            Some(at) => write!(f, "{at}Z"),
            // Outside the years -9999 to 9999.
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}

/// RFC 3339 with a zone.
impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Timestamp, jiff::Error> {
        time::parse_micros(text).map(|micros| Timestamp(micros / 1000))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text unchanged; it is validated where it is read.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
    };
}

name!(
    /// A stream in the connection's virtual host.
    StreamName
);
name!(
    /// Name under which a consumer's offset is stored on the broker (at most 255 bytes).
    Reference
);
impl Reference {
    /// Most bytes of the suffix of a replay.
    pub const SUFFIX_BYTES_MAX: usize = 40;

    /// Suffix of a reference for a round of a replay of its dead letters.
    #[must_use]
    pub fn replay_suffix(round: u32) -> String {
        format!("{REPLAY}{round}")
    }

    /// Suffix of a reference for a replay of a range that began at this time: `.replay-` and the time
    /// as `20260101T000000`, its milliseconds, a number that tells apart what began at once, and `Z`.
    #[must_use]
    pub fn range_suffix(begun: Timestamp, number: u32) -> String {
        let text = begun.to_string();
        let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
        let (time, millis) = (seconds.replace(['-', ':'], ""), begun.0.rem_euclid(1000));
        format!("{REPLAY}{time}{millis:03}{number:06}Z")
    }

    /// The consumer's own reference: this one without the suffix of a replay, if it has one.
    #[must_use]
    pub fn without_replay(&self) -> &str {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_time = |text: &str| {
            let parts = text.strip_suffix('Z').and_then(|text| text.split_once('T'));
            parts.is_some_and(|(day, time)| is_number(day) && is_number(time))
        };
        match self.0.rsplit_once(REPLAY) {
            Some((own, round)) if round.parse::<u32>().is_ok() || is_time(round) => own,
            _ => &self.0,
        }
    }
}

const REPLAY: &str = ".replay-";

name!(
    /// Name of a consumer in the configuration; the `consumer` label of every metric.
    ConsumerName
);

/// One stream of one consumer, the key of everything that runs or is stored for it. A consumer of a
/// single stream has one; each partition of a super stream is a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerKey {
    /// The consumer's name in the configuration.
    pub consumer: ConsumerName,
    /// The stream that is read.
    pub stream: StreamName,
}

impl fmt::Display for ConsumerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.consumer, self.stream)
    }
}

/// Identity of a chunk, to recognise a log that was rewritten or re-created: the same offset in
/// another log differs in at least one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkId {
    /// The offset of the chunk's first record.
    pub first_offset: Offset,
    /// The leader's epoch when the chunk was written.
    pub epoch: u64,
    /// Time at which the chunk was written.
    pub timestamp: Timestamp,
    /// CRC-32 of the chunk's data section.
    pub crc: u32,
}

impl ChunkId {
    /// Epoch of an identity that is of a single record, which a transport without chunks gives: its
    /// offset, and the CRC-32 of its entry. Its timestamp identifies nothing. `form` numbers the way in
    /// which the transport has encoded the record: another one may encode it differently.
    pub fn epoch_of_record(form: u16) -> u64 {
        u64::MAX - u64::from(form)
    }

    /// True if it is of a single record.
    pub fn is_of_record(&self) -> bool {
        self.epoch >= Self::epoch_of_record(u16::MAX)
    }

    /// True if the two cannot be of one log. An identity of a record and one of a chunk tell
    /// nothing of each other, and neither do those of records that were encoded in other forms.
    pub fn contradicts(&self, other: &ChunkId) -> bool {
        match (self.is_of_record(), other.is_of_record()) {
            (false, false) => self != other,
            (true, true) if self.epoch == other.epoch => {
                (self.first_offset, self.crc) != (other.first_offset, other.crc)
            }
            _ => false,
        }
    }
}

/// A durable position: the last offset, and the chunk that held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Every record at or below this offset is durable (or was dead-lettered or skipped by policy).
    pub offset: Offset,
    /// The chunk that contains `offset`; `None` if unknown.
    pub chunk: Option<ChunkId>,
}

/// Text that must not be shown: it has no `Display`, and its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, to send to a peer.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Delivery guarantee of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Nothing is kept, so nothing is promised (`null`).
    None,
    /// Never lost; after a crash some records are repeated.
    AtLeastOnce,
    /// Never lost; a repeated record is recognised and dropped, as long as the sink's destination
    /// remembers the sender.
    EffectivelyOnce,
    /// Never lost and never repeated: the position is committed atomically with the data.
    ExactlyOnce,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Guarantee::None => "none",
            Guarantee::AtLeastOnce => "at-least-once",
            Guarantee::EffectivelyOnce => "effectively-once",
            Guarantee::ExactlyOnce => "exactly-once",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_of_the_reference_without_its_suffix() {
        let range = Reference::range_suffix(Timestamp(1_767_225_600_250), 42);
        assert_eq!(range, ".replay-20260101T000000250000042Z");
        let round = Reference::replay_suffix(u32::MAX);
        assert!(range.len().max(round.len()) <= Reference::SUFFIX_BYTES_MAX);
        for (reference, own) in [
            (format!("r{range}"), "r"),
            (format!("r{}", Reference::replay_suffix(12)), "r"),
            (format!("r.dead-letters{range}"), "r.dead-letters"),
            ("r.replay-x".to_owned(), "r.replay-x"),
            ("r.replay-TZ".to_owned(), "r.replay-TZ"),
            ("r".to_owned(), "r"),
        ] {
            assert_eq!(Reference::from(reference.as_str()).without_replay(), own, "{reference}");
        }
    }
}
