//! The result of a replay.

use std::fmt;

use serde::Serialize;

use crate::types::StreamName;

/// What a replay did.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) consumer: String,
    pub(super) stream: String,
    /// First and last offset of the range; `None` if it holds no message.
    pub(super) from_offset: Option<u64>,
    pub(super) to_offset: Option<u64>,
    /// Number of messages that this run has written.
    pub(super) written: u64,
    /// Number of messages that the consumer's filter has left out in this run.
    pub(super) filtered: u64,
    /// Number of messages that the sink has refused in this run.
    pub(super) bad: u64,
    /// What became of them, in words.
    #[serde(skip)]
    pub(super) bad_are: &'static str,
    /// Last offset that an earlier, interrupted run had written.
    pub(super) done_before: Option<u64>,
    /// What retention had deleted.
    pub(super) missing: Option<String>,
    /// The sink, in words.
    pub(super) through: String,
    /// Where it wrote; `None` if that has no name.
    pub(super) into: Option<String>,
    pub(super) seconds: f64,
}

/// What the replay of a whole consumer did.
pub(super) struct AllDone {
    pub(super) super_stream: Option<StreamName>,
    pub(super) parts: Vec<Done>,
}

impl AllDone {
    /// The report, as text or as JSON. That of one stream is an object, that of a super stream has a list of them.
    pub(super) fn told(&self, as_json: bool) -> serde_json::Result<String> {
        let written: u64 = self.parts.iter().map(|part| part.written).sum();
        match (as_json, &self.super_stream) {
            (true, None) => Ok(format!("{:#}\n", serde_json::json!(self.parts.first()))),
            (true, Some(name)) => Ok(format!(
                "{:#}\n",
                serde_json::json!({ "super_stream": name, "written": written, "streams": self.parts })
            )),
            (false, whole) => {
                let mut told: String = self.parts.iter().map(ToString::to_string).collect();
                if let Some(name) = whole {
                    let count = self.parts.len();
                    told.push_str(&format!(
                        "{written} messages of {count} partitions of super stream {name:?}\n"
                    ));
                }
                Ok(told)
            }
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done { stream, written, through, .. } = self;
        write!(f, "{written} messages of stream {stream:?} ")?;
        match (self.from_offset, self.to_offset) {
            (Some(from), Some(to)) => write!(f, "(offsets {from} to {to}) ")?,
            _ => f.write_str("(none is in the range) ")?,
        }
        write!(f, "replayed through {through}")?;
        if let Some(into) = &self.into {
            write!(f, " into {into}")?;
        }
        writeln!(f, ", in {:.1} s", self.seconds)?;
        if let Some(before) = self.done_before {
            writeln!(f, "  those up to offset {before} were replayed before an interruption")?;
        }
        if self.filtered > 0 {
            writeln!(f, "  {} left out by the filter", self.filtered)?;
        }
        if self.bad > 0 {
            writeln!(f, "  {} that the sink does not take {}", self.bad, self.bad_are)?;
        }
        if let Some(missing) = &self.missing {
            writeln!(f, "  missing: {missing}")?;
        }
        Ok(())
    }
}
