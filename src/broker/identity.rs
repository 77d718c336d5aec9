//! What a connection logs in with: asked for before anything is dialled, and for an access token renewed
//! as long as the connection is open.

use std::sync::Arc;
use std::time::Duration;

use super::error::BrokerError;
use super::options::{ConnectOptions, Endpoint, Mechanism};
use super::shared::Shared;
use crate::oauth::{Keeper, Renewals, Token};
use crate::types::Secret;
use crate::wire::commands::{SaslAuthenticate, SaslOutcome};

/// Brokers from this version on take a new token on an open connection, and close it when the token has
/// expired; older ones close it when they are sent one (`rabbit_stream_reader` of v3.12.14 and v3.13.7).
const RENEWS_SINCE: (u32, u32) = (3, 13);

/// What one connection logs in with.
pub(crate) struct Identity<'a> {
    mechanism: &'a Mechanism,
    token: Option<(Arc<Keeper>, Token)>,
}

impl<'a> Identity<'a> {
    /// What these options say; waits for an access token if they name one.
    pub(crate) async fn of(options: &'a ConnectOptions) -> Result<Identity<'a>, BrokerError> {
        let token = match &options.mechanism {
            Mechanism::Plain { .. } | Mechanism::External => None,
            Mechanism::Token { tokens, .. } => {
                let keeper = Keeper::of(tokens);
                let token = keeper.token().await.map_err(|error| BrokerError::NoToken(error.0))?;
                Some((keeper, token))
            }
        };
        Ok(Identity { mechanism: &options.mechanism, token })
    }

    /// User and password of a login by PLAIN; `None` for EXTERNAL.
    pub(crate) fn plain(&self) -> Option<(&str, &Secret)> {
        match (self.mechanism, &self.token) {
            (Mechanism::Plain { username, password }, _) => Some((username.as_str(), password)),
            (Mechanism::Token { username, .. }, Some((_, token))) => {
                Some((username.as_str(), token.secret()))
            }
            (Mechanism::Token { .. }, None) | (Mechanism::External, _) => None,
        }
    }

    /// The error for a refused login.
    pub(crate) fn refused(&self, endpoint: &Endpoint, detail: String) -> BrokerError {
        let endpoint = endpoint.clone();
        match &self.token {
            None => BrokerError::Login { endpoint, detail },
            Some((keeper, token)) => {
                BrokerError::TokenRefused { endpoint, detail, advice: keeper.refused(token) }
            }
        }
    }

    /// Renewals of its token; `None` if it is none.
    pub(crate) fn renewals(&self) -> Option<Renewals> {
        self.token.as_ref().map(|(keeper, token)| keeper.renewals(token.clone()))
    }
}

/// Logs the connection in again with each newer token, until it ends.
pub(super) async fn renew(
    mut renewals: Renewals,
    user: String,
    shared: Arc<Shared>,
    version: (u32, u32),
    limit: Duration,
) {
    let mut ended = shared.ended.subscribe();
    loop {
        let over = async { drop(ended.wait_for(Option::is_some).await) };
        let token = tokio::select! {
            () = over => return renewals.ended(),
            token = renewals.newer() => token,
        };
        if version < RENEWS_SINCE {
            let what = "the access token was renewed, which this broker takes only on a new connection (from RabbitMQ 3.13 on it does so on an open one)";
            return shared.end(BrokerError::Lost(what.into()));
        }
        let endpoint = shared.endpoint.clone();
        let refused = |detail: String| BrokerError::TokenRefused {
            endpoint,
            detail,
            advice: renewals.refused(),
        };
        match shared.call(&SaslAuthenticate::plain(&user, token.secret()), limit).await {
            Ok(SaslOutcome::Done) => {
                tracing::debug!(node = %shared.endpoint, "the broker has the new access token");
            }
            Ok(SaslOutcome::Challenge(_)) => {
                return shared.end(refused("it asks for more than a token".to_owned()));
            }
            Err(BrokerError::Refused { code, .. }) => return shared.end(refused(code.to_string())),
            // With a resource alarm the broker closes the connection instead of answering.
            Err(error) => return shared.end(error),
        }
    }
}
