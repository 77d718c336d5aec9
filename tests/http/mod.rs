//! The `http` sink against a real server: what counts as accepted, what is sent again, what is split,
//! what is bad, and which secrets are never shown.

mod daemon;
mod failures;
mod refusals;
mod settling;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rillway::flow::batch::Batch;
use rillway::sink::conformance::{self, Medium, Owners, STREAM, batch};
use rillway::sink::http::{BodyFormat, HttpOptions, HttpSink, HttpTls, RequestMethod};
use rillway::sink::{Durability, Sink, SinkError};
use rillway::types::{Secret, StreamName};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::common::web::{Reply, Seen, Web};

/// These checks are for sinks that keep a position or hold batches back.
const NOT_ASKED: [&str; 7] = [
    "gives_up_what_is_held",
    "holds_until_flushed",
    "lets_one_owner_write",
    "lets_one_owner_write_the_same",
    "refuses_repeats",
    "refuses_repeats_after_a_reopening",
    "repeats_a_failed_flush",
];

/// The sink's defaults, for this server.
fn options(web: &Web) -> HttpOptions {
    HttpOptions {
        url: Secret::new(web.url()),
        method: RequestMethod::Post,
        format: BodyFormat::Json,
        gzip: false,
        headers: Vec::new(),
        in_flight: 4,
        max_records: 500,
        max_bytes: 1 << 20,
        timeout: Duration::from_secs(20),
        refusals_max: Some(100),
        tls: HttpTls::default(),
    }
}

async fn open(options: HttpOptions) -> HttpSink {
    HttpSink::open(options, StreamName::from(STREAM)).await.unwrap()
}

async fn write(sink: &mut HttpSink, batch: Batch) -> Result<Durability, SinkError> {
    rillway::sink::write_whole(sink, &Arc::new(batch)).await
}

fn transient(result: Result<Durability, SinkError>) -> (String, Option<Duration>) {
    match result {
        Err(SinkError::Transient { what, retry_after }) => (what, retry_after),
        other => panic!("{other:?}"),
    }
}

fn fatal(result: Result<Durability, SinkError>) -> String {
    match result {
        Err(SinkError::Fatal(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Accepts the next request, but its answer breaks off; then the service works again.
    Breaks,
    Refuses,
    Slow,
    Trickles,
}

/// A service for the contract's failures, and its earlier instances.
struct Service {
    webs: Vec<Web>,
    mood: Arc<Mutex<Mood>>,
    /// A request for each permit, in slow mode.
    gate: Arc<Semaphore>,
    feeding: Option<JoinHandle<()>>,
    change: fn(&mut HttpOptions),
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(feeding) = &self.feeding {
            feeding.abort();
        }
    }
}

impl Service {
    fn new(change: fn(&mut HttpOptions)) -> Service {
        let (mood, gate) = (Arc::new(Mutex::new(Mood::Well)), Arc::new(Semaphore::new(0)));
        Service { webs: Vec::new(), mood, gate, feeding: None, change }
    }

    fn script(&self) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
        let (mood, gate) = (Arc::clone(&self.mood), Arc::clone(&self.gate));
        move |_| {
            let mut mood = mood.lock().unwrap();
            match *mood {
                Mood::Well => Reply::Keep,
                Mood::Breaks => {
                    *mood = Mood::Well;
                    Reply::KeepAndTear
                }
                Mood::Refuses => Reply::status(503),
                Mood::Slow => Reply::Hang,
                Mood::Trickles => Reply::When(Arc::clone(&gate), Box::new(Reply::Keep)),
            }
        }
    }

    fn is(&mut self, mood: Mood) -> bool {
        *self.mood.lock().unwrap() = mood;
        true
    }
}

#[async_trait]
impl Medium for Service {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        if self.webs.is_empty() {
            self.webs.push(Web::start(self.script()).await);
        }
        let mut options = options(self.webs.last().unwrap());
        // One at a time, so that they arrive in the stream's order.
        (options.in_flight, options.timeout) = (1, Duration::from_secs(5));
        (self.change)(&mut options);
        Ok(Box::new(HttpSink::open(options, StreamName::from(STREAM)).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        Some(self.webs.iter().flat_map(Web::kept_as_they_came).collect())
    }

    /// What a service has accepted cannot be taken back.
    fn takes_back(&self) -> bool {
        false
    }

    fn owners(&self) -> Owners {
        Owners::Many
    }

    async fn break_next(&mut self) -> bool {
        self.is(Mood::Breaks)
    }

    async fn refuse(&mut self, on: bool) -> bool {
        self.is(if on { Mood::Refuses } else { Mood::Well })
    }

    async fn slow(&mut self, on: bool) -> bool {
        self.is(if on { Mood::Slow } else { Mood::Well })
    }

    async fn trickle(&mut self, on: bool) -> bool {
        let gate = Arc::clone(&self.gate);
        let feed = async move {
            // The service's pace: the slowness is part of the test.
            loop {
                tokio::time::sleep(Duration::from_millis(60)).await;
                gate.add_permits(1);
            }
        };
        if on {
            self.feeding = Some(tokio::spawn(feed));
        }
        self.is(if on { Mood::Trickles } else { Mood::Well })
    }

    async fn vanish(&mut self, on: bool) -> bool {
        let Some(web) = self.webs.last() else { return false };
        if on {
            web.stop().await;
        } else {
            let listener = tokio::net::TcpListener::bind(web.address).await.unwrap();
            self.webs.push(Web::on(listener, self.script()));
        }
        true
    }
}

#[tokio::test]
async fn conforms() {
    let plain = |_: &mut HttpOptions| {};
    let compressed = |options: &mut HttpOptions| {
        options.gzip = true;
        options.format = BodyFormat::Ndjson;
        options.max_bytes = 20_000;
    };
    for change in [plain, compressed] {
        let told = conformance::all(|| Service::new(change)).await.unwrap();
        assert_eq!(told.not_asked(), NOT_ASKED, "{told:?}");
    }
}

/// The same with requests that overtake each other.
#[tokio::test]
async fn several_requests_at_a_time_are_told_of_in_order() {
    let many = || Service::new(|options| (options.in_flight, options.max_records) = (4, 100));
    for _ in 0..3 {
        conformance::tells_of_durable_parts_in_order(&mut many()).await.unwrap();
        conformance::winds_up_what_it_has_begun(&mut many()).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_says_what_it_carries() {
    let web = Web::start(|_| Reply::Keep).await;
    let mut options = options(&web);
    options.url = Secret::new(format!("{}?tenant=7", web.url()));
    options.headers = vec![("X-Team".to_owned(), Secret::new("logistics"))];
    options.method = RequestMethod::Put;
    let mut sink = open(options).await;
    write(&mut sink, batch(498..502)).await.unwrap();
    let seen = web.seen();
    let of = |seen: &Seen, name: &str| seen.header(name).to_owned();
    let (one, two) = match seen.as_slice() {
        [a, b] if a.header("rillway-first-offset") == "498" => (a, b),
        [b, a] => (a, b),
        other => panic!("{other:?}"),
    };
    assert_eq!((one.method.as_str(), one.target.as_str()), ("PUT", "/in?tenant=7"));
    assert_eq!(of(one, "content-type"), "application/json");
    assert_eq!(of(one, "x-team"), "logistics");
    assert_eq!(of(one, "rillway-stream"), STREAM);
    assert_eq!(
        (of(one, "rillway-last-offset"), of(one, "rillway-records")),
        ("499".into(), "2".into())
    );
    assert_eq!(of(one, "idempotency-key"), "events/498-499/1700000000498");
    assert!(of(two, "idempotency-key").starts_with("events/500-501/"), "{two:?}");
    assert!(of(one, "user-agent").starts_with("rillway/"));
    assert_eq!(one.records[1]["body"], "offset 499");
    assert_eq!(one.records[1]["stream"], STREAM);
}

#[tokio::test]
async fn gzip_makes_it_smaller_and_the_same() {
    let web = Web::start(|_| Reply::Keep).await;
    let mut options = options(&web);
    options.gzip = true;
    let mut sink = open(options).await;
    write(&mut sink, batch(0..500)).await.unwrap();
    assert_eq!(web.kept(), (0..500).collect::<Vec<_>>());
    let seen = &web.seen()[0];
    assert_eq!(seen.header("content-encoding"), "gzip");
    assert!(seen.wire_bytes * 5 < seen.body.len(), "{} of {}", seen.wire_bytes, seen.body.len());
}

#[tokio::test]
async fn requests_fly_together_but_no_more_than_may() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let web = Web::start({
        let gate = Arc::clone(&gate);
        move |_| Reply::When(Arc::clone(&gate), Box::new(Reply::Keep))
    })
    .await;
    let mut options = options(&web);
    (options.max_records, options.in_flight) = (10, 3);
    let mut sink = open(options).await;
    let writing = tokio::spawn(async move { write(&mut sink, batch(0..100)).await });
    // The maximum number of requests arrives at once, and none is answered before.
    crate::common::eventually("three requests at a time", Duration::from_secs(60), || async {
        (web.busy() == 3).then_some(())
    })
    .await;
    gate.add_permits(10);
    assert_eq!(writing.await.unwrap().unwrap(), Durability::Durable);
    assert_eq!((web.busiest(), web.seen().len()), (3, 10));
    assert_eq!(web.kept(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_in_flight_keeps_the_order_of_the_stream() {
    let web = Web::start(|_| Reply::Keep).await;
    let mut options = options(&web);
    (options.max_records, options.in_flight) = (7, 1);
    let mut sink = open(options).await;
    write(&mut sink, batch(3..200)).await.unwrap();
    assert_eq!(web.kept_as_they_came(), (3..200).collect::<Vec<_>>());
}

/// As after a crash: another process, another start, batches cut elsewhere.
#[tokio::test]
async fn a_repeat_has_the_same_keys_within_a_batch() {
    let keys = |web: &Web| -> std::collections::BTreeSet<String> {
        web.seen().iter().map(|seen| seen.header("idempotency-key").to_owned()).collect()
    };
    let first = Web::start(|_| Reply::Keep).await;
    let second = Web::start(|_| Reply::Keep).await;
    // One chunk, so that each record's chunk is the same in both.
    let whole = batch(0..1000);
    let cut = |at: u64| whole.before(rillway::types::Offset(at)).unwrap();
    for (web, batch) in [(&first, whole.clone()), (&second, cut(730))] {
        let mut options = options(web);
        options.max_records = 100;
        write(&mut open(options).await, batch).await.unwrap();
    }
    let (first, second) = (keys(&first), keys(&second));
    assert_eq!((first.len(), second.len()), (10, 8));
    let only_second: Vec<_> = second.difference(&first).collect();
    assert_eq!(only_second.len(), 1, "{only_second:?}");
    assert!(only_second[0].starts_with("events/700-729/"), "{only_second:?}");
}
