//! From nothing to a subscription: connects, finds out where to resume, stores where to begin, and
//! subscribes.

use std::sync::Arc;
use std::time::Duration;

use super::begin;
use super::brain::{Passed, Question};
use super::resumption::{Own, Resumption, STORES_MAX, SessionError, check_jump};
use super::spec::Spec;
use super::state_file::StateFile;
use super::stood_by;
use crate::flow::beginning::{Beginning, Memory};
use crate::flow::lag::Tail;
use crate::flow::resume::{
    self, ChunkExtent, Evidence, Known, Origin, Plan, Standing, Start, Unconfirmed,
};
use crate::source::{self, Bounds, Budget, ErrorKind, Link, Prefer, SourceError, Subscription};
use crate::telemetry::operations::Operation;
use crate::types::{Checkpoint, Offset};
use crate::wire::chunk::ProbedChunk;

/// The wait between two of them.
const STORE_AGAIN: Duration = Duration::from_millis(200);

/// Where a consumer would begin, and why.
pub(super) struct Outlook {
    pub(super) link: Arc<dyn Link>,
    pub(super) plan: Plan,
    pub(super) stored: Option<Offset>,
    pub(super) bounds: Option<Bounds>,
}

/// Connects, decides, keeps the beginning if it is one, and subscribes.
pub(super) async fn establish(
    spec: &Spec,
    own: Own,
    budget: &Arc<Budget>,
    within: &Operation,
) -> Result<(Subscription, Resumption), SessionError> {
    spec.source.prepare(stood_by::has_begun(spec, &own).await).await?;
    let outlook = kept(spec, look(spec, own).await?).await?;
    let subscribing = spec.operations().subscribe(within, outlook.plan.subscribe);
    let subscription = source::begin(&outlook.link, outlook.plan.subscribe, budget).await;
    subscribing.end(&subscription);
    Ok((subscription?, outlook.into_resumption()))
}

/// Finds on this connection where to begin, and keeps the beginning if it is one. The chunk at the
/// position is looked at: a subscription that was told where to begin cannot begin anew.
pub(super) async fn resume(
    spec: &Spec,
    own: Own,
    link: Arc<dyn Link>,
) -> Result<Resumption, SessionError> {
    let outlook = kept(spec, look_on(spec, own, link, Proof::Chunk).await?).await?;
    Ok(outlook.into_resumption())
}

/// Checks that the stream still holds this position, so that its offset may be stored.
///
/// # Errors
/// If it does not, or this node does not know. A node that is not the leader may be behind.
pub(super) async fn confirm(link: &dyn Link, position: Checkpoint) -> Result<(), SessionError> {
    confirm_by(link, position, (Proof::Chunk, None), None).await.map(drop)
}

/// Answers a question about what the broker's filter leaves out. `waiting` chunks had arrived when it was
/// asked. The stream's first offset is asked for last: it shows what retention took meanwhile.
pub(super) async fn passed(
    link: &dyn Link,
    question: Question,
    waiting: usize,
) -> Result<Passed, SessionError> {
    let mut given = None;
    if let Some(position) = question.position
        && let Evidence::Chunk(chunk) = confirm_by(link, position, (Proof::Chunk, None), None).await?
        // A chunk of the stream protocol may be one that AMQP 0.9.1 does not deliver.
        && position.chunk.is_some_and(|known| known.is_of_record() || !chunk.id.is_of_record())
    {
        given = Some((position, chunk.id.first_offset));
    }
    let (mut upto, mut tail) = (None, None);
    if question.to.is_none() {
        if !link.abilities().probes {
            return Ok(Passed { question, stream_first: None, waiting, upto, tail });
        }
        tail = link.bounds().await?.map(|bounds| bounds.tail);
        let is_news = tail.is_some() && tail != question.seen;
        if is_news && let Some(chunk) = link.nothing_selected(question.from).await? {
            // No checksum covers the header: a wrong one is not given for its own first offset, or reaches
            // beyond the end.
            let again = link.chunk_at(Start::Offset(chunk.first_offset())).await?;
            let end = link.bounds().await?.map(|bounds| bounds.tail);
            let last = chunk.next_offset().prev().filter(|last| *last >= question.from);
            let last = last.filter(|last| match end {
                _ if again != Some(chunk) => false,
                Some(Tail::Offset(end)) => *last <= end,
                end => Some(chunk.first_offset()) <= end.and_then(Tail::at_least),
            });
            upto = last.map(|offset| Checkpoint { offset, chunk: Some(chunk.id()) });
        }
    }
    let stream_first = link.oldest().await?;
    if question.to.is_some() && stream_first.is_none() {
        // The chunk behind the gap has arrived, so a missing answer proves nothing.
        let what = "no message came in time that shows where the stream begins; asking again";
        return Err(SourceError::new(ErrorKind::Unavailable, what).into());
    }
    if let Some((position, first)) = given {
        check_jump(position, first, stream_first)?;
    }
    Ok(Passed { question, stream_first, waiting, upto, tail })
}

/// Connects for storing the offset of this position alone; `false` where the leader says that the stream
/// does not hold it.
pub(super) async fn for_storing(
    spec: &Spec,
    position: Option<Checkpoint>,
) -> Result<(Arc<dyn Link>, bool), SessionError> {
    let link = spec.source.connect(Prefer::Replica).await?;
    let Some(position) = position else { return Ok((link, true)) };
    match confirm(&*link, position).await {
        Ok(()) => return Ok((link, true)),
        Err(SessionError::Lost { .. } | SessionError::Doubt { .. }) => drop(link),
        Err(error) => return Err(error),
    }
    let leader = spec.source.connect(Prefer::Leader).await?;
    match confirm(&*leader, position).await {
        Ok(()) => Ok((leader, true)),
        Err(SessionError::Lost { .. }) if leader.no_leader().is_none() => Ok((leader, false)),
        Err(error) => Err(error),
    }
}

async fn kept(spec: &Spec, mut outlook: Outlook) -> Result<Outlook, SessionError> {
    if let Some(beginning) = outlook.plan.begins {
        outlook.stored = keep(spec, &*outlook.link, &beginning, outlook.stored).await?;
    }
    Ok(outlook)
}

impl Outlook {
    fn into_resumption(self) -> Resumption {
        let (node, version) = (self.link.node(), self.link.version());
        let is_hearsay = self.link.no_leader().is_some();
        let Outlook { plan, stored, bounds, .. } = self;
        Resumption { plan, stored, bounds, node, version, is_hearsay }
    }
}

/// Evidence that the stream still holds a position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The stream's counters are enough: the first chunk of the subscription is checked too.
    Counters,
    /// The chunk at the position, where the position knows it, and the counters otherwise. For a look that no
    /// subscription follows, which would check its first chunk.
    Identity,
    /// The chunk at the position.
    Chunk,
}

/// Has the beginning on the broker and in the state file, before anything is read. In this order: a
/// beginning that is remembered was on the broker once.
async fn keep(
    spec: &Spec,
    link: &dyn Link,
    beginning: &Beginning,
    stored: Option<Offset>,
) -> Result<Option<Offset>, SessionError> {
    let stored = match beginning.mirror() {
        Some(wanted) if stored != Some(wanted) => Some(store_beginning(link, wanted).await?),
        _ => stored,
    };
    let (remembered, memory) = (StateFile::of(spec), Memory::Beginning(*beginning));
    let write = move || remembered.write(memory);
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written?,
        Err(error) => return Err(SourceError::given_up(error).into()),
    }
    tracing::info!(consumer = %spec.name, stream = %spec.stream, reference = %spec.reference, at = beginning.at.0, "this reference begins here; it is kept in the state file and on the broker");
    Ok(stored)
}

/// A store has no answer, so it is read back, and sent again where it did not arrive.
pub(super) async fn store_beginning(
    link: &dyn Link,
    wanted: Offset,
) -> Result<Offset, SessionError> {
    let mut held = None;
    for attempt in 0..STORES_MAX {
        if attempt > 0 {
            tokio::time::sleep(STORE_AGAIN).await;
        }
        held = store(link, wanted).await?;
        if held == Some(wanted) {
            return Ok(wanted);
        }
    }
    Err(SessionError::NotKept { wanted, held })
}

/// Connects and decides. A subscription is to follow.
pub(super) async fn look(spec: &Spec, own: Own) -> Result<Outlook, SessionError> {
    look_by(spec, own, Proof::Counters).await
}

/// Connects and decides, where no subscription follows.
pub(super) async fn foresee(spec: &Spec, own: Own) -> Result<Outlook, SessionError> {
    look_by(spec, own, Proof::Identity).await
}

async fn look_by(spec: &Spec, own: Own, proof: Proof) -> Result<Outlook, SessionError> {
    // With a filter, the first chunk need not be the one that holds the position.
    let proof = if spec.source.is_filtered() { Proof::Chunk } else { proof };
    let mut looked = look_at(spec, own, own.prefer, proof).await;
    let refuted = matches!(looked, Err(SessionError::Lost { .. } | SessionError::Doubt { .. }));
    if refuted && own.prefer != Prefer::Leader {
        // A replica may be behind, or have dropped more: only the leader's word counts.
        looked = look_at(spec, own, Prefer::Leader, proof).await;
    }
    looked
}

async fn look_at(
    spec: &Spec,
    own: Own,
    prefer: Prefer,
    proof: Proof,
) -> Result<Outlook, SessionError> {
    let link = spec.source.connect(prefer).await?;
    look_on(spec, own, link, proof).await
}

pub(super) async fn look_on(
    spec: &Spec,
    own: Own,
    link: Arc<dyn Link>,
    proof: Proof,
) -> Result<Outlook, SessionError> {
    let no_leader = link.no_leader().map(str::to_owned);
    let looked = look_plainly(spec, own, link, proof).await;
    match (looked, no_leader) {
        (Err(SessionError::Lost { lost, of }), Some(why)) => {
            Err(SessionError::Hearsay { lost, of, why })
        }
        (Err(SessionError::Doubt { doubt, of }), Some(why)) => {
            Err(SessionError::Hearsay { lost: doubt.into(), of, why })
        }
        (looked, _) => looked,
    }
}

/// The same, without regard to which node it is.
async fn look_plainly(
    spec: &Spec,
    own: Own,
    link: Arc<dyn Link>,
    proof: Proof,
) -> Result<Outlook, SessionError> {
    let bounds = link.bounds().await?;
    let stored = match link.abilities().offsets {
        // A failure here is never taken for "nothing stored": it ends this attempt, and the next one
        // asks again.
        true => link.stored().await?,
        // What the broker cannot keep, the state file has instead.
        false => own.remembered.and_then(|memory| match memory {
            Memory::Position(position) => Some(position.offset),
            Memory::Beginning(beginning) => beginning.mirror(),
        }),
    };
    let plan = match own.anew {
        Some(anew) => begin::anew(spec, &*link, bounds.as_ref(), anew).await?,
        None => {
            let known = Known {
                own: own.position,
                stored,
                remembered: own.remembered,
                stream_first: bounds.and_then(|bounds| bounds.first),
            };
            match resume::stand(&known) {
                Ok(Standing::New) => begin::configured(spec, &*link, bounds.as_ref()).await?,
                Ok(standing) => {
                    if let Some(position) = standing.position() {
                        confirm_by(&*link, position, (proof, bounds), standing.origin()).await?;
                    }
                    Plan::resume(standing)
                }
                Err(lost) => return Err(SessionError::Lost { lost, of: origin_of(&known) }),
            }
        }
    };
    Ok(Outlook { link, plan, stored, bounds })
}

/// Stores an offset where the source keeps any, and answers with what is held afterwards. Where it keeps
/// none, the state file alone does, which is written next.
pub(super) async fn store(link: &dyn Link, offset: Offset) -> Result<Option<Offset>, SourceError> {
    match link.abilities().offsets {
        true => link.store(offset).await,
        false => Ok(Some(offset)),
    }
}

/// A beginning that retention has passed, or whose mirror is gone, is lost like a position.
fn origin_of(known: &Known) -> Option<Origin> {
    known.own.map(|(origin, _)| origin)
}

/// Checks that the stream holds the position, by this proof. What the counters do not tell, the chunk at the
/// position does. Returns what it saw. `of` is the position's source, for the error.
async fn confirm_by(
    link: &dyn Link,
    position: Checkpoint,
    (proof, bounds): (Proof, Option<Bounds>),
    of: Option<Origin>,
) -> Result<Evidence, SessionError> {
    let end = bounds.and_then(|bounds| bounds.tail.at_least());
    let by_counters = proof != Proof::Chunk && end.is_some_and(|end| end >= position.offset);
    let has_identity = proof == Proof::Identity && position.chunk.is_some();
    let evidence = match by_counters && !has_identity {
        true => Evidence::Nothing,
        false => match look_for(link, position.offset).await? {
            // Slow to come; but the stream has it.
            Evidence::NoChunk(_) if by_counters => Evidence::Nothing,
            evidence => evidence,
        },
    };
    match resume::confirm(position, evidence) {
        Ok(()) => Ok(evidence),
        Err(Unconfirmed::Lost(lost)) => Err(SessionError::Lost { lost, of }),
        Err(Unconfirmed::Doubt(doubt)) => Err(SessionError::Doubt { doubt, of }),
    }
}

async fn look_for(link: &dyn Link, position: Offset) -> Result<Evidence, SourceError> {
    if !link.abilities().probes {
        return link.evidence(position).await;
    }
    // The header of a damaged chunk proves nothing.
    let sound = |chunk: Option<ProbedChunk>| {
        let chunk = chunk.filter(|chunk| chunk.sound)?;
        Some(ChunkExtent { id: chunk.id(), records: chunk.records() })
    };
    let there = link.chunk_at(Start::Offset(position)).await?;
    if let Some(chunk) = sound(there) {
        return Ok(Evidence::Chunk(chunk));
    }
    if there.is_some_and(|chunk| chunk.first_offset() <= position) {
        // A damaged one: the subscription shows how far it reaches.
        return Ok(Evidence::Nothing);
    }
    Ok(Evidence::NoChunk(sound(link.chunk_at(Start::Last).await?)))
}

#[cfg(test)]
mod tests;
