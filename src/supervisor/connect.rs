//! Makes connection options from the configuration.

use crate::broker::{ConnectOptions, Endpoint, Mechanism};
use crate::config;

/// Connection options of the broker; `name` is shown in its list of connections.
pub(super) fn connect_options(broker: &config::BrokerConfig, name: &str) -> ConnectOptions {
    ConnectOptions {
        seeds: broker
            .addresses
            .iter()
            .map(|a| Endpoint { host: a.host.clone(), port: a.port })
            .collect(),
        vhost: broker.vhost.clone(),
        mechanism: match (broker.mechanism, &broker.oauth) {
            (_, Some(tokens)) => {
                Mechanism::Token { username: broker.username.clone(), tokens: tokens.clone() }
            }
            (config::Mechanism::Plain, None) => Mechanism::Plain {
                username: broker.username.clone(),
                password: broker.password.clone(),
            },
            (config::Mechanism::External, None) => Mechanism::External,
        },
        tls: broker.tls.as_ref().map(config::TlsConfig::options),
        heartbeat: broker.heartbeat.0,
        connect_timeout: broker.connect_timeout.0,
        request_timeout: broker.request_timeout.0,
        follow_advertised_hosts: broker.follow_advertised_hosts,
        name: name.to_owned(),
        sharing: None,
    }
}
