//! The configuration: a TOML file, overlaid by the environment, as validated values.
//!
//! A [`Config`] is plain data. Whoever holds one may rely on what was checked here: names fit where
//! they are used, limits are not zero, a batch fits into its consumer's memory, no two consumers
//! share an offset or a folder, every secret has been read, every path is joined to the folder of
//! the configuration file.
//!
//! Invariants: no text of an error, `Debug` or `Display` holds a secret or the password of a URI;
//! an unknown key is an error, never passed over; of what is wrong, as much as can be found is
//! reported at once.
//!
//! It reads the file, the environment that it is given and the files of secrets, and does nothing
//! else: it must not know brokers, clocks or sockets, and of a sink no more than its
//! [`Declaration`](crate::sink::declaration::Declaration).
//!
//! The way through: [`load`] merges the layers into one tree, [`schema`] names the keys that nobody
//! knows and finds the places of secrets, [`secrets`] fills them in, and the types of [`keys`],
//! [`consumer`] and the sinks' registry take the tree apart.

pub mod consumer;
mod daemon;
mod env;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod load;
mod schema;
mod secrets;
mod shape;
mod text;
mod validate;

#[cfg(test)]
mod tests;

pub use consumer::{
    BatchConfig, CommitConfig, ConsumerConfig, OnBadMessage, OnOffsetLost, RestartConfig,
};
pub use daemon::{AdminConfig, Config, LogConfig, LogFormat, LogLevel};
pub use env::Env;
pub use error::{ConfigError, EXIT_BAD_CONFIG};
pub use keys::document;

pub use crate::settings::{
    BrokerAddress, BrokerConfig, ByteSize, HumanDuration, Mechanism, OrNever, Problem, Start,
    TlsConfig,
};
pub use crate::sink::registry::SinkConfig;
