//! The range as offsets, and what of it is missing.

use crate::cli::exit::Failure;
use crate::cli::point::Until;
use crate::config::Start;
use crate::consumer::Begin;
use crate::source::{Link, SourceError, points};
use crate::types::{Offset, StreamName, Timestamp};

/// A range that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First and last offset; `None` if there is no message in the range.
    pub(super) offsets: Option<(Offset, Offset)>,
    /// What retention has deleted of it, or may have, in words.
    pub(super) missing: Option<String>,
}

/// Finds the range in the stream.
///
/// # Errors
/// If the arguments do not describe a range that is there, or the broker cannot say.
pub(super) async fn find(
    link: &dyn Link,
    stream: &StreamName,
    from: Start,
    to: Until,
) -> Result<Span, Failure> {
    let now = Timestamp::now();
    check(from, to, now)?;
    let asked = |error: SourceError| Failure::unavailable(error);
    let last = points::last(link).await.map_err(asked)?;
    let upto = match (to, to.time(now)) {
        (Until::Offset(offset), _) => Some(offset),
        (_, Some(at)) => points::upto(link, at).await.map_err(asked)?,
        (Until::End | Until::Time(_) | Until::Ago(_), None) => last,
    };
    if let (Until::Offset(wanted), true) = (to, upto > last) {
        let end = last.map_or("is empty".to_owned(), |last| format!("ends at offset {last}"));
        return Err(Failure::Usage(format!(
            "--to offset:{wanted}: stream {stream:?} {end}. Give an offset that it holds, or --to end"
        )));
    }
    let begins = points::begins(link, Begin::of(from).resolve(now)).await.map_err(asked)?;
    // Asked last: what retention takes meanwhile shows here.
    let first = points::first(link).await.map_err(asked)?;
    Ok(span(stream, from, begins, upto, first))
}

fn check(from: Start, to: Until, now: Timestamp) -> Result<(), Failure> {
    let usage = |what: String| Err(Failure::Usage(what));
    if from == Start::Next {
        return usage(
            "--from next: a replay is of messages that are there; `rillway run` reads what comes"
                .to_owned(),
        );
    }
    if let Some(at) = to.time(now).filter(|at| *at > now) {
        return usage(format!(
            "--to time:{at} is still to come: give a time that has passed, or --to end"
        ));
    }
    match (from, to) {
        (Start::Offset(from), Until::Offset(to)) if from > to => {
            usage(format!("the range ends before it begins: from offset {from} to {to}"))
        }
        _ => Ok(()),
    }
}

fn span(
    stream: &StreamName,
    from: Start,
    begins: Option<Offset>,
    upto: Option<Offset>,
    first: Option<Offset>,
) -> Span {
    let none = Span { offsets: None, missing: None };
    let (Some(begins), Some(upto), Some(first)) = (begins, upto, first) else { return none };
    let missing = match from {
        Start::Offset(wanted) if wanted < first && wanted <= upto => {
            let last = first.prev().unwrap_or(first).min(upto);
            Some(format!(
                "offsets {wanted} to {last} of stream {stream:?}: retention has deleted them"
            ))
        }
        // Whatever was before was written earlier, but perhaps not earlier than this.
        Start::Timestamp(_) | Start::Ago(_) if begins <= first && first > Offset(0) => {
            Some(format!(
                "perhaps messages before offset {first} of stream {stream:?}, which is the first that retention \
             has left: when the ones before it were written is not known any more"
            ))
        }
        _ => None,
    };
    let begins = begins.max(first);
    match begins <= upto {
        true => Span { offsets: Some((begins, upto)), missing },
        false => Span { missing, ..none },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HumanDuration;

    fn of(from: Start, begins: u64, upto: u64, first: u64) -> (Option<(u64, u64)>, bool) {
        let [begins, upto, first] = [begins, upto, first].map(|offset| Some(Offset(offset)));
        let span = span(&"s".into(), from, begins, upto, first);
        (span.offsets.map(|(from, upto)| (from.0, upto.0)), span.missing.is_some())
    }

    #[test]
    fn what_retention_took_is_missing() {
        let at = |offset| Start::Offset(Offset(offset));
        assert_eq!(of(at(5), 5, 9, 0), (Some((5, 9)), false));
        assert_eq!(of(at(5), 5, 9, 5), (Some((5, 9)), false));
        assert_eq!(of(at(5), 5, 9, 7), (Some((7, 9)), true));
        assert_eq!(of(at(5), 5, 9, 10), (None, true));
        assert_eq!(of(Start::First, 7, 9, 7), (Some((7, 9)), false));
        let time = Start::Timestamp(Timestamp(1));
        assert_eq!(of(time, 8, 9, 7), (Some((8, 9)), false));
        assert_eq!(of(time, 7, 9, 7), (Some((7, 9)), true));
        assert_eq!(of(Start::Ago(HumanDuration::secs(1)), 0, 9, 0), (Some((0, 9)), false));
        assert_eq!(of(time, 10, 9, 0), (None, false));
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_do() {
        let now = Timestamp(1000);
        for (from, to, says) in [
            (Start::Next, Until::End, "rillway run"),
            (Start::First, Until::Time(Timestamp(1001)), "still to come"),
            (Start::Offset(Offset(5)), Until::Offset(Offset(4)), "ends before it begins"),
        ] {
            let refused = check(from, to, now).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(check(Start::Last, Until::Time(now), now).is_ok());
    }
}
