//! `{ type = "metrics" }`: what the sink counts goes to the process's registry, which `/metrics` shows.

use std::sync::Arc;

use super::{Look, SinkFactory, nowhere, opens};
use crate::config;
use crate::consumer::Spec;
use crate::sink::metrics::{Change, Dropped, MetricKind, MetricOptions, MetricsSink, Recorder};
use crate::telemetry::labels::DropReason;
use crate::telemetry::names::Kind;
use crate::telemetry::samples::{self, Definition, Metric};

pub(super) fn factory(settings: &config::MetricsSink, spec: &Spec) -> (SinkFactory, Look) {
    let options: Vec<MetricOptions> = settings.metrics.iter().map(options).collect();
    let definitions: Vec<Definition> =
        settings.metrics.iter().map(|metric| definition(metric, settings.max_series)).collect();
    let (consumer, stream) = (spec.name.clone(), spec.stream.clone());
    let open = opens(move || {
        let metric = |definition: &Definition| {
            samples::registry().metric(definition.clone(), &consumer, &stream)
        };
        let page = Page(definitions.iter().map(metric).collect());
        let sink = MetricsSink::new(stream.clone(), options.clone(), Arc::new(page));
        async move { Ok(sink) }
    });
    (open, nowhere())
}

fn options(metric: &config::MetricConfig) -> MetricOptions {
    MetricOptions {
        name: metric.name.clone(),
        kind: match metric.kind {
            config::MetricKind::Counter => MetricKind::Counter,
            config::MetricKind::Gauge => MetricKind::Gauge,
            config::MetricKind::Histogram => MetricKind::Histogram(metric.bounds().into()),
        },
        value: metric.value.clone(),
        labels: metric.labels.values().cloned().collect(),
        when: metric.when.clone(),
        on_misfit: metric.on_misfit,
    }
}

fn definition(metric: &config::MetricConfig, max_series: u32) -> Definition {
    Definition {
        name: metric.name.clone(),
        kind: match metric.kind {
            config::MetricKind::Counter => Kind::Counter,
            config::MetricKind::Gauge => Kind::Gauge,
            config::MetricKind::Histogram => Kind::Histogram,
        },
        help: metric.help.clone(),
        labels: metric.labels.keys().cloned().collect(),
        bounds: match metric.kind {
            config::MetricKind::Histogram => metric.bounds(),
            _ => Vec::new(),
        },
        max_series: usize::try_from(max_series).unwrap_or(usize::MAX),
    }
}

/// The metrics of one sink, in its order.
struct Page(Vec<Arc<Metric>>);

impl Recorder for Page {
    fn series(&self, metric: usize, labels: &[&str]) -> Option<usize> {
        self.0.get(metric)?.series(labels)
    }

    fn change(&self, metric: usize, series: usize, change: &Change) {
        let Some(metric) = self.0.get(metric) else { return };
        match change {
            Change::Add(value) => metric.add(series, *value),
            Change::Set(value) => metric.set(series, *value),
            Change::Observe(counts, sum) => metric.observe(series, counts, *sum),
        }
    }

    fn dropped(&self, metric: usize, why: Dropped, samples: u64) {
        let reason = match why {
            Dropped::MaxSeries => DropReason::MaxSeries,
            Dropped::LabelTooLong => DropReason::LabelTooLong,
        };
        if let Some(metric) = self.0.get(metric) {
            metric.dropped(reason, samples);
        }
    }
}
