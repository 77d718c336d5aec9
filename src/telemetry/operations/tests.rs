use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Record};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::*;
use crate::telemetry::logging::{consumer_span, filter_for_tests};

/// A span's name and fields.
type Ended = (String, BTreeMap<String, String>);

/// All spans, in the order of their ends.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Ended>>>);

#[derive(Clone, Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let parent = context.span(id).unwrap().parent();
        if let Some(parent) = parent {
            fields.0.insert("PARENT".to_owned(), parent.name().to_owned());
        }
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let fields = span.extensions().get::<Fields>().unwrap().0.clone();
        self.0.lock().unwrap().push((span.name().to_owned(), fields));
    }
}

fn seen(filter: EnvFilter, work: impl FnOnce()) -> Vec<Ended> {
    let seen = Seen::default();
    let subscriber = tracing_subscriber::registry().with(seen.clone()).with(filter);
    tracing::subscriber::with_default(subscriber, work);
    let all = seen.0.lock().unwrap().clone();
    all.into_iter().filter(|(name, _)| name != "consumer").collect()
}

const LOAD: Load = Load { batches: 2, records: 30, bytes: 400 };

fn every_operation() {
    let (consumer, stream, reference) = ("c".into(), "s".into(), "r".into());
    let of = Operations::of(&consumer, &stream, &reference);
    let span = consumer_span(&consumer, &stream, Some(&reference));
    let _in = span.enter();
    let connect = of.connect("read");
    of.subscribe(&connect, "next").end(&Ok::<(), &str>(()));
    connect.node(|| Some("node:1".to_owned()));
    connect.end(&Err::<(), _>("refused"));
    of.open_sink().sink("file");
    let write = of.write("file", LOAD, (Offset(7), Offset(36)));
    write.retries(1);
    write.result("held");
    drop(write);
    of.flush("file", LOAD).failed("x".repeat(1000));
    of.store_offset(Offset(36)).held(Some(Offset(36)));
    of.drain().result("drained");
    of.seek("first").end(&Ok::<(), &str>(()));
    of.replay(Offset(1), Offset(2)).end(&Ok::<(), &str>(()));
    reload("SIGHUP").result("applied");
}

#[test]
fn every_operation_has_its_name_and_its_fields() {
    let seen = seen(filter_for_tests("error", true), every_operation);
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "subscribe",
            "connect",
            "open_sink",
            "write",
            "flush",
            "store_offset",
            "drain",
            "seek",
            "replay",
            "reload"
        ]
    );
    for (name, fields) in seen.iter().filter(|(name, _)| name != "reload") {
        let of = ["consumer", "stream", "reference"].map(|field| fields[field].as_str());
        assert_eq!(of, ["c", "s", "r"], "{name}");
        // The consumer's span, in which all of them begin, is no parent.
        let parent = fields.get("PARENT").map(String::as_str);
        assert_eq!(parent, (name == "subscribe").then_some("connect"), "{name}");
    }
    let fields = |name: &str| {
        let (_, fields) = seen.iter().find(|(this, _)| this == name).unwrap();
        fields.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        fields("connect"),
        "consumer=c node=node:1 otel.kind=client otel.status_code=ERROR otel.status_description=refused \
         purpose=read reference=r stream=s"
    );
    assert_eq!(
        fields("write"),
        "batches=2 bytes=400 consumer=c first_offset=7 last_offset=36 records=30 reference=r result=held \
         retries=1 sink=file stream=s"
    );
    let told = format!("otel.status_description={} ", "x".repeat(ERROR_CHARS_MAX));
    assert!(fields("flush").contains(&told), "{}", fields("flush"));
}

/// Then the fields are not even evaluated.
#[test]
fn without_traces_no_operation_is_a_span_whatever_is_logged() {
    for filter in ["trace", "rillway=trace", "rillway::operation=trace"] {
        assert_eq!(seen(filter_for_tests(filter, false), every_operation), [], "{filter}");
    }
}
