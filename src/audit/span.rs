//! Which offsets are compared.

use super::{Failed, Last, Request, Subject};
use crate::consumer::{Begin, StateFile};
use crate::flow::resume::Start;
use crate::sink::audit::Span;
use crate::source::{Link, Prefer, points};
use crate::types::Offset;

/// The offsets to be compared.
pub(super) struct Found {
    pub(super) span: Span,
    /// True if the sink may hold some before them.
    pub(super) begins_later: bool,
    /// True if the source tells when messages were written.
    pub(super) shows_times: bool,
}

/// Finds them. What cannot be compared goes into the notes.
///
/// # Errors
/// If there is nothing to compare, or one of the two sides cannot say.
pub(super) async fn find(
    subject: &Subject,
    request: Request,
    notes: &mut Vec<String>,
) -> Result<Found, Failed> {
    let Subject { spec, auditor, .. } = subject;
    let stream = spec.stream.as_str();
    let Some(position) = auditor.position().await? else {
        return Err(Failed::Nothing(format!(
            "the sink has no position for stream {stream:?} yet: nothing was written that could be compared"
        )));
    };
    let position = position.offset;
    let by_time = matches!(request.from, Some(Start::Timestamp(_)))
        || matches!(request.to, Some(Last::Time(_)));
    // A replica may not have all that the stream holds now.
    let prefer = if by_time { Prefer::Leader } else { Prefer::Replica };
    let link = spec.source.connect(prefer).await?;
    let asking = ask(subject, request, &*link, position);
    let asked = asking.await;
    let shows_times = link.abilities().probes;
    link.close().await;
    let Asked { oldest, begun, to: asked } = asked?;
    let to = asked.map_or(position, |to| to.min(position));
    if let Some(asked) = asked.filter(|asked| *asked > position) {
        notes.push(format!(
            "offsets from {} to {asked} are not in the sink yet: its position is {position}",
            position.next()
        ));
    }
    if begun < oldest {
        notes.push(format!(
            "offsets from {begun} to {} cannot be compared: retention has taken them",
            oldest.prev().unwrap_or(oldest).min(to)
        ));
    } else if let (Some(Start::Timestamp(at)), true) = (request.from, begun == oldest)
        && oldest > Offset(0)
    {
        notes.push(format!(
            "offset {oldest} is the first that retention has left: when the messages before it were written is not \
             known, so some of them may have been written at {at} or later"
        ));
    }
    let from = begun.max(oldest);
    let begins_later = request.from.is_some() || begun < oldest;
    if from > to {
        return Err(Failed::Nothing(format!(
            "there is nothing to compare between offset {from} and {to}: stream {stream:?} begins at {oldest}, \
             and the sink's position is {position}"
        )));
    }
    Ok(Found { span: Span { from, to }, begins_later, shows_times })
}

/// Answers of the source.
struct Asked {
    oldest: Offset,
    begun: Offset,
    /// The last offset that is wanted, if one is.
    to: Option<Offset>,
}

async fn ask(
    subject: &Subject,
    request: Request,
    link: &dyn Link,
    position: Offset,
) -> Result<Asked, Failed> {
    let stream = subject.spec.stream.as_str();
    let Some(oldest) = link.oldest().await? else {
        return Err(Failed::Nothing(format!(
            "stream {stream:?} is empty, and the sink's position is {position}: there is nothing to compare with"
        )));
    };
    let nothing = |when: String| {
        Failed::Nothing(format!(
            "there is nothing to compare: stream {stream:?} has no message {when}"
        ))
    };
    let begun = match request.from {
        Some(start) => match points::begins(link, start).await? {
            Some(begun) => begun,
            None => return Err(nothing("of --from or later".to_owned())),
        },
        None => beginning(subject, oldest).await?,
    };
    let to = match request.to {
        None => None,
        Some(Last::Offset(offset)) => Some(offset),
        Some(Last::Time(at)) => match points::upto(link, at).await? {
            Some(offset) => Some(offset),
            None => return Err(nothing(format!("that was written at {at} or earlier"))),
        },
    };
    Ok(Asked { oldest, begun, to })
}

/// The offset with which the consumer began, as far as it is known.
async fn beginning(subject: &Subject, oldest: Offset) -> Result<Offset, Failed> {
    let spec = &subject.spec;
    if let Begin::At(Start::Offset(at)) = spec.begin {
        return Ok(at);
    }
    // Known until the first commit; then only the sink's first record tells it.
    let memory = StateFile::of(spec).read().ok().flatten();
    if let Some(beginning) = memory.and_then(|memory| memory.beginning()) {
        return Ok(beginning.at);
    }
    let first = subject.auditor.first().await?.unwrap_or(oldest);
    Ok(match spec.begin {
        // The sink's first records may be the missing ones.
        Begin::At(Start::First) => first.min(oldest),
        _ => first,
    })
}

/// The last offset that is compared from this one on, where only the latest record of each key is kept, at this
/// position.
///
/// # Errors
/// If another one is wanted, or if the position was moved back before `from` since that was found.
pub(super) fn of_latest(
    request: Request,
    from: Offset,
    position: Offset,
) -> Result<Offset, Failed> {
    match request.to {
        None if from > position => Err(Failed::Nothing(format!(
            "there is nothing to compare from offset {from} on: the sink's position has been moved back to {position} \
             meanwhile. Verify it again"
        ))),
        None => Ok(position),
        Some(_) => Err(Failed::Cannot(
            "the table holds only the latest row of each key, so what it was at an earlier message is not known: \
             leave --to out"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_was_moved_back_meanwhile_is_told() {
        let request = Request { from: None, to: None, examples_max: 0 };
        let upto = |from, position| of_latest(request, Offset(from), Offset(position));
        assert_eq!(upto(7, 7).unwrap(), Offset(7));
        let error = upto(8, 7).unwrap_err();
        assert!(matches!(error, Failed::Nothing(_)), "{error:?}");
        assert!(error.to_string().contains("moved back to 7"), "{error}");
    }
}
