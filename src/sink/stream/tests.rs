//! The sink against a leader by script, for what a real one cannot be made to do.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::sink::conformance::{STREAM, batch};

/// A stream's leader: what it keeps, and when it fails.
#[derive(Default)]
struct Leader {
    messages: Vec<u64>,
    sequences: HashMap<String, u64>,
    offsets: HashMap<Reference, Offset>,
    /// This many more messages are accepted; the connection breaks instead of the next.
    takes: Option<usize>,
    /// Takes messages, and breaks before it confirms them.
    breaks_at_confirm: bool,
    /// Keeps no offset that is stored.
    drops_offsets: bool,
}

#[derive(Clone, Default)]
struct Scripted {
    leader: Arc<Mutex<Leader>>,
    name: Option<String>,
    taken: Vec<u64>,
    up: bool,
    /// All ids that were ever sent, by this publisher.
    sent: Arc<Mutex<Vec<u64>>>,
}

#[async_trait]
impl Publisher for Scripted {
    fn target(&self) -> &str {
        "stream \"scripted\""
    }

    async fn is_missing(&self) -> bool {
        false
    }

    async fn connect(&mut self) -> Result<(), PublishError> {
        (self.name, self.up) = (None, true);
        self.taken.clear();
        Ok(())
    }

    async fn sequence(&mut self, name: &str) -> Result<u64, PublishError> {
        Ok(self.leader.lock().unwrap().sequences.get(name).copied().unwrap_or(0))
    }

    async fn stored(&mut self, reference: &Reference) -> Result<Option<Offset>, PublishError> {
        Ok(self.leader.lock().unwrap().offsets.get(reference).copied())
    }

    async fn store(
        &mut self,
        reference: &Reference,
        offset: Offset,
    ) -> Result<Option<Offset>, PublishError> {
        let mut leader = self.leader.lock().unwrap();
        if !leader.drops_offsets {
            leader.offsets.insert(reference.clone(), offset);
        }
        Ok(leader.offsets.get(reference).copied())
    }

    async fn declare(&mut self, name: &str) -> Result<(u64, TargetLimits), PublishError> {
        assert!(self.name.replace(name.to_owned()).is_none(), "declared twice on a connection");
        Ok((self.sequence(name).await?, TargetLimits { message_bytes_max: 1_000 }))
    }

    fn is_up(&self) -> bool {
        self.up
    }

    fn push(&mut self, id: u64, _: &[u8]) -> Result<bool, PublishError> {
        if self.taken.len() == 3 {
            return Ok(false);
        }
        self.taken.push(id);
        Ok(true)
    }

    async fn send(&mut self) -> Result<(), PublishError> {
        let name = self.name.clone().expect("declared");
        let mut leader = self.leader.lock().unwrap();
        for id in std::mem::take(&mut self.taken) {
            match &mut leader.takes {
                Some(0) => {
                    leader.takes = None;
                    self.up = false;
                    return Err(PublishError::Transient("broken".to_owned()));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            self.sent.lock().unwrap().push(id);
            let sequence = leader.sequences.entry(name.clone()).or_default();
            if id > *sequence {
                *sequence = id;
                leader.messages.push(id - 1);
            }
        }
        Ok(())
    }

    async fn confirmed(&mut self) -> Result<(), PublishError> {
        if std::mem::take(&mut self.leader.lock().unwrap().breaks_at_confirm) {
            self.up = false;
            return Err(PublishError::Transient("broken".to_owned()));
        }
        Ok(())
    }

    async fn disconnect(&mut self) {
        self.up = false;
    }
}

fn options() -> StreamOptions {
    StreamOptions { source: STREAM.into(), publisher: "p".to_owned(), annotate: false }
}

async fn sink(publisher: &Scripted) -> StreamSink {
    StreamSink::open(options(), Box::new(publisher.clone())).await.unwrap()
}

fn kept(publisher: &Scripted) -> Vec<u64> {
    publisher.leader.lock().unwrap().messages.clone()
}

/// Wherever the connection breaks, and whether the caller tries again or is another process by then.
#[tokio::test]
async fn a_connection_that_breaks_anywhere_leaves_each_message_once() {
    for breaks in 0..=10 {
        for dies in [false, true] {
            let publisher = Scripted::default();
            let mut one = sink(&publisher).await;
            one.write(&Arc::new(batch(0..4))).await.unwrap();
            {
                let mut leader = publisher.leader.lock().unwrap();
                match breaks {
                    10 => leader.breaks_at_confirm = true,
                    n => leader.takes = Some(n),
                }
            }
            let next = Arc::new(batch(4..13));
            let error = one.write(&next).await;
            if breaks < 9 || breaks == 10 {
                assert!(matches!(error, Err(SinkError::Transient { .. })), "{breaks}: {error:?}");
            }
            if dies {
                let mut other = sink(&publisher).await;
                let at = other.position().await.unwrap().unwrap().offset.0;
                if at < 12 {
                    other.write(&Arc::new(batch(at + 1..13))).await.unwrap();
                }
            } else if error.is_err() {
                one.write(&next).await.unwrap();
            }
            assert_eq!(kept(&publisher), (0..13).collect::<Vec<_>>(), "{breaks}, dies: {dies}");
        }
    }
}

/// After a break the message at the sequence is sent once more, for its confirmation; those below
/// it are not.
#[tokio::test]
async fn what_the_target_has_is_not_sent_again() {
    let publisher = Scripted::default();
    let mut sink = sink(&publisher).await;
    publisher.leader.lock().unwrap().breaks_at_confirm = true;
    let all = Arc::new(batch(0..9));
    sink.write(&all).await.unwrap_err();
    publisher.sent.lock().unwrap().clear();
    sink.write(&all).await.unwrap();
    assert_eq!(*publisher.sent.lock().unwrap(), [9]);
}

#[tokio::test]
async fn a_sequence_that_went_back_is_fatal() {
    let publisher = Scripted::default();
    let mut sink = sink(&publisher).await;
    sink.write(&Arc::new(batch(0..9))).await.unwrap();
    *publisher.leader.lock().unwrap() = Leader { takes: Some(0), ..Leader::default() };
    let next = Arc::new(batch(9..12));
    assert!(matches!(sink.write(&next).await, Err(SinkError::Transient { .. })));
    let error = sink.write(&next).await;
    assert!(
        matches!(&error, Err(SinkError::Fatal(what)) if what.contains("is 0, it was 9")),
        "{error:?}"
    );
    assert_eq!(kept(&publisher), [] as [u64; 0]);
}

/// A leader took the batch in flight and showed it, and is lost with it before it confirmed.
#[tokio::test]
async fn what_was_never_confirmed_may_go_back() {
    let publisher = Scripted::default();
    let mut sink = sink(&publisher).await;
    sink.write(&Arc::new(batch(0..4))).await.unwrap();
    let next = Arc::new(batch(4..9));
    publisher.leader.lock().unwrap().breaks_at_confirm = true;
    sink.write(&next).await.unwrap_err();
    // The next leader has it all, and is lost too.
    publisher.leader.lock().unwrap().breaks_at_confirm = true;
    sink.write(&next).await.unwrap_err();
    {
        let mut leader = publisher.leader.lock().unwrap();
        leader.sequences.insert("p".to_owned(), 6);
        leader.messages.truncate(6);
    }
    sink.write(&next).await.unwrap();
    assert_eq!(kept(&publisher), (0..9).collect::<Vec<_>>());
}

/// What was given as the position is not sent again: without it there would be a hole.
#[tokio::test]
async fn a_position_that_went_back_is_fatal() {
    let publisher = Scripted::default();
    sink(&publisher).await.write(&Arc::new(batch(0..4))).await.unwrap();
    let mut sink = sink(&publisher).await;
    assert_eq!(sink.position().await.unwrap().map(|c| c.offset), Some(Offset(3)));
    publisher.leader.lock().unwrap().takes = Some(0);
    sink.write(&Arc::new(batch(4..6))).await.unwrap_err();
    publisher.leader.lock().unwrap().sequences.insert("p".to_owned(), 3);
    let error = sink.write(&Arc::new(batch(4..6))).await;
    assert!(matches!(error, Err(SinkError::Fatal(_))), "{error:?}");
}

/// The number of a history is on the target before the sink says that it has begun, and is written
/// again for as long as no message stands for it.
#[tokio::test]
async fn a_new_incarnation_is_recorded_before_it_begins() {
    let publisher = Scripted::default();
    let mut one = sink(&publisher).await;
    one.write(&Arc::new(batch(0..9))).await.unwrap();
    publisher.leader.lock().unwrap().drops_offsets = true;
    assert!(matches!(one.restart().await, Err(SinkError::Transient { .. })));
    publisher.leader.lock().unwrap().drops_offsets = false;
    one.restart().await.unwrap();
    assert_eq!(sink(&publisher).await.position().await.unwrap(), None);
    // A leader that had not passed it on.
    publisher.leader.lock().unwrap().offsets.clear();
    assert_eq!(one.position().await.unwrap(), None);
    let mut two = sink(&publisher).await;
    assert_eq!(two.position().await.unwrap(), None);
    two.write(&Arc::new(batch(0..2))).await.unwrap();
    assert_eq!(publisher.leader.lock().unwrap().sequences.get("p~1"), Some(&2));
}

#[tokio::test]
async fn the_highest_incarnation_counts_though_the_broker_forgot_some() {
    let publisher = Scripted::default();
    let sequences = [("p", 0), ("p~3", 7), ("p~6", 4)].map(|(n, s)| (n.to_owned(), s));
    publisher.leader.lock().unwrap().sequences = sequences.into();
    let mut sink = sink(&publisher).await;
    assert_eq!(sink.position().await.unwrap().map(|c| c.offset), Some(Offset(3)));
    sink.restart().await.unwrap();
    sink.write(&Arc::new(batch(0..2))).await.unwrap();
    assert_eq!(publisher.leader.lock().unwrap().sequences.get("p~7"), Some(&2));
}

#[tokio::test]
async fn a_name_that_leaves_no_room_is_refused() {
    let publisher = "x".repeat(NAME_BYTES_MAX + 1);
    let options = StreamOptions { publisher, ..options() };
    let opened = StreamSink::open(options, Box::new(Scripted::default())).await;
    assert!(matches!(opened.err(), Some(SinkError::Fatal(_))));
}
