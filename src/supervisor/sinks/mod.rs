//! From a sink's configuration to what opens it. One file for each sink that has options to map.

mod file;
mod http;
mod metrics;
mod object;
mod postgres;
mod sqlite;
mod stdout;
pub(super) mod stream;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::{self, SinkConfig};
use crate::consumer::Spec;
use crate::sink::discreet::Discreet;
use crate::sink::format::Format;
use crate::sink::null::NullSink;
use crate::sink::{Sink, SinkError};
use crate::types::Checkpoint;

/// Opens a sink; called again for each restart.
pub type SinkFactory =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Box<dyn Sink>, SinkError>> + Send + Sync>;

/// Tells the sink's own position without taking hold of the medium or changing anything in it; or, as
/// far as the sink can tell beforehand, why it could not write.
pub type Look =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Checkpoint>, SinkError>> + Send + Sync>;

/// How to open the sink of a consumer, and how to look at where it stands.
pub(super) fn factory(sink: &SinkConfig, spec: &Spec) -> (SinkFactory, Look) {
    match sink.clone() {
        SinkConfig::Null => (opens(|| async { Ok(NullSink::new()) }), nowhere()),
        SinkConfig::Stdout(settings) => stdout::factory(&settings, spec),
        SinkConfig::File(settings) => file::factory(settings, spec),
        SinkConfig::Object(settings) => object::factory(settings, spec),
        SinkConfig::Sqlite(settings) => sqlite::factory(settings, spec),
        SinkConfig::Postgres(settings) => postgres::factory(settings, spec),
        SinkConfig::Http(settings) => http::factory(settings, spec),
        SinkConfig::Metrics(settings) => metrics::factory(&settings, spec),
        SinkConfig::Stream(settings) => stream::factory(settings, spec),
    }
}

/// A factory of what `open` opens.
fn opens<S, F>(open: impl Fn() -> F + Send + Sync + 'static) -> SinkFactory
where
    S: Sink + 'static,
    F: Future<Output = Result<S, SinkError>> + Send + 'static,
{
    Arc::new(move || {
        let opening = open();
        Box::pin(async move { opening.await.map(|sink| Box::new(sink) as Box<dyn Sink>) })
    })
}

/// A factory of the same sink, whose errors say nothing of what a message holds.
pub(super) fn discreet(open: SinkFactory) -> SinkFactory {
    Arc::new(move || {
        let opening = open();
        Box::pin(async move { opening.await.map(|sink| Box::new(Discreet(sink)) as Box<dyn Sink>) })
    })
}

/// Looks at the dead letters' sink as well, for what may be wrong there.
pub(super) fn both(letters: Look, sink: Look) -> Look {
    Arc::new(move || {
        let (letters, sink) = (letters(), sink());
        Box::pin(async move {
            match letters.await {
                Ok(_) => {}
                Err(SinkError::Fatal(what)) => {
                    return Err(SinkError::Fatal(format!("dead letters: {what}")));
                }
                Err(error) => {
                    let what = format!("dead letters: {error}");
                    return Err(SinkError::Transient { what, retry_after: None });
                }
            }
            sink.await
        })
    })
}

/// For sinks that keep no position.
fn nowhere() -> Look {
    Arc::new(|| Box::pin(async { Ok(None) }))
}

fn format(format: config::RecordFormat, delimiter: &str) -> Format {
    match format {
        config::RecordFormat::Ndjson => Format::Ndjson,
        config::RecordFormat::Raw => Format::Raw { delimiter: delimiter.as_bytes().to_vec() },
    }
}
