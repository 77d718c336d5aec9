//! Asks the daemon's admin server.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::admin::Client;
use crate::cli::Shared;
use crate::cli::door;
use crate::cli::exit::Failure;
use crate::config::Env;

/// Time that an answer may take beyond that for which the daemon waits.
const MARGIN: Duration = Duration::from_secs(15);

/// Most characters that are shown of an answer that is not understood.
const SHOWN_MAX: usize = 300;

/// Where the daemon is.
#[derive(Debug, Args)]
pub(in crate::cli) struct At {
    /// URL of the daemon's admin server, as in http://127.0.0.1:9552 [default: from the environment or the
    /// configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// A daemon that can be asked.
pub(in crate::cli) struct Daemon {
    client: Client,
}

/// An answer to an order that was accepted.
pub(in crate::cli) struct Answer {
    /// False if its effect is still to come.
    pub(in crate::cli) is_done: bool,
    pub(in crate::cli) body: Value,
}

impl Daemon {
    /// The daemon at the URL, or else the one that runs with this configuration.
    pub(in crate::cli) fn of(at: &At, shared: &Shared, env: &Env) -> anyhow::Result<Daemon> {
        let given = at.url.as_deref().map(address_of).transpose()?;
        let address = given.or_else(|| door::address_in(env));
        let admin = shared.load_admin(env);
        let has_tls = admin.as_ref().is_ok_and(|admin| admin.tls.is_some());
        at.url.as_deref().map_or(Ok(()), |url| agrees(url, has_tls))?;
        let configured = admin.and_then(|admin| door::client(&admin, address));
        let client = match (configured, address) {
            (Ok(client), _) => client,
            // The daemon may run with another configuration.
            (Err(_), Some(address)) => Client::new(address),
            (Err(error), None) => return Err(error),
        };
        Ok(Daemon { client })
    }

    /// Sends an order for whose effect the daemon waits this long.
    ///
    /// # Errors
    /// If there is no answer, or it is a refusal.
    pub(in crate::cli) fn order(
        &self,
        method: &str,
        path: &str,
        body: &str,
        wait: Duration,
    ) -> anyhow::Result<Answer> {
        let answered = self.client.call(method, path, body, wait + MARGIN);
        let (status, text) = answered.map_err(Failure::unavailable)?;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let is_done = match status {
            200 => true,
            202 => false,
            _ => {
                let why = body["error"].as_str().map_or_else(
                    || format!("the daemon answered {status}: {}", beginning(&text)),
                    str::to_owned,
                );
                return Err(match status {
                    400 | 404 => Failure::Usage(why),
                    422 => Failure::Config(why),
                    _ => Failure::Unavailable(why),
                }
                .into());
            }
        };
        Ok(Answer { is_done, body })
    }

    /// Whether anything answers there.
    pub(super) fn is_there(&self) -> bool {
        self.client.get("/livez").is_ok()
    }
}

/// A name as a part of a path or a query.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn beginning(text: &str) -> String {
    text.trim_end().chars().take(SHOWN_MAX).collect()
}

/// The URL's scheme says how the configuration has it: else the token would cross the network in clear.
fn agrees(url: &str, has_tls: bool) -> Result<(), Failure> {
    let what = match url.split_once("://") {
        Some(("https", _)) if !has_tls => {
            "the configuration has no [admin] tls, by which it would be encrypted"
        }
        Some(("http", _)) if has_tls => "the configuration has [admin] tls: write https://",
        _ => return Ok(()),
    };
    Err(Failure::Usage(format!("--url {url}: {what}")))
}

fn address_of(url: &str) -> Result<SocketAddr, Failure> {
    let bare = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or(url);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let wrong = |why: String| {
        Failure::Usage(format!(
            "--url {url}: {why}. Expected http://HOST:PORT, as in http://127.0.0.1:9552"
        ))
    };
    let mut all = bare.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    all.next().ok_or_else(|| wrong("the host has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_a_scheme() {
        for url in ["http://127.0.0.1:9552", "127.0.0.1:9552", "http://127.0.0.1:9552/"] {
            assert_eq!(address_of(url).unwrap().to_string(), "127.0.0.1:9552", "{url}");
        }
        for url in ["", "http://127.0.0.1", "http://127.0.0.1:9552/api", "ftp://127.0.0.1:1"] {
            let told = address_of(url).unwrap_err().to_string();
            assert!(told.contains("Expected http://HOST:PORT"), "{told}");
        }
    }

    #[test]
    fn names_are_encoded_whatever_they_hold() {
        assert_eq!(encoded("a b/c?d&e=ü"), "a%20b%2Fc%3Fd%26e%3D%C3%BC");
    }
}
