//! Who may ask the admin server for what.
//!
//! - A command (any method but GET and HEAD) needs the token, if there is one. Without a token it is
//!   accepted on the loopback interface alone.
//! - Reading is open, unless `protect_reads` is set. Health is always answered; a caller without the token
//!   then learns only whether all is well.
//! - A command that a browser sent for a page of another site is refused: its `Origin` is not the `Host`
//!   that it was sent to. Where no token is needed, the `Host` must also be a name of the loopback
//!   interface: a site that resolves its own name to it (DNS rebinding) sends its own.
//!
//! Invariants: no log line, error or answer contains the token, or what a caller presented; the comparison
//! takes the same time wherever the two differ.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};

use crate::files::{self, Keep, News};
use crate::flow::trouble::Trouble;
use crate::sync::lock;
use crate::telemetry::access::{self, RefusedReason};
use crate::types::Secret;
use crate::types::bearer::BearerToken;

/// Access to one admin server.
pub struct Door {
    is_local: bool,
    token: Option<Arc<Token>>,
    protect_reads: bool,
    /// Refusals of each reason, for the log.
    refusals: Mutex<Vec<(RefusedReason, Trouble)>>,
}

/// The token of the server.
struct Token {
    /// Read again for each caller that presents a token; `None` if the token is fixed.
    file: Option<PathBuf>,
    keep: Keep<BearerToken>,
}

/// Address of a caller: an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) SocketAddr);

/// Kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Asks whether all is well.
    Health,
    /// Reads anything else.
    Read,
    /// Changes something.
    Change,
}

/// How much the caller may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Everything.
    All,
    /// Only whether all is well.
    Health,
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
    reason: RefusedReason,
}

impl Refusal {
    fn new(reason: RefusedReason) -> Refusal {
        let (status, text) = match reason {
            RefusedReason::NoToken => (
                StatusCode::UNAUTHORIZED,
                "this needs the token of [admin] token: send it as `Authorization: Bearer TOKEN`",
            ),
            RefusedReason::WrongToken => (
                StatusCode::UNAUTHORIZED,
                "the token is not that of [admin] token, as its file or its variable holds it now",
            ),
            RefusedReason::NoneConfigured => (
                StatusCode::FORBIDDEN,
                "commands are refused, because this server can be reached from other machines and has no \
                 token: set [admin] token, and send it as `Authorization: Bearer TOKEN`; or let the server \
                 listen on 127.0.0.1",
            ),
            RefusedReason::OtherSite => (
                StatusCode::FORBIDDEN,
                "commands from web pages of other sites are refused: use the server's own page, or a tool such \
                 as curl. Behind a proxy, have it pass the Host header on",
            ),
            RefusedReason::OtherHost => (
                StatusCode::FORBIDDEN,
                "without a token, commands are accepted only under a name of this machine's loopback \
                 interface: send them to 127.0.0.1, [::1] or localhost, or set [admin] token",
            ),
        };
        Refusal { status, text, reason }
    }

    /// Value of `WWW-Authenticate`, where the answer needs one.
    pub(super) fn challenge(&self) -> Option<HeaderValue> {
        match self.reason {
            RefusedReason::NoToken => Some(HeaderValue::from_static("Bearer realm=\"rillway\"")),
            RefusedReason::WrongToken => {
                Some(HeaderValue::from_static("Bearer realm=\"rillway\", error=\"invalid_token\""))
            }
            _ => None,
        }
    }
}

impl Door {
    /// Access to a server at this address, without a token.
    pub fn at(address: SocketAddr) -> Door {
        access::in_use();
        Door {
            is_local: address.ip().to_canonical().is_loopback(),
            token: None,
            protect_reads: false,
            refusals: Mutex::default(),
        }
    }

    /// The same with a token; with `protect_reads`, also for reading. The file, if there is one, is read
    /// again whenever a caller presents a token.
    #[must_use]
    pub fn with_token(
        mut self,
        token: BearerToken,
        file: Option<PathBuf>,
        protect_reads: bool,
    ) -> Door {
        let contents = token.reveal().to_owned();
        self.token = Some(Arc::new(Token { file, keep: Keep::holding(token, &contents) }));
        self.protect_reads = protect_reads;
        self
    }

    /// Admits the request, or refuses it.
    pub(super) async fn admit(&self, request: &Parts, errand: Errand) -> Result<Sight, Refusal> {
        match self.judge(request, errand).await {
            Ok(()) => Ok(Sight::All),
            Err(RefusedReason::NoToken) if errand == Errand::Health => Ok(Sight::Health),
            // A probe with a token that was replaced must not end a healthy daemon.
            Err(RefusedReason::WrongToken) if errand == Errand::Health => {
                access::refused(RefusedReason::WrongToken);
                Ok(Sight::Health)
            }
            Err(reason) => {
                access::refused(reason);
                self.log(request, reason);
                Err(Refusal::new(reason))
            }
        }
    }

    async fn judge(&self, request: &Parts, errand: Errand) -> Result<(), RefusedReason> {
        if errand != Errand::Change {
            return match &self.token {
                Some(token) if self.protect_reads => token.check(&request.headers).await,
                _ => Ok(()),
            };
        }
        let host = host(request);
        if is_of_another_site(&request.headers, host.as_ref()) {
            return Err(RefusedReason::OtherSite);
        }
        match &self.token {
            Some(token) => token.check(&request.headers).await,
            None if !self.is_local => Err(RefusedReason::NoneConfigured),
            None if host.is_some_and(|host| is_loopback(&host)) => Ok(()),
            None => Err(RefusedReason::OtherHost),
        }
    }

    /// Logs a refused request, unless the same has been logged a moment ago. A caller without a token may
    /// be one that asks whether it needs one.
    fn log(&self, request: &Parts, reason: RefusedReason) {
        let mut refusals = lock(&self.refusals);
        let at = refusals.iter().position(|(of, _)| *of == reason).unwrap_or_else(|| {
            refusals.push((reason, Trouble::default()));
            refusals.len() - 1
        });
        let say = refusals.get_mut(at).is_some_and(|(_, row)| row.failed("", Instant::now()));
        if !say || reason == RefusedReason::NoToken {
            return;
        }
        let caller = request.extensions.get::<Caller>().map(|caller| caller.0.to_string());
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        tracing::warn!(
            caller,
            read = is_read,
            reason = Refusal::new(reason).text,
            "the admin server refused a request; further ones are counted in \
             rillway_admin_refused_requests_total"
        );
    }
}

impl Token {
    async fn check(self: &Arc<Self>, headers: &HeaderMap) -> Result<(), RefusedReason> {
        let presented = presented(headers).ok_or(RefusedReason::NoToken)?;
        let token = match &self.file {
            // On a thread of its own: the file may be on a file system that hangs.
            Some(_) => {
                let this = Arc::clone(self);
                tokio::task::spawn_blocking(move || this.current()).await.ok().flatten()
            }
            None => self.current(),
        };
        let is = token.is_some_and(|token| token.is(presented));
        is.then_some(()).ok_or(RefusedReason::WrongToken)
    }

    /// The token that the file holds now; or else, where that is none, the former one.
    fn current(&self) -> Option<Arc<BearerToken>> {
        let read = || match &self.file {
            Some(file) => files::read_secret(file),
            None => Err("the token has no file".to_owned()),
        };
        let make = |text: &String| {
            BearerToken::new(Secret::new(text.as_str())).map_err(|error| error.to_string())
        };
        if self.file.is_none() {
            return self.keep.held();
        }
        let hangs = |_| "the token's file cannot be read".to_owned();
        let (token, news) = self.keep.look(read, make, hangs).ok()?;
        match news {
            News::Same | News::First => {}
            News::Restored => {
                tracing::info!("the file of [admin] token holds the former token again")
            }
            News::Changed => {
                tracing::info!("the file of [admin] token has changed: only the new token counts");
            }
            News::Unusable { error, say } if say => tracing::warn!(
                %error,
                "the file of [admin] token has changed and cannot be used: the former token counts, and a \
                 restart would fail"
            ),
            News::Unusable { .. } => {}
        }
        Some(token)
    }
}

/// The token in the request, whatever it is; `None` without one, and with more than one.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, rest) = one.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

/// The host that the request was sent to; `None` without one, and with more than one.
fn host(request: &Parts) -> Option<Authority> {
    if let Some(host) = request.uri.authority() {
        return Some(host.clone());
    }
    let mut all = request.headers.get_all(HOST).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    Authority::try_from(one.as_bytes()).ok()
}

/// True for a request that a browser sent for a page of another site: it adds these headers, and a page
/// cannot remove them. The scheme is not compared: a proxy may encrypt.
fn is_of_another_site(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let site = headers.get_all("sec-fetch-site").iter();
    if site.into_iter().any(|site| site.as_bytes() != b"same-origin") {
        return true;
    }
    headers.get_all(ORIGIN).iter().any(|origin| {
        let text = origin.to_str().unwrap_or_default();
        let origin = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let origin = origin.and_then(|origin| origin.parse::<Authority>().ok());
        origin.is_none() || origin.as_ref() != host
    })
}

fn is_loopback(host: &Authority) -> bool {
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name.eq_ignore_ascii_case("localhost")
        }
    }
}
