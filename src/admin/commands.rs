//! Answers the requests that change something, and those for the daemon's own settings.

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{Answer, error, json};
use super::control::{Control, ControlError, NotReloaded, SkipOrder, Target, Verb};
use super::limits::{WAIT_DEFAULT, WAIT_MAX};
use super::overview::{CommitError, Overview};
use crate::types::Offset;

/// Consumer, partition and wait of an order, from the path and the query of its request.
pub(super) struct Ordered<'a> {
    consumer: Cow<'a, str>,
    stream: Option<Cow<'a, str>>,
    wait: Duration,
}

impl<'a> Ordered<'a> {
    /// Reads the name in the path, and the keys `stream` and `wait` of the query. The error is for the caller.
    pub(super) fn read(name: &'a str, query: Option<&'a str>) -> Result<Ordered<'a>, String> {
        let consumer = decoded(name, "the consumer's name in the path")?;
        let Query { stream, wait } = Query::read(query, &["stream", "wait"])?;
        Ok(Ordered { consumer, stream, wait })
    }

    pub(super) fn target(&self) -> Target<'_> {
        Target { consumer: &self.consumer, stream: self.stream.as_deref() }
    }

    /// The same, of an order whose body may name the stream, too.
    pub(super) fn target_with<'b>(
        &'b self,
        stream: Option<&'b str>,
    ) -> Result<Target<'b>, &'static str> {
        let target = self.target();
        match (stream, target.stream) {
            (Some(body), Some(query)) if body != query => {
                Err("the body and the query name different streams")
            }
            (stream, of_query) => Ok(Target { stream: stream.or(of_query), ..target }),
        }
    }

    /// Longest wait for the order's effect.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }
}

/// Keys of a query.
struct Query<'a> {
    stream: Option<Cow<'a, str>>,
    wait: Duration,
}

impl<'a> Query<'a> {
    fn read(query: Option<&'a str>, allowed: &[&str]) -> Result<Query<'a>, String> {
        let mut read = Query { stream: None, wait: WAIT_DEFAULT };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value, "the query")?;
            match key {
                "stream" if allowed.contains(&key) => read.stream = Some(value),
                "wait" if allowed.contains(&key) => read.wait = wait(&value)?,
                _ => {
                    let keys = allowed.join(", ");
                    return Err(format!("the query has an unknown key {key:?}: expected {keys}"));
                }
            }
        }
        Ok(read)
    }
}

fn decoded<'a>(text: &'a str, what: &str) -> Result<Cow<'a, str>, String> {
    percent_decode_str(text).decode_utf8().map_err(|_| format!("{what} is not UTF-8"))
}

/// A time to wait: `10s`, `500ms`, or a number of seconds.
fn wait(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (text.strip_suffix('s').unwrap_or(text), Duration::from_secs(1)),
    };
    let wait = number.parse::<u32>().ok().and_then(|number| unit.checked_mul(number));
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
        let most = WAIT_MAX.as_secs();
        format!("{text:?} is not a time to wait: expected 0s to {most}s, as in wait=10s")
    })
}

/// Pauses, resumes or restarts.
pub(super) async fn change(control: &dyn Control, verb: Verb, ordered: &Ordered<'_>) -> Answer {
    changed(control.change(verb, ordered.target(), ordered.wait).await)
}

/// Body of a request to leave out a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    offset: u64,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    dead_letter: bool,
}

/// Leaves out the message that the body names.
pub(super) async fn skip(control: &dyn Control, ordered: &Ordered<'_>, body: &[u8]) -> Answer {
    let skip: Skip = match serde_json::from_slice(body) {
        Ok(skip) => skip,
        Err(why) => {
            let text = format!(
                "the body is not the message to leave out: {why}. Expected {{\"offset\": 7}}, perhaps with \
                 \"stream\" and \"dead_letter\""
            );
            return error(StatusCode::BAD_REQUEST, &text);
        }
    };
    let target = match ordered.target_with(skip.stream.as_deref()) {
        Ok(target) => target,
        Err(text) => return error(StatusCode::BAD_REQUEST, text),
    };
    let order =
        SkipOrder { target, offset: Offset(skip.offset), to_dead_letters: skip.dead_letter };
    changed(control.skip(order, ordered.wait()).await)
}

fn changed(result: Result<super::control::Changed, ControlError>) -> Answer {
    match result {
        Ok(changed) => json(done_or_accepted(changed.finished), &changed),
        Err(problem) => {
            let status = match problem {
                ControlError::Unknown(_) | ControlError::UnknownStream { .. } => {
                    StatusCode::NOT_FOUND
                }
                ControlError::Ending | ControlError::NotSkipped(_) => StatusCode::CONFLICT,
            };
            error(status, &problem.to_string())
        }
    }
}

fn done_or_accepted(finished: bool) -> StatusCode {
    if finished { StatusCode::OK } else { StatusCode::ACCEPTED }
}

/// Stores the durable offset now.
pub(super) async fn commit(overview: &dyn Overview, ordered: &Ordered<'_>) -> Answer {
    let storing = overview.commit_of(ordered.target());
    let Ok(result) = tokio::time::timeout(ordered.wait, storing).await else {
        let text = format!(
            "consumer {:?} did not confirm the commit within {} s; /api/v1/consumers shows what it is doing",
            ordered.consumer,
            ordered.wait.as_secs_f64()
        );
        return error(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    match result {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(problem) => {
            let status = match problem {
                CommitError::Unknown(_) | CommitError::UnknownStream(_) => StatusCode::NOT_FOUND,
                CommitError::Nothing(_) => StatusCode::CONFLICT,
                CommitError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, &problem.to_string())
        }
    }
}

/// Ends the daemon.
pub(super) fn drain(control: &dyn Control) -> Answer {
    json(StatusCode::ACCEPTED, &control.drain())
}

/// The filter of the log.
pub(super) fn log_filter(control: &dyn Control) -> Answer {
    json(StatusCode::OK, &LogFilter { filter: control.log_filter() })
}

/// Replaces the filter of the log by the one in the body.
pub(super) fn set_log_filter(control: &dyn Control, body: &[u8]) -> Answer {
    let Ok(filter) = std::str::from_utf8(body) else {
        return error(StatusCode::BAD_REQUEST, "the body is not UTF-8: expected a log filter");
    };
    match control.set_log_filter(filter.trim()) {
        Ok(()) => log_filter(control),
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

#[derive(Serialize)]
struct LogFilter {
    filter: String,
}

/// Loads the configuration again.
pub(super) async fn reload(control: &dyn Control, query: Option<&str>) -> Answer {
    let wait = match Query::read(query, &["wait"]) {
        Ok(query) => query.wait,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    match control.reload(wait).await {
        Ok(reloaded) => json(done_or_accepted(reloaded.finished), &reloaded),
        Err(NotReloaded::Refused { text, problems }) => {
            let body = json!({ "error": text, "problems": problems });
            json(StatusCode::UNPROCESSABLE_ENTITY, &body)
        }
        Err(NotReloaded::Ending) => error(StatusCode::CONFLICT, &NotReloaded::Ending.to_string()),
        Err(NotReloaded::Failed(why)) => error(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}
