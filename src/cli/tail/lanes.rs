//! Finds the streams to read, and where each begins and ends.

use futures_util::future::try_join_all;

use super::args::TailArgs;
use crate::cli::exit::Failure;
use crate::cli::point::Until;
use crate::config::Start;
use crate::consumer::Begin;
use crate::flow::resume;
use crate::source::{ErrorKind, Link, Prefer, SourceError, points};
use crate::supervisor::Guest;
use crate::types::{Offset, StreamName, Timestamp};

/// The streams to read.
pub(super) struct Lanes {
    pub(super) lanes: Vec<Lane>,
    /// True if they are the partitions of a super stream.
    pub(super) is_super: bool,
}

/// One stream: where to begin, and where to end.
pub(super) struct Lane {
    pub(super) stream: StreamName,
    pub(super) begin: Begin,
    pub(super) end: End,
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is none, or it is not known yet.
    Open,
    /// The last offset that is wanted.
    At(Offset),
    /// Nothing is wanted.
    Nothing,
}

/// Finds them.
///
/// # Errors
/// If there is no such stream, it cannot be read, or the arguments do not fit it.
pub(super) async fn find(guest: &Guest, args: &TailArgs) -> Result<Lanes, Failure> {
    let name = StreamName::from(args.stream.as_str());
    if guest.is_amqp() && args.until.is_some() && args.selection()?.is_some() {
        return Err(Failure::Usage(
            "AMQP 0.9.1 does not tell where the broker's filter selects nothing more, so --until might not \
             end: use --filter in place of --filter-value, or --broker rabbitmq-stream://…"
                .to_owned(),
        ));
    }
    if args.is_super {
        return of_super_stream(guest, &name, args).await;
    }
    match look(guest, &name, args).await {
        Ok(lane) => Ok(Lanes { lanes: vec![lane], is_super: false }),
        Err(error) if error.kind() == ErrorKind::Missing && !guest.is_amqp() => {
            match guest.partitions(&name).await {
                Ok(partitions) if !partitions.is_empty() => {
                    of_super_stream(guest, &name, args).await
                }
                // What was asked for is a stream.
                Ok(_) | Err(_) => Err(Failure::unavailable(error)),
            }
        }
        Err(error) => Err(Failure::unavailable(error)),
    }
}

async fn of_super_stream(
    guest: &Guest,
    name: &StreamName,
    args: &TailArgs,
) -> Result<Lanes, Failure> {
    if guest.is_amqp() {
        return Err(Failure::Usage(
            "AMQP 0.9.1 does not tell the partitions of a super stream: give \
             --broker rabbitmq-stream://…, or the name of a partition"
                .to_owned(),
        ));
    }
    let by_offset =
        matches!(args.from(), Start::Offset(_)) || matches!(args.until, Some(Until::Offset(_)));
    if by_offset {
        return Err(Failure::Usage(format!(
            "{name:?} is a super stream, and each of its partitions counts its own offsets: give times, or \
             the name of a partition"
        )));
    }
    let partitions = guest.partitions(name).await.map_err(Failure::unavailable)?;
    if partitions.is_empty() {
        return Err(Failure::Unavailable(format!("super stream {name:?} has no partitions")));
    }
    let looks = partitions.iter().map(|partition| look(guest, partition, args));
    let lanes = try_join_all(looks).await.map_err(Failure::unavailable)?;
    Ok(Lanes { lanes, is_super: true })
}

/// Looks at the stream itself, before anything is read: what is wrong is said at once.
async fn look(guest: &Guest, stream: &StreamName, args: &TailArgs) -> Result<Lane, SourceError> {
    // A replica may not have all that the stream holds now.
    let prefer = if args.until.is_some() { Prefer::Leader } else { Prefer::Replica };
    let link = guest.source(stream).connect(prefer).await?;
    let lane = look_on(&*link, stream, args).await;
    link.close().await;
    lane
}

async fn look_on(
    link: &dyn Link,
    stream: &StreamName,
    args: &TailArgs,
) -> Result<Lane, SourceError> {
    link.check().await?;
    let (from, now) = (args.from(), Timestamp::now());
    let mut begin = Begin::of(from);
    if let Start::Offset(wanted) = from {
        begin = Begin::At(resume::Start::Offset(offset_of(link, stream, wanted).await?));
    }
    let end = match args.until {
        None => End::Open,
        Some(until) => end_of(link, until, now).await?,
    };
    let end = match end {
        End::At(upto) => match points::begins(link, begin.resolve(now)).await? {
            Some(first) if first <= upto => end,
            _ => End::Nothing,
        },
        end => end,
    };
    Ok(Lane { stream: stream.clone(), begin, end })
}

/// The offset, or the first one that the stream still holds. Tells where that is not the same.
async fn offset_of(
    link: &dyn Link,
    stream: &StreamName,
    wanted: Offset,
) -> Result<Offset, SourceError> {
    let (first, last) = (points::first(link).await?, points::last(link).await?);
    match (first, last) {
        (Some(first), _) if first > wanted => {
            eprintln!(
                "rillway: offsets {wanted} to {} of stream {stream:?} are gone: retention has deleted them. \
                 The first message that is left is at offset {first}",
                first.prev().unwrap_or(first)
            );
            Ok(first)
        }
        (_, Some(last)) if last < wanted => {
            if last.next() < wanted {
                eprintln!(
                    "rillway: stream {stream:?} ends at offset {last}; waiting for offset {wanted}"
                );
            }
            Ok(wanted)
        }
        _ => Ok(wanted),
    }
}

/// The end of the stream that `until` means. A time that is still to come has none yet.
pub(super) async fn end_of(
    link: &dyn Link,
    until: Until,
    now: Timestamp,
) -> Result<End, SourceError> {
    let found = match (until, until.time(now)) {
        (Until::Offset(offset), _) => Some(offset),
        (_, Some(at)) if at > now => return Ok(End::Open),
        (_, Some(at)) => points::upto(link, at).await?,
        (Until::End | Until::Time(_) | Until::Ago(_), None) => points::last(link).await?,
    };
    Ok(found.map_or(End::Nothing, End::At))
}
