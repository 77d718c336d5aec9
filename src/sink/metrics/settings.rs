//! Keys of `{ type = "metrics" }`: defaults and validation.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::types::column::{OnMisfit, Source};

/// Prefix of the program's own metrics.
const OWN_PREFIX: &str = "rillway_";

/// Reserved labels: ours, and those of histograms and summaries.
const OWN_LABELS: [&str; 3] = ["consumer", "le", "quantile"];

const METRICS_MAX: usize = 200;
const LABELS_MAX: usize = 16;
const BUCKETS_MAX: usize = 100;
const SERIES_MAX: u32 = 100_000;

/// Most bytes of a series for each of its labels: in its key, and as text.
const KEPT_BYTES: u64 = 1024;

/// Bytes on the page of each of its lines for each of its labels.
const SHOWN_BYTES: u64 = 300;

/// Default upper bounds, as most clients have them: seconds, from a fast answer to a slow one.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A sink that makes metrics from messages.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct MetricsSettings {
    /// The metrics. They are on `/metrics` beside the program's own.
    pub metrics: Vec<MetricSettings>,
    /// Most label sets of each metric. Samples of further ones are dropped, and counted in
    /// `rillway_metrics_dropped_samples_total`.
    #[serde(default = "max_series")]
    pub max_series: u32,
}

/// A metric that is made from messages.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(rename = "MetricConfig")]
pub struct MetricSettings {
    /// Name: letters, digits and `_`, as in `orders_total`. Not `rillway_…`.
    pub name: String,
    /// `counter`: values are added up. `gauge`: the last one counts. `histogram`: they are counted
    /// in buckets.
    #[serde(rename = "type")]
    pub kind: MetricType,
    /// Help text: one sentence.
    #[serde(default)]
    pub help: String,
    /// Source of a message's value, as in `columns`: "/amount", "application_properties.size".
    /// Without it, a counter counts messages; the others require one.
    #[serde(default, deserialize_with = "source")]
    #[schemars(with = "Option<String>")]
    pub value: Option<Source>,
    /// Its labels, with the sources of their values: `{ region = "/region" }`. A missing value is
    /// empty.
    #[serde(default, deserialize_with = "sources")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub labels: IndexMap<String, Source>,
    /// Ascending upper bounds of a histogram. Default: 0.005 to 10, for seconds.
    #[serde(default)]
    pub buckets: Option<Vec<f64>>,
    /// Conditions: the message counts only if each source has this value: `{ "/type" = "order" }`.
    #[serde(default, deserialize_with = "conditions")]
    #[schemars(with = "Conditions")]
    pub when: Vec<(Source, String)>,
    /// Treatment of a message without such a number: it is bad, or (`null`) it does not count.
    #[serde(default)]
    pub on_misfit: OnMisfit,
}

/// Kind of a metric.
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

/// Form of conditions in the schema.
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
    /// Upper bounds of a histogram.
    pub fn bounds(&self) -> Vec<f64> {
        self.buckets.clone().unwrap_or_else(|| BUCKETS.to_vec())
    }

    /// Most bytes of one series with its longest labels, and the lines that show it.
    pub(super) fn series_bytes(&self) -> u64 {
        let labels = self.labels.len() as u64 + 1;
        let lines = match self.kind {
            MetricType::Histogram => self.bounds().len() as u64 + 3,
            MetricType::Counter | MetricType::Gauge => 1,
        };
        labels * (KEPT_BYTES + SHOWN_BYTES * lines)
    }

    /// Names that it uses on the page, which must be unique.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        if self.kind == MetricType::Histogram {
            names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", self.name)));
        }
        names
    }

    /// Reason why it conflicts with another metric of this kind; `None` if it does not.
    pub(super) fn conflict(&self, other: &MetricSettings) -> Option<String> {
        if self.name != other.name {
            let others = other.names();
            let shared = self.names().into_iter().find(|name| others.contains(name))?;
            return Some(format!("{:?} also uses the name {shared:?}", other.name));
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
                    bad("name", format!("{:?} is used twice", metric.name));
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
                "{name:?} cannot be a metric's name: letters, digits and `_`, not beginning with a digit"
            ),
        );
    } else if name.starts_with(OWN_PREFIX) {
        bad("name", format!("{name:?}: `{OWN_PREFIX}` is reserved for the program's own metrics"));
    }
    if value.is_none() && *kind != MetricType::Counter {
        bad("value", "it is missing: only a counter works without one".to_owned());
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
                    "{label:?} cannot be a label: letters, digits and `_`, not beginning with a digit or `__`"
                ),
            );
        } else if OWN_LABELS.contains(&label.as_str()) {
            bad(&key, format!("the label {label:?} is reserved"));
        }
    }
    match buckets {
        Some(_) if *kind != MetricType::Histogram => {
            bad("buckets", "it has no effect: it is for type = \"histogram\"".to_owned());
        }
        Some(bounds) => {
            let grows = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|b| b.is_finite());
            if bounds.is_empty() || bounds.len() > BUCKETS_MAX || !grows {
                bad("buckets", format!("expected 1 to {BUCKETS_MAX} ascending numbers"));
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
