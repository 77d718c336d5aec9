//! `{ type = "sqlite" }`.

use std::sync::Arc;

use super::{Look, SinkFactory, opens};
use crate::config;
use crate::consumer::Spec;
use crate::sink::SinkError;
use crate::sink::sqlite::{self, SqliteOptions, SqliteSink};
use crate::types::table_name;

pub(super) fn factory(settings: config::SqliteSink, spec: &Spec) -> (SinkFactory, Look) {
    let stream = spec.stream.clone();
    let reference = spec.reference.clone();
    let options = SqliteOptions {
        path: settings.path,
        table: settings.table.unwrap_or_else(|| table_name::of(&stream)),
        columns: settings.columns.map(|columns| columns.0),
        create: settings.create,
    };
    let look: Look = {
        let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
        Arc::new(move || {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            Box::pin(async move {
                // A disk that hangs holds up nobody else.
                tokio::task::spawn_blocking(move || sqlite::examine(&options, &stream, &reference))
                    .await
                    .unwrap_or_else(|error| Err(SinkError::Fatal(error.to_string())))
            })
        })
    };
    let open = opens(move || SqliteSink::open(options.clone(), stream.clone(), reference.clone()));
    (open, look)
}
