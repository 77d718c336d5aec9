//! Declaration of the `object` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::audit::ObjectAuditor;
use super::renaming::rename;
use super::settings::{BodyType, ObjectFormat, ObjectPlace};
use super::{
    Format, ObjectOptions, ObjectSettings, ObjectSink, Packing, ParquetColumns, Part, Partitioning,
    Place, Rotation, committed,
};
use crate::settings::columns::ColumnsConfig;
use crate::settings::format::Compression;
use crate::settings::paths::plain;
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::SinkError;
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, JSON_GROWTH_MAX, Opening, Readable, ReplayPlace, Use,
    bad_records_up_to_the_limit,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks, opens, renames};
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

/// Memory of a column of an open object beyond what the object's size counts: its page, its dictionary, and their
/// places. `Layout::in_folders` has their limits; `page_tests` measures it: 46 to 83 KB.
const OPEN_COLUMN_BYTES: u64 = 128 << 10;

impl Declaration for ObjectSettings {
    fn about() -> &'static About {
        &About {
            kind: "object",
            guarantee: Guarantee::ExactlyOnce,
            least: "url = \"archive\"",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
        self.locate(check.folder());
    }

    fn validate_together(_: &[Use<'_, Self>], _: Option<&BrokerConfig>, _: &mut Vec<Problem>) {}

    fn place(&self) -> Option<PathBuf> {
        Some(match self.parsed_url() {
            Ok(ObjectPlace::Folder(path)) => path,
            _ => self.url.clone().into(),
        })
    }

    fn rows(&self) -> Option<String> {
        let parts: Vec<&str> = self.partition_by.as_ref()?.iter().map(Part::name).collect();
        Some(format!("one of each message, in folders by {}", parts.join(", ")))
    }

    fn exclusive(&self) -> Option<Exclusive> {
        let place = match self.parsed_url().ok()? {
            ObjectPlace::Folder(path) => plain(&path).display().to_string(),
            // Placeholders as they are written.
            ObjectPlace::Store(url) => {
                url.as_str().trim_end_matches('/').replace("%7B", "{").replace("%7D", "}")
            }
        };
        Some(Exclusive { key: "url", place })
    }

    /// The object, twice while it is concatenated; the page of each column; a batch's values.
    fn overhead_bytes(&self) -> u64 {
        let compressor_mib = self.compression.memory_mib(self.level());
        let columns_mib = self.columns.as_ref().map_or(7, |columns| columns.0.len() as u64 + 3);
        // Each open object beyond the first: a compressor, or the open pages of its columns.
        let others = self
            .partition_by
            .as_ref()
            .map_or(0, |_| u64::from(self.open_partitions).saturating_sub(1));
        let more = match self.format {
            ObjectFormat::Parquet => others * columns_mib * OPEN_COLUMN_BYTES,
            ObjectFormat::Ndjson => others * (compressor_mib << 20),
        };
        2 * self.rotate_bytes.0 + ((16 + compressor_mib + 2 * columns_mib) << 20) + more
    }

    fn growth_max(&self) -> u64 {
        JSON_GROWTH_MAX
    }

    fn bad_records_max(&self, batch_messages: u64) -> u64 {
        bad_records_up_to_the_limit(batch_messages)
    }

    fn start(&self) -> Start {
        Start::First
    }

    fn replay_place(&self) -> ReplayPlace {
        ReplayPlace::Apart
    }

    fn turn_to_replay(&mut self, suffix: &str) {
        let (url, below) = (self.url.trim_end_matches('/'), suffix.trim_matches('.'));
        self.url = format!("{url}/{below}");
    }

    fn columns(&self) -> Option<&ColumnsConfig> {
        self.columns.as_ref()
    }

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        vec![("url", self.url.as_str().into())]
    }

    fn fill(&mut self, names: &Names) {
        names.fill_url(&mut self.url);
    }

    fn readable(&self) -> Option<Readable> {
        None
    }

    fn read_again(&self) -> &'static str {
        "become new objects beside those that hold them already: they are in the archive twice, until you delete the \
         older objects"
    }

    fn audit(&self, opening: &Opening) -> Auditing {
        Auditing::By(Box::new(ObjectAuditor {
            options: self.options(),
            stream: opening.stream.clone(),
            reference: opening.reference.clone(),
        }))
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let (stream, reference) = (opening.stream.clone(), opening.reference.clone());
        let options = self.options();
        let look = {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            looks(move || {
                let (options, stream, reference) =
                    (options.clone(), stream.clone(), reference.clone());
                async move { committed(&options.map_err(SinkError::Fatal)?, &stream, &reference).await }
            })
        };
        let open = opens(move || {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            async move { ObjectSink::open(options.map_err(SinkError::Fatal)?, stream, reference).await }
        });
        (open, look)
    }

    fn renaming(&self, opening: &Opening) -> Option<Renaming> {
        let (options, opening) = (self.options(), opening.clone());
        Some(renames(move |former| {
            let (options, opening) = (options.clone(), opening.clone());
            async move {
                let options = options.map_err(SinkError::Fatal)?;
                rename(&options, &opening.stream, &opening.reference, &former).await
            }
        }))
    }
}

impl ObjectSettings {
    /// Never fails: the configuration was checked.
    fn options(&self) -> Result<ObjectOptions, String> {
        let level = i32::try_from(self.level()).unwrap_or(i32::MAX);
        let place = match self.parsed_url()? {
            ObjectPlace::Folder(path) => Place::Folder(path),
            ObjectPlace::Store(url) => Place::Store {
                url,
                options: self.options.clone().into_iter().collect(),
                operation_max: self.request_timeout.0,
            },
        };
        let mut columns =
            self.columns.as_ref().map(|columns| columns.0.clone()).unwrap_or_default();
        let open_max = usize::try_from(self.open_partitions).unwrap_or(usize::MAX);
        let partition_by = self
            .partition_by
            .as_ref()
            .map(|parts| Partitioning::new(parts, &mut columns, open_max));
        let format = match (self.format, self.compression) {
            (ObjectFormat::Parquet, compression) => Format::Parquet {
                zstd_level: (compression != Compression::None).then_some(level),
                columns: match &self.columns {
                    Some(_) => ParquetColumns::Named(columns),
                    None => ParquetColumns::Envelope { body_is_text: self.body == BodyType::Text },
                },
            },
            (ObjectFormat::Ndjson, Compression::None) => Format::Ndjson(Packing::Plain),
            (ObjectFormat::Ndjson, Compression::Zstd) => Format::Ndjson(Packing::Zstd { level }),
            (ObjectFormat::Ndjson, Compression::Gzip) => {
                Format::Ndjson(Packing::Gzip { level: level.unsigned_abs() })
            }
        };
        let rotation = Rotation {
            records: self.rotate_records,
            bytes: self.rotate_bytes.0,
            age: self.rotate_age.0,
        };
        Ok(ObjectOptions { place, format, partition_by, rotation })
    }
}
