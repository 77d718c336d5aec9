//! Handles one request. The routes are listed in the parent module.

use std::sync::Arc;

use hyper::body::Body;
use hyper::header::{ALLOW, CONNECTION, CONTENT_SECURITY_POLICY, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::answer::{Answer, HTML, PROMETHEUS, TEXT, error, json, respond};
use super::body::{self, Unread};
use super::door::{Door, Errand, Refusal, Sight};
use super::limits::{BODY_BYTES_MAX, COMMIT_TIME_MAX};
use super::overview::{CommitError, ConsumerView, Overview};
use super::page;
use crate::telemetry;

/// Allows nothing from other hosts, no script, no frame.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

const ROUTES: &[&str] = &[
    "GET /",
    "GET /metrics",
    "GET /livez",
    "GET /readyz",
    "GET /api/v1/consumers",
    "GET /api/v1/watches",
    "POST /api/v1/consumers/{name}/commit",
];

/// Data that answers are made from.
pub(super) struct Site {
    pub(super) overview: Arc<dyn Overview>,
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
    Commit(&'a str),
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
            _ => {
                let name = path.strip_prefix("/api/v1/consumers/")?.strip_suffix("/commit")?;
                if name.is_empty() || name.contains('/') {
                    return None;
                }
                Route::Commit(name)
            }
        })
    }

    fn allow(&self) -> &'static str {
        match self {
            Route::Commit(_) => "POST",
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
        Err(refusal) => return refused(&refusal),
    };
    // After the door, so that only who may send a command makes the server read one.
    if errand == Errand::Change
        && let Err(problem) = body::read(body, bytes_max).await
    {
        return unread(problem);
    }
    match route {
        Route::Page => {
            let page = page::render(&site.overview.consumers(), &site.overview.watches());
            let mut answer = respond(StatusCode::OK, HTML, page);
            let policy = HeaderValue::from_static(PAGE_POLICY);
            answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            answer
        }
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
        Route::Ready => ready(&site.overview.consumers(), sight),
        Route::Consumers => {
            json(StatusCode::OK, &json!({ "consumers": site.overview.consumers() }))
        }
        Route::Watches => json(StatusCode::OK, &json!({ "watches": site.overview.watches() })),
        Route::Commit(name) => commit(site, name).await,
    }
}

fn ready(consumers: &[ConsumerView], sight: Sight) -> Answer {
    let all = consumers.iter().all(|c| c.ready);
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if sight == Sight::Health {
        return json(status, &json!({ "ready": all }));
    }
    let each: Vec<_> = consumers
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "stream": c.stream, "state": c.state,
                "ready": c.ready, "ready_age_seconds": c.ready_age_seconds, "reason": c.reason,
            })
        })
        .collect();
    json(status, &json!({ "ready": all, "consumers": each }))
}

async fn commit(site: &Site, name: &str) -> Answer {
    let Ok(name) = percent_decode_str(name).decode_utf8() else {
        return error(StatusCode::BAD_REQUEST, "the consumer's name in the path is not UTF-8");
    };
    let Ok(result) = tokio::time::timeout(COMMIT_TIME_MAX, site.overview.commit(&name)).await
    else {
        let text = format!(
            "consumer {name:?} did not confirm the commit within {} s; /api/v1/consumers shows \
             what it is doing",
            COMMIT_TIME_MAX.as_secs()
        );
        return error(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    match result {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(problem) => {
            let status = match problem {
                CommitError::Unknown(_) => StatusCode::NOT_FOUND,
                CommitError::Nothing(_) => StatusCode::CONFLICT,
                CommitError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, &problem.to_string())
        }
    }
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
