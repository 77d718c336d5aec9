//! A scripted broker, for answers that no real broker can be made to give. By default it is a small
//! healthy broker: it performs the handshake of a given RabbitMQ version, has one log of chunks for
//! every stream name, delivers by credit, stores offsets, and sends heartbeats after the client's
//! Tune. A test's script sees every frame first, and may replace the answer.
//!
//! ```ignore
//! let broker = Scripted::start(Version::V4_3).await;
//! broker.append(Chunk::plain(0, &["one", "two"]));
//! broker.script(|heard| match heard.key {
//!     keys::QUERY_OFFSET => Say::Code(0x06),
//!     _ => Say::Usual,
//! });
//! let home = Home::new(&broker.uri(), …);
//! ```

mod written;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rillway::wire::commands::{
    CommandVersions, ExchangeCommandVersions, close_response, heartbeat, keys,
};
use rillway::wire::cursor::{Cursor, PutExt};
use rillway::wire::frame::{Frame, FrameLimits, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, interval};

pub(crate) use self::written::{Chunk, answer, frame, message, sized};
use super::Version;

const OK: u16 = 0x01;
const NO_OFFSET: u16 = 0x13;
const LIMITS: FrameLimits = FrameLimits { frame_max: 1 << 20, deliver_max: 0 };

/// One frame from the client.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Index of its connection, from 0.
    pub(crate) connection: usize,
    /// The command, of [`keys`].
    pub(crate) key: u16,
    /// True if it is an answer from the client.
    pub(crate) response: bool,
    /// Everything after the version: the correlation id first, in a request.
    pub(crate) payload: Bytes,
    /// Number of earlier frames with this key, over all connections.
    pub(crate) nth: usize,
}

/// Reaction of the broker to a frame.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// The reaction of a healthy broker.
    Usual,
    /// No reaction.
    Nothing,
    /// An answer that consists of a response code.
    Code(u16),
    /// These frames, unchanged; see [`frame`] and [`answer`].
    Frames(Vec<Bytes>),
    /// Closes the connection.
    HangUp,
}

type Script = Arc<dyn Fn(&Heard) -> Say + Send + Sync>;

struct State {
    script: Script,
    log: Vec<Chunk>,
    offsets: HashMap<String, u64>,
    stores: Vec<(String, u64)>,
    counts: HashMap<u16, usize>,
}

struct Shared {
    version: Version,
    port: u16,
    state: Mutex<State>,
    /// Incremented when the log has changed.
    grown: watch::Sender<usize>,
    /// Frames for every open connection: the list only grows.
    said: watch::Sender<Vec<Bytes>>,
    /// Incremented to cut all connections.
    connections: watch::Sender<usize>,
}

/// The broker. Dropping it closes its connections.
pub(crate) struct Scripted {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    pub(crate) async fn start(version: Version) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let state = State {
            script: Arc::new(|_: &Heard| Say::Usual),
            log: Vec::new(),
            offsets: HashMap::new(),
            stores: Vec::new(),
            counts: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            version,
            port,
            state: Mutex::new(state),
            grown: watch::Sender::new(0),
            said: watch::Sender::default(),
            connections: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, accepting }
    }

    pub(crate) fn uri(&self) -> String {
        format!("rabbitmq-stream://guest:guest@localhost:{}/%2f", self.port)
    }

    /// Calls this function for every frame from now on.
    pub(crate) fn script(&self, script: impl Fn(&Heard) -> Say + Send + Sync + 'static) {
        self.state().script = Arc::new(script);
    }

    /// Adds a chunk to the log; a gap is allowed.
    pub(crate) fn append(&self, chunk: Chunk) {
        self.state().log.push(chunk);
        self.shared.grown.send_modify(|times| *times += 1);
    }

    /// Replaces the log, for later subscriptions.
    pub(crate) fn replace_log(&self, chunks: impl IntoIterator<Item = Chunk>) {
        self.state().log = chunks.into_iter().collect();
    }

    /// The offset stored under a reference.
    pub(crate) fn stored(&self, reference: &str) -> Option<u64> {
        self.state().offsets.get(reference).copied()
    }

    pub(crate) fn set_stored(&self, reference: &str, offset: u64) {
        self.state().offsets.insert(reference.to_owned(), offset);
    }

    /// Every StoreOffset received, in order.
    pub(crate) fn stores(&self) -> Vec<(String, u64)> {
        self.state().stores.clone()
    }

    /// Number of frames received with this key.
    pub(crate) fn heard(&self, key: u16) -> usize {
        self.state().counts.get(&key).copied().unwrap_or(0)
    }

    /// Number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Sends a frame on every open connection.
    pub(crate) fn say(&self, frame: Bytes) {
        self.shared.said.send_modify(|said| said.push(frame));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
        // The connections' tasks see it, and end.
        self.shared.connections.send_replace(usize::MAX);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for number in 0.. {
        let Ok((socket, _)) = listener.accept().await else { continue };
        shared.connections.send_replace(number + 1);
        let (shared, mut over) = (Arc::clone(&shared), shared.connections.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(socket, number, shared) => {}
                _ = over.wait_for(|number| *number == usize::MAX) => {}
            }
        });
    }
}

struct Subscription {
    id: u8,
    credit: u32,
    /// The next offset.
    next: u64,
}

struct Serving {
    shared: Arc<Shared>,
    number: usize,
    subscriptions: Vec<Subscription>,
    deliver_version: u16,
    heartbeat: Option<Interval>,
    out: Vec<Bytes>,
}

/// Runs until either side closes.
async fn serve(mut socket: TcpStream, number: usize, shared: Arc<Shared>) {
    let (mut grown, mut said) = (shared.grown.subscribe(), shared.said.subscribe());
    let mut spoken = said.borrow_and_update().len();
    let mut serving = Serving {
        shared,
        number,
        subscriptions: Vec::new(),
        deliver_version: 1,
        heartbeat: None,
        out: Vec::new(),
    };
    let mut buffer = BytesMut::new();
    loop {
        tokio::select! {
            read = socket.read_buf(&mut buffer) => if !matches!(read, Ok(1..)) { return },
            _ = grown.changed() => {}
            () = due(&mut serving.heartbeat) => serving.out.push(heartbeat()),
            _ = said.changed() => {
                let all = said.borrow_and_update();
                serving.out.extend_from_slice(&all[spoken..]);
                spoken = all.len();
            }
        }
        let mut open = true;
        while let Some(frame) = split_frame(&mut buffer, &LIMITS).unwrap() {
            open = open && serving.on_frame(frame);
        }
        serving.deliver();
        for frame in serving.out.drain(..) {
            if socket.write_all(&frame).await.is_err() {
                return;
            }
        }
        if !open {
            return;
        }
    }
}

impl Serving {
    /// True if the connection stays open.
    fn on_frame(&mut self, frame: Frame) -> bool {
        let Frame { key, response, payload, .. } = frame;
        let shared = Arc::clone(&self.shared);
        let (heard, script) = {
            let mut state = shared.state.lock().unwrap();
            let count = state.counts.entry(key).or_default();
            let nth = *count;
            *count += 1;
            let heard = Heard { connection: self.number, key, response, payload, nth };
            (heard, Arc::clone(&state.script))
        };
        match script(&heard) {
            Say::Usual => return self.usual(&heard),
            Say::Nothing => {}
            Say::Code(code) => self.out.push(answer(&heard, code, |_| {})),
            Say::Frames(frames) => self.out.extend(frames),
            Say::HangUp => return false,
        }
        true
    }

    fn usual(&mut self, heard: &Heard) -> bool {
        let shared = Arc::clone(&self.shared);
        let (version, port) = (shared.version, shared.port);
        let mut state = shared.state.lock().unwrap();
        let mut body = Cursor::new("a client's frame", &heard.payload);
        if !matches!(heard.key, keys::STORE_OFFSET | keys::CREDIT | keys::TUNE | keys::HEARTBEAT) {
            body.u32().unwrap();
        }
        let out = match heard.key {
            keys::PEER_PROPERTIES => {
                let version = format!("{}.1", version.as_str());
                answer(heard, OK, |out| {
                    pairs(out, &[("product", "RabbitMQ"), ("version", &version)])
                })
            }
            keys::SASL_HANDSHAKE => answer(heard, OK, |out| {
                out.put_u32(1);
                out.put_string("mechanism", "PLAIN").unwrap();
            }),
            keys::SASL_AUTHENTICATE => {
                self.out.push(answer(heard, OK, |_| {}));
                frame(keys::TUNE, 1, |out| {
                    out.put_u32(1 << 20);
                    out.put_u32(60);
                })
            }
            keys::OPEN => answer(heard, OK, |out| {
                let port = port.to_string();
                pairs(out, &[("advertised_host", "localhost"), ("advertised_port", &port)]);
            }),
            keys::EXCHANGE_COMMAND_VERSIONS if version != Version::V3_10 => {
                self.deliver_version = 2;
                let known = ExchangeCommandVersions::ours().versions;
                answer(heard, OK, |out| {
                    out.put_u32(known.len() as u32);
                    for CommandVersions { key, min, max } in known {
                        [key, min, max].iter().for_each(|field| out.put_u16(*field));
                    }
                })
            }
            keys::METADATA => {
                let names = body.array(2, |name| Ok(name.string()?.to_owned())).unwrap();
                metadata(heard, port, &names)
            }
            keys::STREAM_STATS if version != Version::V3_10 => {
                let none = |chunk: Option<u64>| chunk.map_or(-1, |offset| offset as i64);
                let (first, last) = (state.log.first(), state.log.last());
                let mut figures = vec![
                    ("first_chunk_id", none(first.map(|chunk| chunk.first))),
                    ("committed_chunk_id", none(last.map(|chunk| chunk.first))),
                ];
                if version == Version::V4_3 {
                    figures.push(("committed_offset", none(last.map(|chunk| chunk.next() - 1))));
                }
                answer(heard, OK, |out| {
                    out.put_u32(figures.len() as u32);
                    for (name, value) in figures {
                        out.put_string("name", name).unwrap();
                        out.put_i64(value);
                    }
                })
            }
            keys::QUERY_OFFSET => match state.offsets.get(body.string().unwrap()) {
                Some(offset) => answer(heard, OK, |out| out.put_u64(*offset)),
                None => answer(heard, NO_OFFSET, |out| out.put_u64(0)),
            },
            keys::STORE_OFFSET => {
                let reference = body.string().unwrap().to_owned();
                let offset = {
                    body.string().unwrap();
                    body.u64().unwrap()
                };
                state.offsets.insert(reference.clone(), offset);
                state.stores.push((reference, offset));
                return true;
            }
            keys::SUBSCRIBE => {
                let id = body.u8().unwrap();
                body.string().unwrap();
                let next = start(&state.log, &mut body);
                let credit = body.u16().unwrap().into();
                self.subscriptions.push(Subscription { id, credit, next });
                answer(heard, OK, |_| {})
            }
            keys::CREDIT => {
                let id = body.u8().unwrap();
                let credit = u32::from(body.u16().unwrap());
                self.subscriptions
                    .iter_mut()
                    .filter(|s| s.id == id)
                    .for_each(|s| s.credit += credit);
                return true;
            }
            keys::UNSUBSCRIBE => {
                let id = body.u8().unwrap();
                self.subscriptions.retain(|subscription| subscription.id != id);
                answer(heard, OK, |_| {})
            }
            keys::CLOSE if !heard.response => {
                self.out.push(close_response(body_correlation(heard)));
                return false;
            }
            keys::CLOSE => return false,
            keys::TUNE => {
                body.u32().unwrap();
                let seconds = body.u32().unwrap();
                let period = Duration::from_millis(500 * u64::from(seconds));
                self.heartbeat = (seconds > 0).then(|| interval(period));
                return true;
            }
            keys::HEARTBEAT => return true,
            // As RabbitMQ reacts to an unknown command.
            _ => return false,
        };
        self.out.push(out);
        true
    }

    /// Delivers the chunks that have credit.
    fn deliver(&mut self) {
        let state = self.shared.state.lock().unwrap();
        for subscription in &mut self.subscriptions {
            while subscription.credit > 0 {
                let wanted = subscription.next;
                let Some(chunk) = state.log.iter().find(|chunk| chunk.next() > wanted) else {
                    break;
                };
                subscription.credit -= 1;
                subscription.next = chunk.next();
                self.out.push(frame(keys::DELIVER, self.deliver_version, |out| {
                    out.put_u8(subscription.id);
                    if self.deliver_version == 2 {
                        out.put_u64(state.log.last().map_or(0, |last| last.first));
                    }
                    out.put_slice(&chunk.bytes);
                }));
            }
        }
    }
}

/// Waits for the time of the next heartbeat.
async fn due(heartbeat: &mut Option<Interval>) {
    match heartbeat {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn body_correlation(heard: &Heard) -> u32 {
    (&heard.payload[..4]).get_u32()
}

fn pairs(out: &mut BytesMut, pairs: &[(&str, &str)]) {
    let owned: Vec<_> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    out.put_string_pairs("property", &owned).unwrap();
}

/// Metadata with this broker alone, as the leader of every requested stream.
fn metadata(heard: &Heard, port: u16, streams: &[String]) -> Bytes {
    frame(heard.key | 0x8000, 1, |out| {
        out.put_u32(body_correlation(heard));
        out.put_u32(1);
        out.put_u16(0);
        out.put_string("host", "localhost").unwrap();
        out.put_u32(port.into());
        out.put_u32(streams.len() as u32);
        for stream in streams {
            out.put_string("stream", stream).unwrap();
            out.put_u16(OK);
            out.put_u16(0);
            out.put_u32(0);
        }
    })
}

/// First offset for an offset specification, by RabbitMQ's rules.
fn start(log: &[Chunk], body: &mut Cursor<'_>) -> u64 {
    let end = log.last().map_or(0, Chunk::next);
    match body.u16().unwrap() {
        1 => 0,
        2 => log.last().map_or(0, |chunk| chunk.first),
        3 => end,
        4 => body.u64().unwrap().min(end),
        // All chunks have the same time.
        _ => {
            body.i64().unwrap();
            0
        }
    }
}
