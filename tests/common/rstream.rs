//! rstream, a Python client: batches in every compression, messages of any bytes, and a second
//! reader of stored offsets and of streams. See `rstream_tool.py` beside this file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use super::broker::{Broker, blocking};
use super::skip::Unavailable;

/// Compression of sub-entry batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// One message to publish.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing(Value);

impl Outgoing {
    /// An AMQP 1.0 message with this body as its data section.
    pub(crate) fn body(body: impl AsRef<[u8]>) -> Self {
        Self(json!({ "body": hex(body.as_ref()) }))
    }

    /// The same with its body repeated, for a large message that compresses well.
    pub(crate) fn repeated(body: impl AsRef<[u8]>, times: usize) -> Self {
        Self(json!({ "body": hex(body.as_ref()), "times": times }))
    }

    /// An AMQP 1.0 message with this value as its body.
    pub(crate) fn value(value: Value) -> Self {
        Self(json!({ "value": value }))
    }

    /// Exactly these bytes, AMQP 1.0 or not.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self(json!({ "raw": hex(bytes.as_ref()) }))
    }

    /// Adds `properties`, `application_properties` or `message_annotations`.
    pub(crate) fn with(mut self, section: &str, fields: Value) -> Self {
        self.0[section] = fields;
        self
    }
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    /// The whole encoded message.
    pub(crate) raw: Vec<u8>,
}

/// Messages of a stream seen by a second client. Stops when dropped.
pub(crate) struct Watched {
    /// Offset and time in milliseconds of each message, in order.
    seen: Arc<Mutex<Vec<(u64, i64)>>>,
    stop: Arc<AtomicBool>,
    child: Arc<Mutex<Option<Child>>>,
}

impl Watched {
    /// Offset and time in milliseconds of each message so far.
    pub(crate) fn messages(&self) -> Vec<(u64, i64)> {
        self.seen.lock().unwrap().clone()
    }

    /// Number of messages so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(child) = self.child.lock().unwrap().as_mut() {
            child.kill().ok();
        }
    }
}

/// A Python interpreter with rstream, and the broker to use.
#[derive(Debug)]
pub(crate) struct Rstream {
    python: PathBuf,
    port: u16,
}

impl Rstream {
    pub(crate) async fn at(broker: &Broker) -> Result<Self, Unavailable> {
        let python = blocking(python).await?;
        Ok(Self { python, port: broker.stream_port })
    }

    /// `arguments` as in `max-length-bytes=1000000`.
    pub(super) async fn create(&self, stream: &str, arguments: &[(&str, &str)]) {
        let pairs: Vec<String> =
            arguments.iter().map(|(key, value)| format!("--argument={key}={value}")).collect();
        let mut all = vec!["create", stream];
        all.extend(pairs.iter().map(String::as_str));
        self.run(&all, String::new()).await;
    }

    pub(super) async fn delete(&self, stream: &str) {
        self.run(&["delete", stream], String::new()).await;
    }

    pub(crate) async fn store_offset(&self, stream: &str, reference: &str, offset: u64) {
        self.run(&["store-offset", stream, reference, &offset.to_string()], String::new()).await;
    }

    /// Publishes each message as an entry of its own.
    pub(crate) async fn publish(&self, stream: &str, messages: &[Outgoing]) {
        self.publish_by(&["publish", stream], messages).await;
    }

    /// Publishes with a filter value (RabbitMQ 3.13 and later).
    pub(crate) async fn publish_filtered(&self, stream: &str, filter: &str, messages: &[Outgoing]) {
        self.publish_by(&["publish", stream, "--filter", filter], messages).await;
    }

    /// Publishes in sub-entry batches of `per_entry` messages.
    pub(crate) async fn publish_batches(
        &self,
        stream: &str,
        compression: Compression,
        per_entry: usize,
        messages: &[Outgoing],
    ) {
        let per_entry = per_entry.to_string();
        let compression = compression.as_str();
        let arguments =
            ["publish", stream, "--sub-entry", &per_entry, "--compression", compression];
        self.publish_by(&arguments, messages).await;
    }

    /// The offset stored for `reference`; `None` if there is none.
    pub(crate) async fn stored_offset(&self, stream: &str, reference: &str) -> Option<u64> {
        let answer = self.run(&["query-offset", stream, reference], String::new()).await;
        json_of(&answer)["offset"].as_u64()
    }

    /// The first `count` messages from `offset` on, once there are that many.
    pub(crate) async fn read(&self, stream: &str, offset: u64, count: usize) -> Vec<Stored> {
        let (offset, count) = (offset.to_string(), count.to_string());
        let arguments = ["consume", stream, "--from", &offset, "--count", &count];
        let lines = self.run(&arguments, String::new()).await;
        lines
            .lines()
            .map(|line| {
                let fields = json_of(line);
                Stored {
                    offset: fields["offset"].as_u64().unwrap(),
                    raw: from_hex(fields["raw"].as_str().unwrap()),
                }
            })
            .collect()
    }

    /// What the first `count` messages leave of each key, as this client sees it: the offset and the value.
    /// Their bodies are `{"id": K, "v": V}`, or `{"id": K, "op": "d"}`.
    pub(crate) async fn latest(&self, stream: &str, count: u64) -> BTreeMap<u64, (u64, u64)> {
        let answer =
            self.run(&["latest", stream, "--count", &count.to_string()], String::new()).await;
        let left = json_of(&answer);
        let of_key = |(key, row): (&String, &Value)| {
            (key.parse().unwrap(), (row[0].as_u64().unwrap(), row[1].as_u64().unwrap()))
        };
        left.as_object().unwrap().iter().map(of_key).collect()
    }

    /// Reads a stream from its beginning, across restarts of its broker.
    pub(crate) fn watch(&self, stream: &str) -> Watched {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, child) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/rstream_tool.py");
        let (python, port, stream) =
            (self.python.clone(), self.port.to_string(), stream.to_owned());
        let watched =
            Watched { seen: Arc::clone(&seen), stop: Arc::clone(&stop), child: Arc::clone(&child) };
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let next = seen.lock().unwrap().last().map_or(0, |last: &(u64, i64)| last.0 + 1);
                let mut started = Command::new(&python)
                    .arg(&tool)
                    .args(["--port", &port, "watch", &stream, "--from", &next.to_string()])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("Python starts");
                let lines = BufReader::new(started.stdout.take().unwrap()).lines();
                *child.lock().unwrap() = Some(started);
                for line in lines.map_while(Result::ok) {
                    let (offset, ms) = line.split_once(' ').expect("an offset and a time");
                    seen.lock().unwrap().push((offset.parse().unwrap(), ms.parse().unwrap()));
                }
                if let Some(mut ended) = child.lock().unwrap().take() {
                    ended.wait().unwrap();
                }
            }
        });
        watched
    }

    async fn publish_by(&self, arguments: &[&str], messages: &[Outgoing]) {
        let lines: String = messages.iter().map(|message| format!("{}\n", message.0)).collect();
        let answer = json_of(&self.run(arguments, lines).await);
        assert_eq!(answer["confirmed"].as_u64(), Some(messages.len() as u64));
    }

    async fn run(&self, arguments: &[&str], input: String) -> String {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/rstream_tool.py");
        let mut command = Command::new(&self.python);
        command.arg(tool).args(["--port", &self.port.to_string()]).args(arguments);
        blocking(move || output(&mut command, input.as_bytes())).await
    }
}

fn output(command: &mut Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("Python starts");
    // It reads all of its input before it prints.
    child.stdin.take().unwrap().write_all(input).expect("Python reads");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A Python interpreter with rstream; installed on first use.
pub(super) fn python() -> Result<PathBuf, Unavailable> {
    static PYTHON: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    PYTHON.get_or_init(set_up).clone()
}

fn set_up() -> Result<PathBuf, Unavailable> {
    Ok(set_up_by_script("rstream")?.join("bin/python"))
}

/// Path at which `scripts/setup.sh` has installed this, if it has.
pub(crate) fn set_up_by_script(what: &str) -> Result<PathBuf, Unavailable> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup.sh");
    let output = Command::new(script).args([what, "--where"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        Some(3) => Err(Unavailable(said.lines().last().unwrap_or(what).to_owned())),
        _ => panic!("setting up {what}: {said}"),
    }
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|why| panic!("{why} in {line:?}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |nth: usize| u8::from_str_radix(&text[nth..nth + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}
