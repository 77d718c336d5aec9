//! The broker of a command that needs no configuration: a URI, or else the configuration's.

use clap::Args;

use super::exit::Failure;
use super::{Shared, locate};
use crate::config::{BrokerConfig, Config, Env};
use crate::types::Secret;

/// The argument that names a broker.
#[derive(Debug, Args)]
pub(super) struct BrokerArgs {
    /// A broker other than the configuration's: rabbitmq-stream://USER:PASSWORD@HOST:PORT/VHOST, or
    /// amqp://… for AMQP 0.9.1
    #[arg(long, value_name = "URI", value_parser = uri, env = "RILLWAY_BROKER")]
    #[arg(hide_env_values = true, alias = "uri")]
    broker: Option<Secret>,
}

impl BrokerArgs {
    /// The broker of this URI, or the configuration's.
    pub(super) fn broker(&self, shared: &Shared, env: &Env) -> anyhow::Result<BrokerConfig> {
        if let Some(uri) = &self.broker {
            let parsed = BrokerConfig::from_uri_to_read(uri.clone());
            return parsed.map_err(|p| Failure::Usage(format!("--broker: {}", p.message)).into());
        }
        configured(shared, env)
    }
}

/// The configuration's broker; the default one if there is no configuration.
pub(super) fn configured(shared: &Shared, env: &Env) -> anyhow::Result<BrokerConfig> {
    let path = locate::optional(shared.config.as_deref());
    Ok(Config::load_broker(path.as_deref(), env)?)
}

/// A URI as an argument: it may hold a password.
pub(super) fn uri(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}
