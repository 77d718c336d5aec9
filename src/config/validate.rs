//! What no consumer can see alone: two that would stand in each other's way.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::broker::BrokerConfig;
use super::consumer::ConsumerConfig;
use super::error::Problem;
use super::sink::{MetricConfig, ObjectPlace, SinkConfig};
use crate::types::table_name;

/// Checks the consumers against each other. Each comes with its path in the file.
pub(super) fn check_together(
    consumers: &[(String, ConsumerConfig)],
    broker: Option<&BrokerConfig>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_streams(consumers, broker, &mut problems);
    let mut names = HashMap::new();
    let mut positions = HashMap::new();
    let mut places = HashMap::new();
    let mut tables = HashMap::new();
    let mut metrics: Vec<(&String, &MetricConfig)> = Vec::new();
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
        for (key, sink) in sinks(consumer) {
            if let SinkConfig::Metrics(sink) = sink {
                for (nth, metric) in sink.metrics.iter().enumerate() {
                    for (other, earlier) in &metrics {
                        if let Some(why) = metric.conflict(earlier) {
                            problems.push(Problem::new(
                                format!("{at}.{key}.metrics[{nth}].name"),
                                format!("it cannot stand on one page with those of {other}: {why}"),
                            ));
                        }
                    }
                }
                metrics.extend(sink.metrics.iter().map(|metric| (at, metric)));
            }
            if let SinkConfig::Sqlite(sqlite) = sink
                && sqlite.table.is_none()
            {
                let table = table_name::of(&consumer.stream);
                let place = (plain(&sqlite.path), table.to_ascii_lowercase());
                if let Some((other, stream)) = tables.insert(place, (at, &consumer.stream))
                    && stream != &consumer.stream
                {
                    problems.push(Problem::new(
                        format!("{at}.{key}.table"),
                        format!(
                            "by default the rows of stream {:?} would go into {table:?}, where {other} \
                             writes those of stream {stream:?}: set `table = \"...\"` to another one (or \
                             the same on both, if they are meant to share it)",
                            consumer.stream,
                        ),
                    ));
                }
            }
            if let Some((key_below, place)) = place_of(sink)
                && let Some(other) = places.insert((place.clone(), &consumer.stream), at)
            {
                problems.push(Problem::new(
                    format!("{at}.{key}.{key_below}"),
                    format!(
                        "{other} writes stream {:?} into {place} already: give one of them another \
                         `{key_below}`",
                        consumer.stream,
                    ),
                ));
            }
        }
    }
    for (at, consumer) in consumers.iter().filter(|(_, consumer)| consumer.dead_letter.is_some()) {
        let reference = consumer.dead_letter_reference();
        if let Some(other) = positions.get(&(&consumer.stream, &reference)) {
            problems.push(Problem::new(
                format!("{at}.reference"),
                format!(
                    "the position of its dead letters is kept under {reference:?}, which is the \
                     reference of {other}: give one of them another `reference`"
                ),
            ));
        }
    }
    problems
}

/// A place that takes each stream once only, and the key that says where it is.
fn place_of(sink: &SinkConfig) -> Option<(&'static str, String)> {
    Some(match sink {
        SinkConfig::File(file) => ("dir", plain(&file.dir).display().to_string()),
        SinkConfig::Object(object) => match object.place().ok()? {
            ObjectPlace::Folder(path) => ("url", plain(&path).display().to_string()),
            ObjectPlace::Store(url) => ("url", url.as_str().trim_end_matches('/').to_owned()),
        },
        SinkConfig::Sqlite(sqlite) => {
            let path = plain(&sqlite.path);
            let table = sqlite.table.as_deref().unwrap_or("of the stream").to_ascii_lowercase();
            ("table", format!("table {table:?} of {}", path.display()))
        }
        SinkConfig::Postgres(postgres) => ("table", postgres.place()),
        _ => return None,
    })
}

/// The sinks of a consumer, each with its key.
fn sinks(consumer: &ConsumerConfig) -> impl Iterator<Item = (&'static str, &SinkConfig)> {
    let letters = consumer.dead_letter.iter().map(|sink| ("dead_letter", sink));
    std::iter::once(("sink", &consumer.sink)).chain(letters)
}

/// Streams that are published to: not in a circle, and by publishers that can be told apart.
fn check_streams(
    consumers: &[(String, ConsumerConfig)],
    broker: Option<&BrokerConfig>,
    problems: &mut Vec<Problem>,
) {
    let mut publishers = HashMap::new();
    // Who sends a stream on to another, under the name that says whose reference it is.
    let mut copies = HashMap::new();
    // Where the messages of a stream go on to.
    let mut next: HashMap<&str, Vec<&str>> = HashMap::new();
    for (at, consumer) in consumers {
        for (key, sink) in sinks(consumer) {
            let SinkConfig::Stream(target) = sink else { continue };
            let addresses = target.broker.as_ref().map(|broker| (&broker.addresses, &broker.vhost));
            let reference = match key {
                "sink" => consumer.reference.clone(),
                _ => consumer.dead_letter_reference(),
            };
            if let Some((key_below, message)) = target.check_source(&consumer.stream, &reference) {
                problems.push(Problem::new(format!("{at}.{key}.{key_below}"), message));
            }
            let name = target.publisher_name(&consumer.stream, &reference);
            if let Some(other) = publishers.insert((addresses, &target.stream, name.clone()), at) {
                problems.push(Problem::new(
                    format!("{at}.{key}.publisher"),
                    format!(
                        "{other} publishes to stream {:?} as {name:?} already, and the broker would \
                         take the messages of one for repetitions of the other's: give it another \
                         name",
                        target.stream
                    ),
                ));
            }
            if key == "sink"
                && target.publisher.is_none()
                && let Some(other) =
                    copies.insert((addresses, &target.stream, &consumer.stream), at)
            {
                problems.push(Problem::new(
                    format!("{at}.{key}.stream"),
                    format!(
                        "{other} sends the messages of stream {:?} to {:?} already, and each would be \
                         there twice. If that is meant, give this one a `publisher`",
                        consumer.stream, target.stream
                    ),
                ));
            }
            let own = broker.is_some_and(|broker| target.is_on(broker));
            if key != "sink" && own && target.stream == consumer.stream.as_str() {
                problems.push(Problem::new(
                    format!("{at}.{key}.stream"),
                    format!(
                        "the consumer reads stream {:?} itself: its dead letters would come back to \
                         it, for ever",
                        target.stream
                    ),
                ));
            }
        }
        let SinkConfig::Stream(target) = &consumer.sink else { continue };
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
