//! The keys of `{ type = "metrics" }`: defaults, and what is wrong with a value.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::types::column::{OnMisfit, Source};

/// What the program's own metrics begin with.
const OWN_PREFIX: &str = "rillway_";

/// Labels that are ours, or a histogram's or summary's.
const OWN_LABELS: [&str; 3] = ["consumer", "le", "quantile"];

const METRICS_MAX: usize = 200;
const LABELS_MAX: usize = 16;
const BUCKETS_MAX: usize = 100;
const SERIES_MAX: u32 = 100_000;

/// What a series takes for each of its labels, at the most: its key, and as the page has it.
const KEPT_BYTES: u64 = 1024;

/// What each of its lines takes on the page for each of its labels.
const SHOWN_BYTES: u64 = 300;

/// Upper bounds in the way of most clients: seconds, from a fast answer to a slow one.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A sink that makes metrics from messages.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct MetricsSettings {
    /// The metrics. They stand on `/metrics` beside the program's own.
    pub metrics: Vec<MetricSettings>,
    /// The most label sets of each metric. Samples of further ones are dropped, and counted in
    /// `rillway_metrics_dropped_samples_total`.
    #[serde(default = "max_series")]
    pub max_series: u32,
}

/// A metric that is made from messages.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(rename = "MetricConfig")]
pub struct MetricSettings {
    /// Its name: letters, digits and `_`, as in `orders_total`. Not `rillway_…`.
    pub name: String,
    /// `counter`: values are added up. `gauge`: the last one counts. `histogram`: they are counted in
    /// buckets.
    #[serde(rename = "type")]
    pub kind: MetricType,
    /// What it means, in a sentence.
    #[serde(default)]
    pub help: String,
    /// Where a message's value comes from, as in `columns`: "/amount", "application_properties.size".
    /// Without it, a counter counts messages; the others need one.
    #[serde(default, deserialize_with = "source")]
    #[schemars(with = "Option<String>")]
    pub value: Option<Source>,
    /// Its labels, and where their values come from: `{ region = "/region" }`. What is missing is
    /// empty.
    #[serde(default, deserialize_with = "sources")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub labels: IndexMap<String, Source>,
    /// A histogram's upper bounds, growing. Default: 0.005 to 10, for seconds.
    #[serde(default)]
    pub buckets: Option<Vec<f64>>,
    /// The message counts only where each of these has this value: `{ "/type" = "order" }`.
    #[serde(default, deserialize_with = "conditions")]
    #[schemars(with = "Conditions")]
    pub when: Vec<(Source, String)>,
    /// What a message means that has no such number: that it is bad, or (`null`) that it does not
    /// count.
    #[serde(default)]
    pub on_misfit: OnMisfit,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "MetricKind")]
pub enum MetricType {
    /// Values are added up.
    Counter,
    /// The last value counts.
    Gauge,
    /// Values are counted in buckets.
    Histogram,
}

/// How conditions are written; for the schema.
struct Conditions;

impl JsonSchema for Conditions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Conditions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        })
    }
}

fn max_series() -> u32 {
    1000
}

fn source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Source>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

fn sources<'de, D: Deserializer<'de>>(from: D) -> Result<IndexMap<String, Source>, D::Error> {
    IndexMap::<String, String>::deserialize(from)?
        .into_iter()
        .map(|(label, text)| match text.parse() {
            Ok(source) => Ok((label, source)),
            Err(error) => Err(D::Error::custom(format!("label {label:?}: {error}"))),
        })
        .collect()
}

fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Source, String)>, D::Error> {
    IndexMap::<String, Value>::deserialize(from)?
        .into_iter()
        .map(|(text, wanted)| {
            let source = text.parse().map_err(D::Error::custom)?;
            match wanted {
                Value::String(wanted) => Ok((source, wanted)),
                wanted @ (Value::Bool(_) | Value::Number(_)) => Ok((source, wanted.to_string())),
                _ => Err(D::Error::custom(format!(
                    "{text:?}: expected a text, a number, or true or false"
                ))),
            }
        })
        .collect()
}

impl MetricSettings {
    /// A histogram's upper bounds.
    pub fn bounds(&self) -> Vec<f64> {
        self.buckets.clone().unwrap_or_else(|| BUCKETS.to_vec())
    }

    /// What one series takes, with its labels at their longest, and the lines that show it.
    pub(super) fn series_bytes(&self) -> u64 {
        let labels = self.labels.len() as u64 + 1;
        let lines = match self.kind {
            MetricType::Histogram => self.bounds().len() as u64 + 3,
            MetricType::Counter | MetricType::Gauge => 1,
        };
        labels * (KEPT_BYTES + SHOWN_BYTES * lines)
    }

    /// What a page has from it: names, to be its own.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        if self.kind == MetricType::Histogram {
            names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", self.name)));
        }
        names
    }

    /// Why it cannot stand on one page with another of this kind, should there be a reason.
    pub(super) fn conflict(&self, other: &MetricSettings) -> Option<String> {
        if self.name != other.name {
            let others = other.names();
            let shared = self.names().into_iter().find(|name| others.contains(name))?;
            return Some(format!("{:?} has the name {shared:?} too", other.name));
        }
        if self.kind != other.kind {
            Some(format!("{:?} is of another type there", self.name))
        } else if self.kind == MetricType::Histogram && self.bounds() != other.bounds() {
            Some(format!("{:?} has other buckets there", self.name))
        } else {
            None
        }
    }
}

impl MetricsSettings {
    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        if self.metrics.is_empty() || self.metrics.len() > METRICS_MAX {
            let found = self.metrics.len();
            bad("metrics", format!("{found} metrics: expected 1 to {METRICS_MAX}"));
        }
        if !(1..=SERIES_MAX).contains(&self.max_series) {
            bad("max_series", format!("{} is out of range: 1 to {SERIES_MAX}", self.max_series));
        }
        for (nth, metric) in self.metrics.iter().enumerate() {
            let mut bad =
                |key: &str, message: String| bad(&format!("metrics[{nth}].{key}"), message);
            check_metric(metric, &mut bad);
            for earlier in self.metrics.iter().take(nth) {
                if earlier.name == metric.name {
                    bad("name", format!("{:?} stands twice", metric.name));
                } else if let Some(why) = metric.conflict(earlier) {
                    bad("name", why);
                }
            }
        }
    }
}

fn check_metric(metric: &MetricSettings, bad: &mut impl FnMut(&str, String)) {
    let MetricSettings { name, kind, value, labels, buckets, .. } = metric;
    if !is_name(name) {
        bad(
            "name",
            format!(
                "{name:?} cannot be a metric's name: letters, digits and `_`, no digit in front"
            ),
        );
    } else if name.starts_with(OWN_PREFIX) {
        bad("name", format!("{name:?}: `{OWN_PREFIX}` is for the program's own metrics"));
    }
    if value.is_none() && *kind != MetricType::Counter {
        bad("value", "it is missing: only a counter counts without one".to_owned());
    }
    if labels.len() > LABELS_MAX {
        bad("labels", format!("{} labels: at most {LABELS_MAX}", labels.len()));
    }
    for label in labels.keys() {
        let key = format!("labels.{label}");
        if !is_name(label) || label.starts_with("__") {
            bad(
                &key,
                format!(
                    "{label:?} cannot be a label: letters, digits and `_`, no digit and no `__` in front"
                ),
            );
        } else if OWN_LABELS.contains(&label.as_str()) {
            bad(&key, format!("the label {label:?} has a meaning of its own"));
        }
    }
    match buckets {
        Some(_) if *kind != MetricType::Histogram => {
            bad("buckets", "it has no effect: it is for type = \"histogram\"".to_owned());
        }
        Some(bounds) => {
            let grows = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|b| b.is_finite());
            if bounds.is_empty() || bounds.len() > BUCKETS_MAX || !grows {
                bad("buckets", format!("expected 1 to {BUCKETS_MAX} numbers that grow"));
            }
        }
        None => {}
    }
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
