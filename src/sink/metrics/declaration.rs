//! Declaration of the `metrics` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::settings::{MetricSettings, MetricType};
use super::{MetricKind, MetricOptions, MetricsSettings, MetricsSink};
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, Opening, Readable, ReplayPlace, Use,
    bad_records_up_to_the_limit,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks_nowhere, opens};
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

impl Declaration for MetricsSettings {
    fn about() -> &'static About {
        &About {
            kind: "metrics",
            guarantee: Guarantee::AtLeastOnce,
            least: METRICS,
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
    }

    /// One page shows all metrics: names may be shared if they mean the same.
    fn validate_together(
        uses: &[Use<'_, Self>],
        _: Option<&BrokerConfig>,
        problems: &mut Vec<Problem>,
    ) {
        let mut earlier: Vec<(&str, &MetricSettings)> = Vec::new();
        for one in uses {
            for (nth, metric) in one.sink.metrics.iter().enumerate() {
                for (other, known) in &earlier {
                    if let Some(why) = metric.conflict(known) {
                        problems.push(Problem::new(
                            one.path(&format!("metrics[{nth}].name")),
                            format!("it conflicts with the metrics of {other}: {why}"),
                        ));
                    }
                }
            }
            earlier.extend(one.sink.metrics.iter().map(|metric| (one.at, metric)));
        }
    }

    fn place(&self) -> Option<PathBuf> {
        None
    }

    fn rows(&self) -> Option<String> {
        None
    }

    fn exclusive(&self) -> Option<Exclusive> {
        None
    }

    /// Every series with all its labels at their longest, and the page that shows it.
    fn overhead_bytes(&self) -> u64 {
        self.metrics
            .iter()
            .map(|metric| metric.series_bytes() * u64::from(self.max_series))
            .fold(2 << 20, u64::saturating_add)
    }

    fn growth_max(&self) -> u64 {
        1
    }

    fn bad_records_max(&self, batch_messages: u64) -> u64 {
        bad_records_up_to_the_limit(batch_messages)
    }

    fn start(&self) -> Start {
        // Messages from before the start are not current events.
        Start::Next
    }

    fn replay_place(&self) -> ReplayPlace {
        ReplayPlace::Nowhere
    }

    fn turn_to_replay(&mut self, _: &str) {}

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        Vec::new()
    }

    fn fill(&mut self, _: &Names) {}

    fn readable(&self) -> Option<Readable> {
        None
    }

    fn read_again(&self) -> &'static str {
        "are counted again"
    }

    fn audit(&self, _: &Opening) -> Auditing {
        Auditing::Not(
            "the sink `metrics` keeps sums, not messages, and forgets them with the process"
                .to_owned(),
        )
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let options: Vec<MetricOptions> = self.metrics.iter().map(options).collect();
        let (settings, opening) = (self.clone(), opening.clone());
        if opening.by_broker {
            // On the page from the start: the labels are not to change when more partitions become active.
            drop(opening.services.recorder(&settings, &opening));
        }
        let open = opens(move || {
            let recorder = opening.services.recorder(&settings, &opening);
            let sink = MetricsSink::new(opening.stream.clone(), options.clone(), recorder);
            async move { Ok(sink) }
        });
        (open, looks_nowhere())
    }

    fn renaming(&self, _: &Opening) -> Option<Renaming> {
        None
    }
}

/// The metrics of the reference: the sink requires at least one.
const METRICS: &str = r#"
metrics = [
    { name = "orders_total", type = "counter", help = "Orders received.", labels = { region = "/region", channel = "application_properties.channel" }, when = { "/type" = "order" } },
    { name = "order_amount", type = "histogram", help = "What orders are worth.", value = "/amount", buckets = [10, 50, 100, 500, 1000] },
]
"#;

fn options(metric: &MetricSettings) -> MetricOptions {
    MetricOptions {
        name: metric.name.clone(),
        kind: match metric.kind {
            MetricType::Counter => MetricKind::Counter,
            MetricType::Gauge => MetricKind::Gauge,
            MetricType::Histogram => MetricKind::Histogram(metric.bounds().into()),
        },
        value: metric.value.clone(),
        labels: metric.labels.values().cloned().collect(),
        when: metric.when.clone(),
        on_misfit: metric.on_misfit,
    }
}
