//! Lag of a reference that another program owns. Only the offsets that it stores are known.
//!
//! - A reference that has stored nothing has no lag: unknown, not 0.
//! - When retention passes a stored offset, the broker drops the offset. It is kept here, since its owner is about to
//!   lose messages, or has lost some, and must stay visible.
//! - A stream that is gone takes its references' offsets with it.
//!
//! The stream's end counts the broker's own chunks too. [`Ends`] replaces it by the last message, as soon
//! as the stream is at rest.

use std::time::{Duration, Instant};

use super::lag::{Lag, Tail, View, Watch, headroom};
use crate::types::{Offset, Timestamp};

/// What the broker holds of a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It was not asked yet, or there is no stream.
    #[default]
    Unknown,
    /// An offset.
    Stored,
    /// Nothing.
    Nothing,
    /// No longer an offset: retention has passed it.
    Evicted,
}

/// State of a watched reference, made of the broker's answers.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    standing: Standing,
    /// The last offset stored.
    stored: Option<Offset>,
    /// The first offset of the stream.
    first: Option<Offset>,
    watch: Watch,
}

impl Watched {
    /// Records an observation of the stream; the next one is due after `every`.
    pub fn looked(
        &mut self,
        first: Option<Offset>,
        tail: Tail,
        at: Instant,
        wall: Timestamp,
        every: Duration,
    ) {
        self.first = first;
        self.watch.looked(tail, at, wall, every);
        self.note();
    }

    /// Records a failed observation. `is_gone` if the stream does not exist; `heard` if the broker said
    /// so, or refused.
    pub fn failed(&mut self, is_gone: bool, heard: Option<Timestamp>) {
        let before = self.watch.last_heard();
        if is_gone {
            *self = Watched::default();
        }
        self.watch.failed();
        before.max(heard).into_iter().for_each(|wall| self.watch.heard(wall));
    }

    /// Records the offset that the broker holds, and when the first message after it was written, if that
    /// was asked too.
    pub fn answered(
        &mut self,
        stored: Option<Offset>,
        written: Option<Option<Timestamp>>,
        wall: Timestamp,
    ) {
        self.standing = match (stored, self.stored, self.first) {
            (Some(_), _, _) => Standing::Stored,
            (None, Some(last), Some(first)) if first > last => Standing::Evicted,
            (None, _, _) => Standing::Nothing,
        };
        match self.standing {
            Standing::Stored => self.stored = stored,
            Standing::Evicted => {}
            Standing::Nothing | Standing::Unknown => self.stored = None,
        }
        self.watch.heard(wall);
        if let Some(written) = written {
            self.watch.answered(&self.view(), written, wall);
        }
        self.note();
    }

    /// The first offset that its owner has not stored, if the time at which it was written has to be asked for.
    pub fn question(&self) -> Option<Offset> {
        self.is_positioned().then(|| self.watch.question(&self.view()))?
    }

    /// Records the answer to [`Watched::question`] about this offset.
    pub fn written(&mut self, from: Offset, written: Option<Timestamp>, wall: Timestamp) {
        if self.is_positioned() && self.stored.map_or(Offset(0), Offset::next) == from {
            self.watch.answered(&self.view(), written, wall);
            self.note();
        }
    }

    /// Its lag; `None` if it is not known.
    pub fn lag(&self, wall: Timestamp) -> Option<Lag> {
        self.is_positioned().then(|| self.watch.lag(&self.view(), wall))?
    }

    /// Offsets that retention may drop before its owner loses messages. Negative: that many are lost.
    pub fn headroom(&self) -> Option<i64> {
        let first = self.first.filter(|_| self.is_positioned())?;
        Some(headroom(self.stored, first))
    }

    /// What the broker holds of it.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The last offset stored.
    pub fn stored(&self) -> Option<Offset> {
        self.stored
    }

    /// The first offset of the stream.
    pub fn first(&self) -> Option<Offset> {
        self.first
    }

    /// The last offset that the stream is known to hold.
    pub fn end(&self) -> Option<Offset> {
        self.watch.last_look().and_then(|_| self.watch.end(&self.view()))
    }

    /// Time of the last successful observation.
    pub fn last_look(&self) -> Option<Timestamp> {
        self.watch.last_look()
    }

    /// Time at which the broker last answered.
    pub fn last_heard(&self) -> Option<Timestamp> {
        self.watch.last_heard()
    }

    fn is_positioned(&self) -> bool {
        matches!(self.standing, Standing::Stored | Standing::Evicted)
    }

    fn note(&mut self) {
        if self.is_positioned() {
            self.watch.note(&self.view());
        }
    }

    fn view(&self) -> View {
        View {
            position: self.stored,
            received: None,
            last_chunk: None,
            oldest: None,
            holding: false,
            flowing: false,
            quiet_since: None,
        }
    }
}

/// Number of times in a row that the last message is asked for without an answer, before the stream
/// counts as one without messages.
const SILENT_MAX: u32 = 3;

/// The end of a stream at rest, without the broker's own chunks after the last message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// The end as last observed.
    seen: Option<Tail>,
    /// An end as observed, and what it is without those chunks.
    resolved: Option<(Tail, Tail)>,
    /// An end as observed, and how often the last message did not come.
    silent: Option<(Tail, u32)>,
}

impl Ends {
    /// Records an observation. Returns the end to use, and whether the last message has to be asked for.
    pub fn looked(&mut self, tail: Tail) -> (Tail, bool) {
        let is_at_rest = self.seen.replace(tail) == Some(tail);
        match self.resolved.filter(|(observed, _)| *observed == tail) {
            Some((_, end)) => (end, false),
            None => {
                let is_silent =
                    self.silent.is_some_and(|(of, times)| of == tail && times >= SILENT_MAX);
                let end = if is_silent { Tail::Empty } else { tail };
                // Silence is never final: it is asked for again.
                (end, is_at_rest && tail != Tail::Empty)
            }
        }
    }

    /// Records that the last message has this offset, while the end was observed as `tail`. `None` if none
    /// came: there is none, or the broker is slow.
    pub fn resolve(&mut self, tail: Tail, last: Option<Offset>) {
        if let Some(last) = last {
            (self.resolved, self.silent) = (Some((tail, Tail::Offset(last))), None);
            return;
        }
        let before = self.silent.filter(|(of, _)| *of == tail).map_or(0, |(_, times)| times);
        self.silent = Some((tail, before.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    struct Stage {
        watched: Watched,
        started: Instant,
        seconds: u64,
    }

    impl Stage {
        fn new() -> Stage {
            Stage { watched: Watched::default(), started: Instant::now(), seconds: 0 }
        }

        fn wall(&self) -> Timestamp {
            Timestamp(i64::try_from(self.seconds * 1000).unwrap())
        }

        /// A second later, the stream holds these offsets.
        fn look(&mut self, first: u64, last: u64) {
            self.seconds += 1;
            let at = self.started + Duration::from_secs(self.seconds);
            let (first, tail) = (Some(Offset(first)), Tail::Offset(Offset(last)));
            let wall = self.wall();
            self.watched.looked(first, tail, at, wall, EVERY);
        }

        fn stored(&mut self, offset: Option<u64>) {
            let wall = self.wall();
            self.watched.answered(offset.map(Offset), None, wall);
        }

        fn messages(&self) -> Option<u64> {
            self.watched.lag(self.wall()).map(|lag| lag.messages)
        }
    }

    #[test]
    fn who_has_stored_nothing_has_no_lag() {
        let mut stage = Stage::new();
        assert_eq!((stage.messages(), stage.watched.headroom()), (None, None));
        stage.look(0, 99);
        assert_eq!(stage.messages(), None);
        stage.stored(None);
        assert_eq!((stage.messages(), stage.watched.headroom()), (None, None));
        assert_eq!(stage.watched.standing(), Standing::Nothing);
        stage.stored(Some(49));
        assert_eq!((stage.messages(), stage.watched.headroom()), (Some(50), Some(50)));
        stage.stored(Some(99));
        assert_eq!(stage.messages(), Some(0));
    }

    #[test]
    fn whom_retention_has_passed_does_not_disappear() {
        let mut stage = Stage::new();
        stage.look(0, 99);
        stage.stored(Some(9));
        stage.look(50, 199);
        stage.stored(None);
        assert_eq!(stage.watched.standing(), Standing::Evicted);
        assert_eq!((stage.messages(), stage.watched.headroom()), (Some(190), Some(-40)));
        stage.stored(Some(199));
        assert_eq!((stage.messages(), stage.watched.headroom()), (Some(0), Some(150)));
    }

    #[test]
    fn a_stream_that_is_gone_takes_the_offsets_with_it() {
        let mut stage = Stage::new();
        stage.look(0, 99);
        stage.stored(Some(49));
        let wall = stage.wall();
        stage.watched.failed(false, None);
        assert_eq!(stage.messages(), Some(50));
        stage.watched.failed(true, Some(wall));
        assert_eq!((stage.messages(), stage.watched.headroom()), (None, None));
        assert_eq!(stage.watched.last_heard(), Some(wall));
        // A new one of the same name.
        stage.look(0, 9);
        stage.stored(None);
        assert_eq!((stage.messages(), stage.watched.standing()), (None, Standing::Nothing));
    }

    #[test]
    fn an_offset_that_went_with_a_stream_unseen_is_not_taken_for_evicted() {
        let mut stage = Stage::new();
        stage.look(0, 99);
        stage.stored(Some(49));
        stage.look(0, 9);
        stage.stored(None);
        assert_eq!((stage.messages(), stage.watched.standing()), (None, Standing::Nothing));
    }

    #[test]
    fn the_age_is_that_of_the_first_message_that_is_not_stored() {
        let mut stage = Stage::new();
        stage.seconds = 1000;
        stage.look(0, 99);
        let wall = stage.wall();
        stage.watched.answered(Some(Offset(49)), Some(Some(Timestamp(900_000))), wall);
        assert_eq!(stage.watched.lag(wall).unwrap().seconds, 101.0);
        assert_eq!(stage.watched.question(), None);
        stage.stored(Some(59));
        assert_eq!(stage.watched.question(), Some(Offset(60)));
        stage.watched.written(Offset(50), Some(Timestamp(1)), wall);
        assert_eq!(stage.watched.question(), Some(Offset(60)), "the answer was about another one");
        stage.watched.written(Offset(60), Some(Timestamp(990_000)), wall);
        assert_eq!(stage.watched.lag(wall).unwrap().seconds, 11.0);
    }

    #[test]
    fn an_end_is_resolved_once_the_stream_is_at_rest() {
        let mut ends = Ends::default();
        let (busy, rest) = (Tail::Chunk(Offset(7)), Tail::Chunk(Offset(9)));
        assert_eq!(ends.looked(busy), (busy, false));
        assert_eq!(ends.looked(rest), (rest, false));
        assert_eq!(ends.looked(rest), (rest, true));
        ends.resolve(rest, Some(Offset(8)));
        assert_eq!(ends.looked(rest), (Tail::Offset(Offset(8)), false));
        assert_eq!(ends.looked(busy), (busy, false));
        assert_eq!(ends.looked(Tail::Empty), (Tail::Empty, false));
        assert_eq!(ends.looked(Tail::Empty), (Tail::Empty, false));
    }

    /// A broker that is slow must not make an owner that is stuck look as if it had caught up.
    #[test]
    fn a_slow_answer_is_no_empty_stream() {
        let mut ends = Ends::default();
        let rest = Tail::Chunk(Offset(1000));
        assert_eq!(ends.looked(rest), (rest, false));
        for _ in 0..2 {
            assert_eq!(ends.looked(rest), (rest, true));
            ends.resolve(rest, None);
        }
        assert_eq!(ends.looked(rest), (rest, true));
        ends.resolve(rest, None);
        assert_eq!(ends.looked(rest), (Tail::Empty, true), "as a stream without messages");
        ends.resolve(rest, Some(Offset(998)));
        assert_eq!(ends.looked(rest), (Tail::Offset(Offset(998)), false));
    }

    /// What is published while it is asked must not count as seen.
    #[test]
    fn only_what_was_there_before_the_question_belongs_to_the_broker() {
        let mut stage = Stage::new();
        stage.look(0, 99);
        stage.stored(Some(49));
        let wall = stage.wall();
        stage.watched.written(Offset(50), None, wall);
        assert_eq!(stage.messages(), Some(50));
        stage.look(0, 109);
        stage.watched.written(Offset(50), None, wall);
        assert_eq!(stage.messages(), Some(10));
    }
}
