//! `address_map` and `load_balancer`: which address stands for a node.

use std::collections::BTreeMap;

use super::uri::{BrokerAddress, Protocol};

/// Most entries of `address_map`.
const ENTRIES_MAX: usize = 1000;

/// Checks the keys, and returns the entries of `address_map` that are well-formed.
pub(super) fn check(
    protocol: Protocol,
    follow_advertised_hosts: bool,
    load_balancer: bool,
    address_map: &BTreeMap<String, String>,
    bad: &mut impl FnMut(&str, &str),
) -> Vec<(BrokerAddress, BrokerAddress)> {
    if protocol == Protocol::Amqp {
        let no_nodes = "AMQP 0.9.1 tells no addresses of nodes, so it has no effect: remove it, or use rabbitmq-stream://";
        if load_balancer {
            bad("load_balancer", no_nodes);
        }
        if !address_map.is_empty() {
            bad("address_map", no_nodes);
        }
    } else if load_balancer {
        if !follow_advertised_hosts {
            bad(
                "load_balancer",
                "it connects only to the addresses given here, as `follow_advertised_hosts = false` does, and looks for the wanted node behind them: remove one of the two",
            );
        }
        if !address_map.is_empty() {
            bad(
                "address_map",
                "with `load_balancer = true` no advertised address is connected to, so it has no effect: remove one of the two",
            );
        }
    } else if !follow_advertised_hosts && !address_map.is_empty() {
        bad(
            "address_map",
            "with `follow_advertised_hosts = false` no advertised address is connected to, so it has no effect: remove one of the two",
        );
    }
    if address_map.len() > ENTRIES_MAX {
        bad("address_map", &format!("more than {ENTRIES_MAX} entries"));
    }
    let mut found: Vec<(BrokerAddress, BrokerAddress)> = Vec::new();
    for (from, to) in address_map {
        let key = format!("address_map.{from:?}");
        let (advertised, real) = match (address(from), address(to)) {
            (Ok(advertised), Ok(real)) => (advertised, real),
            (Err(what), _) => {
                bad(&key, &format!("the advertised address is not HOST:PORT: {what}"));
                continue;
            }
            (_, Err(what)) => {
                bad(&key, &format!("{to:?} is not HOST:PORT: {what}"));
                continue;
            }
        };
        if advertised == real {
            bad(&key, "it stands for itself: remove the entry");
        } else if let Some((other, _)) = found.iter().find(|(_, other)| *other == real) {
            bad(
                &key,
                &format!(
                    "{real} stands for {other} already, and an address leads to one node. For an address that leads to several, set load_balancer = true instead"
                ),
            );
        } else if found.iter().any(|(from, _)| *from == advertised) {
            bad(&key, "this address has an entry already, in another notation");
        } else {
            found.push((advertised, real));
        }
    }
    found
}

/// `HOST:PORT`, with brackets around an IPv6 address.
fn address(text: &str) -> Result<BrokerAddress, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port")?;
    let port = match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err("the port is not a number from 1 to 65535"),
        Ok(port) => port,
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6,
        None if host.contains(':') => return Err("an IPv6 address stands in brackets"),
        None => host,
    };
    match host {
        "" => Err("there is no host"),
        host if host.contains(['/', '@', ' ', '[', ']']) => {
            Err("a host and a port are wanted, without a scheme, a user or a path")
        }
        host => Ok(BrokerAddress { host: host.to_owned(), port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, host, port) in [("a:1", "a", 1), ("[::1]:5552", "::1", 5552)] {
            let read = address(text).unwrap_or_else(|what| panic!("{text}: {what}"));
            assert_eq!((read.host.as_str(), read.port), (host, port));
            assert_eq!(read.to_string(), text);
        }
        for text in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:5", "u@h:1", "http://h:1", "h:1/x"]
        {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
