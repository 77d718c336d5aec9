//! The sink on an S3 server that fails in many ways.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rillway::sink::conformance::{self, Medium, Owners, batch};
use rillway::sink::object::{Format, ObjectOptions, ObjectSink, ParquetColumns, Place, Rotation};
use rillway::sink::{Durability, Sink, SinkError};
use rillway::types::{Offset, Reference, Secret, StreamName};

use super::archive;
use crate::common::proxy::Proxy;
use crate::common::s3::{BUCKET, Gate, Mood, S3};
use crate::common::skip::or_skip;

/// A sink's own limit for one operation.
const OPERATION_MAX: Duration = Duration::from_secs(6);

fn options(port: u16, prefix: &str) -> ObjectOptions {
    let option = |name: &str, value: String| (name.to_owned(), Secret::new(value));
    ObjectOptions {
        place: Place::Store {
            url: format!("s3://{BUCKET}/{prefix}").parse().unwrap(),
            options: vec![
                option("endpoint", format!("http://127.0.0.1:{port}")),
                option("region", "us-east-1".to_owned()),
                option("access_key_id", "test".to_owned()),
                option("secret_access_key", "hunter2".to_owned()),
            ],
            operation_max: OPERATION_MAX,
        },
        format: Format::Parquet {
            zstd_level: Some(1),
            columns: ParquetColumns::Envelope { body_is_text: true },
        },
        partition_by: None,
        rotation: Rotation { records: 1 << 20, bytes: 32 << 20, age: Duration::from_secs(300) },
    }
}

async fn open(port: u16, prefix: &str) -> Result<ObjectSink, SinkError> {
    let (stream, reference) = (StreamName::from(conformance::STREAM), Reference::from("archive"));
    ObjectSink::open(options(port, prefix), stream, reference).await
}

/// The offsets below a prefix, in the order in which the objects were made.
async fn offsets(server: u16, prefix: &str) -> Vec<u64> {
    let mut found = archive::objects(server, &format!("{prefix}/events")).await;
    found.sort_by_key(|(key, _)| archive::claim(key));
    let read = |(_, bytes)| -> Vec<u64> {
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let rows = reader.get_row_iter(None).unwrap();
        rows.map(|row| row.unwrap().get_long(1).unwrap().cast_unsigned()).collect()
    };
    found.into_iter().flat_map(read).collect()
}

struct Cloud {
    server: u16,
    gate: Arc<Gate>,
    proxy: Arc<Proxy>,
    prefix: String,
}

#[async_trait]
impl Medium for Cloud {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(open(self.proxy.port, &self.prefix).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        Some(offsets(self.server, &self.prefix).await)
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }

    async fn break_next(&mut self) -> bool {
        self.gate.set_for(Mood::Cut, 1);
        true
    }

    async fn refuse(&mut self, on: bool) -> bool {
        self.gate.set(if on { Mood::Status(503) } else { Mood::Open });
        true
    }

    async fn vanish(&mut self, on: bool) -> bool {
        if on {
            self.proxy.refuse()
        } else {
            self.proxy.resume()
        }
        true
    }

    async fn slow(&mut self, on: bool) -> bool {
        self.gate.set(if on { Mood::Silent } else { Mood::Open });
        true
    }
}

#[tokio::test]
async fn an_s3_server_keeps_the_contract_on_bad_days() {
    let server = or_skip!(S3::start());
    let gate = Arc::new(Gate::to(server.port).await);
    let proxy = Arc::new(Proxy::to(gate.port).await);
    let fresh = || {
        let prefix = format!("run/{:016x}", fastrand::u64(..));
        Cloud { server: server.port, gate: gate.clone(), proxy: proxy.clone(), prefix }
    };
    let told = conformance::all(fresh).await.unwrap();
    let of_parts = ["tells_of_durable_parts_in_order", "winds_up_what_it_has_begun"];
    assert_eq!(told.not_asked(), of_parts);
}

/// Writes a batch until it is durable, and returns how often that failed.
async fn push(sink: &mut ObjectSink, range: std::ops::Range<u64>) -> usize {
    assert_eq!(sink.write(&Arc::new(batch(range))).await.unwrap(), Durability::Held);
    let mut failures = 0;
    loop {
        match sink.flush().await {
            Ok(()) => return failures,
            Err(SinkError::Transient { what, .. }) => {
                assert!(!what.contains("hunter2"), "{what}");
                failures += 1;
                assert!(failures < 20, "{what}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every PUT of a flush in turn loses its answer, is cut in the middle, or is refused.
#[tokio::test]
async fn lost_answers_and_cut_uploads_leave_each_record_once() {
    let server = or_skip!(S3::start());
    let gate = Gate::to(server.port).await;
    let mut sink = open(gate.port, "lost").await.unwrap();
    let mut next = 0;
    for mood in [Mood::Lost, Mood::Cut, Mood::Status(429), Mood::Status(500), Mood::Status(503)] {
        for puts in 1..=4 {
            gate.set_for(mood, puts);
            let failures = push(&mut sink, next..next + 10).await;
            assert!(failures >= 1, "{mood:?} of {puts} was not felt");
            gate.set(Mood::Open);
            next += 10;
        }
    }
    // And when the sink does not live to repeat it.
    for puts in 1..=3 {
        sink.write(&Arc::new(batch(next..next + 10))).await.unwrap();
        gate.set_for(Mood::Lost, puts);
        let flushed = sink.flush().await;
        assert!(matches!(flushed, Err(SinkError::Transient { .. })), "{flushed:?}");
        gate.set(Mood::Open);
        sink = open(gate.port, "lost").await.unwrap();
        next = sink.position().await.unwrap().map_or(0, |at| at.offset.0 + 1);
    }
    push(&mut sink, next..next + 1).await;
    assert_eq!(offsets(server.port, "lost").await, (0..=next).collect::<Vec<_>>());
}

async fn refused(port: u16, url_prefix: &str) -> String {
    match open(port, url_prefix).await.err() {
        Some(SinkError::Fatal(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn errors_for_the_operator_say_what_to_do() {
    let server = or_skip!(S3::start());
    let gate = Gate::to(server.port).await;
    for (status, word) in [(403, "right to read, list and write"), (401, "credentials")] {
        gate.set(Mood::Status(status));
        let why = refused(gate.port, "x").await;
        assert!(why.contains(word) && why.contains("s3://archive/x"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    gate.set(Mood::Open);
    let mut elsewhere = options(gate.port, "x");
    if let Place::Store { url, .. } = &mut elsewhere.place {
        *url = "s3://no-such-bucket/x".parse().unwrap();
    }
    let opened = ObjectSink::open(elsewhere, "events".into(), "archive".into()).await.err();
    match opened {
        Some(SinkError::Fatal(why)) => assert!(why.contains("Create the bucket"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Refused after it had worked: the sink waits, because somebody may be changing keys.
    let mut sink = open(gate.port, "x").await.unwrap();
    push(&mut sink, 0..5).await;
    gate.set_for(Mood::Status(403), 1);
    assert_eq!(push(&mut sink, 5..9).await, 1);
    assert_eq!(offsets(server.port, "x").await, (0..9).collect::<Vec<_>>());
}

/// Two owners in turn, and the upload of the frozen one is still in the network.
#[tokio::test]
async fn an_upload_that_comes_too_late_finds_its_place_taken() {
    let server = or_skip!(S3::start());
    let mut former = open(server.port, "late").await.unwrap();
    push(&mut former, 0..10).await;
    former.write(&Arc::new(batch(10..20))).await.unwrap();
    let mut taken = 0;
    // Polled until the claim is in the checkpoint; then not polled any more, before the upload.
    let mut flushing = Box::pin(async { former.flush().await });
    let claimed = || async {
        let found = archive::objects(server.port, "late/_rillway").await;
        found
            .iter()
            .any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("\"first_offset\": 10"))
    };
    while !claimed().await {
        tokio::select! {
            biased;
            done = &mut flushing => panic!("done before it could be frozen: {done:?}"),
            () = tokio::time::sleep(Duration::from_micros(200)) => taken += 1,
        }
        assert!(taken < 10_000, "never claimed");
    }
    let mut latter = open(server.port, "late").await.unwrap();
    let at = latter.position().await.unwrap().map(|at| at.offset);
    // The former owner may have been faster; then its object counts.
    assert!(at == Some(Offset(9)) || at == Some(Offset(19)), "{at:?}");
    let next = at.unwrap().0 + 1;
    push(&mut latter, next..25).await;
    match flushing.await {
        Err(SinkError::Fatal(why)) => assert!(why.contains("has taken over"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(server.port, "late").await, (0..25).collect::<Vec<_>>());
}
