//! A consumer of a super stream: asks for its partitions repeatedly, and edits the desired state.
//!
//! While there is no partition to show, or the broker cannot be asked, the consumer has a row of its
//! own among the consumers, with the super stream's name and the reason. It is never ready.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::connect::connect_options;
use super::create::layout_of;
use super::desired::{After, Edit};
use super::partitions::{Changes, Present};
use super::plan::{Plan, plan_of_partition, sharing};
use super::set::Shared;
use crate::broker::{self, BrokerError, ConnectOptions, Pool};
use crate::config::{Config, ConsumerConfig};
use crate::consumer::{Roster, Status};
use crate::flow::backoff::Backoff;
use crate::flow::trouble::Trouble;
use crate::source::Creating;
use crate::sync::lock;
use crate::telemetry::{self, ConsumerMetrics, Heartbeats, Pulse, State};
use crate::types::{ConsumerKey, ConsumerName, Guarantee, Reference, StreamName, Timestamp};

/// Time between two questions. Two answers without a partition remove it, so within half a minute.
const EVERY: Duration = Duration::from_secs(15);

/// Shortest time between two questions while there is no partition.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// Longest time between two questions while there is no partition.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How long the list of partitions may be unknown or doubtful before the consumer counts as not ready.
const UNKNOWN_MAX: Duration = Duration::from_secs(60);

/// Time limit of a question, with connecting to all nodes.
const ASK_MAX: Duration = Duration::from_secs(60);

/// Time limit for writing the partitions to the state file.
const WRITE_MAX: Duration = Duration::from_secs(20);

/// How long the task may give no heartbeat.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A consumer of a super stream, ready to run.
pub struct SuperPlan {
    name: ConsumerName,
    super_stream: StreamName,
    reference: Reference,
    sink_kind: &'static str,
    guarantee: Guarantee,
    state_dir: PathBuf,
    /// For asking the broker.
    connect: ConnectOptions,
    /// Creates it if it is absent; `None` if it is never created.
    creating: Option<Creating>,
    plan: PlanOf,
    /// Tasks that have to end before its partitions start.
    after: After,
}

/// Plan of a partition; the second argument is true if it appeared after the consumer had begun.
type PlanOf = Box<dyn Fn(&StreamName, bool) -> Plan + Send + Sync>;

impl SuperPlan {
    /// The plan that the configuration gives for a consumer of a super stream.
    pub fn of(config: &Config, consumer: &ConsumerConfig) -> SuperPlan {
        let pool = Pool::new();
        let connect = sharing(config, consumer, &pool);
        let plan = {
            let (config, consumer) = (config.clone(), consumer.clone());
            move |partition: &StreamName, late| {
                plan_of_partition(&config, &consumer, partition, late, &pool)
            }
        };
        SuperPlan {
            name: consumer.name.clone(),
            super_stream: consumer.stream.clone(),
            reference: consumer.reference.clone(),
            sink_kind: consumer.sink.kind(),
            guarantee: consumer.sink.guarantee(),
            state_dir: config.state_dir.clone(),
            creating: layout_of(consumer).map(|layout| Creating::new(connect.clone(), layout)),
            connect,
            plan: Box::new(plan),
            after: After::default(),
        }
    }

    /// The same; its partitions start only when these tasks have ended.
    pub(super) fn after(self, after: After) -> SuperPlan {
        SuperPlan { after, ..self }
    }
}

/// The names of the partitions now, and the plan of each, for `rillway check`.
///
/// # Errors
/// If the broker cannot say.
pub async fn partitions_of(
    config: &Config,
    consumer: &ConsumerConfig,
) -> Result<Vec<Plan>, String> {
    let connect = connect_options(&config.broker, &format!("rillway {}", consumer.name));
    let asked = broker::partitions(&connect, &consumer.stream).await;
    let partitions = asked.map_err(|error| error.to_string())?;
    if partitions.is_empty() {
        return Err(empty(&consumer.stream));
    }
    let roster = Roster::read(&config.state_dir, &consumer.reference, &consumer.stream)
        .map_err(|error| error.to_string())?;
    let pool = Pool::new();
    let plan = |partition: &StreamName| {
        plan_of_partition(config, consumer, partition, roster.is_late(partition), &pool)
    };
    Ok(partitions.iter().map(plan).collect())
}

pub(super) fn empty(super_stream: &StreamName) -> String {
    format!(
        "super stream {:?} has no partitions: no stream is bound to the exchange of this name. Bind its streams, or check the name",
        super_stream.as_str()
    )
}

/// A consumer of a super stream, as others see it.
pub(super) struct Group {
    plan: SuperPlan,
    /// Its own row beside the rows of its partitions; `None` while those say everything.
    row: Mutex<Option<Arc<Status>>>,
    /// Held here, so that a task that panicked counts as stuck. `None` once it is told to end.
    pulse: Mutex<Option<Pulse>>,
    /// True once it is told to end. Held over every edit, so that none follows.
    has_ended: Mutex<bool>,
}

/// Partitions that are written down.
struct Enlisted {
    /// For each new one, whether it came after the consumer had begun.
    lates: Vec<bool>,
    /// True if any partition was ever seen.
    has_any: bool,
}

/// Why the partitions are not known.
struct Unknown {
    reason: String,
    /// True if the broker has said that there is none.
    is_missing: bool,
}

impl Unknown {
    fn because(reason: impl ToString) -> Unknown {
        Unknown { reason: reason.to_string(), is_missing: false }
    }
}

impl Group {
    pub(super) fn new(plan: SuperPlan, heartbeats: &Heartbeats) -> Group {
        let pulse = heartbeats.register(format!("partitions of {}", plan.name), SILENCE_MAX);
        let (row, has_ended, pulse) = (Mutex::default(), Mutex::default(), Mutex::new(Some(pulse)));
        let group = Group { plan, row, pulse, has_ended };
        group.show(State::Connecting, "asking for the partitions".to_owned());
        group
    }

    pub(super) fn name(&self) -> &ConsumerName {
        &self.plan.name
    }

    pub(super) fn super_stream(&self) -> &StreamName {
        &self.plan.super_stream
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.plan.reference
    }

    /// Tasks that its partitions wait for.
    pub(super) fn awaits(&self) -> &After {
        &self.plan.after
    }

    pub(super) fn sink_kind(&self) -> &'static str {
        self.plan.sink_kind
    }

    pub(super) fn guarantee(&self) -> Guarantee {
        self.plan.guarantee
    }

    /// Marks the consumer as one that no longer asks. After this it edits nothing.
    pub(super) fn end(&self) {
        *lock(&self.has_ended) = true;
        *lock(&self.pulse) = None;
    }

    /// Removes its own row. Its partitions are not touched.
    pub(super) fn retire(&self) {
        if lock(&self.row).take().is_some() {
            telemetry::retire(&self.key(&self.plan.super_stream));
        }
    }

    /// Edits the desired state, unless it was told to end.
    fn edit(&self, shared: &Shared, edit: Edit<Plan>) {
        let has_ended = lock(&self.has_ended);
        if !*has_ended {
            // Adding one always succeeds, and what is removed was added before.
            shared.edit(edit).unwrap_or_default();
        }
    }

    /// Its own row; `None` while its partitions say everything.
    pub(super) fn row(&self) -> Option<Arc<Status>> {
        lock(&self.row).clone()
    }

    fn show(&self, state: State, reason: String) {
        let has_ended = lock(&self.has_ended);
        if *has_ended {
            return;
        }
        let mut row = lock(&self.row);
        let status = row.get_or_insert_with(|| {
            let SuperPlan { name, super_stream, sink_kind, .. } = &self.plan;
            Arc::new(Status::new(ConsumerMetrics::new(name, super_stream, sink_kind)))
        });
        status.set_state(state, Some(reason));
    }

    fn hide(&self, present: &Present) {
        if lock(&self.row).take().is_some() && !present.has(&self.plan.super_stream) {
            telemetry::retire(&self.key(&self.plan.super_stream));
        }
    }

    fn key(&self, stream: &StreamName) -> ConsumerKey {
        ConsumerKey { consumer: self.plan.name.clone(), stream: stream.clone() }
    }

    /// Asks indefinitely; ends when its task is aborted.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let mut present = Present::default();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut trouble = Trouble::default();
        let mut known_at = Instant::now();
        loop {
            lock(&self.pulse).iter().for_each(Pulse::touch);
            let asked = match tokio::time::timeout(ASK_MAX, self.ask()).await {
                Ok(asked) => asked,
                Err(_) => Err(Unknown::because(format!("no answer within {ASK_MAX:?}"))),
            };
            let taken = match asked {
                Ok(partitions) => self.take(&partitions, &mut present, &shared).await,
                Err(unknown) => Err(unknown),
            };
            match taken {
                Ok(()) => {
                    known_at = Instant::now();
                    if let Some(past) = trouble.over(known_at) {
                        tracing::info!(consumer = %self.plan.name, super_stream = %self.plan.super_stream, after_s = past.lasted.as_secs(), "the partitions are known again");
                    }
                    self.hide(&present);
                }
                Err(Unknown { reason, is_missing }) => {
                    let now = Instant::now();
                    if trouble.failed(&reason, now) {
                        tracing::warn!(consumer = %self.plan.name, super_stream = %self.plan.super_stream, reason, "the partitions are not known; those that are read already are read on");
                    }
                    if present.is_empty() || is_missing || now - known_at > UNKNOWN_MAX {
                        self.show(State::Backoff, reason);
                    }
                }
            }
            let wait = match present.is_empty() {
                true => backoff.next(fastrand::f64()),
                false => EVERY,
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn ask(&self) -> Result<Vec<StreamName>, Unknown> {
        let SuperPlan { connect, super_stream, creating, .. } = &self.plan;
        let missing = |reason: String| Unknown { reason, is_missing: true };
        match broker::partitions(connect, super_stream).await {
            Ok(partitions) if partitions.is_empty() => Err(missing(empty(super_stream))),
            Ok(partitions) => {
                if let Some(creating) = creating.as_ref().filter(|c| !c.is_settled())
                    && let Err(error) = creating.prepare(true).await
                {
                    tracing::debug!(consumer = %self.plan.name, %super_stream, %error, "not compared with `create`");
                }
                Ok(partitions)
            }
            Err(error @ BrokerError::SuperStreamMissing { .. }) => {
                // What is created from now on is late: all of it is read.
                let has_begun = self.enlist(Vec::new()).await?.has_any;
                let Some(creating) = creating else { return Err(missing(error.to_string())) };
                let created = match creating.is_settled() {
                    true => Err(creating.gone()),
                    false => creating.prepare(has_begun).await,
                };
                created.map_err(|error| missing(error.to_string()))?;
                broker::partitions(connect, super_stream).await.map_err(Unknown::because)
            }
            Err(error @ BrokerError::TooOld { .. }) => match creating {
                // That needs a later version still.
                Some(creating) => match creating.prepare(true).await {
                    Ok(()) => Err(Unknown::because(error)),
                    Err(error) => Err(Unknown::because(error)),
                },
                None => Err(Unknown::because(error)),
            },
            Err(error) => Err(Unknown::because(error)),
        }
    }

    /// Edits the desired state by an answer.
    async fn take(
        &self,
        partitions: &[StreamName],
        present: &mut Present,
        shared: &Shared,
    ) -> Result<(), Unknown> {
        let (name, super_stream) = (&self.plan.name, &self.plan.super_stream);
        let Changes { new, gone } = present.answered(partitions);
        for partition in gone {
            let member = shared.set().member(&self.key(&partition)).cloned();
            let facts = member.map(|member| member.status.facts());
            let is_passive = facts.as_ref().is_some_and(|facts| facts.state == State::Passive);
            let lag = facts.and_then(|facts| facts.lag(Timestamp::now()));
            match lag.map(|lag| lag.messages) {
                _ if is_passive => {
                    tracing::info!(consumer = %name, %super_stream, %partition, "no longer a partition: this instance does not stand by for it any more; the one that reads it says how far it was read");
                }
                Some(0) => {
                    tracing::info!(consumer = %name, %super_stream, %partition, "no longer a partition: it is not read any more; its position is kept");
                }
                // Nothing is lost yet, but nothing reads it.
                unread => {
                    tracing::warn!(consumer = %name, %super_stream, %partition, unread, "no longer a partition, and not read to its end: what is unread stays in its stream. Bind it again, or read it as a `stream` under the same reference");
                }
            }
            self.edit(shared, Edit::Remove(self.key(&partition)));
        }
        if new.is_empty() {
            return Ok(());
        }
        let lates = self.enlist(new.clone()).await?.lates;
        for (partition, late) in new.iter().zip(lates) {
            tracing::info!(consumer = %name, %super_stream, %partition, late, "a partition: it is read");
            present.add(partition);
            let plan = (self.plan.plan)(partition, late);
            self.edit(shared, Edit::PutAfter(plan, self.plan.after.clone()));
        }
        Ok(())
    }

    /// Writes new partitions to the state file.
    async fn enlist(&self, new: Vec<StreamName>) -> Result<Enlisted, Unknown> {
        let SuperPlan { state_dir, reference, super_stream, .. } = &self.plan;
        let state_dir_shown = state_dir;
        let (state_dir, reference) = (state_dir.clone(), reference.clone());
        let super_stream = super_stream.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut roster = Roster::read(&state_dir, &reference, &super_stream)?;
            roster.add(&new)?;
            let lates = new.iter().map(|partition| roster.is_late(partition)).collect();
            Ok::<_, crate::consumer::RosterError>(Enlisted { lates, has_any: roster.has_any() })
        });
        // A disk that hangs delays only the partitions of this consumer.
        match tokio::time::timeout(WRITE_MAX, writing).await {
            Ok(Ok(Ok(enlisted))) => Ok(enlisted),
            Ok(Ok(Err(error))) => Err(Unknown::because(error)),
            Ok(Err(error)) => Err(Unknown::because(error)),
            Err(_) => Err(Unknown::because(format!(
                "the partitions could not be written to {} within {WRITE_MAX:?}",
                state_dir_shown.display()
            ))),
        }
    }
}
