//! The keys of the file's root, from which the JSON Schema of the whole file is made.

use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use super::consumer::ConsumerKeys;
use super::daemon::{AdminConfig, LogConfig};
use crate::settings::{BrokerKeys, HumanDuration};

/// Rillway's configuration.
///
/// Relative paths start at the folder of the configuration file. Every key can be overridden by an
/// environment variable: `RILLWAY__BROKER__HEARTBEAT`, `RILLWAY__CONSUMER__0__MEMORY`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
#[schemars(title = "Rillway configuration")]
pub(super) struct RootKeys {
    /// How to reach the broker, and as whom.
    pub(super) broker: BrokerKeys,
    /// The HTTP server for metrics, health and status.
    pub(super) admin: AdminConfig,
    /// What is logged, and how.
    pub(super) log: LogConfig,
    /// The folder where the daemon keeps what it must remember itself: per consumer, the last
    /// durable position. Default: systemd's `$STATE_DIRECTORY`, or else `rillway-state` in the
    /// folder of the configuration file. Keep it across restarts: without it, a consumer whose
    /// offset was lost on the server cannot be told from a new one.
    pub(super) state_dir: Option<PathBuf>,
    /// How long consumers may take, at shutdown, to write what they hold and to store their
    /// offsets. What is late is aborted, named in the log, and comes again at the next start.
    pub(super) shutdown_grace: HumanDuration,
    /// The consumers.
    #[schemars(with = "Vec<ConsumerKeys>")]
    pub(super) consumer: Vec<Value>,
}

impl Default for RootKeys {
    fn default() -> Self {
        Self {
            broker: BrokerKeys::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            state_dir: None,
            shutdown_grace: HumanDuration::secs(10),
            consumer: Vec::new(),
        }
    }
}

/// The JSON Schema of the configuration file.
pub fn document() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<RootKeys>().to_value()
}
