//! Positions that an operator sees and moves: is what comes next exactly the wanted message, in each sink that
//! keeps a position and without one; are the dry run's numbers right; and does nothing half-moved go on from
//! elsewhere?
//!
//! - [`moved`]: every target, with every sink and version
//! - [`killed`]: kills between the writes of a move
//! - [`refused`]: moves that are refused whole
//! - [`several`]: several streams that are moved together
//! - [`renamed`]: consumers that get another reference
//! - [`not_renamed`]: those that do not
//! - [`sought`]: moves of a running daemon's consumers

mod killed;
mod moved;
mod not_renamed;
mod refused;
mod renamed;
mod several;
mod sought;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::skip::Unavailable;
use crate::common::{Broker, reading, streams};

const SOON: Duration = Duration::from_secs(60);

/// Where a consumer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Sqlite,
    Postgres,
    Object,
    Stream,
    /// Keeps no position.
    Stdout,
}

/// One consumer `c` of a stream of its own, in a folder of its own.
struct Bench {
    broker: &'static Broker,
    stream: String,
    kind: Kind,
    home: Home,
    /// The target of the stream sink.
    target: String,
    postgres: Option<(&'static Postgres, String)>,
}

impl Bench {
    /// By this transport: `uri` is that of the broker. `more` are further keys of the consumer.
    async fn by(
        broker: &'static Broker,
        uri: &str,
        kind: Kind,
        more: &str,
    ) -> Result<Bench, Unavailable> {
        let stream = streams::create(broker, "moved").await;
        let target = format!("{stream}-copy");
        let postgres = match kind {
            Kind::Postgres => {
                let postgres = Postgres::shared().await?;
                Some((postgres, postgres.schema().await))
            }
            _ => None,
        };
        let sink = match &postgres {
            _ if kind == Kind::File => "{ type = \"file\", dir = \"c\" }".to_owned(),
            Some((postgres, schema)) => format!(
                "{{ type = \"postgres\", url = \"{}\", schema = \"{schema}\", table = \"events\" }}",
                postgres.url()
            ),
            None => match kind {
                Kind::Sqlite => {
                    "{ type = \"sqlite\", path = \"data.db\", table = \"events\" }".to_owned()
                }
                Kind::Object => {
                    "{ type = \"object\", url = \"file:archive\", format = \"ndjson\" }".to_owned()
                }
                Kind::Stream => {
                    format!("{{ type = \"stream\", stream = \"{target}\", create = true }}")
                }
                _ => "{ type = \"stdout\" }".to_owned(),
            },
        };
        // Nothing is stored before the end: a stored offset takes an offset of the stream.
        let consumer = format!(
            "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             commit = {{ every = \"1h\", every_messages = 1000000000 }}\n\
             batch = {{ max_age = \"20ms\" }}\n\
             restart = {{ min_backoff = \"20ms\", max_backoff = \"100ms\" }}\nsink = {sink}\n{more}\n"
        );
        let home = Home::new(uri, &consumer);
        Ok(Bench { broker, stream, kind, home, target, postgres })
    }

    async fn new(broker: &'static Broker, kind: Kind) -> Result<Bench, Unavailable> {
        Bench::by(broker, &broker.uri(), kind, "").await
    }

    async fn publish(&self, numbers: std::ops::Range<u64>) {
        streams::publish(self.broker, &self.stream, numbers.map(|n| format!("message {n}"))).await;
    }

    /// Runs the daemon until it has read the stream to its end, and ends it.
    async fn run_to_the_end(&self) {
        let last = self.shown()["stream_last_offset"].as_u64().unwrap();
        let mut daemon = self.home.start();
        let what = format!("all is received, up to {last}");
        daemon.until("c", &what, SOON, |c| c["received_offset"].as_u64() >= Some(last)).await;
        daemon.terminate().await;
    }

    /// Runs the daemon until it runs, with nothing to read, and ends it.
    async fn run_idle(&self) {
        let mut daemon = self.home.start();
        daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
        daemon.terminate().await;
    }

    /// The numbers of the messages in the sink, in ascending order, as often as they are there.
    async fn written(&self) -> Vec<u64> {
        let bodies = match self.kind {
            Kind::File => bodies_below(&self.home.path("c")),
            Kind::Object => bodies_below(&self.home.path("archive")),
            Kind::Stdout => bodies_in(&self.home.path("stdout")),
            Kind::Stream => reading::bodies(self.broker, &self.target).await,
            Kind::Sqlite => {
                let database = Connection::open(self.home.path("data.db")).unwrap();
                let mut asked = database.prepare("SELECT body FROM events").unwrap();
                let rows = asked.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Kind::Postgres => {
                let (postgres, schema) = self.postgres.as_ref().unwrap();
                let sql = format!("SELECT body::text FROM {schema}.events");
                let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        };
        let number = |body: &String| {
            let digits: String = body.chars().filter(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|error| panic!("{body:?}: {error}"))
        };
        let mut numbers: Vec<u64> = bodies.iter().map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[track_caller]
    fn offsets(&self, arguments: &[&str]) -> Output {
        offsets(&self.home, arguments, None)
    }

    /// The row that `offsets show --json` prints.
    #[track_caller]
    fn shown(&self) -> Value {
        let answer = json(&self.offsets(&["show", "c", "--json"]));
        answer["consumers"][0].clone()
    }

    /// Moves it; returns the one move that was made.
    #[track_caller]
    fn set(&self, arguments: &[&str]) -> Value {
        let all = [&["set", "c", "--json"], arguments].concat();
        let answer = json(&self.offsets(&all));
        assert_eq!(answer["moves"].as_array().map(Vec::len), Some(1), "{answer}");
        answer["moves"][0].clone()
    }
}

/// `rillway offsets …`, with a fault if one is given.
#[track_caller]
fn offsets(home: &Home, arguments: &[&str], fault: Option<&str>) -> Output {
    let mut command = home.command(&[&["offsets"], arguments].concat());
    if let Some(fault) = fault {
        command.env("RILLWAY_FAULT", fault);
    }
    command.output().unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {error}"))
}

/// The error of a command that has to fail with this exit code.
#[track_caller]
fn refusal(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    error
}

/// Bodies of the NDJSON lines in every file below this folder.
fn bodies_below(folder: &Path) -> Vec<String> {
    let mut bodies = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bodies.extend(bodies_below(&path));
        } else if path.to_string_lossy().contains(".ndjson") {
            bodies.extend(bodies_in(&path));
        }
    }
    bodies
}

fn bodies_in(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let plain = match path.to_string_lossy().contains(".zst") {
        true => zstd::decode_all(bytes.as_slice()).unwrap(),
        false => bytes,
    };
    let text = String::from_utf8(plain).unwrap();
    let body = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["body"].as_str().unwrap().to_owned()
    };
    text.lines().map(body).collect()
}

/// All of these numbers, in ascending order.
fn sorted(parts: &[std::ops::Range<u64>]) -> Vec<u64> {
    let mut all: Vec<u64> = parts.iter().cloned().flatten().collect();
    all.sort_unstable();
    all
}
