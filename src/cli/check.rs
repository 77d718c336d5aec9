//! `rillway check`: prints what each consumer would do, without running it.
//!
//! That follows from the configuration alone, except where a consumer would resume. With
//! `--connect`, the broker and the sinks are asked, and the answer is passed to [`Plan::new`].

mod watches;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

pub use self::watches::WatchPlan;
use super::exit::Failure;
use super::schema::write;
use crate::config::{ByteSize, Config, ConsumerConfig, Protocol};
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
    let mut plan = Plan::new(&config, asked);
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
pub struct Plan {
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
    /// True if the broker has one active consumer among all daemons with this reference.
    pub single_active: bool,
    /// Start position if it has never stored an offset.
    pub start: String,
    /// Kind of its sink.
    pub sink: &'static str,
    /// Path that the sink writes to; `None` if it has none.
    pub to: Option<PathBuf>,
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

impl Plan {
    /// The plan, with the answers about where to resume.
    fn new(config: &Config, mut asked: HashMap<ConsumerName, Answers>) -> Plan {
        let consumers: Vec<ConsumerPlan> =
            config.consumers.iter().map(|c| ConsumerPlan::new(c, asked.remove(&c.name))).collect();
        Plan {
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
            single_active: consumer.single_active,
            start: consumer.start.to_string(),
            sink: consumer.sink.kind(),
            to: shown.sink.place(),
            dead_letters: shown.dead_letter.as_ref().map(|sink| (sink.kind(), sink.place())),
            guarantee: consumer.sink.guarantee(),
            memory_bound_bytes: consumer.memory_bound().0.saturating_mul(count),
            create: note.or(create),
            resume,
            problem,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            let watches = self.watches.iter().filter(|watch| watch.problem.is_some()).count();
            match self.consumers.iter().filter(|c| c.problem.is_some()).count() {
                0 if watches > 0 => writeln!(
                    f,
                    "{}: can be read, but {watches} of {} watches could not run",
                    file.display(),
                    self.watches.len()
                )?,
                0 => writeln!(f, "{}: fine", file.display())?,
                n => writeln!(
                    f,
                    "{}: can be read, but {n} of {} consumers could not run",
                    file.display(),
                    self.consumers.len()
                )?,
            }
        }
        let tls = match (self.tls, self.insecure) {
            (true, true) => {
                ", encrypted, but INSECURE: any certificate is accepted (insecure_skip_verify)"
            }
            (true, false) => ", encrypted",
            (false, _) => "",
        };
        let (user, vhost) = (&self.username, &self.vhost);
        writeln!(f, "broker:  {} as {user:?}, vhost {vhost:?}{tls}", self.broker.join(", "))?;
        if let Some(token) = &self.token {
            writeln!(f, "login:   with access tokens ({token})")?;
        }
        if self.protocol == "amqp" {
            writeln!(
                f,
                "         over AMQP 0.9.1: positions are in the sinks that keep one, or else in `state`, which has to be permanent then; the lag is unknown"
            )?;
        }
        writeln!(f, "admin:   {}", self.admin.as_deref().unwrap_or("off"))?;
        if self.consumers.is_empty() {
            return self.watches.iter().try_for_each(|watch| write!(f, "\n{watch}"));
        }
        writeln!(f, "state:   {}", self.state_dir.display())?;
        if let Some(what) = &self.state_dir_problem {
            writeln!(f, "         PROBLEM for the user who checks: {what}")?;
        }
        let bound = rounded_up(self.memory_bound_bytes);
        let is_open = |c: &ConsumerPlan| c.is_super_stream && c.partitions.is_none();
        let of_one = match self.consumers.iter().any(is_open) {
            true => ", counting one partition of a super stream (ask with --connect)",
            false => "",
        };
        writeln!(f, "memory:  at most {bound} for all consumers{of_one}")?;
        self.consumers.iter().try_for_each(|consumer| write!(f, "\n{consumer}"))?;
        self.watches.iter().try_for_each(|watch| write!(f, "\n{watch}"))
    }
}

impl fmt::Display for ConsumerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "consumer {:?}", self.name)?;
        let source = if self.is_super_stream { "super:      " } else { "stream:     " };
        writeln!(f, "  {source}{:?}, reference {:?}", self.stream, self.reference)?;
        let one = match (self.single_active, self.is_super_stream) {
            (false, _) => None,
            (true, false) => Some("one of all daemons with this reference, chosen by the broker"),
            (true, true) => Some(
                "for each partition, one of all daemons with this reference, chosen by the broker",
            ),
        };
        if let Some(one) = one {
            writeln!(f, "  active:     {one}")?;
        }
        if let Some(filter) = &self.filter {
            writeln!(f, "  filter:     {filter}")?;
        }
        match &self.to {
            Some(to) => writeln!(f, "  sink:       {}, {}", self.sink, to.display())?,
            None => writeln!(f, "  sink:       {}", self.sink)?,
        }
        writeln!(f, "  guarantee:  {}", self.guarantee)?;
        match &self.dead_letters {
            Some((kind, Some(to))) => writeln!(f, "  dead:       {kind}, {}", to.display())?,
            Some((kind, None)) => writeln!(f, "  dead:       {kind}")?,
            None => {}
        }
        if let Some(create) = &self.create {
            writeln!(f, "  create:     {create}")?;
        }
        let bound = rounded_up(self.memory_bound_bytes);
        match (self.is_super_stream, &self.partitions) {
            (false, _) => writeln!(f, "  memory:     at most {bound}")?,
            (true, None) => writeln!(f, "  memory:     at most {bound} for each partition")?,
            (true, Some(all)) => {
                writeln!(f, "  memory:     at most {bound} for {} partitions", all.len())?;
                for PartitionPlan { stream, resume, problem } in all {
                    match (resume, problem) {
                        (Some(ResumeReport { position, why, .. }), _) => {
                            writeln!(f, "  partition:  {stream:?}, resumes {position} ({why})")?;
                        }
                        (None, problem) => {
                            let what = problem.as_deref().unwrap_or("unknown");
                            writeln!(f, "  partition:  {stream:?}, PROBLEM: {what}")?;
                        }
                    }
                }
                return Ok(());
            }
        }
        match (&self.resume, &self.problem) {
            (Some(resume), _) => writeln!(f, "  resumes:    {} ({})", resume.position, resume.why),
            (None, Some(problem)) => writeln!(f, "  PROBLEM:    {problem}"),
            (None, None) => writeln!(
                f,
                "  resumes:    after its position, or else at {} (ask with --connect)",
                self.start
            ),
        }
    }
}

/// Rounded up to whole MiB: still an upper bound, and easier to read.
fn rounded_up(bytes: u64) -> ByteSize {
    ByteSize::mib(bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn config() -> Config {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rillway.toml");
        Config::load(Some(demo.as_ref()), &Env::default()).unwrap()
    }

    #[test]
    fn the_plan_says_for_each_consumer_what_is_promised() {
        let text = Plan::new(&config(), HashMap::new()).to_string();
        for says in [
            "consumer \"analytics\"\n  stream:     \"events\", reference \"analytics\"\n",
            "guarantee:  exactly-once\n  memory:     at most 147MiB\n",
            "guarantee:  at-least-once\n  memory:     at most 60MiB\n",
            "memory:  at most 437MiB for all consumers",
            "or else at first (ask with --connect)",
        ] {
            assert!(text.contains(says), "{says:?} is not in\n{text}");
        }
        assert!(!text.contains("guest:guest"), "{text}");
    }

    #[test]
    fn each_consumer_is_shown_with_its_resume_position() {
        let report = ResumeReport {
            position: "offset 7".into(),
            why: "the sink's own position is 6".into(),
            create: None,
        };
        let asked = HashMap::from([
            (
                ConsumerName::new("analytics"),
                Answers::OfStream(Err("the stream is not there".to_owned())),
            ),
            (ConsumerName::new("archiver"), Answers::OfStream(Ok(report))),
        ]);
        let plan = Plan::new(&config(), asked);
        let resumes: Vec<bool> = plan.consumers.iter().map(|c| c.resume.is_some()).collect();
        assert_eq!(resumes, [false, false, true]);
        let text = plan.to_string();
        assert!(text.contains("resumes:    offset 7 (the sink's own position is 6)"), "{text}");
        assert!(text.contains("PROBLEM:    the stream is not there"), "{text}");
        assert!(text.contains("but 1 of 3 consumers could not run"), "{text}");
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["consumers"][2]["resume"]["position"], "offset 7");
        assert_eq!(json["consumers"][0]["problem"], "the stream is not there");
        assert_eq!(json["consumers"][2]["guarantee"], "exactly-once");
    }
}
