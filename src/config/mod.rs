//! The configuration: a TOML file, overridden by the environment, as validated values.
//!
//! A [`Config`] is plain, checked data: names fit where they are used, limits are not zero, a batch
//! fits into its consumer's memory, no two consumers share an offset or a folder, every secret has
//! been read, every relative path was resolved against the folder of the configuration file.
//!
//! Invariants: no error, `Debug` or `Display` contains a secret or the password of a URI; an
//! unknown key is an error, never ignored; as many errors as can be found are reported at once.
//!
//! The configuration comes from the file, the given environment and the files of secrets, and nothing
//! else. This module knows nothing of brokers, clocks or sockets, and of a sink only its
//! [`Declaration`](crate::sink::declaration::Declaration).
//!
//! Order: [`load`] merges the layers into one tree, [`schema`] finds unknown keys and references to
//! secrets, [`secrets`] resolves the references, and the types of [`keys`], [`consumer`] and the
//! sinks' registry read the tree.

mod admin;
mod cases;
pub mod consumer;
mod create;
mod daemon;
mod env;
mod error;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod load;
mod names;
mod policies;
mod program;
mod replacing;
mod schema;
mod secrets;
mod shape;
mod text;
mod traces;
mod validate;
mod watch;

#[cfg(test)]
mod tests;

pub use admin::{AdminConfig, AdminTls};
pub use cases::{Expected, TestConfig};
pub use consumer::{
    BatchConfig, CommitConfig, ConsumerConfig, FilterConfig, OnBadMessage, OnOffsetLost,
    RestartConfig,
};
pub use create::CreateConfig;
pub use daemon::{Config, LogConfig, LogFormat, LogLevel};
pub use env::Env;
pub use error::{ConfigError, EXIT_BAD_CONFIG};
pub use keys::document;
pub use replacing::sha256;
pub use traces::TracesConfig;
pub use validate::conflict;
pub use watch::WatchConfig;

pub use crate::settings::{
    BrokerAddress, BrokerConfig, ByteSize, HumanDuration, Mechanism, OrNever, Problem, Protocol,
    Start, TlsConfig,
};
pub use crate::sink::registry::SinkConfig;
