//! The `metrics` sink: makes samples of counters, gauges and histograms from messages.
//!
//! A whole batch is read before anything is counted: its samples are summed up separately, and
//! passed to the [`Recorder`] together if no record was bad. So a batch that is given again without
//! its bad records is counted once, and so are its dropped samples.
//!
//! Counts live as long as the process. No position is needed, because a counter begins at 0 with
//! the process, which Prometheus handles. Hence "at least once": after a crash, the new process
//! counts again the messages since the last stored offset.
//!
//! Invariants: at most `max_series` label sets of each metric, which the recorder enforces; no
//! label value longer than [`LABEL_BYTES_MAX`]; samples beyond either limit are counted as dropped,
//! never merged into another series. A counter never decreases.
//!
//! Knows nothing of the program's own metrics, Prometheus' page, or scrapes.

mod declaration;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::settings::{MetricSettings, MetricType, MetricsSettings};
use crate::faults::{self, Point};
use crate::flow::batch::Batch;
use crate::sink::columns::{Columns, Value};
use crate::sink::declaration::Declaration;
use crate::sink::{
    BAD_RECORDS_MAX, BadReason, BadRecord, Durability, Sink, SinkError, used_after_close,
};
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::types::{Checkpoint, Guarantee, Offset, StreamName};

/// Longest label value in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// Records that are read before other tasks may run on this thread.
const TURN: usize = 1_000;

/// A metric made from messages.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricOptions {
    /// Name, for messages.
    pub name: String,
    /// Kind of the metric.
    pub kind: MetricKind,
    /// Source of the sample's value; `None` for 1.
    pub value: Option<Source>,
    /// Sources of the label values, in the order of the labels. A missing value is empty.
    pub labels: Vec<Source>,
    /// Conditions: the message counts only if each source has this text.
    pub when: Vec<(Source, String)>,
    /// Treatment of a message without the value, or with one that is not a number: bad, or not
    /// counted.
    pub on_misfit: OnMisfit,
}

/// Kind of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricKind {
    /// Samples are added up.
    Counter,
    /// The last sample counts.
    Gauge,
    /// Samples are counted below each of these ascending bounds.
    Histogram(Arc<[f64]>),
}

/// Reason why a sample is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The metric has reached its limit of label sets.
    MaxSeries,
    /// A label value is too long.
    LabelTooLong,
}

/// Sum of a batch's samples for one series.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Amount to add to a counter.
    Add(f64),
    /// New value of a gauge.
    Set(f64),
    /// Amounts to add to a histogram: the number of samples in each bucket, the one above all
    /// bounds last; and their sum.
    Observe(Vec<u64>, f64),
}

/// Keeps the counts. Metrics are identified by their index in the sink's list.
pub trait Recorder: Send + Sync {
    /// Index of a metric's series; `None` if it would exceed the limit.
    fn series(&self, metric: usize, labels: &[&str]) -> Option<usize>;

    /// Changes a series of a metric.
    fn change(&self, metric: usize, series: usize, change: &Change);

    /// Counts dropped samples of a metric.
    fn dropped(&self, metric: usize, why: Dropped, samples: u64);
}

/// Counts messages.
pub struct MetricsSink {
    columns: Columns,
    metrics: Vec<Reading>,
    recorder: Arc<dyn Recorder>,
    closed: bool,
}

/// Instructions for reading a metric from a row.
struct Reading {
    options: MetricOptions,
    /// Index of its first column: its value (if any), its labels, its conditions.
    first: usize,
}

/// Sums of a batch.
#[derive(Default)]
struct Tally {
    changes: HashMap<(usize, usize), Change>,
    dropped: HashMap<(usize, Dropped), u64>,
}

impl MetricsSink {
    /// A sink for records of `stream`.
    pub fn new(
        stream: StreamName,
        metrics: Vec<MetricOptions>,
        recorder: Arc<dyn Recorder>,
    ) -> MetricsSink {
        let mut columns = Vec::new();
        let metrics = metrics
            .into_iter()
            .map(|options| {
                let first = columns.len();
                let column = |from: &Source, kind| Column {
                    name: options.name.clone(),
                    from: from.clone(),
                    kind,
                    // A missing value is handled for each metric, after its conditions.
                    required: false,
                    on_misfit: OnMisfit::Null,
                };
                columns.extend(options.value.iter().map(|from| column(from, ColumnType::Float)));
                let texts = options.labels.iter().chain(options.when.iter().map(|(from, _)| from));
                columns.extend(texts.map(|from| column(from, ColumnType::Text)));
                Reading { options, first }
            })
            .collect();
        let columns = Columns::only(stream, columns);
        MetricsSink { columns, metrics, recorder, closed: false }
    }

    /// Adds a record's samples to the sums.
    fn count(&self, row: &[Value<'_>], offset: Offset, tally: &mut Tally) -> Result<(), BadRecord> {
        for (metric, reading) in self.metrics.iter().enumerate() {
            let value = match reading.sample(row) {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(what) => {
                    let about = format!("metric {:?}", reading.options.name);
                    return Err(BadRecord::about(about, offset, BadReason::Misfit, what));
                }
            };
            let labels: Vec<&str> = reading.labels(row).iter().map(text).collect();
            let series = match labels.iter().any(|label| label.len() > LABEL_BYTES_MAX) {
                true => Err(Dropped::LabelTooLong),
                false => self.recorder.series(metric, &labels).ok_or(Dropped::MaxSeries),
            };
            match series {
                Ok(series) => {
                    let kind = &reading.options.kind;
                    tally
                        .changes
                        .entry((metric, series))
                        .and_modify(|change| change.take(kind, value))
                        .or_insert_with(|| Change::first(kind, value));
                }
                Err(why) => *tally.dropped.entry((metric, why)).or_default() += 1,
            }
        }
        Ok(())
    }
}

impl Reading {
    /// The record's sample; `None` if it has none. The error says what is wrong with its value.
    fn sample(&self, row: &[Value<'_>]) -> Result<Option<f64>, String> {
        let MetricOptions { kind, value: from, labels, when, on_misfit, .. } = &self.options;
        let rest = row.get(self.first..).unwrap_or_default();
        let behind = usize::from(from.is_some()) + labels.len();
        let wanted = rest
            .iter()
            .skip(behind)
            .zip(when)
            .all(|(found, (_, wanted))| matches!(found, Value::Text(found) if found == wanted));
        if !wanted {
            return Ok(None);
        }
        let Some(from) = from else { return Ok(Some(1.0)) };
        let what = match (rest.first(), kind) {
            (Some(Value::Float(value)), MetricKind::Counter) if *value < 0.0 => {
                format!(
                    "{value} at {:?} is negative, and a counter cannot decrease",
                    from.to_string()
                )
            }
            (Some(Value::Float(value)), _) => return Ok(Some(*value)),
            _ => format!("there is no number at {:?}", from.to_string()),
        };
        match on_misfit {
            OnMisfit::BadMessage => Err(what),
            OnMisfit::Null => Ok(None),
        }
    }

    fn labels<'r, 'a>(&self, row: &'r [Value<'a>]) -> &'r [Value<'a>] {
        let first = self.first + usize::from(self.options.value.is_some());
        row.get(first..first + self.options.labels.len()).unwrap_or_default()
    }
}

fn text<'v>(value: &'v Value<'_>) -> &'v str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}

impl Change {
    fn first(kind: &MetricKind, value: f64) -> Change {
        let mut change = match kind {
            MetricKind::Counter => Change::Add(0.0),
            MetricKind::Gauge => Change::Set(value),
            MetricKind::Histogram(bounds) => Change::Observe(vec![0; bounds.len() + 1], 0.0),
        };
        change.take(kind, value);
        change
    }

    fn take(&mut self, kind: &MetricKind, value: f64) {
        match (self, kind) {
            (Change::Add(sum), _) => *sum += value,
            (Change::Set(last), _) => *last = value,
            (Change::Observe(counts, sum), MetricKind::Histogram(bounds)) => {
                let bucket = bounds.partition_point(|bound| *bound < value);
                if let Some(count) = counts.get_mut(bucket) {
                    *count += 1;
                }
                *sum += value;
            }
            (Change::Observe(..), _) => {}
        }
    }
}

#[async_trait]
impl Sink for MetricsSink {
    fn kind(&self) -> &'static str {
        MetricsSettings::about().kind
    }

    fn guarantee(&self) -> Guarantee {
        MetricsSettings::about().guarantee
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        if self.closed {
            return Err(used_after_close("the metrics sink"));
        }
        let (mut tally, mut bad) = (Tally::default(), Vec::new());
        let mut row = Vec::new();
        for (nth, record) in batch.records().enumerate() {
            if nth % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let counted = self
                .columns
                .read(record, &mut row)
                .and_then(|()| self.count(&row, record.offset, &mut tally));
            bad.extend(counted.err());
            if bad.len() >= BAD_RECORDS_MAX {
                break;
            }
        }
        if !bad.is_empty() {
            return Err(SinkError::Poison(bad));
        }
        faults::reach(Point::Flushed);
        for ((metric, series), change) in &tally.changes {
            self.recorder.change(*metric, *series, change);
        }
        for ((metric, why), samples) in &tally.dropped {
            self.recorder.dropped(*metric, *why, *samples);
        }
        Ok(Durability::Durable)
    }

    /// Closing twice is no error.
    async fn close(&mut self) -> Result<(), SinkError> {
        self.closed = true;
        Ok(())
    }
}
