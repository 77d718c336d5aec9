//! Partitions of a super stream.

use super::connection::Connection;
use super::error::BrokerError;
use super::locate::connect_to_seed;
use super::options::ConnectOptions;
use super::pool;
use crate::types::StreamName;
use crate::wire::commands::{Partitions, ResponseCode, keys};

/// Names of the super stream's partitions, in their order, each once. An exchange without streams has
/// none.
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
    // A node that did not answer would not answer this either.
    if connection.is_sound() {
        connection.close().await;
    }
    answer
}

async fn ask(
    connection: &Connection,
    super_stream: &StreamName,
) -> Result<Vec<StreamName>, BrokerError> {
    if !connection.supports(keys::PARTITIONS, 1) {
        return Err(BrokerError::NoSuperStreams {
            endpoint: connection.endpoint().clone(),
            version: connection.version().to_owned(),
        });
    }
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
    // A stream that is bound under two keys is in it twice.
    let mut seen = std::collections::HashSet::new();
    answer.retain(|partition| seen.insert(partition.clone()));
    Ok(answer)
}
