//! Makes an object store from a URL and options.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::layout::prefix;
use super::remote::Remote;
use super::store::Store;
use crate::types::Secret;

/// Time limit for opening a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The store that the URL names.
///
/// # Errors
/// The first problem of the options.
pub(super) fn connect(
    url: &Url,
    options: &[(String, Secret)],
    operation_max: Duration,
) -> Result<Arc<dyn Store>, String> {
    let client = client(url, options, operation_max)?;
    Ok(Arc::new(Remote::new(client, url.to_string(), prefix(url), operation_max)))
}

fn client(
    url: &Url,
    options: &[(String, Secret)],
    operation_max: Duration,
) -> Result<Arc<dyn ObjectStore>, String> {
    // Missing options come from the environment and the machine (AWS_*, instance roles, …).
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
