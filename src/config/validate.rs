//! What no consumer can see alone: two that would stand in each other's way.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::consumer::ConsumerConfig;
use super::error::Problem;
use super::sink::{MetricConfig, ObjectPlace, SinkConfig};

/// Checks the consumers against each other. Each comes with its path in the file.
pub(super) fn check_together(consumers: &[(String, ConsumerConfig)]) -> Vec<Problem> {
    let mut problems = Vec::new();
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
