//! Moves the position of a consumer that this process runs: drains it, moves all positions together, and lets
//! it go on from there.
//!
//! Once begun, a move is brought to its end, whether or not the caller waits: it has a task of its own. The
//! consumer is held meanwhile ([`Edit::Hold`]), which no pause of an operator changes; and it is let go however
//! the move ends.

use std::sync::Arc;

use serde_json::Value;

use super::desired::Edit;
use super::plan::Plan;
use super::reconcile::Phase;
use super::roll::Roll;
use super::set::{Set, Shared};
use super::verbs::find;
use crate::admin::{ControlError, Seek, SeekError, SeekTo, Sought, Target};
use crate::consumer::positions::{self, Planned, Report};
use crate::flow::resume::Start;
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
    let (plans, durable): (Vec<Plan>, Vec<Option<Offset>>) = {
        let set = shared.set();
        let of = |key: &ConsumerKey| {
            let member = set.member(key)?;
            let runs = set.phase(key).is_some_and(Phase::has_task);
            let durable = member.status.facts().durable.filter(|_| runs);
            Some((member.plan.clone(), durable))
        };
        found.keys.iter().filter_map(of).unzip()
    };
    let consumer = found.consumer;
    if plans.is_empty() {
        return Err(SeekError::Refused(format!("consumer {consumer:?} has no partitions yet")));
    }
    if plans.len() > 1 && matches!(order.to, SeekTo::Offset(_)) {
        let streams: Vec<_> = plans.iter().map(|plan| plan.spec.stream.as_str()).collect();
        return Err(SeekError::Refused(format!(
            "an offset means another message in each partition: name one with `stream`, of {}",
            streams.join(", ")
        )));
    }
    let to = positions::Target::To(start_of(order.to));
    // Before anything stops: a target that cannot be had disturbs nobody.
    let would = plan_all(&plans, to, &durable).await.map_err(SeekError::Refused)?;
    let sought = |moves, finished| Sought {
        consumer: consumer.clone(),
        dry_run: order.dry_run,
        finished,
        moves,
    };
    if order.dry_run {
        return Ok(sought(reports(&plans, &would, false), true));
    }
    let moving = Moving { shared: Arc::clone(shared), plans: plans.clone(), to };
    let mut task = tokio::spawn(moving.run());
    match tokio::time::timeout(order.wait, &mut task).await {
        Ok(Ok(moved)) => moved.map(|moves| sought(moves, true)).map_err(SeekError::Failed),
        Ok(Err(error)) => Err(SeekError::Failed(format!("internal error: {error}"))),
        Err(_) => Ok(sought(reports(&plans, &would, false), false)),
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

/// Finds the offset in each stream. `durable` is how far each has come that runs.
async fn plan_all(
    plans: &[Plan],
    to: positions::Target,
    durable: &[Option<Offset>],
) -> Result<Vec<Planned>, String> {
    let mut planned = Vec::new();
    let durable = durable.iter().copied().chain(std::iter::repeat(None));
    for (plan, durable) in plans.iter().zip(durable) {
        let one = positions::plan_from(&plan.subject(), to, durable).await;
        planned.push(one.map_err(|error| format!("{}: {error:#}", plan.spec.key()))?);
    }
    Ok(planned)
}

fn reports(plans: &[Plan], planned: &[Planned], moved: bool) -> Vec<Value> {
    let each = plans.iter().zip(planned).map(|(plan, planned)| report(plan, planned, moved));
    each.filter_map(|report| serde_json::to_value(report).ok()).collect()
}

fn report(plan: &Plan, planned: &Planned, moved: bool) -> Report {
    let spec = &plan.spec;
    Report::of((&spec.name, &spec.stream), planned, plan.read_again, moved)
}

/// A move under way.
struct Moving {
    shared: Arc<Shared>,
    plans: Vec<Plan>,
    to: positions::Target,
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
    async fn run(self) -> Result<Vec<Value>, String> {
        let operations: Vec<_> =
            self.plans.iter().map(|plan| plan.spec.operations().seek(self.to)).collect();
        let moved = self.move_all().await;
        operations.into_iter().for_each(|operation| operation.end(&moved));
        moved
    }

    async fn move_all(self) -> Result<Vec<Value>, String> {
        let Moving { shared, plans, to } = self;
        let held = Held::new(&shared, &plans);
        held.ended().await;
        // Again: while they ran, they went on.
        let planned = plan_all(&plans, to, &[]).await?;
        for (nth, (plan, planned)) in plans.iter().zip(&planned).enumerate() {
            let key = plan.spec.key();
            if let Err(error) = positions::move_to(&plan.subject(), planned.to).await {
                tracing::warn!(consumer = %key.consumer, stream = %key.stream, %error, "moving the position failed");
                let before = match nth {
                    0 => String::new(),
                    nth => format!("; {nth} streams before it were moved"),
                };
                return Err(format!("{key}: {error}{before}"));
            }
            log(&key.consumer, &report(plan, planned, true));
        }
        held.start_the_halted();
        Ok(reports(&plans, &planned, true))
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
