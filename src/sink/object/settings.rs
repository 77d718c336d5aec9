//! Keys of `{ type = "object" }`: defaults and validation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::partition_keys::{self, Part};
use super::partitions::SEGMENT_BYTES_MAX;
use crate::settings::columns::{ColumnsConfig, OWN};
use crate::settings::format::Compression;
use crate::settings::secret::{self, SecretText};
use crate::settings::units::{ByteSize, HumanDuration};
use crate::types::Secret;
use crate::types::file_name::{FILE_NAME_BYTES_MAX, KEY_BYTES_MAX, KEY_REST_BYTES};

/// URL schemes of object stores.
const SCHEMES: [&str; 6] = ["s3", "s3a", "gs", "az", "abfs", "abfss"];

/// Columns that every object has, in the file or in the path.
const TAKEN: [&str; 5] = ["stream", "offset", "timestamp", "date", "hour"];

/// Columns of a line, and of a file without `columns`, beside [`OWN`].
const LINE: [&str; 8] = [
    "header",
    "properties",
    "application_properties",
    "message_annotations",
    "delivery_annotations",
    "footer",
    "body",
    "body_encoding",
];
const ENVELOPE: [&str; 4] = ["message_id", "subject", "application_properties", "body"];

/// Most folders of one commit. Each of its objects is read at the same time by `verify`.
const OPEN_PARTITIONS_MAX: u32 = 256;

/// Largest object: it is held in memory until it is full, and sent in one request.
const ROTATE_BYTES_MAX: u64 = 1 << 30;

/// Most bytes of the prefix in `url`, so that 32 are left for the stream's part of a key.
const PREFIX_BYTES_MAX: usize = KEY_BYTES_MAX - KEY_REST_BYTES - 32;

/// A sink that writes objects: Parquet or NDJSON, in a folder or an object store.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ObjectSettings {
    /// Destination: a folder, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`. Each stream gets its own folder in it.
    pub url: String,
    /// `parquet`: a table with a column for each value. `ndjson`: one JSON object per message, with
    /// all its parts.
    #[serde(default)]
    pub format: ObjectFormat,
    /// Compression of objects. Parquet does not support gzip.
    #[serde(default = "zstd")]
    pub compression: Compression,
    /// Compression level: 1 to 19 for zstd (default 1 for Parquet, 3 for NDJSON), 1 to 9 for gzip
    /// (default 6).
    #[serde(default)]
    pub compression_level: Option<u32>,
    /// Type of the column `body` of Parquet: text, in which bytes that are not UTF-8 become
    /// `{"base64":"…"}`, or bytes.
    #[serde(default)]
    pub body: BodyType,
    /// Typed columns after `stream`, `offset` and `timestamp`. Default: `message_id`, `subject`,
    /// `application_properties` and `body`. With `parquet` only.
    #[serde(default)]
    pub columns: Option<ColumnsConfig>,
    /// Parts of the folders below the stream's: `date`, `hour`, the name of a column of `columns` (which is then in
    /// the path and not in the file), the source of a value ("/region", "application_properties.tenant"), or
    /// `{ name = "region", from = "/customer/region" }`. Default: `date` and `hour`.
    #[serde(default)]
    pub partition_by: Option<Vec<Part>>,
    /// Most folders that are written at once, with `partition_by`, up to 256. For a message of another one, the
    /// objects are written, full or not.
    #[serde(default = "open_partitions")]
    pub open_partitions: u32,
    /// Number of records at which an object is full; with `partition_by`, those that are written at once together.
    #[serde(default = "rotate_records")]
    pub rotate_records: u64,
    /// Size at which an object is full.
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: ByteSize,
    /// Time after its first record at which an object is written, full or not.
    #[serde(default = "rotate_age")]
    pub rotate_age: HumanDuration,
    /// Time limit of one operation of the store, including the upload of an object; with `partition_by`, of all
    /// objects of a commit as one.
    #[serde(default = "request_timeout")]
    pub request_timeout: HumanDuration,
    /// Options of the store: `region`, `endpoint`, `access_key_id`, … Each may be a secret.
    #[serde(default, deserialize_with = "secret::table")]
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub options: BTreeMap<String, Secret>,
}

/// Format of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectFormat {
    /// A table.
    #[default]
    Parquet,
    /// One JSON object per message.
    Ndjson,
}

/// Type of the column `body`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyType {
    /// UTF-8 text.
    #[default]
    Text,
    /// Bytes.
    Bytes,
}

/// Destination that a URL names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ObjectPlace {
    /// A local folder.
    Folder(PathBuf),
    /// A store.
    Store(url::Url),
}

fn zstd() -> Compression {
    Compression::Zstd
}

fn open_partitions() -> u32 {
    64
}

fn rotate_records() -> u64 {
    1_000_000
}

fn rotate_bytes() -> ByteSize {
    ByteSize::mib(32)
}

fn rotate_age() -> HumanDuration {
    HumanDuration::secs(300)
}

fn request_timeout() -> HumanDuration {
    HumanDuration::secs(60)
}

impl ObjectSettings {
    /// Compression level: the configured one, or the format's default.
    pub fn level(&self) -> u32 {
        self.compression_level.unwrap_or(match (self.compression, self.format) {
            (Compression::None, _) => 0,
            (Compression::Zstd, ObjectFormat::Parquet) => 1,
            (Compression::Zstd, ObjectFormat::Ndjson) => 3,
            (Compression::Gzip, _) => 6,
        })
    }

    /// Parses the URL.
    ///
    /// # Errors
    /// The problem, without the URL itself: it may contain a password.
    pub(super) fn parsed_url(&self) -> Result<ObjectPlace, String> {
        let scheme = self.url.split_once(':').filter(
            // A path may have a colon, but hardly such a beginning.
            |(scheme, _)| {
                !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
            },
        );
        let path = match scheme {
            None => self.url.as_str(),
            Some(("file", path)) => path.strip_prefix("//").unwrap_or(path),
            Some((scheme, _)) if SCHEMES.contains(&scheme) => {
                let odd = || {
                    "expected SCHEME://BUCKET/PREFIX and nothing else; credentials are for `options`"
                        .to_owned()
                };
                let url = url::Url::parse(&self.url).map_err(|_| odd())?;
                // No bucket has a port: it would be the beginning of a password.
                let is_odd = !url.username().is_empty()
                    || url.password().is_some()
                    || url.port().is_some()
                    || url.query().is_some()
                    || url.fragment().is_some();
                if is_odd {
                    return Err(odd());
                }
                return match url.host_str() {
                    Some(_) => Ok(ObjectPlace::Store(url)),
                    None => Err(format!("there is no bucket: expected {scheme}://BUCKET/PREFIX")),
                };
            }
            Some((scheme, _)) => {
                return Err(format!(
                    "{scheme:?} is not a store: expected a folder, s3://BUCKET/PREFIX, \
                     gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
                ));
            }
        };
        if path.is_empty() {
            return Err("an empty path: expected a folder or a URL".to_owned());
        }
        Ok(ObjectPlace::Folder(PathBuf::from(path)))
    }

    /// Makes a relative path start at the folder of the configuration file.
    pub(super) fn locate(&mut self, folder: &Path) {
        if let Ok(ObjectPlace::Folder(path)) = self.parsed_url() {
            // Always absolute, so that it is read as a path again.
            self.url = format!("file://{}", folder.join(path).display());
        }
    }

    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        if self.partition_by.is_none() && self.open_partitions != open_partitions() {
            let what = "it has no effect without `partition_by`: add that, or remove the key";
            bad("open_partitions", what.to_owned());
        }
        let place = self.parsed_url();
        if let Err(why) = &place {
            bad("url", why.clone());
        }
        if !self.options.is_empty() && matches!(place, Ok(ObjectPlace::Folder(_))) {
            bad("options", "they have no effect on a folder".to_owned());
        }
        #[cfg(not(feature = "object-stores"))]
        if matches!(place, Ok(ObjectPlace::Store(_))) {
            bad("url", super::place::WITHOUT_STORES.to_owned());
        }
        if let Ok(ObjectPlace::Store(url)) = &place {
            let prefix: Vec<u8> = percent_decode_str(url.path().trim_matches('/')).collect();
            if prefix.len() > PREFIX_BYTES_MAX {
                let bytes = prefix.len();
                bad(
                    "url",
                    format!(
                        "its prefix is {bytes} bytes long, but stores take keys of {KEY_BYTES_MAX} and \
                         the stream's name is added: use a prefix of at most \
                         {PREFIX_BYTES_MAX} bytes"
                    ),
                );
            }
            if prefix.iter().any(u8::is_ascii_control) {
                bad("url", "its prefix holds a control character: leave it out".to_owned());
            }
        }
        let is_parquet = self.format == ObjectFormat::Parquet;
        if is_parquet && self.compression == Compression::Gzip {
            bad("compression", "Parquet is written with \"zstd\" or \"none\"".to_owned());
        }
        self.compression.check_level(self.compression_level, bad);
        if self.body == BodyType::Bytes && !is_parquet {
            bad("body", "it has no effect on lines: there, bytes are base64".to_owned());
        }
        let taken = if self.partition_by.is_some() { &TAKEN[..3] } else { &TAKEN };
        if let Some(columns) = &self.columns {
            if !is_parquet {
                bad("columns", "lines have no columns: they are for \"parquet\"".to_owned());
            }
            if self.body == BodyType::Bytes {
                bad("body", "it has no effect with `columns`: give that column a type".to_owned());
            }
            columns.check_names(taken, false, bad);
        }
        self.check_partitions(bad);
        if self.rotate_records == 0 {
            bad("rotate_records", "0 would make an object for each batch".to_owned());
        }
        if self.rotate_bytes.0 == 0 || self.rotate_bytes.0 > ROTATE_BYTES_MAX {
            bad("rotate_bytes", format!("{} is out of range: up to 1GiB", self.rotate_bytes));
        }
        for (key, time) in
            [("rotate_age", self.rotate_age), ("request_timeout", self.request_timeout)]
        {
            if time.0.is_zero() {
                bad(key, "0s is too short".to_owned());
            }
        }
    }

    fn check_partitions(&self, bad: &mut impl FnMut(&str, String)) {
        if self.open_partitions == 0 || self.open_partitions > OPEN_PARTITIONS_MAX {
            let given = self.open_partitions;
            bad("open_partitions", format!("{given} is out of range: 1 to {OPEN_PARTITIONS_MAX}"));
        }
        let Some(parts) = &self.partition_by else { return };
        let columns = self.columns.as_ref().map_or(&[][..], |columns| &columns.0);
        let others: &[&str] = match (self.format, &self.columns) {
            (ObjectFormat::Ndjson, _) => &LINE,
            (ObjectFormat::Parquet, None) => &ENVELOPE,
            (ObjectFormat::Parquet, Some(_)) => &[],
        };
        partition_keys::check(parts, columns, &[&OWN[..], others].concat(), bad);
        let rest = KEY_BYTES_MAX - KEY_REST_BYTES - FILE_NAME_BYTES_MAX;
        let prefix_max = rest.saturating_sub(parts.len() * (SEGMENT_BYTES_MAX + 1));
        if let Ok(ObjectPlace::Store(url)) = self.parsed_url()
            && percent_decode_str(url.path().trim_matches('/')).count() > prefix_max
        {
            bad(
                "url",
                format!(
                    "its prefix is too long for folders of {} parts, because stores take keys of {KEY_BYTES_MAX} \
                     bytes: use a prefix of at most {prefix_max} bytes",
                    parts.len()
                ),
            );
        }
    }
}
