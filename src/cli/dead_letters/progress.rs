//! Progress of the replays of a consumer's dead letters: a small file in `state_dir`.
//!
//! A *round* is one complete replay. Each has its own reference, under which the sink keeps its
//! position; so an interrupted round continues, and messages that were still bad are tried again in
//! the next one. The file is locked while a replay runs.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::letters::Summary;
use crate::cli::exit::Failure;
use crate::cli::locked::{self, Locked};
use crate::files::NEXT;
use crate::types::file_name::of_two;
use crate::types::{ConsumerName, Offset, Reference, StreamName, Timestamp};

/// Results of earlier rounds, and of the current one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rounds {
    stream: String,
    reference: String,
    /// Number of the current round.
    pub(super) round: u32,
    /// Last dead letter that earlier rounds have settled, except those in `pending`; `None` before
    /// the first round.
    pub(super) upto: Option<Offset>,
    /// Dead letters that were still bad in earlier rounds.
    pub(super) pending: BTreeSet<Offset>,
    /// Dead letters that are still bad in the current round so far.
    pub(super) bad: BTreeSet<Offset>,
    /// Number of dead letters from old incarnations of the stream when this was written, and the
    /// first one of the current incarnation.
    #[serde(default)]
    former: u64,
    #[serde(default)]
    begins: Option<(Offset, Timestamp)>,
}

impl Rounds {
    /// Compares with the dead letters that exist now. If the stream was re-created, the offsets mean
    /// other messages: then nothing is settled, and the current round no longer counts.
    pub(super) fn look_at(&mut self, summary: &Summary) {
        let begun = summary.former > 0 && summary.begins != self.begins;
        // All old dead letters were dropped since, and nothing else shows it.
        let shorter = matches!((summary.last, self.upto), (Some(last), Some(upto)) if last < upto);
        if begun || shorter || summary.former > self.former {
            self.round += 1;
            self.upto = None;
            self.pending.clear();
            self.bad.clear();
        }
        self.former = summary.former;
        if summary.former > 0 {
            self.begins = summary.begins;
        }
    }

    /// True if this dead letter belongs to the current round.
    pub(super) fn wants(&self, offset: Offset) -> bool {
        self.upto.is_none_or(|upto| offset > upto) || self.pending.contains(&offset)
    }

    /// The round after this one, which ended at `last`.
    pub(super) fn next(&self, last: Option<Offset>) -> Rounds {
        Rounds {
            round: self.round.saturating_add(1),
            upto: self.upto.max(last),
            pending: self.bad.clone(),
            bad: BTreeSet::new(),
            ..self.clone()
        }
    }
}

/// The progress file, locked.
pub(super) struct Progress(Locked);

impl Progress {
    /// Opens, locks and reads the file of this consumer.
    pub(super) fn open(
        state_dir: &Path,
        consumer: &ConsumerName,
        stream: &StreamName,
        reference: &Reference,
    ) -> Result<(Progress, Rounds), Failure> {
        let path = state_dir.join(of_two(consumer.as_str(), stream.as_str(), "replay.json", NEXT));
        let file = Locked::open(path, "another replay of this consumer")?;
        let fresh = Rounds {
            stream: stream.to_string(),
            reference: reference.to_string(),
            ..Rounds::default()
        };
        let parsed = |text: Option<Vec<u8>>| -> Result<Option<Rounds>, Failure> {
            let parsed = text.map(|text| serde_json::from_slice(&text)).transpose();
            parsed.map_err(|error| file.error(error))
        };
        // Earlier versions had one file for each consumer, which names the stream in it.
        let before = || locked::read(&state_dir.join(format!("{consumer}.replay.json")));
        let rounds = match parsed(file.read()?)? {
            Some(rounds) => rounds,
            None => {
                let before = parsed(before()?)?.filter(|rounds| rounds.stream == fresh.stream);
                before.unwrap_or_else(|| fresh.clone())
            }
        };
        if (&rounds.stream, &rounds.reference) != (&fresh.stream, &fresh.reference) {
            let (stream, reference) = (&rounds.stream, &rounds.reference);
            return Err(file.error(format!(
                "it belongs to stream {stream:?} and reference {reference:?}; if they no longer exist, \
                 delete it"
            )));
        }
        Ok((Progress(file), rounds))
    }

    /// Replaces the content atomically.
    pub(super) fn write(&self, rounds: &Rounds) -> Result<(), Failure> {
        let content = serde_json::to_vec_pretty(rounds).map_err(|error| self.0.error(error))?;
        self.0.write(&content)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::dead_letters::letters::Letter;

    fn open(dir: &Path, reference: &str) -> Result<(Progress, Rounds), Failure> {
        Progress::open(dir, &"c".into(), &"s".into(), &reference.into())
    }

    #[test]
    fn a_round_takes_what_is_new_and_what_was_still_bad() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, mut rounds) = open(dir.path(), "r").unwrap();
        assert!(rounds.wants(Offset(0)) && rounds.round == 0);
        rounds.bad.extend([Offset(3), Offset(5)]);
        progress.write(&rounds.next(Some(Offset(9)))).unwrap();
        assert!(open(dir.path(), "r").is_err(), "two at once");
        drop(progress);
        let (_progress, next) = open(dir.path(), "r").unwrap();
        assert_eq!(next.round, 1);
        let wanted: Vec<u64> = (0..12).filter(|o| next.wants(Offset(*o))).collect();
        assert_eq!(wanted, [3, 5, 10, 11]);
    }

    fn letters(offsets: impl IntoIterator<Item = (u64, i64)>) -> Summary {
        let mut summary = Summary::default();
        for (offset, at) in offsets {
            summary.add(&Letter {
                offset: Offset(offset),
                timestamp: Timestamp(at),
                reason: "misfit".to_owned(),
                error: None,
                message: Vec::new(),
            });
        }
        summary
    }

    /// The stream was created again: its letters are not the settled ones, though their offsets are
    /// lower, or the same.
    #[test]
    fn nothing_of_a_new_incarnation_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, mut rounds) = open(dir.path(), "r").unwrap();
        let old = [(20, 1), (5000, 2)];
        rounds.look_at(&letters(old));
        rounds.bad.insert(Offset(20));
        let mut settled = rounds.next(Some(Offset(5000)));
        settled.look_at(&letters(old.into_iter().chain([(5001, 3)])));
        assert!((settled.round, settled.wants(Offset(10))) == (1, false), "the same history");
        progress.write(&settled).unwrap();
        drop(progress);
        let (progress, stored) = open(dir.path(), "r").unwrap();
        for new in [vec![(10, 4), (30, 5)], vec![(5001, 4)]] {
            let mut rounds = stored.clone();
            rounds.look_at(&letters(old.into_iter().chain([(5001, 3)]).chain(new.clone())));
            assert_eq!((rounds.round, rounds.pending.len()), (2, 0), "{new:?}");
            assert!(new.iter().all(|(offset, _)| rounds.wants(Offset(*offset))), "{new:?}");
            // A round of it came to its end: it stays settled, also when former letters are dropped.
            let mut next = rounds.next(Some(Offset(new.last().unwrap().0)));
            progress.write(&next).unwrap();
            for kept in [[(20, 1), (5001, 3)].as_slice(), &[(5001, 3)], &[]] {
                next.look_at(&letters(kept.iter().copied().chain(new.clone())));
                assert_eq!((next.round, next.wants(Offset(new[0].0))), (3, false), "{kept:?}");
            }
        }
        // As many former letters as before, for some were dropped: another beginning.
        let mut rounds = stored.clone();
        rounds.look_at(&letters([(5001, 3), (10, 4)]));
        let mut rounds = rounds.next(Some(Offset(10)));
        rounds.look_at(&letters([(10, 4), (7, 6)]));
        assert!(rounds.wants(Offset(7)) && rounds.round == 4, "{rounds:?}");
        // No former letter is left at all.
        let mut rounds = stored.clone();
        rounds.look_at(&letters([(10, 4)]));
        assert!(rounds.wants(Offset(10)));
    }

    /// One file for each consumer, as before; and each of its streams continues independently.
    #[test]
    fn the_file_of_an_earlier_version_is_read_by_its_stream() {
        let dir = tempfile::tempdir().unwrap();
        let before = r#"{"stream":"s","reference":"r","round":2,"upto":9,"pending":[3],"bad":[]}"#;
        fs::write(dir.path().join("c.replay.json"), before).unwrap();
        let stream = |stream: &str| {
            Progress::open(dir.path(), &"c".into(), &stream.into(), &"r".into()).unwrap()
        };
        let ((progress, rounds), (_other, fresh)) = (stream("s"), stream("s/2"));
        assert_eq!(
            (rounds.round, rounds.wants(Offset(3)), rounds.wants(Offset(4))),
            (2, true, false)
        );
        assert_eq!((fresh.round, fresh.wants(Offset(4))), (0, true));
        progress.write(&rounds.next(Some(Offset(12)))).unwrap();
        drop(progress);
        assert_eq!(stream("s").1.round, 3);
        assert_eq!(fs::read_to_string(dir.path().join("c.replay.json")).unwrap(), before);
    }

    #[test]
    fn the_file_of_another_reference_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, rounds) = open(dir.path(), "r").unwrap();
        progress.write(&rounds).unwrap();
        drop(progress);
        assert!(open(dir.path(), "other").is_err());
    }
}
