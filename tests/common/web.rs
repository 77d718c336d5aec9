//! A web service: a real HTTP server with scripted answers, which stores what it receives.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::{TlsAcceptor, rustls};

use super::ports::{self, Port};

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Number of earlier requests.
    pub(crate) nth: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// Body in the wire format.
    pub(crate) wire_bytes: usize,
    /// Body after decompression.
    pub(crate) body: String,
    /// Objects in the body.
    pub(crate) records: Vec<Value>,
    /// True if the script stored it.
    pub(crate) kept: bool,
}

impl Seen {
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.records.iter().map(|record| record["offset"].as_u64().unwrap()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Reaction of the server.
pub(crate) enum Reply {
    /// Answers with this.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Stores the records, and confirms.
    Keep,
    /// Stores the records, but the answer breaks off.
    KeepAndTear,
    /// Stores the records, and closes the connection without an answer.
    KeepAndHangUp,
    /// Never answers.
    Hang,
    /// Does so once there is a permit, which it takes.
    When(Arc<Semaphore>, Box<Reply>),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply::Answer(status, Vec::new(), String::new())
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Inside {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    busy: AtomicUsize,
    busiest: AtomicUsize,
}

/// The server. Ends when dropped.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    inside: Arc<Inside>,
    serving: JoinHandle<()>,
    /// For a service that comes back at its address.
    kept: Option<Port>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The server's side of TLS, under this certificate and key; with `ours`, only for clients with a certificate signed
/// by that one.
pub(crate) fn acceptor(
    (certificate, key): (CertificateDer<'static>, Vec<u8>),
    ours: Option<CertificateDer<'static>>,
) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match ours {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key).into();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
}

impl Web {
    /// A server on its own port.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Web {
        let port = ports::reserve();
        let listener = TcpListener::bind(port.address()).await.unwrap();
        let mut web = Web::on(listener, script);
        web.kept = Some(port);
        web
    }

    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Web {
        Web::with(listener, None, script)
    }

    /// With TLS, under this certificate and key; with `ours`, only for clients with a certificate
    /// signed by that one.
    pub(crate) async fn start_tls(
        (certificate, key): (CertificateDer<'static>, Vec<u8>),
        ours: Option<CertificateDer<'static>>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Web {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Web::with(listener, Some(acceptor((certificate, key), ours)), script)
    }

    fn with(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Web {
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            script: Box::new(script),
            seen: Mutex::default(),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
        });
        let serving = tokio::spawn({
            let inside = Arc::clone(&inside);
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (tls, inside) = (tls.clone(), Arc::clone(&inside));
                    connections.spawn(async move {
                        match tls {
                            None => serve(stream, inside).await,
                            // Some tests are about failing handshakes.
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(stream, inside).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Web { address, inside, serving, kept: None }
    }

    /// Is there no more; what it saw can still be asked.
    pub(crate) async fn stop(&self) {
        self.serving.abort();
        super::eventually("nobody listens", std::time::Duration::from_secs(60), || async {
            tokio::net::TcpStream::connect(self.address).await.is_err().then_some(())
        })
        .await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inside.seen.lock().unwrap().clone()
    }

    /// The offsets of all records that were kept, in the order of the stream, with repeats.
    pub(crate) fn kept(&self) -> Vec<u64> {
        let mut kept = self.kept_as_they_came();
        kept.sort_unstable();
        kept
    }

    /// The same in the order of arrival.
    pub(crate) fn kept_as_they_came(&self) -> Vec<u64> {
        self.seen().iter().filter(|seen| seen.kept).flat_map(Seen::offsets).collect()
    }

    /// Most requests that were being answered at the same time.
    pub(crate) fn busiest(&self) -> usize {
        self.inside.busiest.load(Ordering::SeqCst)
    }

    /// The requests that are being answered.
    pub(crate) fn busy(&self) -> usize {
        self.inside.busy.load(Ordering::SeqCst)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, inside: Arc<Inside>) {
    let service = service_fn(|request| answer(request, Arc::clone(&inside)));
    // A connection cut by the script or the client is no failure of the test.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// Counts a request as in flight while it lives.
struct Busy<'a>(&'a Inside);

impl<'a> Busy<'a> {
    fn with(inside: &'a Inside) -> Busy<'a> {
        let now = inside.busy.fetch_add(1, Ordering::SeqCst) + 1;
        inside.busiest.fetch_max(now, Ordering::SeqCst);
        Busy(inside)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(
    request: Request<Incoming>,
    inside: Arc<Inside>,
) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let wire = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let _busy = Busy::with(&inside);
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let body = match headers.get("content-encoding").map(String::as_str) {
        None => String::from_utf8(wire.to_vec()).unwrap(),
        Some("gzip") => {
            let mut text = String::new();
            flate2::read::GzDecoder::new(wire.as_ref()).read_to_string(&mut text).unwrap();
            text
        }
        Some(other) => panic!("compressed by {other}"),
    };
    let is_form = headers.get("content-type").is_some_and(|kind| kind.contains("form-urlencoded"));
    let records = if is_form {
        Vec::new()
    } else if body.starts_with('[') {
        serde_json::from_str(&body).unwrap()
    } else {
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let seen = {
        let mut all = inside.seen.lock().unwrap();
        let seen = Seen {
            nth: all.len(),
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers,
            wire_bytes: wire.len(),
            body,
            records,
            kept: false,
        };
        all.push(seen.clone());
        seen
    };
    let keep = || inside.seen.lock().unwrap()[seen.nth].kept = true;
    let mut reply = (inside.script)(&seen);
    while let Reply::When(gate, then) = reply {
        gate.acquire().await.unwrap().forget();
        reply = *then;
    }
    match reply {
        Reply::Answer(status, headers, text) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
            Ok(response.body(body).unwrap())
        }
        Reply::Keep => {
            keep();
            Ok(Response::new(Full::default().map_err(|never| match never {}).boxed()))
        }
        Reply::KeepAndTear => {
            keep();
            let begun = Ok(Frame::data(Bytes::from_static(b"{\"accepted\":")));
            let torn = Err(std::io::Error::other("torn by the script"));
            let body = StreamBody::new(stream::iter([begun, torn]));
            Ok(Response::new(BodyExt::boxed(body)))
        }
        Reply::KeepAndHangUp => {
            keep();
            Err(std::io::Error::other("hung up by the script"))
        }
        Reply::Hang => std::future::pending().await,
        Reply::When(..) => unreachable!(),
    }
}
