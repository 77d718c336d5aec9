//! Makes connection options from the configuration.

use crate::broker::{ConnectOptions, Endpoint, Mechanism, Routing};
use crate::config;

/// Connection options of the broker; `name` is shown in its list of connections.
pub(super) fn connect_options(broker: &config::BrokerConfig, name: &str) -> ConnectOptions {
    ConnectOptions {
        seeds: broker.addresses.iter().map(endpoint).collect(),
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
        // Behind a load balancer they are only names.
        follow_advertised_hosts: broker.follow_advertised_hosts && !broker.load_balancer,
        routing: routing(broker),
        name: name.to_owned(),
        sharing: None,
    }
}

fn endpoint(address: &config::BrokerAddress) -> Endpoint {
    Endpoint { host: address.host.clone(), port: address.port }
}

fn routing(broker: &config::BrokerConfig) -> Routing {
    let mapped = |(from, to): &(config::BrokerAddress, config::BrokerAddress)| {
        (endpoint(from), endpoint(to))
    };
    Routing {
        load_balancer: broker.load_balancer,
        address_map: broker.address_map.iter().map(mapped).collect(),
        move_back_after: broker.move_back_after.0.map(|after| after.0),
        exclusive: false,
    }
}
