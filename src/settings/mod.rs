//! Value types of configuration keys: sizes, durations, secrets, TLS, a broker's address, typed
//! columns; and [`Problem`], which reports a wrong one.
//!
//! These types are shared by `[broker]`, `[[consumer]]` and the sinks. A sink's own keys are
//! declared in the sink's folder and use these types; `config` reads the file, and combines them
//! all.
//!
//! Invariants: no `Debug`, `Display` or error here shows a secret or the password of a URI; a
//! written value reads back as the same value.
//!
//! Knows nothing of the file, the environment, or the list of sinks.

pub mod broker;
pub mod columns;
pub mod format;
pub mod oauth;
pub mod paths;
pub mod problem;
pub mod read;
mod routing;
pub mod secret;
pub mod start;
pub mod tls;
pub mod units;
pub mod upsert;
mod uri;

pub use broker::{BrokerConfig, BrokerKeys, Mechanism};
pub use columns::ColumnsConfig;
pub use oauth::OauthKeys;
pub use problem::{Problem, join};
pub use start::Start;
pub use tls::TlsConfig;
pub use units::{ByteSize, HumanDuration, OrNever};
pub use uri::{BrokerAddress, Protocol};
