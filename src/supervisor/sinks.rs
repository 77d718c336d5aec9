//! Services of the process for sinks: connections for publishing, and the page of metrics.

use std::sync::Arc;

use super::connect::connect_options;
use crate::broker::{ConnectOptions, Routing};
use crate::config::{BrokerConfig, ConsumerConfig, SinkConfig};
use crate::consumer::Spec;
use crate::republish::{Republisher, Target};
use crate::sink::declaration::{Opening, Services};
use crate::sink::factory::{self, Former, Look, Renaming, SinkFactory};
use crate::sink::metrics::{
    Change, Dropped, MetricSettings, MetricType, MetricsSettings, Recorder,
};
use crate::sink::stream::{Destination, Publisher};
use crate::source::Activation;
use crate::telemetry::labels::DropReason;
use crate::telemetry::names::Kind;
use crate::telemetry::samples::{self, Definition, MessageMetric};

/// Functions that open the consumer's sink, and that inspect its position.
pub(super) fn factory(sink: &SinkConfig, spec: &Spec) -> (SinkFactory, Look) {
    sink.prepare(&opening(spec))
}

/// Gives what the consumer's sink keeps under a former reference that of the consumer, and then the same for its
/// dead letters; and whether the sink's position can be given another one at all.
pub(super) fn renaming(consumer: &ConsumerConfig, spec: &Spec) -> (Renaming, bool) {
    let of_letters = Spec { reference: consumer.dead_letter_reference(), ..spec.clone() };
    let letters = consumer.dead_letter.as_ref();
    let letters = letters.and_then(|sink| sink.renaming(&opening(&of_letters)));
    let sink = consumer.sink.renaming(&opening(spec));
    let renames = sink.is_some();
    let renaming = factory::renames(move |former| {
        let (sink, letters) = (sink.clone(), letters.clone());
        async move {
            if let Some(letters) = letters {
                let reference = ConsumerConfig::dead_letters_of(&former.reference);
                letters(Former { reference, ..former }).await?;
            }
            match sink {
                Some(sink) => sink(former).await,
                None => Ok(()),
            }
        }
    });
    (renaming, renames)
}

/// What a sink is opened for, and its services.
pub(super) fn opening(spec: &Spec) -> Opening {
    Opening {
        consumer: spec.name.clone(),
        stream: spec.stream.clone(),
        reference: spec.reference.clone(),
        by_broker: spec.source.activation() == Activation::ByBroker,
        services: Arc::new(Process { connect: spec.connect.clone() }),
    }
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
        // The time limits are the same for both. How nodes are reached is not: the nodes of another
        // cluster may have the same names, and must not be taken for those of our own.
        Some(broker) => ConnectOptions {
            heartbeat: own.heartbeat,
            connect_timeout: own.connect_timeout,
            request_timeout: own.request_timeout,
            // Behind a load balancer it is false because of that alone.
            follow_advertised_hosts: own.follow_advertised_hosts || own.routing.load_balancer,
            routing: Routing::default(),
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
struct Page(Vec<Arc<MessageMetric>>);

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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, Env};

    /// The nodes of two clusters may have the same names.
    #[test]
    fn ways_to_our_own_nodes_are_no_ways_to_those_of_another_broker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rillway.toml");
        let load = |key: &str| {
            let text = format!(
                "state_dir = \"state\"\n[broker]\nuri = \"rabbitmq-stream://guest:guest@here:5552/%2f\"\n{key}\n\
                 [[consumer]]\nname = \"c\"\nstream = \"s\"\nstart = \"first\"\n\
                 sink = {{ type = \"null\" }}\n"
            );
            fs::write(&path, text).unwrap();
            Config::load(Some(path.as_path()), &Env::default()).unwrap()
        };
        let map = "address_map = { \"rabbit-1:5552\" = \"localhost:15552\" }";
        for key in [map, "load_balancer = true"] {
            let config = load(key);
            let own = connect_options(&config.broker, "own");
            let there = connect("t", Some(&config.broker), &own);
            assert_eq!(there.routing, Routing::default(), "{key}");
            assert!(there.follow_advertised_hosts, "{key}");
            assert_eq!(connect("t", None, &own).routing, own.routing, "{key}");
        }
        let own = connect_options(&load("follow_advertised_hosts = false").broker, "own");
        assert!(!connect("t", Some(&load(map).broker), &own).follow_advertised_hosts);
    }
}
