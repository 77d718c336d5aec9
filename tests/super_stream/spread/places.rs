//! Destinations that all daemons of a group write to, and what landed there, read without the daemons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rillway::wire::amqp::{Message, Value as Annotated};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::Broker;
use crate::common::daemon::Home;
use crate::common::load::number;
use crate::common::postgres::Postgres;
use crate::common::reading::messages;
use crate::common::skip::Unavailable;
use crate::common::streams;
use crate::common::web::{Reply, Web};
use crate::object::archive;

/// A sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Sqlite,
    Postgres,
    Object,
    Stream,
    Stdout,
    Http,
}

impl Kind {
    /// Name of its consumer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
            Kind::Object => "object",
            Kind::Stream => "stream",
            Kind::Stdout => "stdout",
            Kind::Http => "http",
        }
    }

    /// True if a message may be there more than once after a crash.
    pub(crate) fn may_repeat(self) -> bool {
        matches!(self, Kind::Stdout | Kind::Http)
    }

    /// True if what landed has one order for each partition: not the requests that are under way at the
    /// same time, and not the standard outputs of several daemons.
    fn has_order(self) -> bool {
        !self.may_repeat()
    }
}

/// What landed, by partition: the offset and the number of each message.
pub(crate) type Landed = BTreeMap<String, Vec<(u64, u64)>>;

/// What became of the messages of all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) total: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Messages that stand before an earlier one of their partition.
    pub(crate) out_of_order: u64,
}

impl Count {
    /// Compares what landed with how many messages each partition holds.
    pub(crate) fn of(kind: Kind, landed: &Landed, totals: &BTreeMap<String, u64>) -> Count {
        let unknown: Vec<_> =
            landed.keys().filter(|stream| !totals.contains_key(*stream)).collect();
        assert!(unknown.is_empty(), "{kind:?}: streams that nobody wrote: {unknown:?}");
        let mut count = Count::default();
        for (stream, total) in totals {
            let records = landed.get(stream).map_or(&[][..], Vec::as_slice);
            let mut times = vec![0_u64; usize::try_from(*total).unwrap()];
            for (offset, number) in records {
                let at = usize::try_from(*number).ok().and_then(|at| times.get_mut(at));
                *at.unwrap_or_else(|| panic!("{kind:?}: {number} at {offset} of {stream}")) += 1;
            }
            let lost = times.iter().filter(|times| **times == 0).count() as u64;
            let repeated: u64 = times.iter().map(|times| times.saturating_sub(1)).sum();
            if lost > 0 || (repeated > 0 && !kind.may_repeat()) {
                let at = |wanted: fn(&u64) -> bool| {
                    let found = times.iter().enumerate().filter(|(_, times)| wanted(times));
                    let found: Vec<_> = found.map(|(at, _)| at).collect();
                    (found.first().copied(), found.last().copied(), found.len())
                };
                let (lost, repeated) = (at(|times| *times == 0), at(|times| *times > 1));
                eprintln!("{kind:?}, {stream} of {total}: lost {lost:?}, repeated {repeated:?}");
            }
            count.total += total;
            count.lost += lost;
            count.repeated += repeated;
            if kind.has_order() {
                let pairs = records.windows(2);
                count.out_of_order +=
                    pairs.filter(|p| p[1].0 < p[0].0 || p[1].1 < p[0].1).count() as u64;
            }
        }
        count
    }

    /// Nothing is lost, repeated or out of order.
    pub(crate) fn assert_exact(&self, kind: Kind) {
        assert!(self.total > 0, "{kind:?}: nothing was published");
        let exact = Count { total: self.total, ..Count::default() };
        assert_eq!(*self, exact, "{kind:?}");
    }

    /// Nothing is lost, and nothing repeated or out of order where the sink promises so.
    pub(crate) fn assert_kept(&self, kind: Kind) {
        match kind.may_repeat() {
            false => self.assert_exact(kind),
            true => assert_eq!(self.lost, 0, "{kind:?}: {self:?}"),
        }
    }
}

/// One destination of each kind.
pub(crate) struct Places {
    broker: &'static Broker,
    kinds: Vec<Kind>,
    dir: TempDir,
    /// Stream that the sink `stream` publishes to.
    target: String,
    postgres: Option<(&'static Postgres, String)>,
    web: Web,
}

impl Places {
    pub(crate) async fn new(
        broker: &'static Broker,
        kinds: &[Kind],
    ) -> Result<Places, Unavailable> {
        let postgres = match kinds.contains(&Kind::Postgres) {
            true => {
                let server = Postgres::shared().await?;
                Some((server, server.schema().await))
            }
            false => None,
        };
        Ok(Places {
            broker,
            kinds: kinds.to_vec(),
            dir: tempfile::tempdir().unwrap(),
            target: streams::unique("spread-copy"),
            postgres,
            web: Web::start(|_| Reply::Keep).await,
        })
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Names of the consumers.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name()).collect()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("rows.db")
    }

    fn sink(&self, kind: Kind) -> String {
        let dir = self.dir.path().display();
        match kind {
            Kind::File => format!("{{ type = \"file\", dir = \"{dir}/files\" }}"),
            Kind::Sqlite => {
                let path = self.database();
                format!("{{ type = \"sqlite\", path = {path:?}, table = \"events\" }}")
            }
            Kind::Postgres => {
                let (server, schema) = self.postgres.as_ref().expect("there is a server");
                let url = server.url();
                format!(
                    "{{ type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"events\" }}"
                )
            }
            Kind::Object => format!(
                "{{ type = \"object\", url = \"{dir}/objects\", format = \"ndjson\", \
                 compression = \"none\", rotate_records = 500, rotate_age = \"300ms\" }}"
            ),
            Kind::Stream => {
                let target = &self.target;
                format!(
                    "{{ type = \"stream\", stream = \"{target}\", create = true, annotate = true }}"
                )
            }
            Kind::Stdout => "{ type = \"stdout\" }".to_owned(),
            Kind::Http => {
                let url = self.web.url();
                format!("{{ type = \"http\", url = \"{url}\", max_records = 100 }}")
            }
        }
    }

    /// The consumers, the same for each daemon. `source` is `stream = …` or `super_stream = …`.
    pub(crate) fn consumers(&self, source: &str) -> String {
        let consumer = |kind: &Kind| {
            let (name, sink) = (kind.name(), self.sink(*kind));
            format!(
                "[[consumer]]\nname = \"{name}\"\n{source}\nsingle_active = true\n\
                 batch = {{ max_messages = 50, max_age = \"50ms\" }}\n\
                 commit = {{ every_messages = 1000000, every = \"2s\" }}\n\
                 restart = {{ min_backoff = \"20ms\", max_backoff = \"500ms\" }}\nsink = {sink}\n"
            )
        };
        self.kinds.iter().map(consumer).collect()
    }

    /// Everything that landed, in the destination's order. Nobody may be writing.
    pub(crate) async fn landed(&self, kind: Kind, homes: &[&Home]) -> Landed {
        let dir = self.dir.path();
        match kind {
            Kind::File => by_stream(lines_of(archive::files(&dir.join("files")), ".ndjson")),
            Kind::Object => by_stream(lines_of(archive::files(&dir.join("objects")), ".ndjson")),
            Kind::Sqlite => rows(&self.database()),
            Kind::Postgres => self.rows_of_postgres().await,
            Kind::Stream => {
                let mut landed = Landed::new();
                for message in messages(self.broker, &self.target).await {
                    let (stream, record) = record(&message);
                    landed.entry(stream).or_default().push(record);
                }
                landed
            }
            Kind::Stdout => {
                let outputs = homes.iter().map(|home| home.path("stdout")).collect();
                by_stream(lines_of(outputs, "stdout"))
            }
            Kind::Http => {
                let kept = self.web.seen().into_iter().filter(|seen| seen.kept);
                by_stream(kept.flat_map(|seen| seen.records))
            }
        }
    }

    async fn rows_of_postgres(&self) -> Landed {
        let (server, schema) = self.postgres.as_ref().expect("there is a server");
        // Rows have no order of their own.
        let sql = format!("SELECT stream, \"offset\", body FROM {schema}.events ORDER BY 1, 2");
        let mut landed = Landed::new();
        for row in server.client().await.query(&sql, &[]).await.unwrap() {
            let (offset, body): (i64, String) = (row.get(1), row.get(2));
            let record = (offset.cast_unsigned(), number_in(body.as_bytes()));
            landed.entry(row.get(0)).or_default().push(record);
        }
        landed
    }

    /// Counts what became of the messages in each destination.
    pub(crate) async fn counts(
        &self,
        homes: &[&Home],
        totals: &BTreeMap<String, u64>,
    ) -> Vec<(Kind, Count)> {
        let mut counts = Vec::new();
        for kind in &self.kinds {
            let landed = self.landed(*kind, homes).await;
            counts.push((*kind, Count::of(*kind, &landed, totals)));
        }
        counts
    }
}

fn number_in(body: &[u8]) -> u64 {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["i"].as_u64().unwrap_or_else(|| panic!("no number in {body}"))
}

fn lines_of(paths: Vec<PathBuf>, ends: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    for path in paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ends)) {
        let text = std::fs::read_to_string(&path).unwrap();
        // A killed daemon may have printed half a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parsed = whole.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}: {}", path.display()))
        });
        lines.extend(parsed);
    }
    lines
}

fn by_stream(lines: impl IntoIterator<Item = Value>) -> Landed {
    let mut landed = Landed::new();
    for line in lines {
        let stream = line["stream"].as_str().unwrap().to_owned();
        let record = (line["offset"].as_u64().unwrap(), number(&line));
        landed.entry(stream).or_default().push(record);
    }
    landed
}

/// The rows of a database.
pub(crate) fn rows(path: &Path) -> Landed {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut all =
        database.prepare("SELECT stream, \"offset\", body FROM events ORDER BY rowid").unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
    };
    let mut landed = Landed::new();
    for found in all.query_map([], row).unwrap() {
        let (stream, offset, body) = found.unwrap();
        let record = (offset.cast_unsigned(), number_in(body.as_bytes()));
        landed.entry(stream).or_default().push(record);
    }
    landed
}

/// The source's stream, offset and number of a message that the sink `stream` has annotated.
fn record(message: &[u8]) -> (String, (u64, u64)) {
    let parsed = Message::parse(message).unwrap();
    let annotations = parsed.message_annotations().unwrap();
    let offset = match annotations.get("x-rillway-source-offset").unwrap() {
        Some(Annotated::Ulong(offset)) => offset,
        other => panic!("{other:?} is no offset"),
    };
    let stream = match annotations.get("x-rillway-source-stream").unwrap() {
        Some(Annotated::String(stream)) => stream.to_owned(),
        other => panic!("{other:?} is no stream"),
    };
    let body = message.iter().rposition(|byte| *byte == b'{').expect("a body");
    (stream, (offset, number_in(&message[body..])))
}
