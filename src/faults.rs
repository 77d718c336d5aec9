//! Named points at which a test makes the process die or freeze: a crash falls between two of them.
//!
//! `RILLWAY_FAULT=die@written:17` kills the process (SIGKILL to itself) when it passes `written`
//! for the 17th time; `freeze@…` stops it (SIGSTOP) until it is continued. Only in builds with
//! debug assertions: in a release build [`reach`] does nothing.
//!
//! Depends on no other module.

/// A stage of a message's processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A batch was received and cut, and is about to go to the sink.
    Received,
    /// The sink has written bytes that are not committed.
    Written,
    /// The bytes are on disk; only the commit is missing.
    Flushed,
    /// The commit is done; nothing else knows of it.
    Committed,
    /// The offset is stored on the broker; nothing else knows of it.
    OffsetStored,
    /// The consumers that are to be moved wait, and nothing was looked up since.
    MoveHeld,
    /// Moves of several positions are written down, and not decided.
    MovesPledged,
    /// They are decided, and none stands in its state file.
    MovesDecided,
    /// They stand in their state files, and nothing else is moved.
    MovesSettled,
    /// A move of the position stands in the state file, and nothing else is moved.
    MoveNoted,
    /// The sink's position is moved, and the state file does not say so.
    SinkMoved,
    /// All is moved but the broker's offset.
    MoveKept,
    /// The broker's offset is moved, and the state file does not say so.
    OffsetMoved,
    /// What the sink keeps has its new name, and the state file does not say so.
    SinkRenamed,
    /// The range of a replay stands in its state, and nothing is written.
    ReplayKept,
    /// A stream is replayed, which stands in the replay's state; nothing else of it is forgotten.
    StreamReplayed,
    /// Everything is replayed and told, and only the replay's state is left.
    ReplayTold,
}

impl Point {
    /// Those of a message, in processing order.
    pub const ALL: [Point; 5] =
        [Point::Received, Point::Written, Point::Flushed, Point::Committed, Point::OffsetStored];

    /// Those of a move of the position, in order.
    pub const OF_A_MOVE: [Point; 4] =
        [Point::MoveNoted, Point::SinkMoved, Point::MoveKept, Point::OffsetMoved];

    /// Those in which a move of several positions, or a rename, differs from a move of one, in order.
    pub const OF_SEVERAL: [Point; 3] =
        [Point::MovesPledged, Point::MovesDecided, Point::SinkRenamed];

    /// Those of a replay, in order.
    pub const OF_A_REPLAY: [Point; 3] =
        [Point::ReplayKept, Point::StreamReplayed, Point::ReplayTold];

    /// Its name in `RILLWAY_FAULT`.
    pub fn name(self) -> &'static str {
        match self {
            Point::Received => "received",
            Point::Written => "written",
            Point::Flushed => "flushed",
            Point::Committed => "committed",
            Point::OffsetStored => "offset_stored",
            Point::MoveHeld => "move_held",
            Point::MovesPledged => "moves_pledged",
            Point::MovesDecided => "moves_decided",
            Point::MovesSettled => "moves_settled",
            Point::MoveNoted => "move_noted",
            Point::SinkMoved => "sink_moved",
            Point::MoveKept => "move_kept",
            Point::OffsetMoved => "offset_moved",
            Point::SinkRenamed => "sink_renamed",
            Point::ReplayKept => "replay_kept",
            Point::StreamReplayed => "stream_replayed",
            Point::ReplayTold => "replay_told",
        }
    }
}

/// Reports that the process has reached this point.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_point: Point) {}

#[cfg(debug_assertions)]
pub use self::armed::reach;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    /// Time within which a signal takes effect.
    const EFFECT: Duration = Duration::from_millis(100);

    struct Armed {
        point: Point,
        signal: Signal,
        /// Number of passes left before the fault.
        left: AtomicU64,
    }

    /// Reports that the process has reached this point.
    pub fn reach(point: Point) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| parse(&std::env::var("RILLWAY_FAULT").ok()?));
        let Some(armed) = armed.as_ref().filter(|armed| armed.point == point) else { return };
        // Below zero it wraps around, which no process reaches.
        if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            if let Err(error) = kill_process(getpid(), armed.signal) {
                tracing::error!(%error, "the process could not send itself a signal");
            }
            // Another thread may receive the signal first; this one waits meanwhile.
            std::thread::sleep(EFFECT);
        }
    }

    fn parse(text: &str) -> Option<Armed> {
        let (action, place) = text.split_once('@')?;
        let (name, nth) = place.split_once(':')?;
        let signal = match action {
            "die" => Signal::KILL,
            "freeze" => Signal::STOP,
            _ => return None,
        };
        let all = Point::ALL.into_iter().chain(Point::OF_A_MOVE).chain(Point::OF_SEVERAL);
        let mut all = all.chain(Point::OF_A_REPLAY).chain([Point::MoveHeld, Point::MovesSettled]);
        let point = all.find(|point| point.name() == name)?;
        Some(Armed { point, signal, left: AtomicU64::new(nth.parse().ok()?) })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_can_be_asked_for() {
            let armed = parse("die@offset_stored:3").unwrap();
            assert_eq!((armed.point, armed.signal), (Point::OffsetStored, Signal::KILL));
            assert_eq!(armed.left.into_inner(), 3);
            assert_eq!(parse("freeze@written:1").unwrap().signal, Signal::STOP);
            for text in ["", "die", "die@written", "die@there:1", "rest@written:1", "die@written:x"]
            {
                assert!(parse(text).is_none(), "{text}");
            }
        }
    }
}
