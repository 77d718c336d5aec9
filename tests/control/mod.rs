//! Can an operator move a running daemon without restarting it: over HTTP, on the command line, and by an
//! edited configuration; and does everything else go on as if nothing had happened?

mod broken;
mod moved;
mod orders;
mod pace;
mod partitions;
mod positions;
mod reloads;
mod watched;

use std::process::Output;
use std::time::Duration;

use rillway::admin::Client;
use serde_json::Value;

use crate::common::broker::blocking;
use crate::common::daemon::{Daemon, Home};

const LONG: Duration = Duration::from_secs(60);

/// Small batches, so that there is progress at once; offsets are stored only when something ends.
const SMALL: &str = "batch = { max_messages = 50, max_age = \"20ms\" }\n\
                     commit = { every_messages = 1000000, every = \"1h\" }\n\
                     restart = { min_backoff = \"20ms\", max_backoff = \"200ms\" }";

/// A consumer that writes files below a folder.
fn filer(name: &str, stream: &str, dir: &str, rest: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n{SMALL}\n{rest}\n\
         sink = {{ type = \"file\", dir = \"{dir}\" }}\n"
    )
}

/// The lines of `[broker]`.
fn broker_lines(uri: &str) -> String {
    format!("uri = \"{uri}\"\nheartbeat = \"30s\"")
}

/// POSTs below the API, and returns the status and the answer.
async fn post(daemon: &Daemon, path: &str) -> (u16, Value) {
    let (status, body) = daemon.http("POST", &format!("/api/v1/{path}")).await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// A request with a body.
async fn call(daemon: &Daemon, method: &str, path: &str, body: &str) -> (u16, Value) {
    let client = Client::new(daemon.admin_address().parse().unwrap());
    let (method, path, body) = (method.to_owned(), path.to_owned(), body.to_owned());
    let called = blocking(move || client.call(&method, &path, &body, LONG).unwrap()).await;
    (called.0, serde_json::from_str(&called.1).unwrap())
}

/// Runs a command of the binary on the configuration.
async fn command(home: &Home, arguments: &[&str]) -> Output {
    let mut command = home.command(arguments);
    blocking(move || command.output().unwrap()).await
}

/// The exit code and the output of a command: what it says, wherever it says it.
async fn told(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(home, arguments).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}
