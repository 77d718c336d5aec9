//! Partitions of a super stream.

use super::connection::Connection;
use super::error::BrokerError;
use super::feature::Feature;
use super::locate::connect_to_seed;
use super::options::ConnectOptions;
use super::pool;
use crate::types::StreamName;
use crate::wire::commands::{Partitions, ResponseCode};

/// Names of the super stream's partitions, in their order, without duplicates. Empty if the exchange has
/// no streams.
///
/// With a pool, uses a connection that streams are not read from: while a node is frozen, the others may
/// take long for the answer, and do nothing else on that connection.
pub async fn partitions(
    options: &ConnectOptions,
    super_stream: &StreamName,
) -> Result<Vec<StreamName>, BrokerError> {
    let pool = options.sharing.as_ref().and_then(pool::of);
    let connection = match pool.as_ref().and_then(|pool| pool.asking()) {
        Some(hub) => match hub.any() {
            Some(connection) => connection,
            None => {
                let asking = ConnectOptions { sharing: Some(hub.sharing()), ..options.clone() };
                connect_to_seed(&asking).await?
            }
        },
        None => connect_to_seed(options).await?,
    };
    let answer = ask(&connection, super_stream).await;
    // A node that did not answer the first query would not answer this one either.
    if connection.is_sound() {
        connection.close().await;
    }
    answer
}

pub(super) async fn ask(
    connection: &Connection,
    super_stream: &StreamName,
) -> Result<Vec<StreamName>, BrokerError> {
    connection.require(Feature::SuperStream)?;
    let request = Partitions { super_stream: super_stream.clone() };
    let mut answer = connection.call(&request).await.map_err(|error| match error {
        BrokerError::Refused { code: ResponseCode::StreamDoesNotExist, .. } => {
            BrokerError::SuperStreamMissing {
                super_stream: super_stream.clone(),
                vhost: connection.vhost().to_owned(),
            }
        }
        other => other,
    })?;
    // A stream that is bound under two keys is in the list twice.
    let mut seen = std::collections::HashSet::new();
    answer.retain(|partition| seen.insert(partition.clone()));
    Ok(answer)
}
