//! `rillway verify`: compares what a consumer's sink holds with its stream, offset by offset.
//!
//! [`audit`](crate::audit) compares; this module chooses the streams, shows the progress and reports. The
//! consumer may be running: nothing is changed.

mod report;

use std::pin::pin;

use clap::Args;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;

use self::report::{Report, StreamReport};
use super::dead_letters::letters::Source as LetterSource;
use super::dead_letters::named;
use super::exit::Failure;
use super::point::{self, Until};
use super::progress::Progress;
use super::schema::write;
use crate::audit::ranges::Ranges;
use crate::audit::{Failed, Last, Letters, Reading, Request, Subject, audit};
use crate::config::{Config, ConsumerConfig, Start};
use crate::consumer::Begin;
use crate::supervisor::{audit_of, partitions_of};
use crate::types::{Offset, StreamName, Timestamp};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The consumer's name in the configuration
    consumer: String,
    /// The first message to compare; N is an offset [default: the one with which the consumer began, or the
    /// stream's first]
    #[arg(long, value_name = "N|first|offset:N|time:T|ago:1h", value_parser = point::first)]
    from: Option<Start>,
    /// The last message to compare; `end` is the sink's durable position [default: end]
    #[arg(long, value_name = "N|end|offset:N|time:T|ago:1h", value_parser = point::last)]
    to: Option<Until>,
    /// One partition, if the consumer reads a super stream [default: all of them]
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Most ranges of offsets, and altered records, that are shown of each kind
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
    /// No progress on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// [`Failure::Differs`] if the sink does not hold what the stream does.
pub(super) async fn verify(config: Config, args: VerifyArgs, as_json: bool) -> anyhow::Result<()> {
    let request = request(&args)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let consumer = named(&config, &args.consumer)?;
    let mut report = Report::new(consumer.name.as_str());
    let mut failed = None;
    for of_stream in streams(&config, consumer, args.stream.as_deref()).await? {
        let stream = of_stream.stream.clone();
        match one(&config, &of_stream, &args, request, &mut signals).await {
            Ok(found) => {
                let was_stopped = found.was_stopped();
                report.streams.push(found);
                if was_stopped {
                    break;
                }
            }
            // The other partitions are compared all the same.
            Err(error) => {
                let text = format!("stream {:?}: {error}", stream.as_str());
                report.failed.push(text);
                failed.get_or_insert(error);
            }
        }
    }
    if !report.streams.is_empty() {
        write(&if as_json { report.json()? } else { report.text(args.show) })?;
    }
    report.result(failed)
}

/// What is compared, of each stream. Times are counted back from now.
fn request(args: &VerifyArgs) -> Result<Request, Failure> {
    let now = Timestamp::now();
    if let (Some(Start::Offset(from)), Some(Until::Offset(to))) = (args.from, args.to)
        && from > to
    {
        return Err(Failure::Usage(format!("--from {from} is above --to {to}")));
    }
    let from = args.from.map(|from| Begin::of(from).resolve(now));
    let to = match args.to {
        None | Some(Until::End) => None,
        Some(Until::Offset(offset)) => Some(Last::Offset(offset)),
        Some(by_time) => by_time.time(now).map(Last::Time),
    };
    Ok(Request { from, to, examples_max: args.show })
}

/// The consumer, of each stream that is to be compared.
async fn streams(
    config: &Config,
    consumer: &ConsumerConfig,
    wanted: Option<&str>,
) -> Result<Vec<ConsumerConfig>, Failure> {
    let name = consumer.name.as_str();
    if !consumer.is_super_stream {
        return match wanted.filter(|wanted| *wanted != consumer.stream.as_str()) {
            None => Ok(vec![consumer.of_stream(None)]),
            Some(wanted) => Err(Failure::Usage(format!(
                "consumer {name:?} reads stream {:?}, not {wanted:?}",
                consumer.stream.as_str()
            ))),
        };
    }
    let plans = partitions_of(config, consumer).await.map_err(Failure::Unavailable)?;
    let all: Vec<StreamName> = plans.into_iter().map(|plan| plan.spec.stream.clone()).collect();
    let chosen: Vec<_> = all
        .iter()
        .filter(|partition| wanted.is_none_or(|wanted| partition.as_str() == wanted))
        .map(|partition| consumer.of_stream(Some(partition)))
        .collect();
    if chosen.is_empty() {
        let known: Vec<_> = all.iter().map(StreamName::as_str).collect();
        return Err(Failure::Usage(format!(
            "super stream {:?} has no partition {:?}: it has {}",
            consumer.stream.as_str(),
            wanted.unwrap_or_default(),
            known.join(", ")
        )));
    }
    Ok(chosen)
}

/// Compares one stream.
async fn one(
    config: &Config,
    consumer: &ConsumerConfig,
    args: &VerifyArgs,
    request: Request,
    signals: &mut Signals,
) -> Result<StreamReport, Failure> {
    let (spec, auditor) = audit_of(config, consumer).map_err(Failure::Usage)?;
    let stream = spec.stream.clone();
    let letters = letters(config, consumer);
    let subject = Subject { spec, auditor, letters, show_values: consumer.show_values };
    let mut shown: Option<Progress> = None;
    let progress = |span: crate::sink::audit::Span, reached: Offset| {
        let total = (span.to.0 - span.from.0).saturating_add(1);
        let shown = shown.get_or_insert_with(|| Progress::new(Some(total), "compared", args.quiet));
        shown.at(reached.next().0.saturating_sub(span.from.0).min(total));
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let found = {
        let auditing = pin!(audit(subject, request, progress, async { drop(stopped.await) }));
        match select(auditing, pin!(signals.next())).await {
            Either::Left((found, _)) => Some(found),
            Either::Right((_, auditing)) => {
                drop(stop);
                // It ends with what it has, unless a disk hangs: then the second signal ends it.
                match select(auditing, pin!(signals.next())).await {
                    Either::Left((found, _)) => Some(found),
                    Either::Right(_) => None,
                }
            }
        }
    };
    if let Some(shown) = shown {
        shown.finish();
    }
    let Some(found) = found else {
        return Err(Failure::Unavailable("it was stopped before anything was compared".to_owned()));
    };
    let found = found.map_err(|error| match error {
        Failed::Cannot(what) => Failure::Usage(what),
        error => Failure::Unavailable(error.to_string()),
    })?;
    Ok(StreamReport::new(stream.as_str(), found, args.show))
}

/// Reads the offsets of the consumer's dead letters.
fn letters(config: &Config, consumer: &ConsumerConfig) -> Reading {
    if consumer.dead_letter.is_none() {
        return Box::pin(std::future::ready((Letters::None, Vec::new())));
    }
    let source = LetterSource::of(config, consumer);
    Box::pin(async move {
        let read = async {
            let mut offsets = Ranges::default();
            let mut letters = source?.read();
            while let Some(letter) = letters.recv().await {
                offsets.add(letter?.offset);
            }
            Ok::<_, Failure>(offsets)
        };
        match read.await {
            Ok(offsets) => (Letters::At(offsets), Vec::new()),
            Err(error) => {
                let note = format!(
                    "the dead letters cannot be looked up, so that one which the sink refused counts as missing: \
                     {error}"
                );
                (Letters::Unknown, vec![note])
            }
        }
    })
}
