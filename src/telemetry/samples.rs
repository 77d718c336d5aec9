//! Metrics made from messages: a registry beside the recorder, on the same page.
//!
//! The exporter of the `metrics` crate is not used, for four reasons: its counters are integers,
//! and sums of amounts are not; its buckets are fixed before the first metric exists; its
//! histograms keep every raw sample until the next upkeep, which is unbounded memory at a hundred
//! thousand messages a second; and it writes a label `a\\b` like `a\b`, so that a message could put
//! the same series on the page twice.
//!
//! Invariants: a metric never has more series than its limit; a series is on the page from its
//! first sample on; values live as long as the process, also when the consumer restarts. Every
//! series has the label `consumer`, so two consumers never share one. A consumer of several streams
//! has separate series for each, with the stream as a label.
//!
//! Format: the text format of Prometheus, version 0.0.4.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex};

use metrics::{Counter, Label as Pair};

use super::labels::{DropReason, Label};
use super::names::{self, Kind};
use crate::sync::lock;
use crate::types::{ConsumerKey, ConsumerName, StreamName};

/// Separator between the label values of a series: no UTF-8 text contains this byte.
const SEPARATOR: u8 = 0xFF;

/// Definition of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name on the page.
    pub name: String,
    /// Kind of the metric.
    pub kind: Kind,
    /// Help text.
    pub help: String,
    /// The names of its labels, without `consumer`.
    pub labels: Vec<String>,
    /// Ascending bounds of a histogram, without the last bucket above all bounds.
    pub bounds: Vec<f64>,
    /// Most series.
    pub max_series: usize,
}

/// All metrics made from messages.
#[derive(Default)]
pub struct Registry {
    /// By name, consumer and stream.
    metrics: Mutex<BTreeMap<(String, ConsumerKey), Arc<MessageMetric>>>,
}

/// One metric of one consumer on one stream.
pub struct MessageMetric {
    definition: Definition,
    consumer: ConsumerName,
    /// The stream label for the end of the other labels, used if the consumer has several streams.
    stream_label: String,
    series: Mutex<Series>,
    dropped: Vec<Counter>,
}

#[derive(Default)]
struct Series {
    by_labels: HashMap<Box<[u8]>, usize>,
    /// The labels in the page's format, and the value; `None` before the first sample.
    figures: Vec<(String, Option<Figure>)>,
    key: Vec<u8>,
}

enum Figure {
    Single(f64),
    Buckets { counts: Vec<u64>, sum: f64 },
}

/// The registry of this process, shown by `/metrics`.
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::default);
    &REGISTRY
}

impl Registry {
    /// The metric of this consumer on this stream. The same definition gives the same metric, which
    /// keeps its counts; another definition starts a new one.
    pub fn metric(
        &self,
        definition: Definition,
        consumer: &ConsumerName,
        stream: &StreamName,
    ) -> Arc<MessageMetric> {
        let key = ConsumerKey { consumer: consumer.clone(), stream: stream.clone() };
        let key = (definition.name.clone(), key);
        let mut metrics = lock(&self.metrics);
        if let Some(there) = metrics.get(&key).filter(|there| there.definition == definition) {
            return Arc::clone(there);
        }
        let metric = Arc::new(MessageMetric::new(definition, &key.1));
        metrics.insert(key, Arc::clone(&metric));
        metric
    }

    /// Removes all metrics of this consumer on this stream from the page.
    pub fn retire(&self, key: &ConsumerKey) {
        lock(&self.metrics).retain(|(_, of), _| of != key);
    }

    /// Appends all metrics with a value to the page.
    pub fn render(&self, page: &mut String) {
        let metrics: Vec<_> = lock(&self.metrics).values().map(Arc::clone).collect();
        let mut family = None;
        for metric in &metrics {
            let definition = &metric.definition;
            let series = lock(&metric.series);
            if series.figures.iter().all(|(_, figure)| figure.is_none()) {
                continue;
            }
            // Sorted by name: metrics of several consumers are one family.
            if family.replace(definition.name.as_str()) != Some(definition.name.as_str()) {
                head(page, definition);
            }
            let streams = metrics.iter().filter(|other| other.is_beside(metric)).count();
            let stream = if streams > 1 { metric.stream_label.as_str() } else { "" };
            for (labels, figure) in &series.figures {
                metric.line(page, &format!("{labels}{stream}"), figure.as_ref());
            }
        }
    }
}

fn head(page: &mut String, definition: &Definition) {
    let name = &definition.name;
    if !definition.help.is_empty() {
        page.push_str("# HELP ");
        page.push_str(name);
        page.push(' ');
        escape(page, &definition.help, false);
        page.push('\n');
    }
    let kind = match definition.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    put(page, format_args!("# TYPE {name} {kind}\n"));
}

/// Writing to a String cannot fail.
fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).ok();
}

fn escape(page: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '\n' => page.push_str("\\n"),
            '"' if quotes => page.push_str("\\\""),
            c => page.push(c),
        }
    }
}

impl MessageMetric {
    fn new(definition: Definition, key: &ConsumerKey) -> MessageMetric {
        let (consumer, stream) = (key.consumer.as_str(), key.stream.as_str());
        let dropped = DropReason::ALL.iter().map(|reason| {
            let pairs = [
                Pair::new("consumer", consumer.to_owned()),
                Pair::new("stream", stream.to_owned()),
                Pair::new("metric", definition.name.clone()),
                Pair::from_static_parts("reason", reason.label()),
            ];
            metrics::counter!(names::METRICS_DROPPED_SAMPLES.name, pairs.iter())
        });
        // The configuration may give a metric a label of this name.
        let mut label = "stream".to_owned();
        while definition.labels.contains(&label) {
            label.insert_str(0, "source_");
        }
        let mut stream_label = format!(",{label}=\"");
        escape(&mut stream_label, stream, true);
        stream_label.push('"');
        MessageMetric {
            dropped: dropped.collect(),
            consumer: key.consumer.clone(),
            stream_label,
            series: Mutex::default(),
            definition,
        }
    }

    /// True if it is the same metric of the same consumer, on any stream.
    fn is_beside(&self, other: &MessageMetric) -> bool {
        self.definition.name == other.definition.name && self.consumer == other.consumer
    }

    /// Index of the series with these label values; `None` if it would exceed the limit.
    pub fn series(&self, values: &[&str]) -> Option<usize> {
        let mut series = lock(&self.series);
        let Series { by_labels, figures, key } = &mut *series;
        key.clear();
        for value in values {
            key.extend_from_slice(value.as_bytes());
            key.push(SEPARATOR);
        }
        if let Some(number) = by_labels.get(key.as_slice()) {
            return Some(*number);
        }
        if figures.len() >= self.definition.max_series {
            return None;
        }
        let mut labels = String::from("consumer=\"");
        escape(&mut labels, self.consumer.as_str(), true);
        labels.push('"');
        // In Prometheus an empty label equals a missing one.
        let named =
            self.definition.labels.iter().zip(values).filter(|(_, value)| !value.is_empty());
        for (name, value) in named {
            put(&mut labels, format_args!(",{name}=\""));
            escape(&mut labels, value, true);
            labels.push('"');
        }
        by_labels.insert(key.as_slice().into(), figures.len());
        figures.push((labels, None));
        Some(figures.len() - 1)
    }

    /// Adds to a counter.
    pub fn add(&self, number: usize, value: f64) {
        self.with(number, |figure| match figure {
            Some(Figure::Single(sum)) => *sum += value,
            _ => *figure = Some(Figure::Single(value)),
        });
    }

    /// Sets a gauge.
    pub fn set(&self, number: usize, value: f64) {
        self.with(number, |figure| *figure = Some(Figure::Single(value)));
    }

    /// Adds to a histogram: the number of samples in each bucket, the one above all bounds last;
    /// and their sum.
    pub fn observe(&self, number: usize, more: &[u64], value: f64) {
        self.with(number, |figure| match figure {
            Some(Figure::Buckets { counts, sum }) => {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
                *sum += value;
            }
            _ => *figure = Some(Figure::Buckets { counts: more.to_vec(), sum: value }),
        });
    }

    /// Counts samples that were left out.
    pub fn dropped(&self, reason: DropReason, samples: u64) {
        if let Some(counter) = self.dropped.get(reason.index()) {
            counter.increment(samples);
        }
    }

    fn with(&self, number: usize, change: impl FnOnce(&mut Option<Figure>)) {
        if let Some((_, figure)) = lock(&self.series).figures.get_mut(number) {
            change(figure);
        }
    }

    fn line(&self, page: &mut String, labels: &str, figure: Option<&Figure>) {
        let name = &self.definition.name;
        match figure {
            None => {}
            Some(Figure::Single(value)) => put(page, format_args!("{name}{{{labels}}} {value}\n")),
            Some(Figure::Buckets { counts, sum }) => {
                let mut total = 0;
                let mut bounds = self.definition.bounds.iter();
                for count in counts {
                    total += count;
                    match bounds.next() {
                        Some(bound) => put(
                            page,
                            format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {total}\n"),
                        ),
                        None => put(
                            page,
                            format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {total}\n"),
                        ),
                    }
                }
                put(page, format_args!("{name}_sum{{{labels}}} {sum}\n"));
                put(page, format_args!("{name}_count{{{labels}}} {total}\n"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(registry: &Registry, name: &str, kind: Kind, consumer: &str) -> Arc<MessageMetric> {
        let definition = Definition {
            name: name.to_owned(),
            kind,
            help: "What it \\ means\nin \"two\" lines.".to_owned(),
            labels: vec!["region".to_owned(), "kind".to_owned()],
            bounds: if kind == Kind::Histogram { vec![0.5, 10.0] } else { Vec::new() },
            max_series: 3,
        };
        registry.metric(definition, &ConsumerName::from(consumer), &StreamName::from("s"))
    }

    fn page(registry: &Registry) -> String {
        let mut page = String::new();
        registry.render(&mut page);
        page
    }

    #[test]
    fn the_page_is_in_prometheus_words() {
        let registry = Registry::default();
        let orders = metric(&registry, "orders_total", Kind::Counter, "a");
        let sizes = metric(&registry, "sizes", Kind::Histogram, "a");
        assert_eq!(page(&registry), "");
        let eu = orders.series(&["eu", ""]).unwrap();
        orders.add(eu, 2.5);
        orders.add(eu, 1.0);
        let odd = orders.series(&["a\\\"b\nc", "x"]).unwrap();
        orders.add(odd, 1e21);
        let series = sizes.series(&["", ""]).unwrap();
        sizes.observe(series, &[1, 0, 2], 40.5);
        sizes.observe(series, &[0, 1, 0], 3.0);
        // Another consumer's of the same name is of the same family.
        let other = metric(&registry, "orders_total", Kind::Counter, "b");
        other.add(other.series(&["eu", ""]).unwrap(), 7.0);
        let expected = r##"
# HELP orders_total What it \\ means\nin "two" lines.
# TYPE orders_total counter
orders_total{consumer="a",region="eu"} 3.5
orders_total{consumer="a",region="a\\\"b\nc",kind="x"} 1000000000000000000000
orders_total{consumer="b",region="eu"} 7
# HELP sizes What it \\ means\nin "two" lines.
# TYPE sizes histogram
sizes_bucket{consumer="a",le="0.5"} 1
sizes_bucket{consumer="a",le="10"} 2
sizes_bucket{consumer="a",le="+Inf"} 4
sizes_sum{consumer="a"} 43.5
sizes_count{consumer="a"} 4
"##;
        assert_eq!(page(&registry), expected.trim_start());
    }

    #[test]
    fn there_are_no_more_series_than_there_may_be() {
        let registry = Registry::default();
        let gauge = metric(&registry, "level", Kind::Gauge, "a");
        let of = |label: &str| gauge.series(&[label, ""]);
        let known: Vec<_> = ["x", "y", "z"].map(of).to_vec();
        assert_eq!(known, [Some(0), Some(1), Some(2)]);
        assert_eq!((of("more"), of("y")), (None, Some(1)));
        gauge.set(1, 4.0);
        gauge.set(1, -0.25);
        // Asked for again, as a consumer that starts again does, it is the same.
        assert_eq!(metric(&registry, "level", Kind::Gauge, "a").series(&["z", ""]), Some(2));
        assert!(page(&registry).ends_with("level{consumer=\"a\",region=\"y\"} -0.25\n"));
        assert_eq!(page(&registry).lines().count(), 3);
    }

    #[test]
    fn streams_of_one_consumer_do_not_share_series() {
        let registry = Registry::default();
        let of = |stream: &str, labels: &[&str]| {
            let definition = Definition {
                name: "orders_total".to_owned(),
                kind: Kind::Counter,
                help: String::new(),
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                bounds: Vec::new(),
                max_series: 3,
            };
            registry.metric(definition, &"a".into(), &stream.into())
        };
        let add =
            |metric: &MessageMetric, value: f64| metric.add(metric.series(&["x"]).unwrap(), value);
        add(&of("one", &["region"]), 1.0);
        let alone = "# TYPE orders_total counter\norders_total{consumer=\"a\",region=\"x\"} 1\n";
        assert_eq!(page(&registry), alone, "one stream: the labels are what they are without");
        add(&of("t\"wo", &["region"]), 2.0);
        let both = "# TYPE orders_total counter\n\
                    orders_total{consumer=\"a\",region=\"x\",stream=\"one\"} 1\n\
                    orders_total{consumer=\"a\",region=\"x\",stream=\"t\\\"wo\"} 2\n";
        assert_eq!(page(&registry), both);
        registry.retire(&ConsumerKey { consumer: "a".into(), stream: "t\"wo".into() });
        assert_eq!(page(&registry), alone);
        // Another configuration begins with new series, instead of filling labels that it does not have.
        add(&of("one", &["stream"]), 5.0);
        add(&of("two", &["stream"]), 6.0);
        let own = "# TYPE orders_total counter\n\
                   orders_total{consumer=\"a\",stream=\"x\",source_stream=\"one\"} 5\n\
                   orders_total{consumer=\"a\",stream=\"x\",source_stream=\"two\"} 6\n";
        assert_eq!(page(&registry), own);
    }

    #[test]
    fn label_values_do_not_run_into_each_other() {
        let registry = Registry::default();
        let gauge = metric(&registry, "level", Kind::Gauge, "a");
        assert_ne!(gauge.series(&["ab", "c"]), gauge.series(&["a", "bc"]));
    }
}
