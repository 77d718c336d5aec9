//! What the torture tests have to know of a sink and its destination.

use std::path::Path;

use async_trait::async_trait;
use rillway::faults::Point;

use crate::common::Broker;
use crate::common::daemon::Home;

/// Knows one sink on one destination, and what must have been written there.
#[async_trait]
pub(crate) trait Oracle: Send {
    /// Name in the table of results.
    fn name(&self) -> &'static str;

    /// The sink for this stream, as in `sink = …`: the same for every daemon.
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

    /// Further lines of the consumer.
    fn consumer_lines(&self) -> &'static str {
        ""
    }

    /// True if the message with this number has to be written.
    fn is_kept(&self, _number: u64) -> bool {
        true
    }

    /// Everything that was written, in the destination's order; read without the daemon, which may be
    /// running.
    async fn landed(&mut self, home: &Home, stream: &str) -> Landed;

    /// True if a message may be duplicated after a crash.
    fn may_repeat(&self) -> bool {
        false
    }

    /// The points that a write passes.
    fn points(&self) -> &'static [Point] {
        &Point::ALL
    }

    /// Called after each kill: does what a reader of the destination would do. Returns the number of
    /// records that the kill has torn, if such a destination may hold torn ones.
    async fn after_kill(&mut self, _home: &Home, _stream: &str) -> u64 {
        0
    }

    /// The fate of a second daemon with the same configuration, if the first one is frozen at this point,
    /// or anywhere.
    fn second(&self, _frozen_at: Option<Point>) -> Second {
        Second::TakesOver
    }

    /// Makes the destination fail, or work again; `false` if this failure is not possible here.
    async fn break_down(&mut self, _how: Failure, _on: bool) -> bool {
        false
    }
}

/// The fate of a second daemon with the same configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// It waits until the first one is gone.
    Waits,
    /// It continues, and the first one halts when it wakes up.
    TakesOver,
    /// It continues once the first one has woken up and ended its transaction.
    WaitsForTheFirstToWake,
    /// One of these two, depending on where the first one was frozen.
    TakesOverOrWaits,
    /// Both continue, and the destination drops duplicates.
    IsRecognised,
}

/// How a destination fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is stopped, or cannot be reached.
    Gone,
    /// It answers, and refuses every write.
    Refuses,
    /// It accepts requests and does not answer.
    Hangs,
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    /// Of each record: its offset, and the number in its body.
    pub(crate) records: Vec<(u64, u64)>,
    /// Number of records that cannot be read.
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

/// The fate of the messages below `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) total: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) torn: u64,
}

impl Tally {
    /// Compares what was written with what was published. If nothing may be repeated, the order must be
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
        let (kept, left_out): (Vec<usize>, Vec<usize>) =
            (0..size).partition(|at| oracle.is_kept(*at as u64));
        let written = left_out.iter().find(|at| seen[**at] > 0);
        assert_eq!(written, None, "{what}: this one is left out by the program");
        let missing: Vec<usize> = kept.into_iter().filter(|at| seen[*at] == 0).collect();
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

    /// Checks that nothing is lost; that nothing is duplicated if the sink promises so; and that nothing
    /// is torn, except by kills in a destination that cannot prevent it.
    pub(crate) fn assert_kept(&self, oracle: &dyn Oracle, torn: u64) {
        assert!(self.lost == 0, "{}: lost: {self:?}", oracle.name());
        let may = oracle.may_repeat() || self.repeated == 0;
        assert!(may, "{}: written twice: {self:?}", oracle.name());
        assert_eq!(self.torn, torn, "{}: torn records that no kill left: {self:?}", oracle.name());
    }
}
