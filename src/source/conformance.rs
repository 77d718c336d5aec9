//! Conformance suite of sources, as plain functions that each source's tests call.
//!
//! A test implements [`Stage`] and passes a function that makes fresh ones to [`all`]. Each
//! question is a function of its own that returns `Err` with the reason of a failure. Compiled into
//! the library so that `tests/` can run the same suite against real brokers; nothing else uses it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::{
    Activation, Budget, Delivery, ErrorKind, Event, Link, Prefer, Source, Subscription, begin,
};
use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::types::Offset;
use crate::wire::chunk::Chunk;

/// Time limit of each question.
const QUESTION_MAX: Duration = Duration::from_secs(60);

/// Budget in bytes for questions that are not about memory.
const ROOM_BYTES: u64 = 16 << 20;

/// Bytes of each published message.
const MESSAGE_BYTES: usize = 1000;

/// A stream under test, empty at first, with the operations that a test needs.
#[async_trait]
pub trait Stage: Send + Sync {
    /// The stream, always with the same reference.
    fn source(&self) -> Arc<dyn Source>;

    /// A stream that does not exist.
    fn missing(&self) -> Arc<dyn Source>;

    /// Publishes `messages` messages of `bytes` bytes each, in one or several chunks.
    async fn publish(&self, messages: u64, bytes: usize);

    /// Cuts all connections at once, without closing them.
    async fn cut(&self);
}

type Answer = Result<(), String>;

/// Runs all questions, each with a fresh stage, and returns their number.
///
/// # Errors
/// The first failed question, and the reason.
pub async fn all<S: Stage, F: Future<Output = S>>(fresh: impl Fn() -> F) -> Result<usize, String> {
    let mut asked = 0;
    macro_rules! ask {
        ($($question:ident)*) => {$(
            let answer = tokio::time::timeout(QUESTION_MAX, $question(&fresh().await)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {QUESTION_MAX:?}")));
            answer.map_err(|why| format!("{}: {why}", stringify!($question)))?;
            asked += 1;
        )*};
    }
    ask! {
        begins_where_it_says
        delivers_in_order
        stays_within_the_budget_and_uses_it
        reads_back_what_it_stored
        knows_a_lower_bound_of_the_end
        shows_the_chunk_at_a_position
        says_why_it_ended
        loses_nothing_to_a_dropped_call
        is_active_when_it_says_so
        tells_a_missing_stream
    }
    Ok(asked)
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Answer {
    if holds { Ok(()) } else { Err(what()) }
}

async fn link(stage: &impl Stage) -> Result<Arc<dyn Link>, String> {
    stage.source().connect(Prefer::Replica).await.map_err(|e| format!("connect: {e}"))
}

async fn subscribe(
    stage: &impl Stage,
    link: &Arc<dyn Link>,
    start: Start,
    budget: &Arc<Budget>,
) -> Result<Subscription, String> {
    let mut subscription =
        begin(link, start, budget).await.map_err(|e| format!("begin at {start}: {e}"))?;
    if stage.source().activation() == Activation::ByBroker {
        match subscription.next().await {
            Some(Event::Activation(turn)) if turn.active => turn.answer(Some(start)),
            other => return Err(format!("{} instead of an activation", describe(other.as_ref()))),
        }
    }
    Ok(subscription)
}

fn describe(event: Option<&Event>) -> String {
    match event {
        Some(Event::Chunk(_)) => "a chunk".to_owned(),
        Some(Event::Unavailable(why)) => format!("the subscription's end ({why})"),
        Some(Event::Activation(turn)) => format!("an activation ({})", turn.active),
        None => "the end".to_owned(),
    }
}

/// Offset of the chunk's first record, and the offset after its last.
fn span(delivery: &Delivery) -> Result<(u64, u64), String> {
    let chunk = Chunk::decode(delivery.chunk.clone()).map_err(|e| format!("a chunk: {e}"))?;
    Ok((chunk.header().first_offset.0, chunk.header().next_offset().0))
}

async fn chunk(subscription: &mut Subscription) -> Result<Delivery, String> {
    match subscription.next().await {
        Some(Event::Chunk(delivery)) => Ok(delivery),
        other => Err(format!("{} instead of a chunk", describe(other.as_ref()))),
    }
}

/// Does the first chunk hold the requested offset?
pub async fn begins_where_it_says(stage: &impl Stage) -> Answer {
    for _ in 0..3 {
        stage.publish(10, MESSAGE_BYTES).await;
    }
    for wanted in [0, 9, 10, 17, 29] {
        let link = link(stage).await?;
        let budget = Budget::new(ROOM_BYTES);
        let mut subscription =
            subscribe(stage, &link, Start::Offset(Offset(wanted)), &budget).await?;
        let (first, next) = span(&chunk(&mut subscription).await?)?;
        ensure((first..next).contains(&wanted), || {
            format!("asked for {wanted}, the first chunk is {first} to {next}")
        })?;
    }
    let fresh = link(stage).await?;
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &fresh, Start::First, &budget).await?;
    let (first, _) = span(&chunk(&mut subscription).await?)?;
    ensure(first == 0, || format!("the first chunk begins at {first}"))?;
    let later = link(stage).await?;
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &later, Start::Next, &budget).await?;
    stage.publish(1, MESSAGE_BYTES).await;
    let (first, _) = span(&chunk(&mut subscription).await?)?;
    ensure(first >= 30, || format!("the next published message cannot be at {first}"))
}

/// Do all records arrive, in order and once?
pub async fn delivers_in_order(stage: &impl Stage) -> Answer {
    let link = link(stage).await?;
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &link, Start::First, &budget).await?;
    for _ in 0..5 {
        stage.publish(20, MESSAGE_BYTES).await;
    }
    let mut reached = 0;
    while reached < 100 {
        let (first, next) = span(&chunk(&mut subscription).await?)?;
        ensure(first == reached, || format!("{first} follows {reached}"))?;
        reached = next;
    }
    ensure(reached == 100, || format!("{reached} records of 100"))
}

/// Does the memory held stay within the budget, and does returning it bring more?
///
/// A chunk that does not fit may end the link, but only with [`ErrorKind::Overrun`]: it is
/// requested again.
pub async fn stays_within_the_budget_and_uses_it(stage: &impl Stage) -> Answer {
    const MESSAGES: u64 = 40;
    const LARGE: usize = 20_000;
    for _ in 0..MESSAGES {
        stage.publish(1, LARGE).await;
    }
    let budget = Budget::new(8 * LARGE as u64);
    let mut held = Vec::new();
    let (mut reached, mut rounds) = (0, 0);
    while reached < MESSAGES {
        rounds += 1;
        ensure(rounds <= MESSAGES, || format!("nothing new arrived in {rounds} rounds"))?;
        held.clear();
        ensure(budget.buffered() == 0, || format!("{} bytes are still held", budget.buffered()))?;
        let link = link(stage).await?;
        let from = Start::Offset(Offset(reached));
        let mut subscription = subscribe(stage, &link, from, &budget).await?;
        while reached < MESSAGES {
            // Credit counts chunks still to arrive: without any, the rest is here already.
            let event = match budget.has_credit() {
                true => subscription.next().await,
                false => match subscription.try_next() {
                    Some(event) => Some(event),
                    None => break,
                },
            };
            let delivery = match event {
                Some(Event::Chunk(delivery)) => delivery,
                None if link.reason().kind() == ErrorKind::Overrun => break,
                other => return Err(format!("{} instead of a chunk", describe(other.as_ref()))),
            };
            reached = span(&delivery)?.1;
            held.push(delivery);
            let (buffered, limit) = (budget.buffered(), budget.limit());
            ensure(buffered <= limit, || format!("{buffered} bytes are held, of {limit}"))?;
        }
        ensure(held.len() > 1 || reached == MESSAGES, || {
            format!("the budget is used for only {} chunk", held.len())
        })?;
        if budget.has_credit() {
            continue;
        }
        ensure(reached < MESSAGES || rounds > 1, || {
            "all messages fitted into a budget for eight".to_owned()
        })?;
        // Returning all of it brings more, on the same subscription.
        held.clear();
        if reached < MESSAGES && link.ended().now_or_never().is_none() {
            reached = match subscription.next().await {
                Some(Event::Chunk(delivery)) => span(&delivery)?.1,
                other => return Err(format!("{} follows", describe(other.as_ref()))),
            };
        }
    }
    Ok(())
}

/// Can the next connection read a stored offset?
pub async fn reads_back_what_it_stored(stage: &impl Stage) -> Answer {
    stage.publish(10, MESSAGE_BYTES).await;
    let fresh = link(stage).await?;
    let says = |e| format!("the stored offset: {e}");
    let before = fresh.stored().await.map_err(says)?;
    ensure(before.is_none(), || format!("{before:?} is stored before the first store"))?;
    let expected = fresh.abilities().offsets.then_some(Offset(5));
    let stored = fresh.store(Offset(5)).await.map_err(says)?;
    ensure(stored == expected, || format!("stored 5, but {stored:?} is held"))?;
    fresh.close().await;
    let again = link(stage).await?.stored().await.map_err(says)?;
    ensure(again == expected, || format!("stored 5, but the next connection finds {again:?}"))
}

/// Is there a record at the reported end, and does the stream begin at the reported offset?
pub async fn knows_a_lower_bound_of_the_end(stage: &impl Stage) -> Answer {
    stage.publish(10, MESSAGE_BYTES).await;
    stage.publish(10, MESSAGE_BYTES).await;
    let fresh = link(stage).await?;
    let bounds = fresh.bounds().await.map_err(|e| format!("bounds: {e}"))?;
    ensure(bounds.is_some() == fresh.abilities().bounds, || format!("it reports {bounds:?}"))?;
    let Some(bounds) = bounds else { return Ok(()) };
    ensure(bounds.first == Some(Offset(0)), || format!("it begins at {:?}", bounds.first))?;
    let end = match bounds.tail {
        Tail::Offset(end) | Tail::Chunk(end) => end,
        Tail::Empty => return Err("it is reported as empty, but holds 20 messages".to_owned()),
    };
    ensure(end < Offset(20), || format!("it is reported to end at {end}, but holds 20 messages"))?;
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &fresh, Start::Offset(end), &budget).await?;
    let (first, next) = span(&chunk(&mut subscription).await?)?;
    ensure((first..next).contains(&end.0), || format!("{end} is not in {first} to {next}"))
}

/// Is the chunk that is shown the same as the delivered one?
pub async fn shows_the_chunk_at_a_position(stage: &impl Stage) -> Answer {
    stage.publish(10, MESSAGE_BYTES).await;
    stage.publish(10, MESSAGE_BYTES).await;
    let fresh = link(stage).await?;
    let at = Start::Offset(Offset(15));
    let shown = fresh.chunk_at(at).await.map_err(|e| format!("the chunk at 15: {e}"))?;
    ensure(shown.is_some() == fresh.abilities().probes, || format!("it shows {shown:?}"))?;
    let Some(shown) = shown else { return Ok(()) };
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &fresh, at, &budget).await?;
    let (first, next) = span(&chunk(&mut subscription).await?)?;
    ensure(shown.sound, || "an undamaged chunk was reported as damaged".to_owned())?;
    ensure((shown.first_offset().0, shown.next_offset().0) == (first, next), || {
        format!("it shows {shown:?}, but delivers {first} to {next}")
    })
}

/// Does a broken connection report its end, the same to every caller?
pub async fn says_why_it_ended(stage: &impl Stage) -> Answer {
    stage.publish(1, MESSAGE_BYTES).await;
    let link = link(stage).await?;
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &link, Start::First, &budget).await?;
    drop(chunk(&mut subscription).await?);
    ensure(link.ended().now_or_never().is_none(), || "it ended before it was cut".to_owned())?;
    stage.cut().await;
    let next = subscription.next().await;
    ensure(next.is_none(), || format!("{} follows the cut", describe(next.as_ref())))?;
    let (ended, reason) = (link.ended().await, link.reason());
    ensure(ended.kind() == ErrorKind::Connection, || format!("it ended as {ended:?}"))?;
    ensure(ended.to_string() == reason.to_string(), || format!("{ended}, or: {reason}"))?;
    ensure(!budget.has_credit(), || "there is credit on a connection that ended".to_owned())
}

/// Does dropping a waiting call lose an event?
pub async fn loses_nothing_to_a_dropped_call(stage: &impl Stage) -> Answer {
    let link = link(stage).await?;
    let budget = Budget::new(ROOM_BYTES);
    let mut subscription = subscribe(stage, &link, Start::First, &budget).await?;
    let mut reached = 0;
    for published in 1..=20 {
        ensure(subscription.next().now_or_never().is_none(), || "it arrived too early".to_owned())?;
        stage.publish(1, MESSAGE_BYTES).await;
        while reached < published {
            // Polled once and dropped, at any moment of the event's delivery.
            let event = subscription.next().now_or_never().flatten();
            let delivery = match event {
                Some(Event::Chunk(delivery)) => delivery,
                Some(other) => return Err(describe(Some(&other))),
                None => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let (first, next) = span(&delivery)?;
            ensure(first == reached, || format!("{first} follows {reached}"))?;
            reached = next;
        }
    }
    Ok(())
}

/// Does nothing arrive before the activation, and everything right after it?
pub async fn is_active_when_it_says_so(stage: &impl Stage) -> Answer {
    stage.publish(1, MESSAGE_BYTES).await;
    let link = link(stage).await?;
    let budget = Budget::new(ROOM_BYTES);
    let began = begin(&link, Start::First, &budget).await;
    let mut subscription = began.map_err(|e| format!("begin: {e}"))?;
    let event = subscription.next().await;
    match (stage.source().activation(), event) {
        (Activation::AtOnce, Some(Event::Chunk(_))) => Ok(()),
        (Activation::ByBroker, Some(Event::Activation(turn))) if turn.active => {
            let early = subscription.next().now_or_never().flatten();
            ensure(early.is_none(), || format!("{} comes first", describe(early.as_ref())))?;
            turn.answer(Some(Start::First));
            chunk(&mut subscription).await.map(drop)
        }
        (activation, event) => {
            Err(format!("{activation:?}, and {} comes first", describe(event.as_ref())))
        }
    }
}

/// Is a missing stream distinguished from one that is not available?
pub async fn tells_a_missing_stream(stage: &impl Stage) -> Answer {
    let source = stage.missing();
    let failed = async {
        let link = source.connect(Prefer::Replica).await?;
        // Without following advertised addresses, connecting does not ask for a stream.
        link.feed(Start::First, &Budget::new(ROOM_BYTES)).await.map(drop)
    };
    match failed.await {
        Ok(()) => Err("a stream that does not exist is read".to_owned()),
        Err(error) => ensure(error.kind() == ErrorKind::Missing, || format!("{error:?}")),
    }
}
