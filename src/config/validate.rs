//! What no consumer can see alone: two that would stand in each other's way.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::broker::BrokerConfig;
use super::consumer::ConsumerConfig;
use super::error::Problem;
use super::sink::{MetricConfig, ObjectPlace, SinkConfig};

/// Checks the consumers against each other. Each comes with its path in the file.
pub(super) fn check_together(
    consumers: &[(String, ConsumerConfig)],
    broker: Option<&BrokerConfig>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_streams(consumers, broker, &mut problems);
    let mut names = HashMap::new();
    let mut positions = HashMap::new();
    let mut folders = HashMap::new();
    let mut tables = HashMap::new();
    let mut metrics: Vec<(&String, &MetricConfig)> = Vec::new();
    let mut objects = HashMap::new();
    for (at, consumer) in consumers {
        if let Some(other) = names.insert(&consumer.name, at) {
            problems.push(Problem::new(
                format!("{at}.name"),
                format!("{other} is called {:?} already: names are unique", consumer.name),
            ));
        }
        if let Some(other) = positions.insert((&consumer.stream, &consumer.reference), at) {
            problems.push(Problem::new(
                format!("{at}.reference"),
                format!(
                    "{other} reads stream {:?} under the reference {:?} already, and they would \
                     overwrite each other's offset: give one of them another `reference`",
                    consumer.stream, consumer.reference
                ),
            ));
        }
        if let SinkConfig::Metrics(sink) = &consumer.sink {
            for (nth, metric) in sink.metrics.iter().enumerate() {
                for (other, earlier) in &metrics {
                    if let Some(why) = metric.conflict(earlier) {
                        problems.push(Problem::new(
                            format!("{at}.sink.metrics[{nth}].name"),
                            format!("it cannot stand on one page with those of {other}: {why}"),
                        ));
                    }
                }
            }
            metrics.extend(sink.metrics.iter().map(|metric| (at, metric)));
        }
        if let SinkConfig::File(file) = &consumer.sink
            && let Some(other) = folders.insert((plain(&file.dir), &consumer.stream), at)
        {
            problems.push(Problem::new(
                format!("{at}.sink.dir"),
                format!(
                    "{other} writes stream {:?} into {} already: give one of them another `dir`",
                    consumer.stream,
                    file.dir.display()
                ),
            ));
        }
        if let SinkConfig::Object(object) = &consumer.sink
            && let Ok(place) = object.place()
        {
            let place = match place {
                ObjectPlace::Folder(path) => plain(&path).display().to_string(),
                ObjectPlace::Store(url) => url.as_str().trim_end_matches('/').to_owned(),
            };
            if let Some(other) = objects.insert((place, &consumer.stream), at) {
                problems.push(Problem::new(
                    format!("{at}.sink.url"),
                    format!(
                        "{other} writes stream {:?} there already, and each record would be there \
                         twice: give one of them another `url`",
                        consumer.stream,
                    ),
                ));
            }
        }
        if let SinkConfig::Sqlite(sqlite) = &consumer.sink {
            let table = sqlite.table.as_ref().map(|table| table.to_ascii_lowercase());
            let place = (plain(&sqlite.path), table, &consumer.stream);
            if let Some(other) = tables.insert(place, at) {
                problems.push(Problem::new(
                    format!("{at}.sink.table"),
                    format!(
                        "{other} writes stream {:?} into this table of {} already, and each record \
                         would be there twice: give one of them another `table`",
                        consumer.stream,
                        sqlite.path.display()
                    ),
                ));
            }
        }
    }
    problems
}

/// Streams that are published to: not in a circle, and by publishers that can be told apart.
fn check_streams(
    consumers: &[(String, ConsumerConfig)],
    broker: Option<&BrokerConfig>,
    problems: &mut Vec<Problem>,
) {
    let mut publishers = HashMap::new();
    // Where the messages of a stream go on to.
    let mut next: HashMap<&str, Vec<&str>> = HashMap::new();
    for (at, consumer) in consumers {
        let SinkConfig::Stream(target) = &consumer.sink else { continue };
        let addresses = target.broker.as_ref().map(|broker| (&broker.addresses, &broker.vhost));
        let name = target.publisher_name(&consumer.stream, &consumer.reference);
        if let Some(other) = publishers.insert((addresses, &target.stream, name.clone()), at) {
            problems.push(Problem::new(
                format!("{at}.sink.publisher"),
                format!(
                    "{other} publishes to stream {:?} as {name:?} already, and the broker would \
                     take the messages of one for repetitions of the other's: give it another name",
                    target.stream
                ),
            ));
        }
        if broker.is_some_and(|broker| target.is_on(broker)) {
            next.entry(consumer.stream.as_str()).or_default().push(&target.stream);
        }
    }
    for (at, consumer) in consumers {
        let SinkConfig::Stream(target) = &consumer.sink else { continue };
        if broker.is_some_and(|broker| target.is_on(broker))
            && leads_to(&next, &target.stream, consumer.stream.as_str())
        {
            problems.push(Problem::new(
                format!("{at}.sink.stream"),
                format!(
                    "what is published to {:?} comes back into {:?}, which this consumer reads: \
                     every message would go round for ever",
                    target.stream, consumer.stream
                ),
            ));
        }
    }
}

/// Whether messages in `from` come into `to`.
fn leads_to(next: &HashMap<&str, Vec<&str>>, from: &str, to: &str) -> bool {
    let mut seen = vec![from];
    let mut at = 0;
    while let Some(stream) = seen.get(at).copied() {
        if stream == to {
            return true;
        }
        for further in next.get(stream).into_iter().flatten() {
            if !seen.contains(further) {
                seen.push(further);
            }
        }
        at += 1;
    }
    false
}

/// The path without `.` and `..`, by its letters alone. (Links are the sink's own lock's business.)
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
