//! An S3 server (moto), and a gate in front of it that injects S3's failures.
//!
//! moto supports If-None-Match and If-Match on PUT. Unlike S3, it checks no signature, so the gate
//! has to refuse wrong credentials.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::python;
use super::skip::Unavailable;

/// The existing bucket.
pub(crate) const BUCKET: &str = "archive";

/// The server; its content is lost when it is dropped.
pub(crate) struct S3 {
    child: Child,
    pub(crate) port: u16,
}

impl S3 {
    /// Starts a server with a bucket.
    pub(crate) fn start() -> Result<S3, Unavailable> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/s3_server.py");
        let mut child = Command::new(python::of("s3")?)
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server prints its port");
        let server = S3 { child, port };
        server.create_bucket();
        Ok(server)
    }

    fn create_bucket(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// Options of a sink that uses this port: the server's own, or a gate's.
    pub(crate) fn options(port: u16) -> String {
        format!(
            "{{ endpoint = \"http://127.0.0.1:{port}\", region = \"us-east-1\", access_key_id = \
             \"test\", secret_access_key = \"test\" }}"
        )
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Behaviour of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Passes requests on.
    Open,
    /// Answers with this status.
    Status(u16),
    /// Accepts them and never answers.
    Silent,
    /// Closes the connection in the middle of the body.
    Cut,
    /// Passes it on, and closes the connection instead of answering.
    Lost,
}

/// A gate in front of the server.
pub(crate) struct Gate {
    pub(crate) port: u16,
    mood: Arc<Mutex<(Mood, usize)>>,
    held: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn to(server: u16) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mood = Arc::new(Mutex::new((Mood::Open, 0)));
        let held = Arc::new(AtomicUsize::new(0));
        let (moods, counts) = (mood.clone(), held.clone());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (moods, counts, client) = (moods.clone(), counts.clone(), client.clone());
                let service = service_fn(move |request| {
                    let (moods, counts) = (moods.clone(), counts.clone());
                    pass(client.clone(), server, request, moods, counts)
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Gate { port, mood, held, accepting }
    }

    /// Sets the behaviour from now on.
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = (mood, usize::MAX);
    }

    /// Sets the behaviour for this number of PUTs; then the gate opens.
    pub(crate) fn set_for(&self, mood: Mood, puts: usize) {
        *self.mood.lock().unwrap() = (mood, puts);
    }

    /// Number of requests that were not passed on, or whose answer was withheld.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Answer = Result<Response<Full<Bytes>>, std::io::Error>;

fn cut() -> Answer {
    Err(std::io::Error::other("cut"))
}

async fn pass(
    client: reqwest::Client,
    server: u16,
    request: Request<Incoming>,
    moods: Arc<Mutex<(Mood, usize)>>,
    held: Arc<AtomicUsize>,
) -> Answer {
    let mood = {
        let mut mood = moods.lock().unwrap();
        match *mood {
            (_, 0) => Mood::Open,
            (now, usize::MAX) => now,
            (now, ref mut left) if request.method() == Method::PUT => {
                *left -= 1;
                now
            }
            _ => Mood::Open,
        }
    };
    if mood != Mood::Open {
        held.fetch_add(1, Ordering::SeqCst);
    }
    let (head, mut body) = request.into_parts();
    match mood {
        Mood::Status(status) => {
            let body = "<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>";
            return Ok(Response::builder().status(status).body(Full::from(body)).unwrap());
        }
        Mood::Silent => std::future::pending().await,
        Mood::Cut => {
            let first = body.frame().await;
            drop((first, body));
            return cut();
        }
        Mood::Open | Mood::Lost => {}
    }
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let url = format!("http://127.0.0.1:{server}{}", head.uri);
    let sent = client.request(head.method, url).headers(head.headers).body(body).send().await;
    let answer = sent.map_err(std::io::Error::other)?;
    if mood == Mood::Lost {
        return cut();
    }
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if !["connection", "transfer-encoding", "content-length"].contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    let length = answer.headers().get("content-length").cloned();
    let body = answer.bytes().await.map_err(std::io::Error::other)?;
    if let (true, Some(length)) = (body.is_empty(), length) {
        response = response.header("content-length", length);
    }
    Ok(response.body(Full::from(body)).unwrap())
}
