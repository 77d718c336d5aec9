use std::sync::Mutex;

use super::*;
use crate::sink::conformance::{self, Medium, STREAM, batch, message, part};

/// The counts, by metric and label values.
#[derive(Default)]
struct Kept {
    max_series: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    series: Vec<(usize, Vec<String>)>,
    changes: Vec<(usize, Vec<String>, Change)>,
    dropped: Vec<(usize, Dropped, u64)>,
}

impl Recorder for Kept {
    fn series(&self, metric: usize, labels: &[&str]) -> Option<usize> {
        let mut inner = self.inner.lock().unwrap();
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let wanted = (metric, labels);
        let found = inner.series.iter().position(|series| *series == wanted);
        found.or_else(|| {
            let is_room = inner.series.iter().filter(|s| s.0 == metric).count() < self.max_series;
            is_room.then(|| {
                inner.series.push(wanted);
                inner.series.len() - 1
            })
        })
    }

    fn change(&self, metric: usize, series: usize, change: &Change) {
        let mut inner = self.inner.lock().unwrap();
        let (_, labels) = inner.series[series].clone();
        inner.changes.push((metric, labels, change.clone()));
    }

    fn dropped(&self, metric: usize, why: Dropped, samples: u64) {
        self.inner.lock().unwrap().dropped.push((metric, why, samples));
    }
}

impl Kept {
    /// Of one metric, in order of its labels.
    fn of(&self, metric: usize) -> Vec<(String, Change)> {
        let inner = self.inner.lock().unwrap();
        let of = inner.changes.iter().filter(|(found, ..)| *found == metric);
        let mut found: Vec<_> =
            of.map(|(_, labels, change)| (labels.join("|"), change.clone())).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

fn metric(kind: MetricKind, value: Option<&str>, labels: &[&str]) -> MetricOptions {
    MetricOptions {
        name: "m".to_owned(),
        kind,
        value: value.map(|from| from.parse().unwrap()),
        labels: labels.iter().map(|from| from.parse().unwrap()).collect(),
        when: Vec::new(),
        on_misfit: OnMisfit::BadMessage,
    }
}

fn sink(metrics: Vec<MetricOptions>, max_series: usize) -> (MetricsSink, Arc<Kept>) {
    let kept = Arc::new(Kept { max_series, ..Kept::default() });
    let recorder = Arc::clone(&kept) as Arc<dyn Recorder>;
    (MetricsSink::new(StreamName::from(STREAM), metrics, recorder), kept)
}

fn of_bodies(bodies: &[&str]) -> Arc<Batch> {
    let messages: Vec<_> = bodies.iter().map(|body| message(body.as_bytes())).collect();
    let part = part(0, &messages).unwrap();
    Arc::new(Batch::new(StreamName::from(STREAM), vec![part]).unwrap())
}

struct Counted(Arc<Kept>);

#[async_trait]
impl Medium for Counted {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        let metrics = vec![metric(MetricKind::Counter, None, &[])];
        let recorder = Arc::clone(&self.0) as Arc<dyn Recorder>;
        Ok(Box::new(MetricsSink::new(StreamName::from(STREAM), metrics, recorder)))
    }

    /// Counts that were added up cannot be told apart.
    async fn visible(&mut self) -> Option<Vec<u64>> {
        None
    }

    fn owners(&self) -> conformance::Owners {
        conformance::Owners::Many
    }
}

#[tokio::test]
async fn conforms() {
    conformance::all(|| Counted(Arc::new(Kept { max_series: 1, ..Kept::default() })))
        .await
        .unwrap();
}

#[tokio::test]
async fn samples_are_summed_up_by_label_set() {
    let bounds = MetricKind::Histogram([1.0, 5.0].into());
    let (mut sink, kept) = sink(
        vec![
            metric(MetricKind::Counter, None, &["/region", "/deep/0/x"]),
            metric(MetricKind::Counter, Some("/amount"), &["/region"]),
            metric(MetricKind::Gauge, Some("/amount"), &[]),
            metric(bounds, Some("/amount"), &[]),
        ],
        10,
    );
    let batch = of_bodies(&[
        r#"{"region":"eu","amount":1.5}"#,
        r#"{"region":"us","amount":"5","deep":[{"x":true}]}"#,
        r#"{"region":"eu","amount":1}"#,
        r#"{"region":["eu"],"amount":7}"#,
    ]);
    assert_eq!(sink.write(&batch).await.unwrap(), Durability::Durable);
    let named = |label: &str, change| (label.to_owned(), change);
    assert_eq!(
        kept.of(0),
        [
            // A missing value, or one that is no text, is empty.
            named("eu|", Change::Add(2.0)),
            named("us|true", Change::Add(1.0)),
            named("|", Change::Add(1.0))
        ]
    );
    let sums = [("", 7.0), ("eu", 2.5), ("us", 5.0)];
    assert_eq!(kept.of(1), sums.map(|(label, sum)| named(label, Change::Add(sum))));
    assert_eq!(kept.of(2), [named("", Change::Set(7.0))]);
    // A value on a bound is below it, as Prometheus has it.
    assert_eq!(kept.of(3), [named("", Change::Observe(vec![1, 2, 1], 14.5))]);
}

#[tokio::test]
async fn a_message_without_its_number_is_bad_or_does_not_count() {
    let bodies = [r#"{"n":1}"#, r#"{"n":"x"}"#, "{}", "not json", r#"{"n":-4}"#, r#"{"n":1e999}"#];
    let counter = metric(MetricKind::Counter, Some("/n"), &[]);
    let (mut strict, kept) = sink(vec![counter.clone()], 10);
    let batch = of_bodies(&bodies);
    let Err(SinkError::Poison(bad)) = strict.write(&batch).await else { panic!() };
    assert_eq!(bad.iter().map(|bad| bad.offset.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(bad.iter().all(|bad| bad.reason == BadReason::Misfit));
    assert_eq!(bad[0].detail, "metric \"m\": there is no number at \"/n\"");
    assert!(bad[3].detail.contains("cannot decrease"), "{bad:?}");
    // Nothing of the batch counts; without these, the rest does.
    assert_eq!(kept.of(0), []);
    let offsets = bad.iter().map(|bad| bad.offset).collect();
    let rest = Arc::try_unwrap(batch).unwrap().without(offsets);
    strict.write(&Arc::new(rest)).await.unwrap();
    assert_eq!(kept.of(0), [(String::new(), Change::Add(1.0))]);

    let lenient = MetricOptions { on_misfit: OnMisfit::Null, ..counter };
    let (mut lenient, kept) = sink(vec![lenient], 10);
    lenient.write(&of_bodies(&bodies)).await.unwrap();
    assert_eq!(kept.of(0), [(String::new(), Change::Add(1.0))]);
}

#[tokio::test]
async fn what_is_not_meant_is_not_judged() {
    let mut orders = metric(MetricKind::Counter, Some("/amount"), &[]);
    orders.when = vec![
        ("/type".parse().unwrap(), "order".to_owned()),
        ("/paid".parse().unwrap(), "true".to_owned()),
    ];
    let (mut sink, kept) = sink(vec![orders], 10);
    let batch = of_bodies(&[
        r#"{"type":"order","paid":true,"amount":3}"#,
        r#"{"type":"order","paid":false}"#,
        r#"{"type":"visit","paid":true}"#,
        "not json",
    ]);
    sink.write(&batch).await.unwrap();
    assert_eq!(kept.of(0), [(String::new(), Change::Add(3.0))]);
}

#[tokio::test]
async fn what_is_too_much_is_dropped_and_counted_once() {
    let long = format!(r#"{{"k":"{}"}}"#, "x".repeat(LABEL_BYTES_MAX + 1));
    let just = format!(r#"{{"k":"{}"}}"#, "x".repeat(LABEL_BYTES_MAX));
    let by_key = || metric(MetricKind::Counter, None, &["/k"]);
    let (mut sink, kept) = sink(vec![by_key(), by_key()], 2);
    let bodies = [r#"{"k":"a"}"#, &long, r#"{"k":"b"}"#, r#"{"k":"c"}"#, r#"{"k":"a"}"#, &just];
    sink.write(&of_bodies(&bodies)).await.unwrap();
    let counted = kept.of(0);
    assert_eq!(counted, [("a".to_owned(), Change::Add(2.0)), ("b".to_owned(), Change::Add(1.0))]);
    let mut dropped = kept.inner.lock().unwrap().dropped.clone();
    dropped.sort_by_key(|(metric, why, _)| (*metric, *why == Dropped::MaxSeries));
    let expected = |metric| [(metric, Dropped::LabelTooLong, 1), (metric, Dropped::MaxSeries, 2)];
    assert_eq!(dropped, [expected(0), expected(1)].concat());
}

#[tokio::test]
async fn all_records_count_and_others_get_their_turn() {
    let (mut sink, kept) = sink(vec![metric(MetricKind::Counter, None, &[])], 1);
    let many = Arc::new(batch(0..5_000));
    {
        let mut writing = sink.write(&many);
        assert!(!conformance::is_ready(&mut writing), "five thousand at one go");
        // Dropped: nothing of it counts.
    }
    assert_eq!(kept.of(0), []);
    sink.write(&many).await.unwrap();
    assert_eq!(kept.of(0), [(String::new(), Change::Add(5_000.0))]);
}
