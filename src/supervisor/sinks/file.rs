//! `{ type = "file" }`.

use std::sync::Arc;

use super::{Look, SinkFactory, format, opens};
use crate::config;
use crate::consumer::Spec;
use crate::sink::SinkError;
use crate::sink::file::{self, Compression, FileOptions, FileSink};

pub(super) fn factory(settings: config::FileSink, spec: &Spec) -> (SinkFactory, Look) {
    let stream = spec.stream.clone();
    let reference = spec.reference.clone();
    let level = settings.level();
    let options = FileOptions {
        dir: settings.dir,
        format: format(settings.format, &settings.delimiter),
        compression: match settings.compression {
            config::Compression::None => Compression::None,
            config::Compression::Zstd => {
                Compression::Zstd { level: i32::try_from(level).unwrap_or(i32::MAX) }
            }
            config::Compression::Gzip => Compression::Gzip { level },
        },
        rotate_bytes: settings.rotate_bytes.0.map(|bytes| bytes.0),
        rotate_age: settings.rotate_age.0.map(|age| age.0),
    };
    let look: Look = {
        let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
        Arc::new(move || {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            Box::pin(async move {
                // A disk that hangs holds up nobody else.
                tokio::task::spawn_blocking(move || file::committed(&options, &stream, &reference))
                    .await
                    .unwrap_or_else(|error| Err(SinkError::Fatal(error.to_string())))
            })
        })
    };
    let open = opens(move || FileSink::open(options.clone(), stream.clone(), reference.clone()));
    (open, look)
}
