//! The page of `/metrics`: the program's own metrics, those of the process, and those made from
//! messages.
//!
//! The recorder keeps a series as long as the process lives. So the series of a removed consumer
//! are left out here. They reappear, with their counts, when the consumer returns. A gauge whose value
//! is no longer known is left out too.

use std::collections::BTreeSet;
use std::sync::Mutex;

use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::formatting::sanitize_label_value;

use super::{process, samples};
use crate::sync::lock;
use crate::types::ConsumerKey;

/// Value of a gauge that is left out.
pub(super) const ABSENT: f64 = f64::NAN;

/// Beginning of the labels of each removed consumer.
static RETIRED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Removes all series of this consumer on this stream from the page.
pub fn retire(key: &ConsumerKey) {
    samples::registry().retire(key);
    lock(&RETIRED).insert(labels(key));
}

/// Adds this consumer to the page (again).
pub(super) fn admit(key: &ConsumerKey) {
    lock(&RETIRED).remove(&labels(key));
}

/// All metrics now, in Prometheus' text format 0.0.4.
pub fn render(recorder: &PrometheusHandle) -> String {
    process::collect();
    let mut page = without(recorder.render(), &lock(&RETIRED));
    samples::registry().render(&mut page);
    page
}

/// Labels in the recorder's format: every metric of a consumer has these two first.
fn labels(key: &ConsumerKey) -> String {
    let (consumer, stream) = (key.consumer.as_str(), key.stream.as_str());
    format!(
        "consumer=\"{}\",stream=\"{}\"",
        sanitize_label_value(consumer),
        sanitize_label_value(stream)
    )
}

fn without(page: String, retired: &BTreeSet<String>) -> String {
    let is_shown = |line: &str| {
        let labels = line.split_once('{').map_or("", |(_, labels)| labels);
        let is_retired = retired.iter().any(|first| labels.starts_with(first.as_str()));
        !is_retired && !line.trim_end().ends_with(" NaN")
    };
    page.split_inclusive('\n').filter(|line| line.starts_with('#') || is_shown(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{ConsumerMetrics, prometheus};
    use super::*;

    #[test]
    fn a_gauge_whose_value_is_no_longer_known_is_not_on_the_page() {
        let recorder = prometheus::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            let metrics = ConsumerMetrics::new(&"c".into(), &"s".into(), "file");
            let page = || without(recorder.handle().render(), &BTreeSet::new());
            let series = "rillway_durable_offset{consumer=\"c\",stream=\"s\"}";
            for (value, line) in [(Some(7), Some(format!("{series} 7"))), (None, None)] {
                metrics.durable_offset.show_count(value);
                let found = page().lines().find(|line| line.starts_with(series)).map(str::to_owned);
                assert_eq!(found, line);
            }
            // Another handle on the same series, as a changed plan makes one.
            metrics.durable_offset.show_count(Some(7));
            let other = ConsumerMetrics::new(&"c".into(), &"s".into(), "file");
            other.durable_offset.show_count(None);
            assert!(!page().contains(series));
        });
    }

    #[test]
    fn what_is_retired_is_not_on_the_page_and_nothing_else_goes() {
        let key = |consumer: &str, stream: &str| ConsumerKey {
            consumer: consumer.into(),
            stream: stream.into(),
        };
        let recorder = prometheus::recorder().unwrap();
        // Names that begin alike, or hold what labels are made of.
        let all = [key("a", "s"), key("a", "s2"), key("aa", "s"), key("a\"", "s\",stream=\"s\\")];
        metrics::with_local_recorder(&recorder, || {
            for key in &all {
                ConsumerMetrics::new(&key.consumer, &key.stream, "file");
            }
        });
        let page = recorder.handle().render();
        let lines = |page: &str, key: &ConsumerKey| {
            let labels = format!("{{{}", labels(key));
            page.lines().filter(|line| line.contains(&labels)).count()
        };
        let each = lines(&page, &all[0]);
        assert!(each > 30, "{page}");
        for gone in &all {
            let without = without(page.clone(), &BTreeSet::from([labels(gone)]));
            for key in &all {
                assert_eq!(lines(&without, key), if key == gone { 0 } else { each }, "{key}");
            }
            assert_eq!(without.lines().count(), page.lines().count() - each);
        }
    }
}
