//! Makes a store from a URL and options.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

#[cfg(feature = "object-stores")]
use super::connect::connect;
use super::layout::prefix;
use super::local::Local;
use super::partitions::Partitioning;
use super::store::Store;
use crate::sink::SinkError;
use crate::types::Secret;
use crate::types::file_name::{FILE_NAME_BYTES_MAX, KEY_BYTES_MAX, KEY_REST_BYTES};

/// Options of the store: names as in `object_store`, such as `region`.
pub type Options = Vec<(String, Secret)>;

/// Destination of objects.
#[derive(Clone, Debug)]
pub enum Place {
    /// A local folder.
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    Store {
        /// The URL.
        url: Url,
        /// Endpoint, region, credentials, …
        options: Options,
        /// Time limit of an operation, including the upload of an object.
        operation_max: Duration,
    },
}

impl Place {
    /// Most bytes of the stream's part of a key. Object stores that keep objects as files accept no
    /// longer part than a file system does.
    pub(super) fn table_bytes_max(&self) -> usize {
        self.former_table_bytes_max().min(FILE_NAME_BYTES_MAX)
    }

    /// The same in versions that only checked the length of the whole key.
    pub(super) fn former_table_bytes_max(&self) -> usize {
        match self {
            Place::Folder(_) => FILE_NAME_BYTES_MAX,
            Place::Store { url, .. } => {
                KEY_BYTES_MAX.saturating_sub(prefix(url).len() + KEY_REST_BYTES)
            }
        }
    }

    /// Checks that no key is longer than stores take. An object that cannot be created is found out only after it was
    /// claimed.
    pub(super) fn check_keys(
        &self,
        table: &str,
        partition_by: &Partitioning,
    ) -> Result<(), SinkError> {
        let Place::Store { url, .. } = self else { return Ok(()) };
        let prefix = prefix(url);
        let rest = table.len() + partition_by.folder_bytes_max() + KEY_REST_BYTES;
        if prefix.len() + rest <= KEY_BYTES_MAX {
            return Ok(());
        }
        let way_out = match KEY_BYTES_MAX.checked_sub(rest) {
            None => format!(
                "No prefix is short enough: use fewer parts in `partition_by`, or begin a new archive in another `url`, \
                 where the stream's folder has a name of at most {FILE_NAME_BYTES_MAX} bytes (here {})",
                table.len()
            ),
            Some(0) => "Use a `url` without a prefix, or fewer parts in `partition_by`".to_owned(),
            Some(most) => format!(
                "Use a prefix of at most {most} bytes in `url`, or fewer parts in `partition_by`"
            ),
        };
        Err(SinkError::Fatal(format!(
            "the prefix of {url} is {} bytes long, with everything filled in. With folders by {} and the stream's \
             name, keys may have {} bytes, and stores take keys of {KEY_BYTES_MAX}. {way_out}.",
            prefix.len(),
            partition_by.names().join(", "),
            prefix.len() + rest
        )))
    }

    pub(super) async fn open(&self) -> Result<Arc<dyn Store>, SinkError> {
        Ok(match self {
            Place::Folder(root) => Arc::new(Local::open(root.clone()).await?),
            Place::Store { url, options, operation_max } => {
                connect(url, options, *operation_max)
                    .map_err(|why| SinkError::Fatal(format!("{url} cannot be used: {why}")))?
            }
        })
    }
}

/// Error of a build without the cargo feature `object-stores`.
#[cfg(not(feature = "object-stores"))]
pub(super) const WITHOUT_STORES: &str = "this rillway was built without object stores, and writes into folders \
                                         only: take the build with all sinks, or build it with `cargo build \
                                         --release --features object-stores`";

#[cfg(not(feature = "object-stores"))]
fn connect(_: &Url, _: &[(String, Secret)], _: Duration) -> Result<Arc<dyn Store>, String> {
    Err(WITHOUT_STORES.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of an archive's folder that an older version made may be longer than a file's name.
    #[test]
    fn where_no_prefix_is_short_enough_another_way_out_is_named() {
        let parts = serde_json::from_str::<Vec<_>>(r#"["/region", "date"]"#).unwrap();
        let partition_by = Partitioning::new(&parts, &mut Vec::new(), 1);
        let told = |table_bytes: usize| {
            let url = Url::parse("s3://bucket/prefix").unwrap();
            let place = Place::Store { url, options: Vec::new(), operation_max: Duration::MAX };
            place.check_keys(&"t".repeat(table_bytes), &partition_by).map_err(|e| e.to_string())
        };
        // With the two parts and the rest of a key: 1024 bytes.
        let all = KEY_BYTES_MAX - partition_by.folder_bytes_max() - KEY_REST_BYTES;
        assert_eq!(told(all - "prefix".len()), Ok(()));
        let short = told(all - 1).unwrap_err();
        assert!(
            short.contains("Use a prefix of at most 1 bytes in `url`, or fewer parts"),
            "{short}"
        );
        let none = told(all).unwrap_err();
        assert!(none.contains("Use a `url` without a prefix, or fewer parts"), "{none}");
        for table_bytes in [all + 1, 900] {
            let none = told(table_bytes).unwrap_err();
            assert!(!none.contains("at most 0 bytes"), "{none}");
            let way_out = "No prefix is short enough: use fewer parts in `partition_by`, or begin a new archive";
            assert!(none.contains(way_out), "{none}");
        }
    }
}
