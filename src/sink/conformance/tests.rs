//! The questions themselves: a sink that does everything right passes them all, and each defect is
//! caught by the question that is meant for it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::flow::batch::Batch;
use crate::sink::{BadReason, BadRecord, Durability};
use crate::types::{Checkpoint, Guarantee, Offset};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    ForgetsWhatItAcknowledged,
    PositionBeforeData,
    TakesRepeats,
    ShowsWhatIsHeld,
    NamesNoTime,
    ForgetsAfterAFailedFlush,
    LeavesTornBytes,
    AcknowledgesWhatWasRefused,
    NeverGivesUp,
    WritesAfterATakeover,
    WritesOverTheOldHistory,
    MovesInItsMemoryOnly,
    StopsAtTheFirstBadRecord,
    NamesAnyNumber,
    TellsOfPartsTooEarly,
    TellsOfPartsOutOfOrder,
    GoesOnWhileItWindsUp,
    TakesMoreThanItTells,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    Breaks,
    Refuses,
    Hangs,
    Trickles,
}

/// The medium: what is committed, in one piece with the position.
struct Store {
    rows: Vec<u64>,
    at: Option<Checkpoint>,
    owner: u64,
    health: Health,
}

/// A sink that stages a batch and then commits it, with places to be dropped at between any two
/// records; or that holds batches, and does so in the flush.
struct Memory {
    store: Arc<Mutex<Store>>,
    owner: u64,
    holds: bool,
    defect: Defect,
    held: Vec<Arc<Batch>>,
    forgotten: bool,
}

impl Memory {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// Takes some more of the batch.
    fn part(&self, batch: &Batch) -> Durability {
        const PART: usize = 400;
        let mut store = self.store();
        let next = store.at.map_or(Offset(0), |at| Offset(at.offset.0 + 1));
        store.rows.extend(batch.records_from(next).take(PART).map(|record| record.offset.0));
        let last = store.rows.last().map_or(Offset(0), |last| Offset(*last));
        store.at = Some(Checkpoint { offset: last, ..batch.checkpoint() });
        if last == batch.last_offset() {
            return Durability::Durable;
        }
        Durability::Part(Some(match self.defect {
            Defect::TellsOfPartsTooEarly => Offset(last.0 + 1),
            Defect::TellsOfPartsOutOfOrder if last.0 > 1_000 => Offset(last.0 - 1_000),
            _ => last,
        }))
    }

    async fn commit(&mut self, batches: &[Arc<Batch>]) -> Result<(), SinkError> {
        let health = self.store().health;
        let gone = || SinkError::transient("refused".to_owned());
        match health {
            Health::Hangs if self.is(Defect::NeverGivesUp) => std::future::pending().await,
            Health::Hangs | Health::Refuses if !self.is(Defect::AcknowledgesWhatWasRefused) => {
                return Err(gone());
            }
            Health::Hangs | Health::Refuses => return Ok(()),
            Health::Well | Health::Breaks | Health::Trickles => {}
        }
        let Some(last) = batches.last().map(|batch| batch.checkpoint()) else { return Ok(()) };
        let records = batches.iter().flat_map(|batch| batch.records());
        let staged: Vec<u64> = records.map(|record| record.offset.0).collect();
        if self.is(Defect::PositionBeforeData) {
            self.store().at = Some(last);
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut store = self.store();
        if store.owner != self.owner && !self.is(Defect::WritesAfterATakeover) {
            return Err(SinkError::Fatal("another has taken over".to_owned()));
        }
        if store.health == Health::Breaks {
            store.health = Health::Well;
            if self.is(Defect::LeavesTornBytes) {
                store.rows.extend(&staged[..staged.len() / 2]);
            }
            return Err(gone());
        }
        let forgets = self.is(Defect::ForgetsWhatItAcknowledged) && last.offset.0 == 499;
        if !forgets {
            store.rows.extend(staged);
        }
        store.at = Some(last);
        Ok(())
    }
}

#[async_trait]
impl Sink for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(self.store().at)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if self.store().health == Health::Trickles {
            return Ok(self.part(batch));
        }
        let held = self.held.last().map(|batch| batch.last_offset());
        let behind = held.or(self.store().at.map(|at| at.offset));
        if behind >= Some(batch.first_offset()) && !self.is(Defect::TakesRepeats) {
            return Err(SinkError::Fatal("internal error: a repeat".to_owned()));
        }
        let is_bad = |message: &[u8]| message == BAD_MESSAGE;
        let bad = batch.records().filter(|r| is_bad(r.message)).map(|r| r.offset);
        let (reason, detail) = (BadReason::Undecodable, "bad".to_owned());
        let mut bad: Vec<BadRecord> = bad
            .map(|offset| BadRecord { about: None, offset, reason, detail: detail.clone() })
            .collect();
        if self.is(Defect::StopsAtTheFirstBadRecord) {
            bad.truncate(1);
        }
        if !self.is(Defect::NamesAnyNumber) {
            bad.truncate(crate::sink::BAD_RECORDS_MAX);
        }
        if !bad.is_empty() {
            return Err(SinkError::Poison(bad));
        }
        if !self.holds {
            self.commit(&[Arc::clone(batch)]).await?;
            return Ok(Durability::Durable);
        }
        if self.is(Defect::ShowsWhatIsHeld) {
            self.commit(&[Arc::clone(batch)]).await?;
        }
        self.held.push(Arc::clone(batch));
        Ok(Durability::Held)
    }

    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        match self.defect {
            Defect::GoesOnWhileItWindsUp => Ok(self.part(batch)),
            Defect::TakesMoreThanItTells => {
                self.part(batch);
                Ok(Durability::Part(None))
            }
            _ => Ok(Durability::Part(None)),
        }
    }

    fn flush_at(&self) -> Option<Instant> {
        let due = !self.held.is_empty() && !self.is(Defect::NamesNoTime) && !self.forgotten;
        due.then(Instant::now)
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        let held = self.held.clone();
        let committed = match self.is(Defect::ShowsWhatIsHeld) {
            true => Ok(()),
            false => self.commit(&held).await,
        };
        if let Err(error) = committed {
            self.forgotten = self.is(Defect::ForgetsAfterAFailedFlush);
            return Err(error);
        }
        self.held.clear();
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        let mut store = self.store();
        store.at = None;
        if self.defect == Defect::WritesOverTheOldHistory {
            store.at = Some(Checkpoint { offset: Offset(u64::MAX), chunk: None });
        }
        Ok(())
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        if !self.is(Defect::MovesInItsMemoryOnly) {
            self.store().at = to;
        }
        Ok(to)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.held.clear();
        Ok(())
    }
}

struct Kept {
    store: Arc<Mutex<Store>>,
    holds: bool,
    defect: Defect,
}

impl Kept {
    fn new(holds: bool, defect: Defect) -> Kept {
        let store = Store { rows: Vec::new(), at: None, owner: 0, health: Health::Well };
        Kept { store: Arc::new(Mutex::new(store)), holds, defect }
    }

    fn set(&self, health: Health) -> bool {
        self.store.lock().unwrap().health = health;
        true
    }
}

#[async_trait]
impl Medium for Kept {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        let mut store = self.store.lock().unwrap();
        store.owner += 1;
        let (owner, store) = (store.owner, Arc::clone(&self.store));
        let (holds, defect) = (self.holds, self.defect);
        Ok(Box::new(Memory { store, owner, holds, defect, held: Vec::new(), forgotten: false }))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        Some(self.store.lock().unwrap().rows.clone())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(200)
    }

    async fn break_next(&mut self) -> bool {
        self.set(Health::Breaks)
    }

    async fn refuse(&mut self, on: bool) -> bool {
        self.set(if on { Health::Refuses } else { Health::Well })
    }

    async fn trickle(&mut self, on: bool) -> bool {
        self.set(if on { Health::Trickles } else { Health::Well })
    }

    async fn vanish(&mut self, on: bool) -> bool {
        self.refuse(on).await
    }

    async fn slow(&mut self, on: bool) -> bool {
        self.set(if on { Health::Hangs } else { Health::Well })
    }
}

#[tokio::test]
async fn a_sink_without_a_defect_is_asked_everything_and_passes() {
    let told = all(|| Kept::new(true, Defect::None)).await.unwrap();
    assert_eq!(told.not_asked(), [""; 0]);
    let told = all(|| Kept::new(false, Defect::None)).await.unwrap();
    let of_held = ["gives_up_what_is_held", "holds_until_flushed", "repeats_a_failed_flush"];
    assert_eq!(told.not_asked(), of_held);
    assert_eq!(told.why("holds_until_flushed"), Some("the sink makes every batch durable at once"));
    assert!(told.asked().contains(&"survives_a_torn_write"));
}

#[tokio::test]
async fn each_defect_is_caught_by_the_question_that_is_meant_for_it() {
    for (holds, defect, question) in [
        (false, Defect::ForgetsWhatItAcknowledged, "keeps_what_it_acknowledges"),
        (false, Defect::WritesOverTheOldHistory, "takes_a_new_history"),
        (false, Defect::MovesInItsMemoryOnly, "moves_where_it_is_told"),
        (false, Defect::TakesRepeats, "refuses_repeats"),
        (false, Defect::StopsAtTheFirstBadRecord, "names_every_bad_record"),
        (false, Defect::NamesAnyNumber, "names_so_many_at_once"),
        (false, Defect::TellsOfPartsTooEarly, "tells_of_durable_parts_in_order"),
        (false, Defect::TellsOfPartsOutOfOrder, "tells_of_durable_parts_in_order"),
        (false, Defect::GoesOnWhileItWindsUp, "winds_up_what_it_has_begun"),
        (false, Defect::TakesMoreThanItTells, "winds_up_what_it_has_begun"),
        (true, Defect::ShowsWhatIsHeld, "holds_until_flushed"),
        (true, Defect::NamesNoTime, "holds_until_flushed"),
        (true, Defect::ForgetsAfterAFailedFlush, "repeats_a_failed_flush"),
        (false, Defect::PositionBeforeData, "survives_abandonment"),
        (false, Defect::LeavesTornBytes, "survives_a_torn_write"),
        (false, Defect::AcknowledgesWhatWasRefused, "survives_a_refusing_medium"),
        (false, Defect::NeverGivesUp, "survives_a_slow_medium"),
        (false, Defect::WritesAfterATakeover, "lets_one_owner_write"),
    ] {
        let told = all(|| Kept::new(holds, defect)).await;
        let why = told.expect_err("a defect was not seen");
        assert!(why.starts_with(&format!("{question}: ")), "{defect:?}: {why}");
    }
}
