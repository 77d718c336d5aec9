//! Members of a stream, as a node's Metadata lists them.

use super::error::{BrokerError, Missing};
use super::options::{ConnectOptions, Endpoint};
use crate::types::StreamName;
use crate::wire::commands::{MetadataResponse, Node, ResponseCode};

/// Members of a stream, by their advertised addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) leader: Option<Endpoint>,
    pub(super) replicas: Vec<Endpoint>,
}

impl Members {
    /// The stream's members.
    ///
    /// # Errors
    /// If there is none that could be used.
    pub(super) fn of(
        answer: &MetadataResponse,
        stream: &StreamName,
        options: &ConnectOptions,
    ) -> Result<Members, BrokerError> {
        let found = answer.stream(stream).ok_or_else(|| unavailable(stream, "no metadata came"))?;
        match found.code {
            ResponseCode::Ok => {}
            ResponseCode::StreamDoesNotExist => {
                return Err(BrokerError::StreamMissing(Missing {
                    stream: stream.clone(),
                    vhost: options.vhost.clone(),
                }));
            }
            // Sent only to a user without any permission here; other refusals come when
            // subscribing.
            ResponseCode::AccessRefused => {
                return Err(BrokerError::AccessRefused {
                    stream: stream.clone(),
                    user: options.user().to_owned(),
                    vhost: options.vhost.clone(),
                });
            }
            other => return Err(unavailable(stream, other.describe())),
        }
        let endpoint = |node: &Node| {
            let port = u16::try_from(node.port).ok()?;
            Some(Endpoint { host: node.host.clone(), port })
        };
        let members = Members {
            leader: found.leader.as_ref().and_then(endpoint),
            replicas: found.replicas.iter().filter_map(endpoint).collect(),
        };
        if members == Members::default() {
            return Err(unavailable(
                stream,
                "it has neither a leader nor a replica at the moment, for instance during an election",
            ));
        }
        Ok(members)
    }

    /// An address that the broker gives for several members: they cannot be told apart by it.
    pub(super) fn shared_address(&self) -> Option<&Endpoint> {
        let mut all = self.replicas.iter().chain(&self.leader).enumerate();
        let is_earlier =
            |nth: usize, node| self.replicas.get(..nth).is_some_and(|before| before.contains(node));
        all.find(|(nth, node)| is_earlier(*nth, node)).map(|(_, node)| node)
    }
}

/// The error for a stream that no node can serve now.
pub(super) fn unavailable(stream: &StreamName, detail: &str) -> BrokerError {
    BrokerError::StreamUnavailable { stream: stream.clone(), detail: detail.to_owned() }
}

/// The error for a leader whose word is needed.
pub(super) fn out_of_reach(stream: &StreamName, why: impl Into<String>) -> BrokerError {
    BrokerError::LeaderOutOfReach { stream: stream.clone(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_several_members_is_found() {
        let at = |port| Endpoint { host: "node".to_owned(), port };
        let members = |leader: Option<u16>, replicas: &[u16]| Members {
            leader: leader.map(at),
            replicas: replicas.iter().copied().map(at).collect(),
        };
        assert_eq!(members(Some(1), &[2, 3]).shared_address(), None);
        assert_eq!(members(None, &[]).shared_address(), None);
        assert_eq!(members(Some(3), &[2, 3]).shared_address(), Some(&at(3)));
        assert_eq!(members(None, &[2, 2]).shared_address(), Some(&at(2)));
    }
}
