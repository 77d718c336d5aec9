//! `rillway pause`, `resume`, `restart`, `skip`, `commit`, `seek`, `reload`, `drain` and `log-level`: orders for a running
//! daemon, through its admin server.
//!
//! Each prints one line, or with `--json` the daemon's answer. It fails with 64 for a name or a value that
//! the daemon refuses, with 78 for a configuration that it refuses, and with 69 if the daemon cannot be asked or
//! the order is not carried out yet.

mod ask;
mod seek;
mod skip;
mod text;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::ask::Answer;
pub(super) use self::ask::{At, Daemon};
pub(super) use self::seek::{SeekArgs, seek};
pub(super) use self::skip::{SkipArgs, skip};
use super::Shared;
use super::exit::Failure;
use super::schema::write;
use crate::admin;
use crate::config::{Env, HumanDuration};

/// Arguments of the commands for one consumer.
#[derive(Debug, Args)]
pub(super) struct ConsumerArgs {
    /// The consumer's name in the configuration
    consumer: String,
    /// Only this partition of the consumer's super stream
    #[arg(long, value_name = "PARTITION")]
    stream: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    at: At,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    at: At,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Wait at most this long until the daemon has ended [default: do not wait]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<HumanDuration>,
    #[command(flatten)]
    at: At,
}

/// Arguments of `log-level`.
#[derive(Debug, Args)]
pub(super) struct LogLevelArgs {
    /// The new filter: a level, or a list such as info,rillway::broker=debug [default: show the current one]
    filter: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Wait {
    /// Wait at most this long for the effect (0s: do not wait)
    #[arg(long, value_name = "DURATION", default_value_t = WAIT_DEFAULT, value_parser = duration)]
    wait: HumanDuration,
}

/// Default time that the daemon waits for an order's effect.
const WAIT_DEFAULT: HumanDuration = HumanDuration(admin::limits::WAIT_DEFAULT);

/// Longest time that the daemon waits.
const WAIT_MAX: HumanDuration = HumanDuration(admin::limits::WAIT_MAX);

/// Time between two looks whether the daemon has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn duration(text: &str) -> Result<HumanDuration, String> {
    let duration = serde_json::from_value(Value::String(text.to_owned()));
    duration.map_err(|error| error.to_string())
}

impl Wait {
    fn query(&self) -> anyhow::Result<String> {
        if self.wait > WAIT_MAX {
            let text = format!("--wait {} is too long: at most {WAIT_MAX}", self.wait);
            return Err(Failure::Usage(text).into());
        }
        Ok(format!("wait={}ms", self.wait.0.as_millis()))
    }
}

/// Pauses, resumes or restarts a consumer, or has it store its offset; `verb` is the last part of the path.
pub(super) fn consumer(
    verb: &str,
    args: &ConsumerArgs,
    shared: &Shared,
    env: &Env,
) -> anyhow::Result<()> {
    let daemon = Daemon::of(&args.at, shared, env)?;
    let mut path =
        format!("/api/v1/consumers/{}/{verb}?{}", ask::encoded(&args.consumer), args.wait.query()?);
    if let Some(stream) = &args.stream {
        path.push_str(&format!("&stream={}", ask::encoded(stream)));
    }
    let answer = daemon.order("POST", &path, "", args.wait.wait.0)?;
    let line = match verb {
        "commit" => text::stored(&answer.body),
        _ => text::changed(&answer.body),
    };
    print(shared, answer, &line)
}

/// Has the daemon read its configuration again.
pub(super) fn reload(args: &ReloadArgs, shared: &Shared, env: &Env) -> anyhow::Result<()> {
    let daemon = Daemon::of(&args.at, shared, env)?;
    let path = format!("/api/v1/reload?{}", args.wait.query()?);
    let answer = daemon.order("POST", &path, "", args.wait.wait.0)?;
    let line = text::reloaded(&answer.body);
    print(shared, answer, &line)
}

/// Ends the daemon as SIGTERM does.
pub(super) fn drain(args: &DrainArgs, shared: &Shared, env: &Env) -> anyhow::Result<()> {
    let daemon = Daemon::of(&args.at, shared, env)?;
    let Answer { body, .. } = daemon.order("POST", "/api/v1/drain", "", Duration::ZERO)?;
    let Some(wait) = args.wait else {
        let line = format!(
            "draining; consumers that have not finished within {} s are aborted",
            body["grace_seconds"]
        );
        return write(&if shared.json { format!("{body:#}\n") } else { line + "\n" });
    };
    let until = std::time::Instant::now() + wait.0;
    while daemon.is_there() {
        if std::time::Instant::now() >= until {
            let text = format!("the daemon drains, and has not ended within {wait}");
            return Err(Failure::Unavailable(text).into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let ended = json!({ "draining": true, "ended": true });
    let line = "the daemon has ended; its log says whether every offset was stored";
    write(&if shared.json { format!("{ended:#}\n") } else { format!("{line}\n") })
}

/// Shows or replaces the filter of the daemon's log.
pub(super) fn log_level(args: &LogLevelArgs, shared: &Shared, env: &Env) -> anyhow::Result<()> {
    let daemon = Daemon::of(&args.at, shared, env)?;
    let (method, body) = match &args.filter {
        Some(filter) => ("PUT", filter.as_str()),
        None => ("GET", ""),
    };
    if args.filter.as_deref().is_some_and(|filter| filter.trim().is_empty()) {
        return Err(Failure::Usage("the filter is empty: off turns the log off".to_owned()).into());
    }
    let answer = daemon.order(method, "/api/v1/log-level", body, Duration::ZERO)?;
    let line = answer.body["filter"].as_str().unwrap_or_default().to_owned();
    print(shared, answer, &line)
}

/// Prints the answer; fails if the order is not carried out yet.
fn print(shared: &Shared, answer: Answer, line: &str) -> anyhow::Result<()> {
    match (shared.json, answer.is_done) {
        (true, _) => write(&format!("{:#}\n", answer.body))?,
        (false, true) => write(&format!("{line}\n"))?,
        (false, false) => {}
    }
    match answer.is_done {
        true => Ok(()),
        false => Err(Failure::Unavailable(line.to_owned()).into()),
    }
}
