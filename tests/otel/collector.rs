//! Rotel, a real OpenTelemetry collector, which prints what it receives.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, KeyPair};

use crate::common::python;
use crate::common::skip::Unavailable;
use crate::common::web::acceptor;

const SOON: Duration = Duration::from_secs(60);

/// A span as the collector prints it.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) trace: String,
    /// Those of the process too.
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) text: String,
}

impl Span {
    pub(super) fn number(&self, key: &str) -> u64 {
        let value = self.attributes.get(key).unwrap_or_else(|| panic!("no {key}: {}", self.text));
        assert!(self.text.contains(&format!("{key}: Int({value})")), "no number: {}", self.text);
        value.parse().unwrap()
    }

    pub(super) fn has(&self, key: &str, value: &str) -> bool {
        self.attributes.get(key).is_some_and(|found| found == value)
    }
}

/// A running collector. Killed when it is dropped.
pub(super) struct Collector {
    child: Child,
    http: SocketAddr,
    dir: tempfile::TempDir,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program, which has no script of its own in its package.
fn program() -> Result<PathBuf, Unavailable> {
    let python = python::of("rotel")?;
    let script =
        "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
    let output = Command::new(python).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).unwrap().trim().into())
}

/// An address of its own: the collector takes no port 0.
fn free() -> SocketAddr {
    crate::common::ports::nobody()
}

impl Collector {
    pub(super) fn start() -> Result<Collector, Unavailable> {
        let program = program()?;
        let began = Instant::now();
        loop {
            let (dir, http) = (tempfile::tempdir().unwrap(), free());
            let out = File::create(dir.path().join("out")).unwrap();
            let errors = File::create(dir.path().join("errors")).unwrap();
            let child = Command::new(&program)
                .args(["start", "--exporter", "blackhole", "--batch-timeout", "100ms"])
                .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
                .arg("--otlp-http-endpoint")
                .arg(http.to_string())
                .arg("--otlp-grpc-endpoint")
                .arg(free().to_string())
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(errors)
                .spawn()
                .unwrap();
            let mut collector = Collector { child, http, dir };
            // Another process may have taken the port in between: then this one ends.
            while collector.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(http).is_ok() {
                    return Ok(collector);
                }
                assert!(began.elapsed() < SOON, "it does not listen: {}", collector.said());
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(began.elapsed() < SOON, "it ends: {}", collector.said());
        }
    }

    /// Where it receives OTLP over HTTP.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The same behind a server that ends TLS, with a certificate for localhost: it forwards to the collector, which
    /// cannot do so itself.
    pub(super) async fn behind_tls(&self, certified: &CertifiedKey<KeyPair>) -> String {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let identity = (certified.cert.der().clone(), certified.signing_key.serialize_der());
        let (tls, http) = (acceptor(identity, None), self.http);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    // Some of the handshakes are to fail.
                    let Ok(mut near) = tls.accept(stream).await else { return };
                    let mut far = tokio::net::TcpStream::connect(http).await.unwrap();
                    tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
                });
            }
        });
        format!("https://localhost:{port}")
    }

    fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        format!("{}{}", read("out"), read("errors"))
    }

    /// All spans so far. One that is being printed is left out.
    pub(super) fn spans(&self) -> Vec<Span> {
        let text = std::fs::read_to_string(self.dir.path().join("out")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let (mut spans, mut resource) = (Vec::new(), BTreeMap::new());
        let mut span: Option<Span> = None;
        for line in whole.lines() {
            if line.starts_with("ResourceSpans #") {
                spans.extend(span.take());
                resource.clear();
            } else if line.starts_with("Span #") {
                spans.extend(span.take());
                span = Some(Span { attributes: resource.clone(), ..Span::default() });
            } else if let Some((key, value)) = attribute(line) {
                let to = span.as_mut().map_or(&mut resource, |span| &mut span.attributes);
                to.insert(key, value);
            } else if let (Some(span), Some((key, value))) = (&mut span, line.split_once(':')) {
                let value = value.trim().to_owned();
                match key.trim() {
                    "Trace ID" => span.trace = value,
                    "Parent ID" => span.parent = value,
                    "ID" => span.id = value,
                    "Name" => span.name = value,
                    _ => {}
                }
            }
            if let Some(span) = &mut span {
                span.text.push_str(line);
                span.text.push('\n');
            }
        }
        spans.extend(span);
        spans
    }
}

/// `     -> records: Int(42)`
fn attribute(line: &str) -> Option<(String, String)> {
    let (key, value) = line.trim_start().strip_prefix("-> ")?.split_once(": ")?;
    let (_, value) = value.split_once('(')?;
    Some((key.to_owned(), value.strip_suffix(')')?.to_owned()))
}
