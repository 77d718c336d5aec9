//! Handles one request. The routes are listed in the parent module.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{ALLOW, CONNECTION, CONTENT_SECURITY_POLICY, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use super::answer::{Answer, HTML, JSON, PROMETHEUS, TEXT, error, json, respond};
use super::body::{self, Unread};
use super::commands::{self, Ordered};
use super::control::{Control, Verb};
use super::door::{Door, Errand, Refusal, Sight};
use super::limits::BODY_BYTES_MAX;
use super::overview::{HistoryView, Overview};
use super::seek;
use super::status::Status;
use super::{page, ready};
use crate::telemetry;

/// Description of the API.
const OPENAPI: &str = include_str!("../../docs/openapi.json");

pub(super) const ROUTES: &[&str] = &[
    "GET /",
    "GET /metrics",
    "GET /livez",
    "GET /readyz",
    "GET /api/v1/consumers",
    "GET /api/v1/watches",
    "GET /api/v1/status",
    "GET /api/v1/history",
    "GET /api/v1/openapi.json",
    "GET /api/v1/config",
    "GET /api/v1/log-level",
    "PUT /api/v1/log-level",
    "POST /api/v1/consumers/{name}/pause",
    "POST /api/v1/consumers/{name}/resume",
    "POST /api/v1/consumers/{name}/restart",
    "POST /api/v1/consumers/{name}/commit",
    "POST /api/v1/consumers/{name}/skip",
    "POST /api/v1/consumers/{name}/seek",
    "POST /api/v1/reload",
    "POST /api/v1/drain",
];

/// Data that answers are made from.
pub(super) struct Site {
    pub(super) overview: Arc<dyn Overview>,
    pub(super) control: Arc<dyn Control>,
    pub(super) metrics: PrometheusHandle,
    pub(super) door: Door,
}

/// A known path.
enum Route<'a> {
    Page,
    Metrics,
    Live,
    Ready,
    Consumers,
    Watches,
    Status,
    History,
    OpenApi,
    Config,
    LogLevel,
    Change(Verb, &'a str),
    Commit(&'a str),
    Skip(&'a str),
    Seek(&'a str),
    Reload,
    Drain,
}

impl Route<'_> {
    fn find(path: &str) -> Option<Route<'_>> {
        Some(match path {
            "/" => Route::Page,
            "/metrics" => Route::Metrics,
            "/livez" => Route::Live,
            "/readyz" => Route::Ready,
            "/api/v1/consumers" => Route::Consumers,
            "/api/v1/watches" => Route::Watches,
            "/api/v1/status" => Route::Status,
            "/api/v1/history" => Route::History,
            "/api/v1/openapi.json" => Route::OpenApi,
            "/api/v1/config" => Route::Config,
            "/api/v1/log-level" => Route::LogLevel,
            "/api/v1/reload" => Route::Reload,
            "/api/v1/drain" => Route::Drain,
            _ => {
                let (name, verb) = path.strip_prefix("/api/v1/consumers/")?.split_once('/')?;
                if name.is_empty() {
                    return None;
                }
                match verb {
                    "pause" => Route::Change(Verb::Pause, name),
                    "resume" => Route::Change(Verb::Resume, name),
                    "restart" => Route::Change(Verb::Restart, name),
                    "commit" => Route::Commit(name),
                    "skip" => Route::Skip(name),
                    "seek" => Route::Seek(name),
                    _ => return None,
                }
            }
        })
    }

    fn allow(&self) -> &'static str {
        match self {
            Route::Change(..)
            | Route::Commit(_)
            | Route::Skip(_)
            | Route::Seek(_)
            | Route::Reload
            | Route::Drain => "POST",
            Route::LogLevel => "GET, HEAD, PUT",
            _ => "GET, HEAD",
        }
    }

    fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// What a request of this method is for: everything but GET and HEAD may change something.
    fn errand(&self, method: &Method) -> Errand {
        match self {
            _ if !matches!(*method, Method::GET | Method::HEAD) => Errand::Change,
            Route::Live | Route::Ready => Errand::Health,
            _ => Errand::Read,
        }
    }

    /// Most bytes of a body.
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }
}

/// Answers a request. HEAD is answered like GET; hyper leaves out the body.
pub(super) async fn answer<B>(site: &Site, request: Request<B>) -> Answer
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let route = Route::find(head.uri.path());
    let bytes_max = route.as_ref().map_or(BODY_BYTES_MAX, Route::body_bytes_max);
    if body::is_announced_over(&body, bytes_max) {
        return unread(body::too_large(bytes_max));
    }
    let Some(route) = route else {
        let body = json!({ "error": "there is nothing at this path", "routes": ROUTES });
        return json(StatusCode::NOT_FOUND, &body);
    };
    if !route.allows(&head.method) {
        let text = format!("this path accepts {}", route.allow());
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &text);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allow()));
        return answer;
    }
    let errand = route.errand(&head.method);
    let sight = match site.door.admit(&head, errand).await {
        Ok(sight) => sight,
        Err(refusal) if matches!(route, Route::Page) => {
            let mut answer = refused(&refusal);
            let page = page(page::locked);
            *answer.body_mut() = page.body().clone();
            answer.headers_mut().extend(page.headers().clone());
            return answer;
        }
        Err(refusal) => return refused(&refusal),
    };
    // After the door, so that only who may send a command makes the server read one.
    let body = match errand {
        Errand::Change => body::read(body, bytes_max).await,
        Errand::Read | Errand::Health => Ok(Bytes::new()),
    };
    let body = match body {
        Ok(body) => body,
        Err(problem) => return unread(problem),
    };
    let query = head.uri.query();
    let control = &*site.control;
    match route {
        Route::Page => page(|nonce| page::render(&status(site), &site.overview.histories(), nonce)),
        Route::Metrics => {
            site.overview.refresh_gauges();
            respond(StatusCode::OK, PROMETHEUS, telemetry::page::render(&site.metrics))
        }
        Route::Live => match site.overview.live() {
            Ok(()) => respond(StatusCode::OK, TEXT, "ok\n"),
            Err(_) if sight == Sight::Health => {
                respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "a loop is stuck\n")
            }
            Err(stuck) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, stuck + "\n"),
        },
        Route::Ready => match ready::ready(&site.overview.consumers(), query) {
            Ok((all, body)) => {
                let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                match sight {
                    Sight::Health => json(status, &json!({ "ready": all })),
                    Sight::All => json(status, &body),
                }
            }
            Err(text) => error(StatusCode::BAD_REQUEST, &text),
        },
        Route::Consumers => {
            json(StatusCode::OK, &json!({ "consumers": site.overview.consumers() }))
        }
        Route::Watches => json(StatusCode::OK, &json!({ "watches": site.overview.watches() })),
        Route::Status => json(StatusCode::OK, &status(site)),
        Route::History => {
            let histories = site.overview.histories();
            let all: Vec<_> = histories.iter().map(HistoryView::json).collect();
            json(StatusCode::OK, &json!({ "consumers": all }))
        }
        Route::OpenApi => respond(StatusCode::OK, JSON, OPENAPI),
        Route::Config => json(StatusCode::OK, &control.configuration()),
        Route::LogLevel => match errand {
            Errand::Change => commands::set_log_filter(control, &body),
            Errand::Read | Errand::Health => commands::log_filter(control),
        },
        Route::Change(verb, name) => match Ordered::read(name, query) {
            Ok(ordered) => commands::change(control, verb, &ordered).await,
            Err(why) => error(StatusCode::BAD_REQUEST, &why),
        },
        Route::Commit(name) => match Ordered::read(name, query) {
            Ok(ordered) => commands::commit(&*site.overview, &ordered).await,
            Err(why) => error(StatusCode::BAD_REQUEST, &why),
        },
        Route::Skip(name) => match Ordered::read(name, query) {
            Ok(ordered) => commands::skip(control, &ordered, &body).await,
            Err(why) => error(StatusCode::BAD_REQUEST, &why),
        },
        Route::Seek(name) => match Ordered::read(name, query) {
            Ok(ordered) => seek::seek(control, &ordered, &body).await,
            Err(why) => error(StatusCode::BAD_REQUEST, &why),
        },
        Route::Reload => commands::reload(control, query).await,
        Route::Drain => commands::drain(control),
    }
}

fn status(site: &Site) -> Status {
    Status::new(&site.overview.consumers(), &site.overview.watches())
}

/// A page, which makes it with its nonce.
fn page(render: impl FnOnce(&str) -> String) -> Answer {
    let made = page::nonce().and_then(|nonce| Some((page::policy(&nonce)?, render(&nonce))));
    let Some((policy, page)) = made else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "this system has no random numbers");
    };
    let mut answer = respond(StatusCode::OK, HTML, page);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let mut answer = error(refusal.status, refusal.text);
    if let Some(challenge) = refusal.challenge() {
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// The rest of the body is not read, so the connection cannot be used again.
fn unread((status, text): Unread) -> Answer {
    let mut answer = error(status, &text);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
