//! Says in words how the positions of a consumer relate, and which of them counts. Pure.

use super::{Next, Seen};
use crate::flow::beginning::Memory;
use crate::flow::resume::Origin;
use crate::types::Offset;

/// Importance of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The positions agree.
    Agree,
    /// They differ in a way that is part of normal operation.
    Normal,
    /// They differ, and an operator should know why.
    Differ,
    /// A move was interrupted.
    Interrupted,
    /// The consumer would halt.
    Halts,
}

/// An explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// How important it is.
    pub mark: Mark,
    /// One sentence, or two.
    pub text: String,
}

/// How the positions relate.
pub fn explain(seen: &Seen) -> Explained {
    let told = |mark, text: String| Explained { mark, text };
    if let Next::Halt(why) = &seen.next {
        return told(
            Mark::Halts,
            format!(
                "it would halt: {why}. Move it to where it may go on with `rillway offsets set`"
            ),
        );
    }
    let began = seen.memory.and_then(|memory| memory.beginning());
    if let (Some(began), Some(moved)) = (began, began.and_then(|began| began.moved))
        && is_by_the_state_file(seen)
    {
        let at = began.at;
        if moved.sink_is_behind {
            let sink = offset_or_none(began.instead_of.map(|own| own.offset));
            return told(
                Mark::Interrupted,
                format!(
                    "a move to offset {at} was interrupted. It counts: the sink's position ({sink}) and the \
                     offset on the broker follow when the consumer starts, or with another `rillway offsets set`"
                ),
            );
        }
        return match (moved.over, began.mirror()) {
            (Some(over), None) => told(
                Mark::Normal,
                format!(
                    "it was moved to offset 0. Nothing can be stored on the broker for that, so the offset {over} \
                     there does not count, until the first commit"
                ),
            ),
            (over, _) => told(
                Mark::Interrupted,
                format!(
                    "a move to offset {at} was interrupted after the sink was moved. It counts: the offset on the \
                     broker ({}) follows with the first commit, or with another `rillway offsets set`",
                    offset_or_none(over)
                ),
            ),
        };
    }
    match seen.next {
        Next::From(ref from) => told(Mark::Normal, format!("it goes on with {from}")),
        Next::At(at, None) => {
            told(Mark::Agree, format!("it has not begun yet; it would begin at offset {at}"))
        }
        Next::At(at, Some(Origin::Sink)) => by_the_sink(seen, at),
        Next::At(at, Some(Origin::Beginning)) => {
            let (mark, behind) = match seen.sink {
                Some(sink) if sink.offset.next() != at => (
                    Mark::Normal,
                    format!(
                        ". The sink is at offset {}: what lies between was left out by a policy, or a move",
                        sink.offset
                    ),
                ),
                _ => (Mark::Agree, String::new()),
            };
            told(mark, format!("it begins at offset {at}, and nothing is durable yet{behind}"))
        }
        Next::At(at, Some(Origin::Broker | Origin::Session)) => by_the_broker(seen, at),
        // Answered above.
        Next::Halt(_) => told(Mark::Halts, String::new()),
    }
}

fn is_by_the_state_file(seen: &Seen) -> bool {
    matches!(seen.next, Next::At(_, Some(Origin::Beginning)))
}

fn by_the_sink(seen: &Seen, at: Offset) -> Explained {
    let told = |mark, text: String| Explained { mark, text };
    if !seen.stores_offsets {
        return told(Mark::Agree, format!("it goes on from the sink's position, at offset {at}"));
    }
    // The offset before `at`.
    let sink = at.0.saturating_sub(1);
    match seen.stored {
        None => told(
            Mark::Normal,
            format!(
                "nothing is stored on the broker: normal before the first commit, and after retention has passed \
                 it. It goes on from the sink's position, at offset {at}"
            ),
        ),
        Some(stored) if stored.0 == sink => {
            told(Mark::Agree, format!("they agree; it goes on at offset {at}"))
        }
        Some(stored) if stored.0 < sink => told(
            Mark::Normal,
            format!(
                "the sink is ahead of the broker by {}: normal while it runs, and after a crash. It goes on from the \
                 sink's position, at offset {at}",
                sink - stored.0
            ),
        ),
        Some(stored) => told(
            Mark::Differ,
            format!(
                "the sink is behind the broker by {}: the sink was restored from a backup, or another program \
                 stored an offset. It goes on from the sink's position, at offset {at}",
                stored.0 - sink
            ),
        ),
    }
}

fn by_the_broker(seen: &Seen, at: Offset) -> Explained {
    let told = |mark, text: String| Explained { mark, text };
    if !seen.stores_offsets {
        return told(Mark::Agree, format!("it goes on from the state file, at offset {at}"));
    }
    let sink = match seen.keeps_position {
        true => ". The sink has no position: it is new, or its data was moved away",
        false => "",
    };
    let remembered = seen.memory.and_then(|memory| match memory {
        Memory::Position(position) => Some(position.offset),
        Memory::Beginning(beginning) => beginning.mirror(),
    });
    match (remembered, seen.stored) {
        (Some(remembered), Some(stored)) if remembered != stored => told(
            Mark::Differ,
            format!(
                "the broker has {stored} stored, and the state file remembers {remembered}: another program stored \
                 an offset, or a process was killed right after it stored one. It goes on from the broker's, at \
                 offset {at}{sink}"
            ),
        ),
        (None, _) => told(
            Mark::Normal,
            format!(
                "there is no state file: another program stored the offset, or `state_dir` is new. It goes on from the \
                 broker's, at offset {at}{sink}"
            ),
        ),
        _ if !sink.is_empty() => told(
            Mark::Differ,
            format!("it goes on from the offset on the broker, at offset {at}{sink}"),
        ),
        _ => told(Mark::Agree, format!("they agree; it goes on at offset {at}")),
    }
}

fn offset_or_none(offset: Option<Offset>) -> String {
    offset.map_or("none".to_owned(), |offset| offset.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::beginning::{Beginning, Moved};
    use crate::types::Checkpoint;

    fn at(offset: u64) -> Checkpoint {
        Checkpoint { offset: Offset(offset), chunk: None }
    }

    fn seen(stored: Option<u64>, sink: Option<u64>, next: Next) -> Seen {
        Seen {
            stored: stored.map(Offset),
            stores_offsets: true,
            memory: stored.map(|offset| Memory::Position(at(offset))),
            keeps_position: sink.is_some(),
            sink: sink.map(at),
            first: Some(Offset(0)),
            last: Some(Offset(999)),
            next,
        }
    }

    fn next(offset: u64, origin: Origin) -> Next {
        Next::At(Offset(offset), Some(origin))
    }

    #[test]
    fn each_difference_is_named() {
        let began = |at, moved| Beginning { at: Offset(at), behind: None, instead_of: None, moved };
        let moved = |over: Option<u64>, sink_is_behind| {
            Some(Moved { over: over.map(Offset), sink_is_behind })
        };
        let remembering =
            |seen: Seen, beginning| Seen { memory: Some(Memory::Beginning(beginning)), ..seen };
        let by_beginning = |at| next(at, Origin::Beginning);
        for (seen, mark, says) in [
            (seen(Some(99), Some(99), next(100, Origin::Sink)), Mark::Agree, "they agree"),
            (seen(Some(99), None, next(100, Origin::Broker)), Mark::Agree, "they agree"),
            (
                seen(Some(99), Some(599), next(600, Origin::Sink)),
                Mark::Normal,
                "ahead of the broker by 500",
            ),
            (
                seen(Some(99), Some(9), next(10, Origin::Sink)),
                Mark::Differ,
                "behind the broker by 90",
            ),
            (seen(None, Some(9), next(10, Origin::Sink)), Mark::Normal, "nothing is stored"),
            (seen(None, None, Next::At(Offset(0), None)), Mark::Agree, "has not begun"),
            (seen(None, None, Next::Halt("evicted".to_owned())), Mark::Halts, "evicted"),
            (
                remembering(seen(Some(9), None, by_beginning(10)), began(10, None)),
                Mark::Agree,
                "begins at offset 10",
            ),
            (
                remembering(
                    seen(Some(90), Some(90), by_beginning(10)),
                    began(10, moved(Some(90), true)),
                ),
                Mark::Interrupted,
                "a move to offset 10 was interrupted",
            ),
            (
                remembering(
                    seen(Some(90), None, by_beginning(10)),
                    began(10, moved(Some(90), false)),
                ),
                Mark::Interrupted,
                "the broker (90) follows",
            ),
            (
                remembering(
                    seen(Some(90), None, by_beginning(0)),
                    began(0, moved(Some(90), false)),
                ),
                Mark::Normal,
                "the offset 90 there does not count",
            ),
        ] {
            let told = explain(&seen);
            assert!(told.mark == mark && told.text.contains(says), "{seen:?}: {told:?}");
        }
        let other = Seen {
            memory: Some(Memory::Position(at(50))),
            ..seen(Some(99), None, next(100, Origin::Broker))
        };
        assert!(explain(&other).text.contains("remembers 50"));
        let gone = Seen { keeps_position: true, ..seen(Some(99), None, next(100, Origin::Broker)) };
        assert!(explain(&gone).text.contains("The sink has no position"));
    }
}
