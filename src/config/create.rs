//! `create`: the stream or super stream that is created if it is absent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::STREAM_BYTES_MAX;
use crate::settings::{ByteSize, HumanDuration, Problem, join};
use crate::types::StreamName;

/// The broker's default size of a segment, in bytes.
const SEGMENT_DEFAULT: ByteSize = ByteSize(500_000_000);
/// Largest segment, in bytes, that the broker allows (`rabbit_stream_queue.erl`).
const SEGMENT_MAX: ByteSize = ByteSize(3_000_000_000);
/// The broker's default limit of a super stream's partitions.
const PARTITIONS_MAX: u64 = 1000;

/// `create`: arguments of the stream, or of each partition of the super stream. Without any, the
/// broker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct CreateConfig {
    /// Size of the stream above which the broker drops its oldest segments.
    pub max_length: Option<ByteSize>,
    /// Age above which the broker drops a segment, in whole seconds.
    pub max_age: Option<HumanDuration>,
    /// Size of a segment, the unit that is dropped: at most 3GB. The broker's default is 500MB.
    pub segment: Option<ByteSize>,
    /// Number of partitions of a super stream: NAME-0, NAME-1, …
    pub partitions: Option<u64>,
    /// One partition of a super stream for each of these binding keys, NAME-KEY, in place of
    /// `partitions`: publishers choose a partition by the key.
    pub binding_keys: Option<Vec<String>>,
}

impl CreateConfig {
    /// The partitions to create, each with its binding key; `None` for a stream.
    pub fn partitions_of(&self, super_stream: &StreamName) -> Option<Vec<(StreamName, String)>> {
        let keys = match (&self.binding_keys, self.partitions) {
            (Some(keys), _) => keys.clone(),
            (None, Some(count)) => {
                (0..count.min(PARTITIONS_MAX)).map(|nth| nth.to_string()).collect()
            }
            (None, None) => return None,
        };
        let named = |key: String| (StreamName::new(format!("{super_stream}-{key}")), key);
        Some(keys.into_iter().map(named).collect())
    }

    /// Checks what does not need the broker.
    pub(super) fn check(
        &self,
        name: &StreamName,
        is_super_stream: bool,
        at: &str,
        problems: &mut Vec<Problem>,
    ) {
        let mut bad = |key: &str, what: String| problems.push(Problem::new(join(at, key), what));
        self.check_sizes(&mut bad);
        match (is_super_stream, self.partitions, &self.binding_keys) {
            (false, None, None) => {}
            (false, count, _) => {
                let key = if count.is_some() { "partitions" } else { "binding_keys" };
                bad(key, "a stream has none: use `super_stream` in place of `stream`".to_owned());
            }
            (true, None, None) => bad(
                "partitions",
                "it is missing: a super stream is created with a number of `partitions`, or with \
                 `binding_keys`"
                    .to_owned(),
            ),
            (true, Some(_), Some(_)) => {
                bad("binding_keys", "there is `partitions` already: give one of the two".to_owned())
            }
            (true, Some(count), None) if !(1..=PARTITIONS_MAX).contains(&count) => bad(
                "partitions",
                format!("{count} is out of range: expected 1 to {PARTITIONS_MAX}"),
            ),
            (true, Some(_), None) => {}
            (true, None, Some(keys)) => check_keys(keys, &mut bad),
        }
        let partitions = self.partitions_of(name).filter(|_| is_super_stream).unwrap_or_default();
        if let Some((long, _)) =
            partitions.iter().find(|(n, _)| n.as_str().len() > STREAM_BYTES_MAX)
        {
            let key = if self.partitions.is_some() { "partitions" } else { "binding_keys" };
            bad(
                key,
                format!(
                    "the partition {:?} would be {} bytes long: expected at most {STREAM_BYTES_MAX}",
                    long.as_str(),
                    long.as_str().len()
                ),
            );
        }
    }

    fn check_sizes(&self, bad: &mut impl FnMut(&str, String)) {
        for (key, size) in [("max_length", self.max_length), ("segment", self.segment)] {
            if size == Some(ByteSize(0)) {
                bad(key, "0 is out of range: expected at least 1".to_owned());
            }
        }
        if let Some(age) = self.max_age
            && (age.0.is_zero() || age.0.subsec_nanos() != 0)
        {
            bad("max_age", format!("{age} is out of range: expected whole seconds, at least 1s"));
        }
        if let Some(segment) = self.segment.filter(|segment| *segment > SEGMENT_MAX) {
            let what = format!("{segment} is out of range: the broker allows at most 3GB");
            bad("segment", what);
        }
        match (self.max_length, self.segment) {
            (Some(ByteSize(0)), _) | (None, _) => {}
            (Some(length), Some(segment)) if segment > length => bad(
                "segment",
                format!(
                    "{segment} is more than max_length, {length}: the broker drops whole segments, so \
                     the stream would grow beyond it. Half of max_length is the most that makes sense"
                ),
            ),
            (Some(length), None) if length < SEGMENT_DEFAULT => bad(
                "max_length",
                format!(
                    "{length} is less than one segment (500MB by default), and the broker drops whole \
                     segments: set `segment` too, to half of it or less"
                ),
            ),
            (Some(_), _) => {}
        }
    }
}

fn check_keys(keys: &[String], bad: &mut impl FnMut(&str, String)) {
    let (count, most) = (keys.len(), PARTITIONS_MAX);
    if count == 0 || count as u64 > most {
        bad("binding_keys", format!("{count} keys are out of range: expected 1 to {most}"));
    }
    if let Some(key) = keys.iter().find(|k| k.is_empty() || k.chars().any(char::is_control)) {
        let what = format!("{key:?} cannot be a key: it is empty, or holds a control character");
        bad("binding_keys", what);
    }
    let twice = |(nth, key): &(usize, &String)| keys.iter().take(*nth).any(|other| other == *key);
    if let Some((_, key)) = keys.iter().enumerate().find(twice) {
        bad("binding_keys", format!("{key:?} is given twice"));
    }
}
