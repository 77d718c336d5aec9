//! What the torture has to know of a sink and its medium.

use std::path::Path;

use async_trait::async_trait;
use rillway::faults::Point;

use crate::common::Broker;
use crate::common::daemon::Home;

/// Knows one sink on one medium, and what must have landed there.
#[async_trait]
pub(crate) trait Oracle: Send {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// The sink for this stream, as `sink = …` takes it: the same for every daemon.
    fn sink(&self, stream: &str) -> String;

    /// The broker's address.
    fn uri(&self, broker: &Broker) -> String {
        broker.uri()
    }

    /// True if the broker stores the offsets.
    fn stores_offsets(&self) -> bool {
        true
    }

    /// Further lines of `[broker]`.
    fn broker_lines(&self) -> &'static str {
        ""
    }

    /// Everything that landed, in the medium's order, read without the daemon, which may be running.
    async fn landed(&mut self, home: &Home, stream: &str) -> Landed;

    /// True if a message may be there more than once after a crash.
    fn may_repeat(&self) -> bool {
        false
    }

    /// The points that a write to it passes.
    fn points(&self) -> &'static [Point] {
        &Point::ALL
    }

    /// Called after each kill: what a reader of the medium would do. Says how many records the kill
    /// has torn, where such a medium may hold torn ones.
    async fn after_kill(&mut self, _home: &Home, _stream: &str) -> u64 {
        0
    }

    /// What becomes of a second daemon with the same configuration, where the first one is frozen at
    /// this point, or anywhere.
    fn second(&self, _frozen_at: Option<Point>) -> Second {
        Second::TakesOver
    }

    /// Has the medium fail, or work again; `false` where this one cannot be made to.
    async fn break_down(&mut self, _how: Failure, _on: bool) -> bool {
        false
    }
}

/// What becomes of a second daemon with the same configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// It waits until the first is gone.
    Waits,
    /// It goes on, and the first one halts when it wakes.
    TakesOver,
    /// It can do so when the first one has woken and ended what it was at.
    WaitsForTheFirstToWake,
    /// One of these two, by where the first one happened to be.
    TakesOverOrWaits,
    /// Both go on, and the medium keeps what comes twice only once.
    IsRecognised,
}

/// How a medium fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is not there: stopped, or out of reach.
    Gone,
    /// It answers, and refuses every write.
    Refuses,
    /// It takes what it is given and does not answer.
    Hangs,
}

/// What landed.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    /// Of each record: its offset, and the number in its body.
    pub(crate) records: Vec<(u64, u64)>,
    /// Records that cannot be read.
    pub(crate) torn: u64,
}

/// The number in a body as the producer of these tests writes it: `{"i":17}`.
pub(crate) fn number_in(body: &[u8]) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(body)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(body)));
    body["i"].as_u64().unwrap_or_else(|| panic!("no number in {body}"))
}

/// A path as a TOML string.
pub(crate) fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("a path that is text"))
}

/// What became of the messages below `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) total: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) torn: u64,
}

impl Tally {
    /// Compares what landed with what was published. Where nothing may be repeated, the order must be
    /// the stream's.
    pub(crate) fn of(oracle: &dyn Oracle, landed: &Landed, total: u64) -> Tally {
        let what = oracle.name();
        let size = usize::try_from(total).unwrap();
        let mut seen = vec![0_u64; size];
        for (offset, number) in &landed.records {
            let times = usize::try_from(*number).ok().and_then(|at| seen.get_mut(at));
            *times.unwrap_or_else(|| panic!("{what}: {number} at {offset} was never confirmed")) +=
                1;
        }
        let missing: Vec<usize> = (0..size).filter(|at| seen[*at] == 0).collect();
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            eprintln!("{what}: {} lost: {first} to {last}", missing.len());
        }
        let again: Vec<usize> = (0..size).filter(|at| seen[*at] > 1).collect();
        if let (Some(first), Some(last), false) = (again.first(), again.last(), oracle.may_repeat())
        {
            eprintln!("{what}: {} repeated: {first} to {last}", again.len());
        }
        if !oracle.may_repeat() && again.is_empty() {
            let in_order = landed.records.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
            assert!(in_order, "{what}: out of the stream's order");
        }
        Tally {
            total,
            lost: missing.len() as u64,
            repeated: seen.iter().map(|times| times.saturating_sub(1)).sum(),
            torn: landed.torn,
        }
    }

    /// Nothing lost; nothing repeated where the sink promises so; and nothing torn but what kills did
    /// to a medium that cannot help it.
    pub(crate) fn assert_kept(&self, oracle: &dyn Oracle, torn: u64) {
        assert!(self.lost == 0, "{}: lost: {self:?}", oracle.name());
        let may = oracle.may_repeat() || self.repeated == 0;
        assert!(may, "{}: written twice: {self:?}", oracle.name());
        assert_eq!(self.torn, torn, "{}: torn records that no kill left: {self:?}", oracle.name());
    }
}
