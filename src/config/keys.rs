//! The top-level keys of the file; the JSON Schema of the whole file is made from them.

use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use super::admin::AdminConfig;
use super::cases::TestKeys;
use super::consumer::ConsumerKeys;
use super::daemon::LogConfig;
use super::traces::TracesKeys;
use super::watch::WatchKeys;
use crate::settings::{BrokerKeys, HumanDuration};

/// Rillway's configuration.
///
/// Relative paths start at the folder of the configuration file. Every key can be overridden by an
/// environment variable: `RILLWAY__BROKER__HEARTBEAT`, `RILLWAY__CONSUMER__0__MEMORY`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
#[schemars(title = "Rillway configuration")]
pub(super) struct RootKeys {
    /// Connection to the broker, and login.
    pub(super) broker: BrokerKeys,
    /// The HTTP server for metrics, health, status and commands.
    pub(super) admin: AdminConfig,
    /// Format and level of the log.
    pub(super) log: LogConfig,
    /// Traces: what takes time is sent to an OpenTelemetry collector. Absent: only if the environment says so.
    pub(super) traces: Option<TracesKeys>,
    /// Folder for the daemon's own state: for each consumer, the last durable position. Default:
    /// systemd's `$STATE_DIRECTORY`, or else `rillway-state` in the folder of the configuration
    /// file. Keep it across restarts: without it, a consumer whose offset was lost on the broker
    /// cannot be distinguished from a new one.
    pub(super) state_dir: Option<PathBuf>,
    /// Time limit for consumers, at shutdown, to write what they hold and to store their offsets. A
    /// consumer that takes longer is aborted and named in the log; its last messages are repeated
    /// at the next start.
    pub(super) shutdown_grace: HumanDuration,
    /// The consumers.
    #[schemars(with = "Vec<ConsumerKeys>")]
    pub(super) consumer: Vec<Value>,
    /// References of other programs, of which the lag is shown.
    #[schemars(with = "Vec<WatchKeys>")]
    pub(super) watch: Vec<Value>,
    /// Cases of the consumers' programs, for `rillway test`.
    #[schemars(with = "Vec<TestKeys>")]
    pub(super) test: Vec<Value>,
}

impl Default for RootKeys {
    fn default() -> Self {
        Self {
            broker: BrokerKeys::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            traces: None,
            state_dir: None,
            shutdown_grace: HumanDuration::secs(10),
            consumer: Vec::new(),
            watch: Vec::new(),
            test: Vec::new(),
        }
    }
}

/// The JSON Schema of the configuration file.
pub fn document() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<RootKeys>().to_value()
}
