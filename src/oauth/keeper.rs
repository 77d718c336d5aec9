//! Keeps the current token of one configuration, and renews it.
//!
//! One task for each configuration and process asks for tokens, so that any number of connections
//! costs one request. A token of an endpoint is renewed after two thirds of its lifetime. A file is read
//! every few seconds. While there is no new token, the current one stays, and the attempts go on.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::endpoint;
use super::file;
use super::options::{TokenOptions, TokenOrigin};
use super::token::{Token, TokenError};
use crate::flow::backoff::Backoff;
use crate::flow::trouble::Trouble;
use crate::sync::lock;
use crate::telemetry::identity::{self, TokenResult};

/// Waits between failed attempts.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_ENDPOINT_MAX: Duration = Duration::from_secs(15);
const RETRY_FILE_MAX: Duration = Duration::from_secs(5);

/// Shortest and longest time between two readings of a token file.
const READ_MIN: Duration = Duration::from_secs(1);
const READ_MAX: Duration = Duration::from_secs(10);

/// A token that the broker refuses is replaced before its time, if it is at least that old.
const REFUSED_AFTER: Duration = Duration::from_secs(15);

/// Longest time over which the connections of the process spread their renewals.
const SPREAD_MAX: Duration = Duration::from_secs(2);

/// A connection may be closed so long before its token has expired by our account: the broker counts in
/// whole seconds.
const EXPIRY_TOLERANCE: Duration = Duration::from_secs(2);

/// The keepers of this process.
static KEEPERS: Mutex<Vec<Arc<Keeper>>> = Mutex::new(Vec::new());

/// The current token, and why there is no newer one.
#[derive(Default)]
struct State {
    token: Option<Token>,
    failure: Option<TokenError>,
}

/// Keeps the current token of one configuration.
pub struct Keeper {
    options: TokenOptions,
    name: String,
    state: watch::Sender<State>,
    wanted: Notify,
    /// A reading of the file that has not ended. On a file system that hangs it takes a thread, and there is
    /// never more than this one.
    reading: tokio::sync::Mutex<Option<JoinHandle<Result<Token, TokenError>>>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Keeper {
    /// The keeper for these options. It begins to work with the first call.
    pub fn of(options: &TokenOptions) -> Arc<Keeper> {
        let mut all = lock(&KEEPERS);
        all.retain(|keeper| !keeper.is_over());
        if let Some(keeper) = all.iter().find(|keeper| keeper.options == *options) {
            return Arc::clone(keeper);
        }
        let keeper = Arc::new(Keeper {
            options: options.clone(),
            name: options.to_string(),
            state: watch::Sender::new(State::default()),
            wanted: Notify::new(),
            reading: tokio::sync::Mutex::new(None),
            task: Mutex::new(None),
        });
        identity::token_in_use(&keeper.name);
        let task = tokio::spawn(Arc::clone(&keeper).keep()).abort_handle();
        *lock(&keeper.task) = Some(task);
        all.push(Arc::clone(&keeper));
        keeper
    }

    /// True once the runtime that it worked on has ended.
    fn is_over(&self) -> bool {
        lock(&self.task).as_ref().is_some_and(AbortHandle::is_finished)
    }

    /// The current token; waits for the first one.
    ///
    /// # Errors
    /// If there is none, after the last attempt failed or the time limit.
    pub async fn token(&self) -> Result<Token, TokenError> {
        let mut watching = self.state.subscribe();
        let limit = self.options.timeout + RETRY_MIN;
        let is_decided = |state: &State| self.usable(state).is_some() || state.failure.is_some();
        match tokio::time::timeout(limit, watching.wait_for(is_decided)).await {
            Ok(Ok(state)) => match (self.usable(&state), &state.failure) {
                (Some(token), _) => Ok(token.clone()),
                (None, Some(failure)) => Err(failure.clone()),
                (None, None) => Err(self.none()),
            },
            Ok(Err(_)) | Err(_) => Err(self.none()),
        }
    }

    fn none(&self) -> TokenError {
        TokenError(format!("there is no access token from {}", self.name))
    }

    /// The token to log in with. One out of a file is used even if it has expired: only the broker's clock
    /// counts, and its refusal is told.
    fn usable<'s>(&self, state: &'s State) -> Option<&'s Token> {
        let token = state.token.as_ref()?;
        match self.options.origin {
            TokenOrigin::File(_) => Some(token),
            TokenOrigin::Endpoint(_) => Some(token).filter(|token| !token.has_expired()),
        }
    }

    /// Renewals of this token, for one connection that was logged in with it.
    pub fn renewals(self: &Arc<Self>, token: Token) -> Renewals {
        Renewals { watching: self.state.subscribe(), keeper: Arc::clone(self), token }
    }

    /// Notes that the broker refused a token; returns an explanation, with what to do.
    pub fn refused(&self, token: &Token) -> String {
        identity::token_renewal(&self.name, TokenResult::Refused);
        if token.acquired.elapsed() >= REFUSED_AFTER {
            self.wanted.notify_one();
        }
        format!(
            "the access token from {} is not accepted. The broker's log has the reason: it has to list \
             rabbit_auth_backend_oauth2 in auth_backends and know the key that signed the token, the token's \
             aud has to hold its auth_oauth2.resource_server_id, its scopes have to allow the virtual host, and \
             it must not have expired by the broker's clock. The token: {}",
            self.name,
            token.facts()
        )
    }

    /// Why a connection may have been closed at this time; `None` if not because of its token.
    fn expiry_of(&self, token: &Token) -> Option<String> {
        if token.left()? > EXPIRY_TOLERANCE {
            return None;
        }
        let failure = self.state.borrow().failure.as_ref().map(ToString::to_string);
        Some(failure.unwrap_or_else(|| format!("no newer one came from {}", self.name)))
    }

    async fn keep(self: Arc<Self>) {
        let retry_max = match self.options.origin {
            TokenOrigin::File(_) => RETRY_FILE_MAX,
            TokenOrigin::Endpoint(_) => RETRY_ENDPOINT_MAX,
        };
        let mut backoff = Backoff::new(RETRY_MIN, retry_max);
        let mut trouble = Trouble::default();
        loop {
            let mut is_fine = true;
            let wait = match self.turn().await {
                Ok(wait) => {
                    backoff.reset();
                    if let Some(past) = trouble.over(Instant::now()) {
                        tracing::info!(
                            token = self.name,
                            attempts = past.attempts,
                            "there is an access token again"
                        );
                    }
                    wait
                }
                Err(error) => {
                    is_fine = false;
                    identity::token_renewal(&self.name, TokenResult::Failed);
                    if trouble.failed(&error.0, Instant::now()) {
                        tracing::warn!(%error, "no new access token; trying again");
                    }
                    self.state.send_modify(|state| state.failure = Some(error));
                    Some(backoff.next(fastrand::f64()))
                }
            };
            let due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                // Not while attempts fail: those have their own pace.
                () = self.wanted.notified(), if is_fine => {}
            }
        }
    }

    /// One attempt. Returns the time until the next one.
    async fn turn(&self) -> Result<Option<Duration>, TokenError> {
        match &self.options.origin {
            TokenOrigin::File(path) => self.read(path).await.map(Some),
            TokenOrigin::Endpoint(at) => {
                let limit = self.options.timeout;
                let asked = tokio::time::timeout(limit, endpoint::ask(at)).await;
                let token = asked.map_err(|_| {
                    TokenError(format!("no access token from {} within {limit:?}", self.name))
                })??;
                let after = token.lifetime.map(|lifetime| (lifetime * 2 / 3).max(RETRY_MIN));
                self.publish(token);
                Ok(after)
            }
        }
    }

    async fn read(&self, path: &Path) -> Result<Duration, TokenError> {
        let limit = self.options.timeout;
        let mut reading = self.reading.lock().await;
        let of = path.to_owned();
        let task =
            reading.get_or_insert_with(|| tokio::task::spawn_blocking(move || file::read(&of)));
        let read = tokio::time::timeout(limit, task).await.map_err(|_| {
            TokenError(format!("the token in {} was not read within {limit:?}", self.name))
        })?;
        *reading = None;
        let token = read.map_err(|error| TokenError(error.to_string()))??;
        let left = token.left();
        if left == Some(Duration::ZERO) {
            let error = TokenError(format!(
                "the token in {} has expired: have it replaced, or correct the clock here. The token: {}",
                self.name,
                token.facts()
            ));
            if self.state.borrow().token.as_ref().is_none_or(Token::has_expired) {
                self.publish(token);
            }
            return Err(error);
        }
        self.publish(token);
        Ok(left.map_or(READ_MAX, |left| (left / 10).clamp(READ_MIN, READ_MAX)))
    }

    fn publish(&self, token: Token) {
        let former = self.state.borrow().token.clone();
        let is_same = former.as_ref().is_some_and(|former| former.secret() == token.secret());
        let number = former.map_or(1, |former| former.number + u64::from(!is_same));
        if !is_same {
            identity::token_renewal(&self.name, TokenResult::Renewed);
            tracing::debug!(token = self.name, facts = token.facts(), "a new access token");
        }
        identity::token_expiry(&self.name, token.expires_at());
        self.state.send_modify(|state| {
            *state = State { token: Some(token.numbered(number)), failure: None };
        });
    }
}

/// Renewals of the token of one connection.
pub struct Renewals {
    keeper: Arc<Keeper>,
    watching: watch::Receiver<State>,
    token: Token,
}

impl Renewals {
    /// Waits until there is a newer token, which is this connection's from then on. Cancel-safe.
    pub async fn newer(&mut self) -> Token {
        let number = self.token.number;
        let is_newer = |state: &State| state.token.as_ref().is_some_and(|t| t.number > number);
        let found = self.watching.wait_for(is_newer).await.map(|state| state.token.clone());
        let Ok(Some(newer)) = found else {
            // Never: the keeper lives as long as this, and there is a token.
            return std::future::pending().await;
        };
        let left = self.token.left().map_or(SPREAD_MAX, |left| left / 10);
        tokio::time::sleep(left.min(SPREAD_MAX).mul_f64(fastrand::f64())).await;
        self.token = newer.clone();
        newer
    }

    /// Notes that the broker refused this connection's token; returns an explanation.
    pub fn refused(&self) -> String {
        self.keeper.refused(&self.token)
    }

    /// Logs why the connection ended, if its token has expired.
    pub fn ended(&self) {
        if let Some(why) = self.keeper.expiry_of(&self.token) {
            tracing::warn!(why, "the connection has ended, and its access token has expired");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A pipe that nobody writes into hangs as a file system may.
    #[tokio::test]
    async fn a_file_that_hangs_takes_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let timeout = Duration::from_millis(50);
        let options = TokenOptions { origin: TokenOrigin::File(path.clone()), timeout };
        let keeper = Keeper {
            name: options.to_string(),
            options,
            state: watch::Sender::new(State::default()),
            wanted: Notify::new(),
            reading: tokio::sync::Mutex::new(None),
            task: Mutex::new(None),
        };
        let mut readings = Vec::new();
        for _ in 0..3 {
            assert!(keeper.read(&path).await.unwrap_err().0.contains("was not read within"));
            readings.push(keeper.reading.lock().await.as_ref().unwrap().id());
        }
        assert!(readings.iter().all(|id| *id == readings[0]), "{readings:?}");
        let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        pipe.write_all(b"opaque").unwrap();
        drop(pipe);
        while keeper.read(&path).await.is_err() {
            assert!(keeper.reading.lock().await.is_some(), "it is the same reading still");
        }
        assert_eq!(keeper.state.borrow().token.as_ref().unwrap().secret().reveal(), "opaque");
    }
}
