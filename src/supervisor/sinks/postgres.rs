//! `{ type = "postgres" }`.

use std::sync::Arc;

use super::{Look, SinkFactory, opens};
use crate::config;
use crate::consumer::Spec;
use crate::sink::postgres::{self, Claim, PostgresOptions, PostgresSink};
use crate::supervisor::connect::tls_options;

pub(super) fn factory(settings: config::PostgresSink, spec: &Spec) -> (SinkFactory, Look) {
    let stream = spec.stream.clone();
    let reference = spec.reference.clone();
    let options = PostgresOptions {
        url: settings.url,
        tls: settings.tls.as_ref().map(tls_options),
        schema: settings.schema,
        table: settings.table,
        columns: settings.columns.map(|columns| columns.0),
        create: settings.create,
        connect_timeout: settings.connect_timeout.0,
        write_timeout: settings.write_timeout.0,
        lock_timeout: settings.lock_timeout.0,
    };
    let look: Look = {
        let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
        Arc::new(move || {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            Box::pin(async move { postgres::examine(&options, &stream, &reference).await })
        })
    };
    // One for as long as the process lives: what it lost to another, it does not take back.
    let claim = Claim::new();
    let open = opens(move || {
        PostgresSink::open(options.clone(), stream.clone(), reference.clone(), claim.clone())
    });
    (open, look)
}
