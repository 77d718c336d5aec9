//! The values that keys of the configuration take: sizes, durations, secrets, TLS, a broker's address,
//! typed columns; and the [`Problem`] that is reported where one is wrong.
//!
//! These are the shapes that `[broker]`, `[[consumer]]` and the sinks have in common. A sink's own keys
//! stand in the sink's folder and are made of these; `config` reads the file, and composes them all.
//!
//! Invariants: no `Debug`, `Display` or error here shows a secret or the password of a URI; what is
//! written back reads in again as the same value.
//!
//! Must not know: the file, the environment, which sinks there are.

pub mod broker;
pub mod columns;
pub mod format;
pub mod paths;
pub mod problem;
pub mod read;
pub mod secret;
pub mod start;
pub mod tls;
pub mod units;
mod uri;

pub use broker::{BrokerConfig, BrokerKeys, Mechanism};
pub use columns::ColumnsConfig;
pub use problem::{Problem, join};
pub use start::Start;
pub use tls::TlsConfig;
pub use units::{ByteSize, HumanDuration, OrNever};
pub use uri::BrokerAddress;
