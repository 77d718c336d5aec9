use super::*;
use crate::sink::conformance::batch;
use crate::sink::factory::opens;

/// A sink that keeps what it was given, and may hold it until it is flushed.
#[derive(Clone, Default)]
struct Kept {
    durable: Arc<Mutex<Vec<u64>>>,
    held: Arc<Mutex<Vec<u64>>>,
    holds: bool,
    position: Option<u64>,
}

#[async_trait]
impl Sink for Kept {
    fn kind(&self) -> &'static str {
        "kept"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(self.position.map(|offset| Checkpoint { offset: Offset(offset), chunk: None }))
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        let offsets: Vec<u64> = batch.records().map(|record| record.offset.0).collect();
        lock(if self.holds { &self.held } else { &self.durable }).extend(offsets);
        Ok(if self.holds { Durability::Held } else { Durability::Durable })
    }

    /// A sink with records that an earlier process has claimed and not written asks for a flush when it is opened.
    fn flush_at(&self) -> Option<Instant> {
        let is_unfinished = self.position.is_some() && !lock(&self.held).is_empty();
        is_unfinished.then(Instant::now)
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        let held = std::mem::take(&mut *lock(&self.held));
        lock(&self.durable).extend(held);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

async fn open(kept: &Kept, range: &Arc<Range>) -> Box<dyn Sink> {
    let kept = kept.clone();
    let open = opens(move || {
        let kept = kept.clone();
        async { Ok(kept) }
    });
    bounded(open, range)().await.unwrap()
}

async fn write(sink: &mut Box<dyn Sink>, range: std::ops::Range<u64>) -> Durability {
    sink.write(&Arc::new(batch(range))).await.unwrap()
}

#[tokio::test]
async fn it_ends_at_the_last_offset() {
    let (kept, range) = (Kept::default(), Range::new(Offset(2), Offset(6)));
    let mut sink = open(&kept, &range).await;
    assert_eq!(write(&mut sink, 2..5).await, Durability::Durable);
    assert!(!range.is_done() && range.reached() == 3);
    assert_eq!(write(&mut sink, 5..9).await, Durability::Durable);
    assert!(range.is_done() && range.reached() == 5);
    assert_eq!(write(&mut sink, 9..12).await, Durability::Durable);
    assert_eq!(*lock(&kept.durable), [2, 3, 4, 5, 6]);
    assert_eq!(range.counts(), Counts { written: 5, read: 5, upto: Some(Offset(6)) });
}

/// The last offset of the range is the broker's own: what is behind it shows that.
#[tokio::test]
async fn an_end_without_a_message_is_an_end() {
    let (kept, range) = (Kept::default(), Range::new(Offset(2), Offset(6)));
    let mut sink = open(&kept, &range).await;
    write(&mut sink, 2..5).await;
    write(&mut sink, 7..9).await;
    assert!(range.is_done());
    assert_eq!(*lock(&kept.durable), [2, 3, 4]);
}

#[tokio::test]
async fn it_is_done_only_when_everything_is_durable() {
    for last in [4..7, 7..9] {
        let kept = Kept { holds: true, ..Kept::default() };
        let range = Range::new(Offset(2), Offset(6));
        let mut sink = open(&kept, &range).await;
        assert_eq!(write(&mut sink, 2..4).await, Durability::Held);
        assert_eq!(sink.flush_at(), None);
        assert_eq!(write(&mut sink, last).await, Durability::Held);
        assert!(!range.is_done() && range.counts().written == 0);
        assert!(sink.flush_at().is_some_and(|at| at <= Instant::now()));
        sink.flush().await.unwrap();
        assert!(range.is_done() && range.counts().written == lock(&kept.durable).len() as u64);
    }
}

/// All is claimed, and not all is there: it was killed in between.
#[tokio::test]
async fn what_the_sink_has_to_finish_is_not_done() {
    let kept = Kept { position: Some(6), ..Kept::default() };
    lock(&kept.held).push(6);
    let range = Range::new(Offset(2), Offset(6));
    // Before it is open, nobody knows.
    range.stands_at(Offset(6));
    assert!(!range.is_done());
    let mut sink = open(&kept, &range).await;
    sink.position().await.unwrap();
    assert!(!range.is_done());
    assert!(sink.flush_at().is_some_and(|at| at <= Instant::now()));
    sink.flush().await.unwrap();
    assert!(range.is_done());
    assert_eq!(*lock(&kept.durable), [6]);
    assert_eq!(sink.flush_at(), None);
}

/// A reader that failed begins again: what its sink held does not count.
#[tokio::test]
async fn what_was_only_held_counts_once() {
    let kept = Kept { holds: true, ..Kept::default() };
    let range = Range::new(Offset(0), Offset(9));
    write(&mut open(&kept, &range).await, 0..5).await;
    lock(&kept.held).clear();
    let mut sink = open(&kept, &range).await;
    write(&mut sink, 0..10).await;
    sink.flush().await.unwrap();
    assert_eq!(range.counts(), Counts { written: 10, read: 10, upto: Some(Offset(9)) });
}

#[tokio::test]
async fn what_is_left_out_is_read_and_not_written() {
    let (kept, range) = (Kept::default(), Range::new(Offset(0), Offset(4)));
    let mut sink = open(&kept, &range).await;
    let rest = batch(0..5).without(vec![Offset(1), Offset(3)]);
    sink.write(&Arc::new(rest)).await.unwrap();
    assert!(range.is_done());
    assert_eq!(range.counts(), Counts { written: 3, read: 5, upto: Some(Offset(4)) });
}

#[tokio::test]
async fn it_continues_behind_the_sinks_position() {
    for (position, done, reached) in [(None, false, 0), (Some(3), false, 2), (Some(6), true, 5)] {
        let (kept, range) =
            (Kept { position, ..Kept::default() }, Range::new(Offset(2), Offset(6)));
        let mut sink = open(&kept, &range).await;
        sink.position().await.unwrap();
        assert_eq!((range.is_done(), range.reached()), (done, reached), "{position:?}");
        assert_eq!(range.before().map(|offset| offset.0), position);
    }
}

#[tokio::test]
async fn a_re_created_stream_is_an_end_of_it() {
    let range = Range::new(Offset(2), Offset(6));
    let mut sink = open(&Kept::default(), &range).await;
    let error = sink.restart().await.unwrap_err();
    assert!(matches!(error, SinkError::Fatal(what) if what.contains("created again")));
}
