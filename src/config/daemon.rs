//! Configuration of the whole daemon, as validated values.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admin::AdminConfig;
use super::cases::TestConfig;
use super::consumer::ConsumerConfig;
use super::traces::TracesConfig;
use super::watch::WatchConfig;
use crate::settings::{BrokerConfig, HumanDuration};

/// The validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it was read from; `None` if there was none.
    pub path: Option<PathBuf>,
    /// SHA-256 of that file's content, in hexadecimal.
    pub sha256: String,
    /// Connection to the broker.
    pub broker: BrokerConfig,
    /// The HTTP server for metrics, health and status.
    pub admin: AdminConfig,
    /// Format and level of the log.
    pub log: LogConfig,
    /// Traces that are sent to an OpenTelemetry collector; `None` if none are.
    pub traces: Option<TracesConfig>,
    /// Variables of OpenTelemetry that cannot be used, so that no traces are sent.
    pub traces_ignored: Vec<String>,
    /// Folder for the daemon's own state.
    pub state_dir: PathBuf,
    /// Time limit of a drain at shutdown.
    pub shutdown_grace: HumanDuration,
    /// The consumers, in the order of the file. At least one, if there are no watches.
    pub consumers: Vec<ConsumerConfig>,
    /// References of other programs, of which the lag is shown.
    pub watches: Vec<WatchConfig>,
    /// Cases of the consumers' programs.
    pub tests: Vec<TestConfig>,
}

/// `[log]`: format and level of the log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct LogConfig {
    /// `text` for people, `json` (one object per line) for programs.
    pub format: LogFormat,
    /// The least severe level that is logged. The environment variables `RILLWAY_LOG` and
    /// `RUST_LOG` (the former before the latter) override it, and take directives for parts of the
    /// program, as in `info,rillway::broker=debug`.
    pub level: LogLevel,
    /// The directives of `RILLWAY_LOG` or `RUST_LOG`; `None` if neither is set.
    #[serde(skip)]
    pub directives: Option<String>,
}

impl LogConfig {
    /// Filter of the log: the environment's directives, or else the level.
    pub fn filter(&self) -> &str {
        self.directives.as_deref().unwrap_or(self.level.as_str())
    }
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// A loss, or an operator must act.
    Error,
    /// A failure that was handled.
    Warn,
    /// Events of normal operation.
    #[default]
    Info,
    /// Details of normal operation.
    Debug,
    /// Every frame.
    Trace,
}

impl LogLevel {
    /// The level as a directive of the log's filter.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}
