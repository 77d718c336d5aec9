//! Services of the process for sinks: connections for publishing, and the page of metrics.

use std::sync::Arc;

use super::connect::connect_options;
use crate::broker::ConnectOptions;
use crate::config::{BrokerConfig, SinkConfig};
use crate::consumer::Spec;
use crate::republish::{Republisher, Target};
use crate::sink::declaration::{Opening, Services};
use crate::sink::factory::{Look, SinkFactory};
use crate::sink::metrics::{
    Change, Dropped, MetricSettings, MetricType, MetricsSettings, Recorder,
};
use crate::sink::stream::{Destination, Publisher};
use crate::source::Activation;
use crate::telemetry::labels::DropReason;
use crate::telemetry::names::Kind;
use crate::telemetry::samples::{self, Definition, Metric};

/// Functions that open the consumer's sink, and that inspect its position.
pub(super) fn factory(sink: &SinkConfig, spec: &Spec) -> (SinkFactory, Look) {
    sink.prepare(&Opening {
        consumer: spec.name.clone(),
        stream: spec.stream.clone(),
        reference: spec.reference.clone(),
        by_broker: spec.source.activation() == Activation::ByBroker,
        services: Arc::new(Process { connect: spec.connect.clone() }),
    })
}

/// Connection options of the broker that a sink publishes to; `own` are those of the consumer's
/// source.
pub(super) fn connect(
    stream: &str,
    broker: Option<&BrokerConfig>,
    own: &ConnectOptions,
) -> ConnectOptions {
    let name = format!("{} to {stream}", own.name);
    match broker {
        None => ConnectOptions { name, ..own.clone() },
        // The time limits are the same for both.
        Some(broker) => ConnectOptions {
            heartbeat: own.heartbeat,
            connect_timeout: own.connect_timeout,
            request_timeout: own.request_timeout,
            follow_advertised_hosts: own.follow_advertised_hosts,
            routing: own.routing.clone(),
            ..connect_options(broker, &name)
        },
    }
}

/// The services of this process for one consumer's sinks.
struct Process {
    /// Connection options of the consumer's source.
    connect: ConnectOptions,
}

impl Services for Process {
    fn publisher(&self, to: &Destination) -> Box<dyn Publisher> {
        Box::new(Republisher::new(Target {
            connect: connect(to.stream.as_str(), to.broker.as_deref(), &self.connect),
            stream: to.stream.clone(),
            create: to.create,
            in_flight: to.in_flight,
            timeout: to.timeout,
        }))
    }

    fn recorder(&self, settings: &MetricsSettings, opening: &Opening) -> Arc<dyn Recorder> {
        let metric = |metric: &MetricSettings| {
            let definition = definition(metric, settings.max_series);
            samples::registry().metric(definition, &opening.consumer, &opening.stream)
        };
        Arc::new(Page(settings.metrics.iter().map(metric).collect()))
    }
}

fn definition(metric: &MetricSettings, max_series: u32) -> Definition {
    let (kind, bounds) = match metric.kind {
        MetricType::Counter => (Kind::Counter, Vec::new()),
        MetricType::Gauge => (Kind::Gauge, Vec::new()),
        MetricType::Histogram => (Kind::Histogram, metric.bounds()),
    };
    Definition {
        name: metric.name.clone(),
        kind,
        help: metric.help.clone(),
        labels: metric.labels.keys().cloned().collect(),
        bounds,
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
