//! From a URL and options to a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::local::Local;
use super::remote::Remote;
use super::store::Store;
use crate::sink::SinkError;
use crate::types::Secret;
use crate::types::file_name::{FILE_NAME_BYTES_MAX, KEY_BYTES_MAX, KEY_REST_BYTES};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What the stores are told beside the URL: names as `object_store` has them, such as `region`.
pub type Options = Vec<(String, Secret)>;

/// Where objects go.
#[derive(Clone, Debug)]
pub enum Place {
    /// Below a local folder.
    Folder(PathBuf),
    /// Below `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    Store {
        /// The URL.
        url: Url,
        /// Endpoint, region, credentials, …
        options: Options,
        /// How long an operation may take, upload of an object included.
        operation_max: Duration,
    },
}

impl Place {
    /// The most bytes that a stream's part of the keys may have. Object stores that keep objects as
    /// files take no longer part than a file system does.
    pub(super) fn table_bytes_max(&self) -> usize {
        self.former_table_bytes_max().min(FILE_NAME_BYTES_MAX)
    }

    /// The same in versions that only looked at the length of the whole key.
    pub(super) fn former_table_bytes_max(&self) -> usize {
        match self {
            Place::Folder(_) => FILE_NAME_BYTES_MAX,
            Place::Store { url, .. } => {
                KEY_BYTES_MAX.saturating_sub(prefix(url).len() + KEY_REST_BYTES)
            }
        }
    }

    pub(super) async fn open(&self) -> Result<Arc<dyn Store>, SinkError> {
        Ok(match self {
            Place::Folder(root) => Arc::new(Local::open(root.clone()).await?),
            Place::Store { url, options, operation_max } => {
                let store = connect(url, options, *operation_max)
                    .map_err(|why| SinkError::Fatal(format!("{url} cannot be used: {why}")))?;
                let prefix = prefix(url);
                Arc::new(Remote::new(store, url.to_string(), prefix, *operation_max))
            }
        })
    }
}

/// The keys of the URL's objects begin with this.
fn prefix(url: &Url) -> String {
    let path = url.path().trim_matches('/');
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

fn connect(
    url: &Url,
    options: &Options,
    operation_max: Duration,
) -> Result<Arc<dyn ObjectStore>, String> {
    // What the environment and the machine offer (AWS_*, instance roles, …) fills what is not given.
    let retry = RetryConfig { max_retries: 0, retry_timeout: operation_max, ..Default::default() };
    let client = ClientOptions::new()
        .with_timeout(operation_max)
        .with_connect_timeout(CONNECT_MAX)
        .with_allow_http(true);
    let text = url.as_str();
    let failed = |error: object_store::Error| error.to_string();
    let unknown = |name: &str| format!("there is no option {name:?} for {}://", url.scheme());
    Ok(match url.scheme() {
        "s3" | "s3a" => {
            let mut builder = AmazonS3Builder::from_env()
                .with_url(text)
                .with_retry(retry)
                .with_client_options(client);
            for (name, value) in options {
                let key = name.parse().map_err(|_| unknown(name))?;
                builder = builder.with_config(key, value.reveal());
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_url(text)
                .with_retry(retry)
                .with_client_options(client);
            for (name, value) in options {
                let key = name.parse().map_err(|_| unknown(name))?;
                builder = builder.with_config(key, value.reveal());
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        "az" | "abfs" | "abfss" => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_url(text)
                .with_retry(retry)
                .with_client_options(client);
            for (name, value) in options {
                let key = name.parse().map_err(|_| unknown(name))?;
                builder = builder.with_config(key, value.reveal());
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        other => return Err(format!("there is no store for {other}://")),
    })
}
