//! Handles one request. The routes are listed in the parent module.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::header::{CONNECTION, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;

use super::limits::{BODY_BYTES_MAX, COMMIT_TIME_MAX};
use super::overview::{CommitError, Overview};
use super::{page, ready};
use crate::telemetry;

/// A complete response: bodies are small, or rendered at once.
pub(super) type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

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
        match self {
            Route::Commit(_) => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }
}

/// Answers a request. HEAD is answered like GET; hyper leaves out the body.
pub(super) async fn answer<B: Body>(site: &Site, request: &Request<B>) -> Answer {
    if request.body().size_hint().lower() > BODY_BYTES_MAX {
        let text =
            format!("no route accepts a body, and one over {BODY_BYTES_MAX} bytes is refused");
        let mut answer = error(StatusCode::PAYLOAD_TOO_LARGE, &text);
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    let Some(route) = Route::find(request.uri().path()) else {
        let body = json!({ "error": "there is nothing at this path", "routes": ROUTES });
        return json(StatusCode::NOT_FOUND, &body);
    };
    if !route.allows(request.method()) {
        let text = format!("this path accepts {}", route.allow());
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &text);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allow()));
        return answer;
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
            Err(stuck) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, stuck + "\n"),
        },
        Route::Ready => match ready::ready(&site.overview.consumers(), request.uri().query()) {
            Ok((true, body)) => json(StatusCode::OK, &body),
            Ok((false, body)) => json(StatusCode::SERVICE_UNAVAILABLE, &body),
            Err(text) => error(StatusCode::BAD_REQUEST, &text),
        },
        Route::Consumers => {
            json(StatusCode::OK, &json!({ "consumers": site.overview.consumers() }))
        }
        Route::Watches => json(StatusCode::OK, &json!({ "watches": site.overview.watches() })),
        Route::Commit(name) => {
            if sent_by_a_page(request) {
                let text = "commands from web pages are refused: use a tool such as curl";
                return error(StatusCode::FORBIDDEN, text);
            }
            commit(site, name).await
        }
    }
}

/// True for a request sent by a web page: browsers add these headers, and a page cannot remove
/// them.
fn sent_by_a_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
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

fn error(status: StatusCode, text: &str) -> Answer {
    json(status, &json!({ "error": text }))
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_string(body) {
        Ok(text) => respond(status, JSON, text + "\n"),
        // A snapshot of names and numbers always has a JSON form; this covers a future change.
        Err(e) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("no JSON: {e}\n")),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
