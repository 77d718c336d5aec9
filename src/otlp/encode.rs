//! Spans as the body of a request, and the answer to it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use serde_json::{Map, Value};

use super::options::Options;
use crate::types::quote::Hidden;

/// The attributes of this process.
pub(super) fn resource(options: &Options) -> Resource {
    let attributes = options.resource.iter();
    let attributes = attributes
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
        .collect::<Vec<_>>();
    let library: Box<dyn ResourceDetector> = Box::new(TelemetryResourceDetector);
    Resource::builder_empty().with_detector(library).with_attributes(attributes).build()
}

/// The part of this program that makes spans.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("rillway").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// Makes bodies of requests.
pub(super) struct Encoder {
    resource: ResourceAttributesWithSchema,
    gzip: bool,
}

impl Encoder {
    pub(super) fn new(resource: &Resource, gzip: bool) -> Encoder {
        Encoder { resource: ResourceAttributesWithSchema::from(resource), gzip }
    }

    pub(super) fn body(&self, spans: Vec<SpanData>) -> Vec<u8> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        if !self.gzip {
            return body;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory does not fail.
        encoder.write_all(&body).and_then(|()| encoder.finish()).unwrap_or_default()
    }
}

/// Spans of an accepted request that the collector refused, with its reason.
///
/// # Errors
/// If this is no answer of a collector.
pub(super) fn refused(answer: &[u8]) -> Result<Option<(u64, String)>, NoCollector> {
    let partial = match ExportTraceServiceResponse::decode(answer) {
        Ok(answer) => answer.partial_success.unwrap_or_default(),
        Err(_) => in_json(answer).ok_or(NoCollector)?,
    };
    let spans = u64::try_from(partial.rejected_spans).ok().filter(|spans| *spans > 0);
    Ok(spans.map(|spans| (spans, partial.error_message)))
}

/// The body of an answer is in neither form of OTLP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoCollector;

/// An answer in the form of OTLP for JSON, which some collectors write whatever they were asked in. Numbers of 64
/// bits are texts there.
fn in_json(answer: &[u8]) -> Option<ExportTracePartialSuccess> {
    let answer: Map<String, Value> = serde_json::from_slice(answer).ok()?;
    let partial = match answer.get("partialSuccess") {
        // Keys beside it are those of a later version.
        Some(partial) if partial.is_object() || partial.is_null() => partial,
        None if answer.is_empty() => &Value::Null,
        _ => return None,
    };
    let rejected = &partial["rejectedSpans"];
    let rejected = rejected.as_i64().or_else(|| rejected.as_str()?.parse().ok());
    let error_message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
    Some(ExportTracePartialSuccess { rejected_spans: rejected.unwrap_or_default(), error_message })
}

/// Fuzz target: reads the bytes as a collector's answer, and quotes its text as it is shown.
pub fn fuzz_answer(data: &[u8]) {
    const SECRET: &str = "correct-horse";
    if let Ok(Some((spans, text))) = refused(data) {
        assert!(spans > 0);
        let quoted = Hidden::new([SECRET.to_owned()]).quote(&text);
        assert!(!quoted.contains(char::is_control) && !quoted.contains(SECRET), "{quoted:?}");
    }
}
