//! Chooses the node to connect to: seeds, metadata, replicas.
//!
//! A subscription needs a node that has a member of the stream. Replicas are preferred, which
//! leaves the leader to the publishers. The leader is used if there is no replica, or if the caller
//! needs the newest state of the stream.

use super::connection::Connection;
use super::error::{BrokerError, Missing};
use super::options::{ConnectOptions, Endpoint};
use super::publishing::Creation;
use crate::types::StreamName;
use crate::wire::commands::{Metadata, MetadataResponse, ResponseCode};

/// Choice of the stream's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// Any replica, at random; the leader if there is none.
    Replica,
    /// Only the leader. It is never behind, so only its answer counts if a stream seems to end too
    /// early or to begin too late.
    Leader,
}

/// Connects to a node that has a member of the stream.
pub async fn connect_to_stream(
    options: &ConnectOptions,
    stream: &StreamName,
    prefer: Prefer,
) -> Result<Connection, BrokerError> {
    let seed = connect_to_seed(options).await?;
    if !options.follow_advertised_hosts && prefer == Prefer::Replica {
        return Ok(seed);
    }
    let request = Metadata { streams: vec![stream.clone()] };
    let answer = seed.call(&request).await.map_err(|error| seed.about(stream, error))?;
    let candidates = candidates(&answer, stream, prefer, options)?;
    if !options.follow_advertised_hosts {
        // Behind a load balancer the next attempt may reach the leader.
        let is_leader = candidates.iter().any(|c| Some(c) == seed.advertised());
        let is_alone = answer.nodes.len() == 1;
        return match is_leader || is_alone {
            true => Ok(seed),
            false => Err(unavailable(
                stream,
                "only its leader can answer now, and this node is not the leader (broker.follow_advertised_hosts is false, so no other node is tried)",
            )),
        };
    }
    if candidates.iter().any(|c| Some(c) == seed.advertised()) && prefer == Prefer::Replica {
        // The seed has a member itself, which is as good as one elsewhere.
        return Ok(seed);
    }
    let mut last = None;
    for candidate in candidates {
        if Some(&candidate) == seed.advertised() {
            return Ok(seed);
        }
        match Connection::open(&candidate, options).await {
            Ok(connection) => {
                seed.close().await;
                return Ok(connection);
            }
            Err(error) => {
                tracing::warn!(%stream, node = %candidate, %error, "a node with a member of the stream cannot be reached");
                last = Some(match error {
                    BrokerError::Connect { endpoint, what } => BrokerError::Connect {
                        endpoint,
                        what: format!(
                            "{what} (the broker advertises this address; if it cannot be reached from here, set broker.follow_advertised_hosts = false, or the broker's stream.advertised_host)"
                        ),
                    },
                    other => other,
                });
            }
        }
    }
    Err(last.unwrap_or_else(|| unavailable(stream, "it has no member that can be reached")))
}

/// Creates the stream with the broker's defaults, through any node. An existing stream or queue of
/// this name is left as it is.
pub async fn create_stream(
    options: &ConnectOptions,
    stream: &StreamName,
) -> Result<Creation, BrokerError> {
    let seed = connect_to_seed(options).await?;
    let created = seed.create_stream(stream).await;
    seed.close().await;
    created
}

/// Connects to any of the seeds.
pub(super) async fn connect_to_seed(options: &ConnectOptions) -> Result<Connection, BrokerError> {
    let mut seeds = options.seeds.clone();
    fastrand::shuffle(&mut seeds);
    let mut failed = Vec::new();
    for seed in &seeds {
        match Connection::open(seed, options).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                if seeds.len() > 1 {
                    tracing::debug!(node = %seed, %error, "this node cannot be used");
                }
                failed.push((seed, error));
            }
        }
    }
    // Sorted as in the configuration, so that the same failures give the same text and are not
    // logged again.
    failed.sort_by_key(|(seed, _)| options.seeds.iter().position(|given| given == *seed));
    let failed: Vec<_> = failed.into_iter().map(|(_, error)| error).collect();
    match <[BrokerError; 1]>::try_from(failed) {
        Ok([only]) => Err(only),
        Err(all) => Err(BrokerError::NoNode(all.into())),
    }
}

/// The nodes to try, best first.
pub(super) fn candidates(
    answer: &MetadataResponse,
    stream: &StreamName,
    prefer: Prefer,
    options: &ConnectOptions,
) -> Result<Vec<Endpoint>, BrokerError> {
    let found = answer.stream(stream).ok_or_else(|| unavailable(stream, "no metadata came"))?;
    match found.code {
        ResponseCode::Ok => {}
        ResponseCode::StreamDoesNotExist => {
            return Err(BrokerError::StreamMissing(Missing {
                stream: stream.clone(),
                vhost: options.vhost.clone(),
            }));
        }
        // Sent only to a user without any permission here; other refusals come when subscribing.
        ResponseCode::AccessRefused => {
            return Err(BrokerError::AccessRefused {
                stream: stream.clone(),
                user: options.user().to_owned(),
                vhost: options.vhost.clone(),
            });
        }
        other => return Err(unavailable(stream, other.describe())),
    }
    let endpoint = |node: &crate::wire::commands::Node| {
        let port = u16::try_from(node.port).ok()?;
        Some(Endpoint { host: node.host.clone(), port })
    };
    let leader = found.leader.as_ref().and_then(endpoint);
    let mut replicas: Vec<_> = found.replicas.iter().filter_map(endpoint).collect();
    fastrand::shuffle(&mut replicas);
    let all = match prefer {
        Prefer::Replica => replicas.into_iter().chain(leader).collect::<Vec<_>>(),
        Prefer::Leader => leader.into_iter().collect(),
    };
    if all.is_empty() {
        return Err(unavailable(
            stream,
            "it has neither a leader nor a replica at the moment, for instance during an election",
        ));
    }
    Ok(all)
}

fn unavailable(stream: &StreamName, detail: &str) -> BrokerError {
    BrokerError::StreamUnavailable { stream: stream.clone(), detail: detail.to_owned() }
}
