//! Against a scripted collector; a real one is in tests/otel.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::logging::SpanLayer;
use crate::telemetry::operations::Operations;
use crate::telemetry::prometheus;
use crate::tls::TlsOptions;
use crate::types::{Offset, Secret};

const SOON: Duration = Duration::from_secs(60);

/// What the collector answers to one request.
enum Answer {
    Status(u16, &'static str, Vec<u8>),
    /// Nothing, until the client gives up.
    Never,
}

fn ok() -> Answer {
    Answer::Status(200, "", Vec::new())
}

struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn spans(&self) -> Vec<String> {
        let mut body = self.body.clone();
        if self.head.contains("content-encoding: gzip") {
            body.clear();
            GzDecoder::new(self.body.as_slice()).read_to_end(&mut body).unwrap();
        }
        let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let all = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
        all.flat_map(|of| of.spans).map(|span| span.name).collect()
    }
}

/// A collector that answers by this script, and then accepts everything; and the requests.
async fn collector(script: Vec<Answer>) -> (String, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::channel(1000);
    tokio::spawn(async move {
        let mut script = script.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, requests) = (script.next().unwrap_or_else(ok), requests.clone());
            tokio::spawn(async move {
                let mut read = Vec::new();
                let (head, wanted) = loop {
                    let mut piece = [0; 4096];
                    let length = stream.read(&mut piece).await.unwrap();
                    read.extend_from_slice(&piece[..length]);
                    let text = String::from_utf8_lossy(&read).into_owned();
                    if let Some((head, _)) = text.split_once("\r\n\r\n") {
                        let length =
                            head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let length: usize = length.unwrap().parse().unwrap();
                        break (head.to_owned(), head.len() + 4 + length);
                    }
                };
                while read.len() < wanted {
                    stream.read_buf(&mut read).await.unwrap();
                }
                let body = read[head.len() + 4..].to_vec();
                requests.send(Request { head, body }).await.unwrap();
                match answer {
                    Answer::Status(status, header, body) => {
                        let head = format!(
                            "HTTP/1.1 {status} X\r\n{header}content-length: {}\r\n\r\n",
                            body.len()
                        );
                        stream.write_all(head.as_bytes()).await.unwrap();
                        stream.write_all(&body).await.unwrap();
                    }
                    Answer::Never => std::future::pending().await,
                }
            });
        }
    });
    (format!("http://{address}/v1/traces"), received)
}

fn options(url: &str) -> Options {
    Options {
        url: url.to_owned(),
        headers: [("api-key".to_owned(), Secret::new("hunter2"))].into(),
        gzip: false,
        tls: TlsOptions::default(),
        resource: [("service.name".to_owned(), "test".to_owned())].into(),
        sampling: Sampling::All,
        limits: Limits {
            queue: 8,
            batch: 4,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(30),
        },
    }
}

/// Runs this on one thread, and returns the counts of spans by result.
fn counted<F: Future<Output = ()>>(work: F) -> BTreeMap<String, u64> {
    let recorder = prometheus::recorder().unwrap();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    });
    let page = recorder.handle().render();
    let of = |line: &str| {
        let (result, count) =
            line.strip_prefix("rillway_trace_spans_total{result=\"")?.split_once("\"} ")?;
        Some((result.to_owned(), count.parse().ok()?))
    };
    page.lines().filter_map(of).collect()
}

/// Ends this many spans.
async fn operate(layer: SpanLayer, spans: u64) {
    let subscriber = tracing_subscriber::registry().with(layer);
    let of = Operations::of(&"c".into(), &"s".into(), &"r".into());
    async { (0..spans).for_each(|offset| drop(of.store_offset(Offset(offset)))) }
        .with_subscriber(subscriber)
        .await;
}

fn counts(all: [u64; 4]) -> BTreeMap<String, u64> {
    ["sent", "refused", "failed", "no_room"].map(str::to_owned).into_iter().zip(all).collect()
}

#[test]
fn what_is_tried_again_arrives_once() {
    let counts_of = counted(async {
        let script = vec![Answer::Status(503, "retry-after: 0\r\n", Vec::new()), ok()];
        let (url, mut received) = collector(script).await;
        let (layer, exporter) = start(&Options { gzip: true, ..options(&url) }).unwrap();
        operate(layer, 3).await;
        let (first, again) = (received.recv().await.unwrap(), received.recv().await.unwrap());
        assert_eq!(first.body, again.body);
        assert_eq!(again.spans(), ["store_offset"; 3]);
        assert!(first.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", first.head);
        assert!(first.head.contains("content-type: application/x-protobuf"), "{}", first.head);
        assert!(first.head.contains("api-key: hunter2"), "{}", first.head);
        exporter.finish().await;
    });
    assert_eq!(counts_of, counts([3, 0, 0, 0]));
}

#[test]
fn what_the_collector_refuses_is_counted_and_not_sent_again() {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "old".into() };
    let partly = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let counts_of = counted(async {
        let script = vec![Answer::Status(200, "", partly), Answer::Status(401, "", Vec::new())];
        let (url, mut received) = collector(script).await;
        let (layer, exporter) = start(&options(&url)).unwrap();
        // Full batches: one is refused in part, the next one as a whole.
        operate(layer, 8).await;
        for _ in 0..2 {
            assert_eq!(received.recv().await.unwrap().spans().len(), 4);
        }
        exporter.finish().await;
        assert!(received.try_recv().is_err());
    });
    assert_eq!(counts_of, counts([3, 1, 4, 0]));
}

/// What is made of this answer.
async fn answered(status: u16, body: &[u8]) -> send::Sent {
    let (url, _received) = collector(vec![Answer::Status(status, "", body.to_vec())]).await;
    let options = options(&url);
    send::send(&options, &options.headers, "spans".into()).await
}

#[tokio::test]
async fn only_an_answer_of_a_collector_says_that_spans_have_arrived() {
    let refused = |spans: i64, why: &str| {
        let partial =
            ExportTracePartialSuccess { rejected_spans: spans, error_message: why.into() };
        ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    };
    let is = |refused: Option<(u64, &str)>| send::Sent::Accepted {
        refused: refused.map(|(spans, why)| (spans, why.to_owned())),
    };
    assert_eq!(answered(200, b"").await, is(None));
    assert_eq!(answered(200, &refused(0, "slow down")).await, is(None));
    assert_eq!(answered(202, b"{\"partialSuccess\":{}}").await, is(None));
    // The value of the header is not shown, also where the words are cut off within it.
    assert_eq!(answered(200, &refused(2, "no key hunter2")).await, is(Some((2, "no key ***"))));
    let long = "x".repeat(197);
    let (said, shown) = (format!("{long}hunter2"), format!("{long}***"));
    assert_eq!(answered(200, &refused(2, &said)).await, is(Some((2, &shown))));
    let json = b"{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"old\"}}";
    assert_eq!(answered(200, json).await, is(Some((3, "old"))));
    // Keys of a later version of the protocol are ignored.
    let more = b"{\"trace\":\"x\",\"partialSuccess\":{\"rejectedSpans\":3,\"errorMessage\":\"old\",\"x\":1}}";
    assert_eq!(answered(200, more).await, is(Some((3, "old"))));
    for page in [
        "<html>Log in, hunter2</html>",
        "OK",
        "{\"error\":\"unknown path\"}",
        "[]",
        "{\"partialSuccess\":1}",
    ] {
        let send::Sent::Never { what } = answered(200, page.as_bytes()).await else {
            panic!("{page}");
        };
        assert!(what.starts_with("it answers 200 OK, but not as a collector does"), "{what}");
        assert!(what.contains("traces.endpoint") && !what.contains("hunter2"), "{what}");
    }
}

#[test]
fn what_another_web_server_takes_is_not_sent() {
    let counts_of = counted(async {
        let page = Answer::Status(200, "", b"<html></html>".to_vec());
        let (url, mut received) = collector(vec![page]).await;
        let (layer, exporter) = start(&options(&url)).unwrap();
        operate(layer, 3).await;
        received.recv().await.unwrap();
        exporter.finish().await;
    });
    assert_eq!(counts_of, counts([0, 0, 3, 0]));
}

#[test]
fn a_collector_that_hangs_costs_a_queue_and_a_limited_time_at_the_end() {
    let counts_of = counted(async {
        let (url, mut received) = collector(vec![Answer::Never, Answer::Never]).await;
        let (layer, exporter) = start(&options(&url)).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        let of = Operations::of(&"c".into(), &"s".into(), &"r".into());
        let ending = async {
            (0..4).for_each(|offset| drop(of.store_offset(Offset(offset))));
            // The first batch hangs.
            received.recv().await.unwrap();
            let began = Instant::now();
            (0..1000).for_each(|offset| drop(of.store_offset(Offset(offset))));
            assert!(began.elapsed() < SOON, "whoever ends a span waits for nothing");
            let began = Instant::now();
            exporter.finish().await;
            assert!(began.elapsed() >= END_MAX && began.elapsed() < SOON);
        };
        ending.with_subscriber(subscriber).await;
    });
    // The queue had room for 8, and 4 were being sent.
    assert_eq!(counts_of, counts([0, 0, 12, 992]));
}

#[test]
fn at_the_end_all_that_waits_is_sent_at_once() {
    let counts_of = counted(async {
        let (url, mut received) = collector(Vec::new()).await;
        let mut options = options(&url);
        options.limits = Limits { interval: SOON, batch: 100, queue: 100, ..options.limits };
        let (layer, exporter) = start(&options).unwrap();
        operate(layer, 7).await;
        exporter.set_headers(&[("api-key".to_owned(), Secret::new("another"))].into());
        exporter.finish().await;
        let request = received.recv().await.unwrap();
        assert_eq!(request.spans().len(), 7);
        assert!(request.head.contains("api-key: another"), "{}", request.head);
    });
    assert_eq!(counts_of, counts([7, 0, 0, 0]));
}

#[test]
fn a_share_of_the_traces_is_exported() {
    for (sampling, least, most) in
        [(Sampling::None, 0, 0), (Sampling::Share(0.5), 300, 700), (Sampling::All, 1000, 1000)]
    {
        let counts_of = counted(async {
            let (url, _received) = collector(Vec::new()).await;
            let mut options = Options { sampling, ..options(&url) };
            options.limits.queue = 1000;
            options.limits.batch = 1000;
            let (layer, exporter) = start(&options).unwrap();
            operate(layer, 1000).await;
            exporter.finish().await;
        });
        let sent = counts_of["sent"];
        assert!((least..=most).contains(&sent), "{sampling:?}: {sent}");
    }
}
