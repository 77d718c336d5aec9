//! `{ type = "object" }`.

use std::sync::Arc;

use super::{Look, SinkFactory, opens};
use crate::config::{self, BodyType, Compression, ObjectFormat, ObjectPlace};
use crate::consumer::Spec;
use crate::sink::SinkError;
use crate::sink::object::{
    self, Format, ObjectOptions, ObjectSink, Packing, ParquetColumns, Place, Rotation,
};

pub(super) fn factory(settings: config::ObjectSink, spec: &Spec) -> (SinkFactory, Look) {
    let stream = spec.stream.clone();
    let reference = spec.reference.clone();
    let options = options(settings);
    let look: Look = {
        let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
        Arc::new(move || {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            Box::pin(async move {
                object::committed(&options.map_err(SinkError::Fatal)?, &stream, &reference).await
            })
        })
    };
    let open = opens(move || {
        let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
        async move { ObjectSink::open(options.map_err(SinkError::Fatal)?, stream, reference).await }
    });
    (open, look)
}

/// Never fails: the configuration was checked.
fn options(settings: config::ObjectSink) -> Result<ObjectOptions, String> {
    let level = i32::try_from(settings.level()).unwrap_or(i32::MAX);
    let place = match settings.place()? {
        ObjectPlace::Folder(path) => Place::Folder(path),
        ObjectPlace::Store(url) => Place::Store {
            url,
            options: settings.options.into_iter().collect(),
            operation_max: settings.request_timeout.0,
        },
    };
    let format = match (settings.format, settings.compression) {
        (ObjectFormat::Parquet, compression) => Format::Parquet {
            zstd_level: (compression != Compression::None).then_some(level),
            columns: match settings.columns {
                Some(columns) => ParquetColumns::Named(columns.0),
                None => ParquetColumns::Envelope { body_is_text: settings.body == BodyType::Text },
            },
        },
        (ObjectFormat::Ndjson, Compression::None) => Format::Ndjson(Packing::Plain),
        (ObjectFormat::Ndjson, Compression::Zstd) => Format::Ndjson(Packing::Zstd { level }),
        (ObjectFormat::Ndjson, Compression::Gzip) => {
            Format::Ndjson(Packing::Gzip { level: level.unsigned_abs() })
        }
    };
    let rotation = Rotation {
        records: settings.rotate_records,
        bytes: settings.rotate_bytes.0,
        age: settings.rotate_age.0,
    };
    Ok(ObjectOptions { place, format, rotation })
}
