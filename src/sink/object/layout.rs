//! How records are laid out in objects: the format, the columns, the names of partitions.
//!
//! ```text
//! STREAM/date=2026-11-23/hour=14/00000000000000481516-7.parquet
//! ```
//! The stream's folder is the table; `date` and `hour` are columns by name alone, of the first
//! record's chunk, in UTC. The stream is not: a column that stands in the path and in the file is an
//! error to some readers. The number behind the offset is the claim's, so that no name is used twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type as Physical;
use parquet::basic::{
    Compression as Codec, Encoding, LogicalType, Repetition, TimeUnit, ZstdLevel,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::sink::SinkError;
use crate::sink::columns::{BodyAs, Columns};
use crate::types::column::{Column, ColumnType, Source};
use crate::types::file_name::fitted;
use crate::types::{StreamName, Timestamp};

/// Characters that are escaped in a key.
const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The columns that stand in the path.
pub const PARTITION_COLUMNS: [&str; 2] = ["date", "hour"];

/// A dictionary that grows beyond this does not pay.
const DICTIONARY_BYTES_MAX: usize = 128 << 10;

/// The same, and limits of a page, where objects of many folders are open at once: each column of each of them holds
/// so much that its size does not count yet.
const FOLDER_PAGE_BYTES_MAX: usize = 32 << 10;
const FOLDER_PAGE_ROWS_MAX: usize = 4096;

/// Format of objects.
#[derive(Clone, Debug)]
pub enum Format {
    /// Parquet, a column for each of these.
    Parquet {
        /// How hard zstd compresses, 1 to 22; `None`: not at all.
        zstd_level: Option<i32>,
        /// The columns behind `stream`, `offset` and `timestamp`.
        columns: ParquetColumns,
    },
    /// A line of JSON for each record.
    Ndjson(Packing),
}

/// The columns of a Parquet object.
#[derive(Clone, Debug)]
pub enum ParquetColumns {
    /// `message_id`, `subject`, `application_properties`, `body`.
    Envelope {
        /// Whether the body is text, which is marked base64 where it is not UTF-8; else bytes.
        body_is_text: bool,
    },
    /// These.
    Named(Vec<Column>),
}

/// How NDJSON is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// A zstd frame.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
    /// A gzip member.
    Gzip {
        /// 0 to 9.
        level: u32,
    },
}

/// The format, made ready for one stream.
#[derive(Clone)]
pub(super) enum Layout {
    Parquet(ParquetLayout),
    Ndjson { stream: StreamName, packing: Packing },
}

#[derive(Clone)]
pub(super) struct ParquetLayout {
    pub(super) columns: Arc<Columns>,
    /// The column of the body, where the columns are the envelope's: then most rows are made without
    /// looking anything up.
    pub(super) body: Option<Body>,
    pub(super) schema: TypePtr,
    pub(super) properties: WriterPropertiesPtr,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) is_text: bool,
}

impl Layout {
    pub(super) fn new(format: &Format, stream: &StreamName) -> Result<Layout, SinkError> {
        Ok(match format {
            Format::Ndjson(packing) => Layout::Ndjson { stream: stream.clone(), packing: *packing },
            Format::Parquet { zstd_level, columns } => {
                let (columns, body) = match columns {
                    ParquetColumns::Named(named) => {
                        (Columns::typed(stream.clone(), named.clone()), None)
                    }
                    ParquetColumns::Envelope { body_is_text: is_text } => {
                        let body_as = if *is_text { BodyAs::Text } else { BodyAs::Bytes };
                        let body = Body { is_text: *is_text };
                        (Columns::envelope(stream.clone(), body_as), Some(body))
                    }
                };
                let made = schema(&columns)
                    .and_then(|schema| Ok((schema, properties(&columns, *zstd_level)?)));
                let (schema, properties) = made.map_err(|error| {
                    SinkError::Fatal(format!("these columns cannot be laid out: {error}"))
                })?;
                let columns = Arc::new(columns);
                Layout::Parquet(ParquetLayout { columns, body, schema, properties })
            }
        })
    }

    /// The same for objects of many folders that are open at once.
    pub(super) fn in_folders(mut self) -> Layout {
        if let Layout::Parquet(parquet) = &mut self {
            let properties = WriterProperties::clone(&parquet.properties).into_builder();
            let properties = properties
                .set_dictionary_page_size_limit(FOLDER_PAGE_BYTES_MAX)
                .set_data_page_size_limit(FOLDER_PAGE_BYTES_MAX)
                .set_data_page_row_count_limit(FOLDER_PAGE_ROWS_MAX);
            parquet.properties = Arc::new(properties.build());
        }
        self
    }

    /// The columns of the table, each with the type that readers find. Lines have none: each says for
    /// itself.
    pub(super) fn columns(&self) -> BTreeMap<String, String> {
        let Layout::Parquet(layout) = self else { return BTreeMap::new() };
        let named = layout.columns.names_and_types();
        named.map(|(name, kind)| (name.to_owned(), stored_as(kind).to_owned())).collect()
    }

    /// The ending of an object's name.
    pub(super) fn extension(&self) -> &'static str {
        match self {
            Layout::Parquet(_) => PARQUET,
            Layout::Ndjson { packing: Packing::Plain, .. } => NDJSON,
            Layout::Ndjson { packing: Packing::Zstd { .. }, .. } => NDJSON_ZSTD,
            Layout::Ndjson { packing: Packing::Gzip { .. }, .. } => NDJSON_GZIP,
        }
    }

    /// An object without records, valid under this key. It may be of another format than is written
    /// now, for the configuration may have changed since the key was claimed.
    pub(super) fn void(&self, key: &str) -> Result<Bytes, SinkError> {
        let broken = |error: String| {
            SinkError::Fatal(format!("internal error: an empty object cannot be made: {error}"))
        };
        match ending(key) {
            Some(PARQUET) => {
                let parquet = match self {
                    Layout::Parquet(parquet) => parquet.clone(),
                    Layout::Ndjson { stream, .. } => {
                        let columns = ParquetColumns::Envelope { body_is_text: true };
                        let format = Format::Parquet { zstd_level: None, columns };
                        match Layout::new(&format, stream)? {
                            Layout::Parquet(parquet) => parquet,
                            Layout::Ndjson { .. } => return Err(broken("no columns".to_owned())),
                        }
                    }
                };
                SerializedFileWriter::new(Vec::new(), parquet.schema, parquet.properties)
                    .and_then(SerializedFileWriter::into_inner)
                    .map(Bytes::from)
                    .map_err(|error| broken(error.to_string()))
            }
            Some(NDJSON_ZSTD) => zstd::encode_all(&b""[..], 1)
                .map(Bytes::from)
                .map_err(|error| broken(error.to_string())),
            Some(NDJSON_GZIP) => {
                let member =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                member.finish().map(Bytes::from).map_err(|error| broken(error.to_string()))
            }
            _ => Ok(Bytes::new()),
        }
    }
}

/// Whether an object is valid under its key and holds nothing.
pub(super) fn holds_no_records(key: &str, bytes: Bytes) -> bool {
    use std::io::Read as _;
    match ending(key) {
        Some(PARQUET) => SerializedFileReader::new(bytes)
            .is_ok_and(|reader| reader.metadata().file_metadata().num_rows() == 0),
        Some(NDJSON_ZSTD) => zstd::stream::read::Decoder::new(&*bytes)
            .is_ok_and(|mut plain| matches!(plain.read(&mut [0]), Ok(0))),
        Some(NDJSON_GZIP) => {
            matches!(flate2::read::MultiGzDecoder::new(&*bytes).read(&mut [0]), Ok(0))
        }
        _ => bytes.is_empty(),
    }
}

const PARQUET: &str = "parquet";
const NDJSON: &str = "ndjson";
const NDJSON_ZSTD: &str = "ndjson.zst";
const NDJSON_GZIP: &str = "ndjson.gz";

/// Form of an object, by the ending of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Parquet,
    Ndjson,
    NdjsonZstd,
    NdjsonGzip,
}

impl Kind {
    /// `None` for an ending that the sink does not use.
    pub(super) fn of(key: &str) -> Option<Kind> {
        Some(match ending(key)? {
            PARQUET => Kind::Parquet,
            NDJSON => Kind::Ndjson,
            NDJSON_ZSTD => Kind::NdjsonZstd,
            NDJSON_GZIP => Kind::NdjsonGzip,
            _ => return None,
        })
    }
}

fn ending(key: &str) -> Option<&str> {
    key.rsplit('/').next()?.split_once('.').map(|(_, ending)| ending)
}

/// Prefix of the keys of a store's objects, by its URL.
pub(super) fn prefix(url: &Url) -> String {
    let path = url.path().trim_matches('/');
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// The stream's name as a part of keys. What leads with a dot or an underscore is hidden from most
/// readers, so these are encoded there. A name of more than `bytes_max` bytes is shortened.
pub(super) fn table(stream: &StreamName, bytes_max: usize) -> String {
    let mut name = utf8_percent_encode(stream.as_str(), UNSAFE).to_string();
    if name.starts_with(['.', '_']) {
        let encoded = if name.starts_with('.') { "%2E" } else { "%5F" };
        name.replace_range(..1, encoded);
    }
    // Two that collide are told apart by the checkpoint, which holds the stream's whole name.
    fitted(name, stream.as_str(), bytes_max)
}

/// The hour that a time lies in, since 1970.
pub(super) fn hour(time: Timestamp) -> i64 {
    time.0.div_euclid(3_600_000)
}

/// `date=2026-11-23/hour=14`.
pub(super) fn partition(time: Timestamp) -> String {
    format!("{}/{}", date_of(time), hour_of(time))
}

/// `date=2026-11-23`.
pub(super) fn date_of(time: Timestamp) -> String {
    let (year, month, day) = crate::sink::envelope::date(hour(time).div_euclid(24));
    format!("date={year:04}-{month:02}-{day:02}")
}

/// `hour=14`.
pub(super) fn hour_of(time: Timestamp) -> String {
    format!("hour={:02}", hour(time).rem_euclid(24))
}

/// For messages.
pub(super) fn rfc3339(time: Timestamp) -> String {
    crate::sink::envelope::rfc3339(time.0)
}

/// Type that readers find in a column for such values.
fn stored_as(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text | ColumnType::Json | ColumnType::Numeric => "text",
        ColumnType::Bytes => "bytes",
        ColumnType::Integer => "integer",
        ColumnType::Float => "float",
        ColumnType::Boolean => "boolean",
        ColumnType::Timestamp => "timestamp",
    }
}

/// The first three columns are always there; the others may be null, also those that are required
/// now: a table whose columns change from null to not null halfway is read by few.
fn schema(columns: &Columns) -> Result<TypePtr, ParquetError> {
    let mut fields = Vec::with_capacity(columns.len());
    for (nth, (name, kind)) in columns.names_and_types().enumerate() {
        let repetition = if nth < 3 { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        // JSON is marked as text: what is marked as JSON, not every reader takes. Decimal numbers
        // without a limit have no type here; their text keeps all digits.
        let (physical, logical) = match kind {
            ColumnType::Text | ColumnType::Json | ColumnType::Numeric => {
                (Physical::BYTE_ARRAY, Some(LogicalType::String))
            }
            ColumnType::Bytes => (Physical::BYTE_ARRAY, None),
            ColumnType::Integer => (Physical::INT64, None),
            ColumnType::Float => (Physical::DOUBLE, None),
            ColumnType::Boolean => (Physical::BOOLEAN, None),
            ColumnType::Timestamp => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
            }
        };
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .build()?;
        fields.push(Arc::new(field));
    }
    Ok(Arc::new(Type::group_type_builder("rillway").with_fields(fields).build()?))
}

/// Statistics for what is asked for by range; dictionaries for short texts and for times, of which
/// many records share one. Offsets are a run of numbers: their differences cost nothing.
fn properties(
    columns: &Columns,
    zstd_level: Option<i32>,
) -> Result<WriterPropertiesPtr, ParquetError> {
    let codec = match zstd_level {
        Some(level) => Codec::ZSTD(ZstdLevel::try_new(level)?),
        None => Codec::UNCOMPRESSED,
    };
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("rillway version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(codec)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for column in columns.columns() {
        let path = ColumnPath::from(column.name.as_str());
        let is_large = matches!(column.from, Source::Body)
            || matches!(column.kind, ColumnType::Json | ColumnType::Bytes);
        if is_large && column.from != Source::ApplicationProperties {
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
        if column.from == Source::Offset && column.kind == ColumnType::Integer {
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(Arc::new(properties.build()))
}
