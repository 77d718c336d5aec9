//! Moves the position of a consumer that this process runs: drains it, moves all positions together, and lets
//! it go on from there.
//!
//! All streams are moved, or none. What would be skipped needs consent, also if it came after the order; and the
//! plan that is moved is the one that goes on.
//!
//! Once begun, a move is brought to its end, whether or not the caller waits: it has a task of its own. The
//! consumer is held meanwhile ([`Edit::Hold`]), which no pause of an operator changes; and it is let go however
//! the move ends.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::desired::Edit;
use super::plan::Plan;
use super::reconcile::Phase;
use super::roll::Roll;
use super::set::{Set, Shared};
use super::verbs::find;
use crate::admin::{ControlError, Seek, SeekError, SeekTo, Sought, Target};
use crate::consumer::positions::{self, Planned, Report};
use crate::faults::{self, Point};
use crate::flow::resume::Start;
use crate::source::Activation;
use crate::telemetry::State;
use crate::types::{ConsumerKey, ConsumerName, Offset};

/// Moves the target, or says what that would do.
pub(super) async fn seek(
    shared: &Arc<Shared>,
    roll: &Roll,
    target: Target<'_>,
    order: Seek,
) -> Result<Sought, SeekError> {
    if roll.has_ended() {
        return Err(ControlError::Ending.into());
    }
    let found = find(shared, roll, target)?;
    let streams: Vec<Stream> = {
        let set = shared.set();
        found.keys.iter().filter_map(|key| Stream::of(&set, key)).collect()
    };
    let consumer = found.consumer;
    if streams.is_empty() {
        return Err(SeekError::Refused(format!("consumer {consumer:?} has no partitions yet")));
    }
    if streams.len() > 1 && matches!(order.to, SeekTo::Offset(_)) {
        let names: Vec<_> = streams.iter().map(|one| one.plan.spec.stream.as_str()).collect();
        return Err(SeekError::Refused(format!(
            "an offset means another message in each partition: name one with `stream`, of {}",
            names.join(", ")
        )));
    }
    if !order.dry_run {
        streams.iter().try_for_each(|one| one.check_alone(order.alone))?;
    }
    let to = positions::Target::To(start_of(order.to));
    // Before anything stops: a target that cannot be had disturbs nobody.
    let would = streams.iter().map(|one| one.plan_to(to));
    let would = try_join_all(would).await.map_err(SeekError::Refused)?;
    let plans: Vec<Plan> = streams.into_iter().map(|one| one.plan).collect();
    let would_be = reports(&plans, &would, false);
    let sought = |moves: Vec<Report>, finished| Sought {
        consumer: consumer.clone(),
        dry_run: order.dry_run,
        finished,
        moves: moves.iter().filter_map(|one| serde_json::to_value(one).ok()).collect(),
    };
    if order.dry_run {
        return Ok(sought(would_be, true));
    }
    consent(order.may_skip, &would_be).map_err(SeekError::Refused)?;
    let may_skip = order.may_skip;
    let alone = order.alone;
    let moving = Moving { shared: Arc::clone(shared), plans, would, to, may_skip, alone };
    let mut task = tokio::spawn(moving.run());
    match tokio::time::timeout(order.wait, &mut task).await {
        Ok(Ok(moved)) => moved.map(|moves| sought(moves, true)).map_err(SeekError::Failed),
        Ok(Err(error)) => Err(SeekError::Failed(format!("internal error: {error}"))),
        Err(_) => Ok(sought(would_be, false)),
    }
}

/// Refuses to skip messages that nobody has allowed to skip.
fn consent(may_skip: bool, reports: &[Report]) -> Result<(), String> {
    let skipping: String =
        reports.iter().filter(|one| one.may_skip()).map(ToString::to_string).collect();
    match may_skip || skipping.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{skipping}Nothing was moved: add --yes to skip messages (\"may_skip\": true), or only look with --dry-run"
        )),
    }
}

/// A stream of the consumer, as it is before the move.
struct Stream {
    plan: Plan,
    /// How far it has come, if it runs.
    durable: Option<Offset>,
    /// State of its task; `None` without one.
    running: Option<State>,
}

impl Stream {
    fn of(set: &Set, key: &ConsumerKey) -> Option<Stream> {
        let member = set.member(key)?;
        let facts = member.status.facts();
        let runs = set.phase(key).is_some_and(Phase::has_task);
        let (durable, running) = (facts.durable.filter(|_| runs), runs.then_some(facts.state));
        Some(Stream { plan: member.plan.clone(), durable, running })
    }

    /// Where the broker has one of several daemons active, a drain gives the consumer to one that stands by. It
    /// does not tell whether there is one, so the operator has to.
    fn check_alone(&self, alone: bool) -> Result<(), SeekError> {
        let spec = &self.plan.spec;
        let Some(state) = self.running.filter(|_| spec.source.activation() == Activation::ByBroker)
        else {
            return Ok(());
        };
        let key = spec.key();
        match (state, alone) {
            (State::Passive, _) => Err(SeekError::Refused(format!(
                "{key}: it stands by here, and another daemon is the active one (single_active). Nothing was moved: \
                 pause the consumer in all daemons but the active one, and give this order there"
            ))),
            (_, false) => Err(SeekError::Refused(format!(
                "{key}: with single_active, a daemon that stands by would take the consumer over while it is moved here. \
                 Nothing was moved: pause the consumer in all other daemons, and then add --alone (\"alone\": true)"
            ))),
            (_, true) => Ok(()),
        }
    }

    /// Finds the offset in the stream.
    async fn plan_to(&self, to: positions::Target) -> Result<Planned, String> {
        let planned = positions::plan_from(&self.plan.subject(), to, self.durable).await;
        planned.map_err(|error| format!("{}: {error:#}", self.plan.spec.key()))
    }
}

fn start_of(to: SeekTo) -> Start {
    match to {
        SeekTo::First => Start::First,
        SeekTo::Last => Start::Last,
        SeekTo::Next => Start::Next,
        SeekTo::Offset(offset) => Start::Offset(offset),
        SeekTo::Timestamp(at) => Start::Timestamp(at),
    }
}

fn reports(plans: &[Plan], planned: &[Planned], moved: bool) -> Vec<Report> {
    plans.iter().zip(planned).map(|(plan, planned)| report(plan, planned, moved)).collect()
}

fn report(plan: &Plan, planned: &Planned, moved: bool) -> Report {
    let spec = &plan.spec;
    Report::of((&spec.name, &spec.stream), planned, plan.read_again, moved)
}

/// A move under way.
struct Moving {
    shared: Arc<Shared>,
    plans: Vec<Plan>,
    /// What was planned while they ran.
    would: Vec<Planned>,
    to: positions::Target,
    may_skip: bool,
    alone: bool,
}

/// Lets the consumers go on when it is dropped.
struct Held {
    shared: Arc<Shared>,
    keys: Vec<ConsumerKey>,
}

impl Held {
    fn new(shared: &Arc<Shared>, plans: &[Plan]) -> Held {
        let keys: Vec<ConsumerKey> = plans.iter().map(|plan| plan.spec.key()).collect();
        for key in &keys {
            // One that has gone since then needs none.
            shared.edit(Edit::Hold(key.clone())).unwrap_or_default();
        }
        Held { shared: Arc::clone(shared), keys }
    }

    /// Waits until none of them has a task; the drain has a time limit.
    async fn ended(&self) {
        let is_over = |set: &Set| {
            self.keys.iter().all(|key| set.phase(key).is_none_or(|phase| !phase.has_task()))
        };
        self.shared.until(is_over).await;
        // What a failed run has kept for the next one.
        self.keys.iter().for_each(|key| self.shared.set().let_go(key));
    }

    /// Has those that halted start again: their position is another one now.
    fn start_the_halted(&self) {
        let halted = {
            let set = self.shared.set();
            let is_halted = |key: &&ConsumerKey| {
                matches!(set.phase(key), Some(Phase::Halted { .. } | Phase::Backoff { .. }))
            };
            self.keys.iter().filter(is_halted).cloned().collect::<Vec<_>>()
        };
        for key in halted {
            self.shared.edit(Edit::StartAnew(key)).unwrap_or_default();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for key in &self.keys {
            self.shared.edit(Edit::Release(key.clone())).unwrap_or_default();
        }
    }
}

impl Moving {
    async fn run(self) -> Result<Vec<Report>, String> {
        let operations: Vec<_> =
            self.plans.iter().map(|plan| plan.spec.operations().seek(self.to)).collect();
        let moved = self.move_all().await;
        operations.into_iter().for_each(|operation| operation.end(&moved));
        moved
    }

    async fn move_all(&self) -> Result<Vec<Report>, String> {
        self.check_alone()?;
        let held = Held::new(&self.shared, &self.plans);
        held.ended().await;
        faults::reach(Point::MoveHeld);
        let moved = self.make().await;
        match &moved {
            Ok(_) => held.start_the_halted(),
            Err(NotMoved { why, counts }) => {
                let consumer = self.plans.first().map(|plan| plan.spec.name.as_str());
                tracing::warn!(consumer, error = %why, counts, "moving the position failed");
                if *counts {
                    held.start_the_halted();
                }
            }
        }
        moved.map_err(|error| error.why)
    }

    /// Asked again: one may have become active while the stream was looked at.
    fn check_alone(&self) -> Result<(), String> {
        let set = self.shared.set();
        let mut now = self.plans.iter().filter_map(|plan| Stream::of(&set, &plan.spec.key()));
        now.try_for_each(|one| one.check_alone(self.alone)).map_err(|error| error.to_string())
    }

    /// Makes the move; no task runs meanwhile.
    async fn make(&self) -> Result<Vec<Report>, NotMoved> {
        self.check_unchanged()?;
        // Again: while they ran, they went on.
        let again = self.plans.iter().zip(&self.would).map(async |(plan, would)| {
            let planned = positions::plan_again(&plan.subject(), self.to, would).await;
            planned.map_err(|error| format!("{}: {error:#}", plan.spec.key()))
        });
        let planned = try_join_all(again).await?;
        consent(self.may_skip, &reports(&self.plans, &planned, false))?;
        let moves = self.plans.iter().zip(&planned);
        let moves = moves.map(|(plan, planned)| (plan.subject(), planned.to)).collect();
        let ready = positions::Ready::prepare(moves).await;
        let ready = ready.map_err(|why| format!("{why}. Nothing was moved"))?;
        // A reload that comes later finds them moved, as one after this order would.
        if let Err(why) = self.check_unchanged() {
            ready.give_up().await;
            return Err(why.into());
        }
        let unmoved = ready.carry_out().await.err().unwrap_or_default();
        let counts = unmoved.iter().all(|why| why.error.counts());
        if counts {
            self.show(&planned);
        }
        if unmoved.is_empty() {
            return Ok(reports(&self.plans, &planned, true));
        }
        let lines: Vec<String> = unmoved.iter().map(ToString::to_string).collect();
        let none = if counts { "" } else { ". Nothing was moved" };
        Err(NotMoved { why: format!("{}{none}", lines.join("\n")), counts })
    }

    /// Shows and logs where they go on.
    fn show(&self, planned: &[Planned]) {
        for (plan, planned) in self.plans.iter().zip(planned) {
            let spec = &plan.spec;
            if let Some(member) = self.shared.set().member(&spec.key()) {
                let is_known = spec.source.activation() == Activation::AtOnce;
                member.status.moved(is_known.then_some(planned.to.at));
            }
            log(&spec.name, &report(plan, planned, true));
        }
    }

    /// Refuses if a reload has changed or removed one of them since the order was given: what would be moved is
    /// not what runs next.
    fn check_unchanged(&self) -> Result<(), String> {
        let set = self.shared.set();
        let is_same = |plan: &&Plan| {
            let now = set.plan(&plan.spec.key());
            now.is_some_and(|now| Arc::ptr_eq(&now.spec, &plan.spec))
        };
        match self.plans.iter().find(|plan| !is_same(plan)) {
            None => Ok(()),
            Some(plan) => Err(format!(
                "{}: its configuration was changed while it was to be moved. Nothing was moved: give the order again",
                plan.spec.key()
            )),
        }
    }
}

/// Why the streams are not all moved.
struct NotMoved {
    why: String,
    /// True if the move counts all the same.
    counts: bool,
}

impl From<String> for NotMoved {
    fn from(why: String) -> NotMoved {
        NotMoved { why, counts: false }
    }
}

fn log(consumer: &ConsumerName, report: &Report) {
    tracing::info!(
        %consumer,
        stream = %report.stream,
        from = report.from_offset.map(|from| from.0),
        to = report.to_offset.0,
        "the position was moved by order of an operator"
    );
}
