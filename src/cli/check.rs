//! `rillway check`: prints what each consumer would do, without running it.
//!
//! That follows from the configuration alone, except where a consumer would resume. With
//! `--connect`, the broker and the sinks are asked, and the answer is passed to [`CheckPlan::new`].

mod text;
mod watches;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

pub use self::watches::WatchPlan;
use super::exit::Failure;
use super::schema::write;
use crate::config::{Config, ConsumerConfig, Protocol};
use crate::consumer::{self, Foreseen};
use crate::flow::resume::{self, OnLost, Origin};
use crate::supervisor::{self, partitions_of, plan_of};
use crate::types::{ConsumerName, Guarantee, Offset, StreamName};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Connect to the broker and the sinks too, and show where each consumer would resume
    #[arg(long)]
    pub connect: bool,
}

/// Position at which a consumer would resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResumeReport {
    /// The position as text: `offset 1001`.
    pub position: String,
    /// The reason: `the sink's own position is 1000`.
    pub why: String,
    /// What is worth knowing about a stream with `create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<String>,
}

impl ResumeReport {
    /// Of what does not exist yet.
    fn created(with: &str) -> ResumeReport {
        ResumeReport {
            position: "the first message".to_owned(),
            why: "nothing is there to read yet".to_owned(),
            create: Some(format!("does not exist; it would be created, with {with}")),
        }
    }
}

/// Result for one stream: where it would resume, or why it could not run.
type Asked = Result<ResumeReport, String>;

/// Result for one consumer.
enum Answers {
    OfStream(Asked),
    /// One for each partition, and what is worth knowing about the super stream.
    OfPartitions(Vec<(StreamName, Asked)>, Option<String>),
}

impl Answers {
    /// Why it, or one of its partitions, could not run.
    fn problems(&self) -> Vec<String> {
        match self {
            Answers::OfStream(asked) => asked.as_ref().err().cloned().into_iter().collect(),
            Answers::OfPartitions(all, _) => all
                .iter()
                .filter_map(|(name, asked)| Some(format!("{name}: {}", asked.as_ref().err()?)))
                .collect(),
        }
    }
}

/// Checks and prints. All consumers are printed, even if some could not run.
///
/// # Errors
/// [`Failure::Unavailable`] if a consumer could not run, with the reason of each.
pub async fn check(config: Config, args: &CheckArgs, json: bool) -> anyhow::Result<()> {
    let asked = if args.connect { ask_all(&config).await } else { HashMap::new() };
    let mut wrong: Vec<String> = Vec::new();
    if args.connect {
        wrong.extend(state_dir_problem(&config).map(|what| format!("state_dir: {what}")));
    }
    for consumer in &config.consumers {
        for what in asked.get(&consumer.name).map_or_else(Vec::new, Answers::problems) {
            wrong.push(format!("consumer {:?}: {what}", consumer.name.as_str()));
        }
    }
    let mut plan = CheckPlan::new(&config, asked);
    if args.connect {
        watches::ask_all(&config, &mut plan.watches, &mut wrong).await;
    }
    write(&if json { format!("{:#}\n", serde_json::to_value(&plan)?) } else { plan.to_string() })?;
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::Unavailable(wrong.join("\n")).into())
}

/// Why nothing could be stored in `state_dir`, by the user who checks.
fn state_dir_problem(config: &Config) -> Option<String> {
    if config.consumers.is_empty() {
        return None;
    }
    let what = crate::files::could_write_in(&config.state_dir).err()?;
    Some(format!(
        "{what}. Set another `state_dir`, or allow the user that Rillway runs as to write there"
    ))
}

/// Asks the broker and the sinks where each consumer would resume, and whether it could write.
async fn ask_all(config: &Config) -> HashMap<ConsumerName, Answers> {
    let ask = async |consumer: &ConsumerConfig| {
        let answers = match consumer.is_super_stream {
            false => Answers::OfStream(ask(&plan_of(config, consumer)).await),
            true => ask_partitions(config, consumer).await,
        };
        (consumer.name.clone(), answers)
    };
    join_all(config.consumers.iter().map(ask)).await.into_iter().collect()
}

async fn ask_partitions(config: &Config, consumer: &ConsumerConfig) -> Answers {
    let note = match supervisor::foresee(config, consumer).await {
        Err(what) => return Answers::OfStream(Err(what)),
        Ok(Foreseen::Creates(with)) => return Answers::OfStream(Ok(ResumeReport::created(&with))),
        Ok(Foreseen::Differs(what)) => Some(what),
        Ok(Foreseen::Nothing) => None,
    };
    match partitions_of(config, consumer).await {
        Err(what) => Answers::OfStream(Err(what)),
        Ok(plans) => {
            let each = async |plan: &supervisor::Plan| (plan.spec.stream.clone(), ask(plan).await);
            Answers::OfPartitions(join_all(plans.iter().map(each)).await, note)
        }
    }
}

async fn ask(plan: &supervisor::Plan) -> Asked {
    let position = (plan.look)().await.map_err(|error| error.to_string())?;
    let forecast =
        consumer::forecast(&plan.spec, position).await.map_err(|error| format!("{error:#}"))?;
    let create = match forecast.creation {
        Foreseen::Creates(with) => return Ok(ResumeReport::created(&with)),
        Foreseen::Differs(what) => Some(what),
        Foreseen::Nothing => None,
    };
    let (position, why) = match forecast.plan {
        Err(lost) => match plan.spec.on_lost {
            OnLost::Halt => ("nowhere: it would halt".to_owned(), lost),
            OnLost::First => {
                ("the first message".to_owned(), format!("by on_offset_lost, because {lost}"))
            }
            OnLost::Next => (
                "the next published message".to_owned(),
                format!("as on_offset_lost says, for {lost}"),
            ),
        },
        Ok(plan) => describe(&plan, forecast.stored),
    };
    Ok(ResumeReport { position, why, create })
}

fn describe(plan: &resume::Plan, stored: Option<Offset>) -> (String, String) {
    let why = match (plan.origin, stored) {
        (Some(Origin::Sink), Some(stored)) => {
            format!("after the sink's own position; the broker has {stored} stored")
        }
        (Some(Origin::Sink), None) => "after the sink's own position; nothing is stored".to_owned(),
        (Some(Origin::Broker | Origin::Session), _) => {
            "after the offset stored on the broker".to_owned()
        }
        (Some(Origin::Beginning), _) => "where it began; nothing is durable yet".to_owned(),
        (None, _) => "by `start`, because no offset was ever stored".to_owned(),
    };
    let position = match plan.wanted {
        Some(offset) => format!("offset {offset}"),
        None => plan.subscribe.to_string(),
    };
    (position, why)
}

/// Result of `rillway check`.
#[derive(Debug, Serialize)]
pub struct CheckPlan {
    /// The file that it was read from.
    pub file: Option<PathBuf>,
    /// The broker's addresses.
    pub broker: Vec<String>,
    /// The virtual host.
    pub vhost: String,
    /// The user.
    pub username: String,
    /// Protocol by which streams are read: `stream` or `amqp`.
    pub protocol: &'static str,
    /// File or endpoint of the access tokens that it logs in with; `None` if it does not.
    pub token: Option<String>,
    /// True if the connection is encrypted.
    pub tls: bool,
    /// True if any certificate is accepted.
    pub insecure: bool,
    /// Address of the HTTP server; `None` if it is disabled.
    pub admin: Option<String>,
    /// What an operator should know about the access to it.
    pub admin_concerns: Vec<String>,
    /// Where traces are sent; `None` if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<String>,
    /// What an operator should know about that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traces_concerns: Vec<String>,
    /// Folder for the daemon's own state.
    pub state_dir: PathBuf,
    /// Why the user who runs the check could not write there; `None` if it could. The daemon's user may be another.
    pub state_dir_problem: Option<String>,
    /// The report for each consumer.
    pub consumers: Vec<ConsumerPlan>,
    /// References of other programs, of which the lag would be shown.
    pub watches: Vec<WatchPlan>,
    /// Upper bound of the memory of all consumers, in bytes. The process itself comes on top.
    pub memory_bound_bytes: u64,
}

/// The report for one consumer.
#[derive(Debug, Serialize)]
pub struct ConsumerPlan {
    /// Name of the consumer.
    pub name: String,
    /// The stream to read, or the super stream.
    pub stream: String,
    /// True if it is a super stream.
    pub is_super_stream: bool,
    /// Each partition; `None` for a stream, and without `--connect`.
    pub partitions: Option<Vec<PartitionPlan>>,
    /// Name under which its offset is stored on the broker.
    pub reference: String,
    /// The messages that it wants; `None` for all.
    pub filter: Option<String>,
    /// Its program `where`; `None` if it has none.
    #[serde(rename = "where")]
    pub keep: Option<String>,
    /// Its program `map`; `None` if it has none.
    #[serde(rename = "map")]
    pub reshape: Option<String>,
    /// True if the broker has one active consumer among all daemons with this reference.
    pub single_active: bool,
    /// Start position if it has never stored an offset.
    pub start: String,
    /// Kind of its sink.
    pub sink: &'static str,
    /// Path that the sink writes to; `None` if it has none.
    pub to: Option<PathBuf>,
    /// The rows that the sink makes of messages; `None` if that is one of each, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
    /// Delivery guarantee of the sink.
    pub guarantee: Guarantee,
    /// Kind of the dead letters' sink, and the path that it writes to.
    pub dead_letters: Option<(&'static str, Option<PathBuf>)>,
    /// Upper bound of its memory, in bytes; of each partition where their number is not known.
    pub memory_bound_bytes: u64,
    /// Arguments with which the stream is created if it is absent, or what is worth knowing about it; `None`
    /// without `create`.
    pub create: Option<String>,
    /// The offset at which the consumer would resume; `None` without `--connect`, or if the consumer could not run.
    pub resume: Option<ResumeReport>,
    /// Reason why it could not run; `None` if that was not asked, or it could.
    pub problem: Option<String>,
}

/// Plan of a consumer for one partition.
#[derive(Debug, Serialize)]
pub struct PartitionPlan {
    /// The partition.
    pub stream: String,
    /// The offset at which it would resume; `None` if it could not run.
    pub resume: Option<ResumeReport>,
    /// Reason why it could not run.
    pub problem: Option<String>,
}

impl PartitionPlan {
    fn new((stream, asked): (StreamName, Asked)) -> PartitionPlan {
        let (resume, problem) = either(asked);
        PartitionPlan { stream: stream.to_string(), resume, problem }
    }
}

fn either(asked: Asked) -> (Option<ResumeReport>, Option<String>) {
    match asked {
        Ok(resume) => (Some(resume), None),
        Err(problem) => (None, Some(problem)),
    }
}

impl CheckPlan {
    /// The plan, with the answers about where to resume.
    fn new(config: &Config, mut asked: HashMap<ConsumerName, Answers>) -> CheckPlan {
        let consumers: Vec<ConsumerPlan> =
            config.consumers.iter().map(|c| ConsumerPlan::new(c, asked.remove(&c.name))).collect();
        CheckPlan {
            file: config.path.clone(),
            broker: config.broker.addresses.iter().map(ToString::to_string).collect(),
            vhost: config.broker.vhost.clone(),
            username: config.broker.username.clone(),
            protocol: match config.broker.protocol {
                Protocol::Stream => "stream",
                Protocol::Amqp => "amqp",
            },
            token: config.broker.oauth.as_ref().map(ToString::to_string),
            tls: config.broker.tls.is_some(),
            insecure: config.broker.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify),
            admin: config.admin.enabled.then(|| config.admin.listen.to_string()),
            admin_concerns: config.admin.concerns(),
            traces: config.traces.as_ref().map(|traces| traces.options.url.clone()),
            traces_concerns: config.traces_concerns().cloned().collect(),
            state_dir: config.state_dir.clone(),
            state_dir_problem: state_dir_problem(config),
            memory_bound_bytes: consumers.iter().map(|c| c.memory_bound_bytes).sum(),
            consumers,
            watches: config.watches.iter().map(WatchPlan::new).collect(),
        }
    }
}

impl ConsumerPlan {
    fn new(consumer: &ConsumerConfig, answers: Option<Answers>) -> ConsumerPlan {
        let problems = answers.as_ref().map_or_else(Vec::new, Answers::problems);
        let (resume, partitions, note) = match answers {
            None => (None, None, None),
            Some(Answers::OfStream(asked)) => (asked.ok(), None, None),
            Some(Answers::OfPartitions(all, note)) => {
                (None, Some(all.into_iter().map(PartitionPlan::new).collect::<Vec<_>>()), note)
            }
        };
        let note = note.or_else(|| resume.as_ref()?.create.clone());
        let create = supervisor::created_with(consumer);
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        let count = partitions.as_ref().map_or(1, |all| all.len() as u64);
        // Of a super stream, the placeholders stay.
        let shown = match consumer.is_super_stream {
            true => consumer.clone(),
            false => consumer.of_stream(None),
        };
        ConsumerPlan {
            name: consumer.name.to_string(),
            stream: consumer.stream.to_string(),
            is_super_stream: consumer.is_super_stream,
            partitions,
            reference: consumer.reference.to_string(),
            filter: consumer.filter.as_ref().map(ToString::to_string),
            keep: consumer.keep.as_ref().map(|program| program.text().to_owned()),
            reshape: consumer.reshape.as_ref().map(|program| program.text().to_owned()),
            single_active: consumer.single_active,
            start: consumer.start.to_string(),
            sink: consumer.sink.kind(),
            to: shown.sink.place(),
            rows: shown.sink.rows(),
            dead_letters: shown.dead_letter.as_ref().map(|sink| (sink.kind(), sink.place())),
            guarantee: consumer.sink.guarantee(),
            memory_bound_bytes: consumer.memory_bound().0.saturating_mul(count),
            create: note.or(create),
            resume,
            problem,
        }
    }
}

#[cfg(test)]
mod tests;
