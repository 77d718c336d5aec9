//! Logs a repeated failure once, and again at intervals; the recovery is logged too.
//!
//! A failure with another text is logged at once. Time comes in as an argument.

use std::time::{Duration, Instant};

/// Interval at which the same failure is logged again.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Failures in a row, for the log.
#[derive(Debug, Default)]
pub struct Trouble(Option<Row>);

#[derive(Debug)]
struct Row {
    text: String,
    since: Instant,
    said_at: Instant,
    attempts: u64,
}

/// A series of failures that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Number of failed attempts.
    pub attempts: u64,
    /// Time from the first failure to the recovery.
    pub lasted: Duration,
}

impl Trouble {
    /// Counts a failure; returns true if it should be logged.
    pub fn failed(&mut self, text: &str, now: Instant) -> bool {
        let Some(row) = &mut self.0 else {
            self.0 = Some(Row { text: text.to_owned(), since: now, said_at: now, attempts: 1 });
            return true;
        };
        row.attempts += 1;
        let say = row.text != text || now.duration_since(row.said_at) >= SAID_AGAIN_AFTER;
        if say {
            text.clone_into(&mut row.text);
            row.said_at = now;
        }
        say
    }

    /// Records a success; returns the failures before it, if there were any.
    pub fn over(&mut self, now: Instant) -> Option<Past> {
        let row = self.0.take()?;
        Some(Past { attempts: row.attempts, lasted: now.duration_since(row.since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_said_once_and_again_after_a_while() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trouble.over(start), None);
        assert!(trouble.failed("refused", at(0)));
        assert!(!trouble.failed("refused", at(1)));
        assert!(!trouble.failed("refused", at(599)));
        assert!(trouble.failed("refused", at(600)));
        assert!(!trouble.failed("refused", at(601)));
        assert!(trouble.failed("full", at(602)));
        let past = Past { attempts: 6, lasted: Duration::from_secs(603) };
        assert_eq!(trouble.over(at(603)), Some(past));
        assert_eq!(trouble.over(at(604)), None);
        assert!(trouble.failed("full", at(605)), "a new row");
    }
}
