//! The sinks and loaders that are compared, by destination. A new sink is a new [`Medium`] here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// One destination with its sink and its loaders.
pub(crate) struct Medium {
    pub(crate) name: &'static str,
    /// Fails if the destination's server or its loader is not installed on this machine.
    pub(crate) ready: fn() -> anyhow::Result<()>,
    /// Empties the destination, as before the first run.
    pub(crate) reset: fn(&Place<'_>) -> anyhow::Result<()>,
    /// Number of rows after a run, if another program can count them.
    pub(crate) count: fn(&Place<'_>) -> anyhow::Result<Option<u64>>,
    /// The sink first, then the loaders; ratios are relative to the first loader.
    pub(crate) peers: Vec<Peer>,
}

/// Where a run takes place.
pub(crate) struct Place<'a> {
    /// A fresh folder.
    pub(crate) dir: &'a Path,
    /// The rows, as CSV.
    pub(crate) file: &'a Path,
}

pub(crate) enum Peer {
    /// A sink, as in `sink = …`; paths are relative to the folder.
    Sink { name: &'static str, config: String },
    /// A program that loads the file.
    Loader { name: &'static str, command: fn(&Place<'_>) -> Command },
    /// A program that measures itself, so that its start-up time is not included.
    Telling { name: &'static str, command: fn(&Place<'_>) -> Command },
}

impl Peer {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Peer::Sink { name, .. } | Peer::Loader { name, .. } | Peer::Telling { name, .. } => {
                name
            }
        }
    }
}

pub(crate) fn all() -> Vec<Medium> {
    vec![file(), sqlite(), sqlite_columns(), postgres(), parquet()]
}

fn nothing(_: &Place<'_>) -> anyhow::Result<()> {
    Ok(())
}

fn runs(program: &str, argument: &str) -> anyhow::Result<()> {
    let out = Command::new(program).arg(argument).output().with_context(|| program.to_owned())?;
    ensure!(out.status.success(), "{program} {argument}: {}", out.status);
    Ok(())
}

/// NDJSON has no loader: a copy of the rows is the lower bound.
fn file() -> Medium {
    let copy = |place: &Place<'_>| {
        let mut command = Command::new("dd");
        command.args(["bs=1M", "conv=fsync", "status=none"]);
        command.arg(format!("if={}", place.file.display()));
        command.arg(format!("of={}", place.dir.join("copy").display()));
        command
    };
    Medium {
        name: "file",
        ready: || runs("dd", "--version"),
        reset: nothing,
        count: |_| Ok(None),
        peers: vec![
            Peer::Sink {
                name: "rillway, `file` (NDJSON)",
                config: "{ type = \"file\", dir = \"out\" }".to_owned(),
            },
            Peer::Loader { name: "`dd conv=fsync` of the rows as CSV", command: copy },
        ],
    }
}

const CREATE: &str = "CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, \
                      message_id TEXT, subject TEXT, application_properties TEXT, body TEXT);";

fn import(place: &Place<'_>, before: &str) -> Command {
    let mut command = Command::new("sqlite3");
    command.arg("-bail").arg(place.dir.join("x.db"));
    command.args([before, CREATE, ".mode csv"]);
    command.arg(format!(".import {} events", place.file.display()));
    command
}

fn count_in_sqlite(place: &Place<'_>) -> anyhow::Result<Option<u64>> {
    let mut command = Command::new("sqlite3");
    command.arg(place.dir.join("x.db")).arg("SELECT count(DISTINCT offset) FROM events");
    let out = command.output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(Some(String::from_utf8(out.stdout)?.trim().parse()?))
}

fn sqlite() -> Medium {
    Medium {
        name: "sqlite",
        ready: || runs("sqlite3", "-version"),
        reset: nothing,
        count: count_in_sqlite,
        peers: vec![
            Peer::Sink {
                name: "rillway, `sqlite`",
                config: "{ type = \"sqlite\", path = \"x.db\" }".to_owned(),
            },
            Peer::Loader { name: "`sqlite3 .import`", command: |place| import(place, "SELECT 1;") },
            Peer::Loader {
                name: "`sqlite3 .import`, with a write-ahead log",
                command: |place| import(place, "PRAGMA journal_mode = wal;"),
            },
        ],
    }
}

/// Five values from the JSON body, which the loader extracts after its import.
fn sqlite_columns() -> Medium {
    let columns = "{ seq = { from = \"/seq\", type = \"integer\" }, user_id = \"/user/id\", \
                   amount = { from = \"/amount\", type = \"numeric\" }, paid = { from = \"/paid\", \
                   type = \"boolean\" }, note = \"/note\" }";
    let import = |place: &Place<'_>| {
        let mut command = Command::new("sqlite3");
        command.arg("-bail").arg(place.dir.join("x.db")).args([CREATE, ".mode csv"]);
        command.arg(format!(".import {} events", place.file.display()));
        command.arg(
            "CREATE TABLE typed AS SELECT stream, offset, timestamp, body ->> '$.seq' AS seq,
             body ->> '$.user.id' AS user_id, body ->> '$.amount' AS amount,
             body ->> '$.paid' AS paid, body ->> '$.note' AS note FROM events;",
        );
        command
    };
    Medium {
        name: "sqlite-columns",
        ready: || runs("sqlite3", "-version"),
        reset: nothing,
        count: count_in_sqlite,
        peers: vec![
            Peer::Sink {
                name: "rillway, `sqlite` with five columns",
                config: format!("{{ type = \"sqlite\", path = \"x.db\", columns = {columns} }}"),
            },
            Peer::Loader {
                name: "`sqlite3 .import`, then `CREATE TABLE … AS SELECT body ->> …`",
                command: import,
            },
        ],
    }
}

/// A server that nobody else uses: its tables are dropped. `scripts/bench-sinks.sh` starts one.
const POSTGRES: &str = "RILLWAY_BENCH_POSTGRES";

fn psql(commands: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"]);
    command.arg(std::env::var(POSTGRES).unwrap_or_default());
    for sql in commands {
        command.args(["-c", sql]);
    }
    command
}

/// The same table with the same index, in one transaction, as a user of `psql` would load it.
fn copy(place: &Place<'_>) -> Command {
    let create = "CREATE TABLE events (stream text NOT NULL, \"offset\" bigint NOT NULL, \
                  \"timestamp\" timestamptz NOT NULL, message_id text, subject text, \
                  application_properties jsonb, body text)";
    let index = "CREATE INDEX ON events USING brin (\"timestamp\", \"offset\")";
    let copy = format!("\\copy events from '{}' csv", place.file.display());
    psql(&[create, index, &copy])
}

fn postgres() -> Medium {
    Medium {
        name: "postgres",
        ready: || std::env::var(POSTGRES).map(drop).context(POSTGRES),
        reset: |_| {
            let drop = "DROP TABLE IF EXISTS events, rillway_positions";
            let out = psql(&["SET client_min_messages = error", drop, "CHECKPOINT"]).output()?;
            ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            Ok(())
        },
        count: |_| {
            let out =
                psql(&["SELECT count(DISTINCT \"offset\") FROM events"]).arg("-tA").output()?;
            ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            Ok(Some(String::from_utf8(out.stdout)?.trim().parse()?))
        },
        peers: vec![
            Peer::Sink {
                name: "rillway, `postgres`",
                config: format!(
                    "{{ type = \"postgres\", table = \"events\", url = {{ env = \"{POSTGRES}\" }} }}"
                ),
            },
            Peer::Loader { name: "`psql`, `\\copy` from CSV", command: copy },
        ],
    }
}

/// The folder of pyarrow, as `scripts/setup.sh pyarrow --where` prints it.
const PYARROW: &str = "RILLWAY_BENCH_PYARROW";

fn pyarrow(what: &str, place: &Place<'_>) -> Command {
    let mut command =
        Command::new(format!("{}/bin/python", std::env::var(PYARROW).unwrap_or_default()));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/sinks/parquet.py"));
    command.arg(what).arg(place.file).arg(place.dir.join("x.parquet"));
    command
}

fn parquet() -> Medium {
    Medium {
        name: "parquet",
        ready: || std::env::var(PYARROW).map(drop).context(PYARROW),
        reset: nothing,
        count: |_| Ok(None),
        peers: vec![
            Peer::Sink {
                name: "rillway, `object` (Parquet, in a folder)",
                config: "{ type = \"object\", url = \"out\" }".to_owned(),
            },
            Peer::Telling {
                name: "pyarrow, from CSV to Parquet",
                command: |place| pyarrow("read", place),
            },
            Peer::Telling {
                name: "pyarrow's writer alone, from memory",
                command: |place| pyarrow("write", place),
            },
        ],
    }
}
