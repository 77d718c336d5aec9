//! Failures that may pass, and others: statuses, silence, cut connections, secrets in errors.

use std::sync::atomic::{AtomicBool, Ordering};

use rillway::flow::batch::Batch;

use super::*;

/// A time limit that no answer reaches.
const LONG: Duration = Duration::from_secs(60);

/// The first request with offset 100 fails in this way; everything else is accepted. Returns what was
/// sent twice.
async fn after_one_failure(
    timeout: Duration,
    failure: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Web, String) {
    let failed = AtomicBool::new(false);
    let web = Web::start(move |seen| {
        if seen.offsets().contains(&100) && !failed.swap(true, Ordering::SeqCst) {
            return failure();
        }
        Reply::Keep
    })
    .await;
    let mut options = options(&web);
    options.max_records = 50;
    options.timeout = timeout;
    let mut sink = open(options).await;
    let (what, _) = transient(write(&mut sink, batch(0..300)).await);
    assert!(
        what.starts_with(&format!("POST {} with 50 records (offsets 100 to 149)", web.url())),
        "{what}"
    );
    let before = web.seen().len();
    assert_eq!(write(&mut sink, batch(0..300)).await.unwrap(), Durability::Durable);
    // Only records that were not accepted were sent again, the failed request under the same key.
    let (first, again) = (&web.seen()[..before], &web.seen()[before..]);
    let key = |seen: &Seen| seen.header("idempotency-key").to_owned();
    let twice: Vec<_> =
        again.iter().map(key).filter(|k| first.iter().any(|seen| key(seen) == *k)).collect();
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert!(twice[0].starts_with("events/100-149/"), "{twice:?}");
    (web, what)
}

#[tokio::test]
async fn a_failed_request_comes_again_and_no_other() {
    let no = || Reply::Answer(503, Vec::new(), "the database\nis away".to_owned());
    let (web, what) = after_one_failure(LONG, no).await;
    assert_eq!(web.kept(), (0..300).collect::<Vec<_>>());
    assert!(
        what.ends_with("was answered with 503 Service Unavailable: \"the database is away\""),
        "{what}"
    );
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_after_the_time_limit() {
    let (web, what) = after_one_failure(Duration::from_secs(5), || Reply::Hang).await;
    assert_eq!(web.kept(), (0..300).collect::<Vec<_>>());
    assert!(what.contains("no whole answer within 5s"), "{what}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    for failure in [|| Reply::KeepAndTear, || Reply::KeepAndHangUp] {
        let (web, what) = after_one_failure(LONG, failure).await;
        let twice: Vec<u64> =
            web.kept().windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
        assert_eq!(twice, (100..150).collect::<Vec<_>>(), "{what}");
        assert!(what.contains("It is not known whether it arrived"), "{what}");
    }
}

#[tokio::test]
async fn nobody_listening_is_told_and_tried_again() {
    let web = Web::start(|_| Reply::Keep).await;
    let options = options(&web);
    let mut sink = open(options).await;
    let address = web.address;
    web.stop().await;
    let (what, wait) = transient(write(&mut sink, batch(0..3)).await);
    assert!(what.contains("onnection refused") && wait.is_none(), "{what}");
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let web = Web::on(listener, |_| Reply::Keep);
    write(&mut sink, batch(0..3)).await.unwrap();
    assert_eq!(web.kept(), [0, 1, 2]);
}

#[tokio::test]
async fn the_longest_retry_after_counts() {
    let web = Web::start(|seen| {
        let wait = if seen.offsets()[0] == 10 { "17" } else { "3" };
        Reply::Answer(429, vec![("retry-after", wait.to_owned())], "slow down".to_owned())
    })
    .await;
    let mut options = options(&web);
    options.max_records = 10;
    let mut sink = open(options).await;
    let (what, wait) = transient(write(&mut sink, batch(0..20)).await);
    assert_eq!(wait, Some(Duration::from_secs(17)));
    assert!(what.contains("429 Too Many Requests: \"slow down\""), "{what}");
}

#[tokio::test]
async fn each_status_ends_as_it_should() {
    for (status, says) in [
        (401, "check the sink's `headers`"),
        (403, "what these credentials may do"),
        (404, "check the sink's `url`"),
        (500, "500 Internal Server Error"),
        (409, "409 Conflict"),
    ] {
        let web = Web::start(move |_| Reply::status(status)).await;
        let mut sink = open(options(&web)).await;
        let (what, _) = transient(write(&mut sink, batch(0..3)).await);
        assert!(what.contains(says), "{what}");
    }
    for (status, says) in [(405, "`method`"), (415, "`format`"), (501, "")] {
        let web = Web::start(move |_| Reply::status(status)).await;
        let mut sink = open(options(&web)).await;
        match write(&mut sink, batch(0..3)).await {
            Err(SinkError::Fatal(what)) if status < 500 => assert!(what.contains(says), "{what}"),
            Err(SinkError::Transient { .. }) if status >= 500 => {}
            other => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn no_redirection_is_followed() {
    let elsewhere = Web::start(|_| Reply::Keep).await;
    let to = format!("{}?token=abcdef", elsewhere.url());
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let web = Web::start(move |_| {
            Reply::Answer(status, vec![("location", to.clone())], String::new())
        })
        .await;
        let what = fatal(write(&mut open(options(&web)).await, batch(0..3)).await);
        assert!(what.contains(&format!("a redirection to {}", elsewhere.url())), "{what}");
        assert!(!what.contains("abcdef"), "{what}");
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn no_secret_is_told() {
    const SECRETS: [&str; 4] = ["hunter2", "letmein", "s3cr3t-query", "Zm9vYmFy"];
    // It sends back all that it received, as debugging services do.
    let web = Web::start(|seen| {
        Reply::Answer(500, Vec::new(), format!("{} {:?}", seen.target, seen.headers))
    })
    .await;
    let url = format!("http://user:letmein@{}/in?key=s3cr3t-query", web.address);
    let mut options = options(&web);
    options.url = Secret::new(url);
    options.headers = vec![
        ("X-Token".to_owned(), Secret::new("hunter2")),
        ("X-Other".to_owned(), Secret::new("Bearer Zm9vYmFy")),
    ];
    let shown = format!("{options:?}");
    let mut sink = open(options.clone()).await;
    let (answered, _) = transient(write(&mut sink, batch(0..3)).await);
    assert!(answered.contains("***"), "{answered}");
    let seen = &web.seen()[0];
    assert_eq!((seen.header("x-token"), seen.header("x-other")), ("hunter2", "Bearer Zm9vYmFy"));
    assert!(seen.header("authorization").starts_with("Basic "), "{seen:?}");
    assert!(seen.target.ends_with("?key=s3cr3t-query"));
    drop(web);
    let (refused, _) = transient(write(&mut sink, batch(0..3)).await);
    options.url = Secret::new("http://user:letmein@:0/in?key=s3cr3t-query");
    let Err(unusable) = HttpSink::open(options, StreamName::from(STREAM)).await else { panic!() };
    for text in [shown, answered, refused, unusable.to_string()] {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

/// The URL's user and password are sent as `Authorization: Basic …`, and come back in many forms.
#[tokio::test]
async fn no_form_of_the_urls_password_is_told() {
    // `svc?user` and `p@ss/wörd??` make a pair whose base64 contains a `/`.
    const PAIR: &str = "c3ZjP3VzZXI6cEBzcy93w7ZyZD8/";
    const FORMS: [&str; 8] = [
        PAIR,
        "c3ZjP3VzZXI6cEBzcy93w7ZyZD8\\/",
        "svc?user:p@ss/w\u{f6}rd??",
        "svc?user",
        "p@ss/w\u{f6}rd??",
        "p@ss\\/w\u{f6}rd??",
        "svc%3Fuser",
        "p%40ss%2Fw%C3%B6rd%3F%3F",
    ];
    for status in [400, 422, 413, 401, 500, 405] {
        for form in FORMS {
            let web = Web::start(move |seen| {
                assert_eq!(seen.header("authorization"), format!("Basic {PAIR}"));
                Reply::Answer(status, Vec::new(), format!("who is <{form}>?"))
            })
            .await;
            let mut options = options(&web);
            let user = "svc%3Fuser:p%40ss%2Fw%C3%B6rd%3F%3F";
            options.url = Secret::new(format!("http://{user}@{}/in", web.address));
            let Err(error) = write(&mut open(options).await, batch(0..1)).await else { panic!() };
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(text.contains("who is <***>?"), "{form}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let web = Web::start(|_| Reply::Hang).await;
    let mut options = options(&web);
    (options.max_records, options.max_bytes, options.in_flight) = (1_000_000, 10_000, 4);
    options.timeout = Duration::from_secs(2);
    let mut sink = open(options).await;
    // Large records go alone, and wait until nothing else is in flight.
    let large = conformance::message(&vec![b'x'; 60_000]);
    let small = conformance::message(&vec![b'x'; 3_000]);
    let messages: Vec<_> =
        (0..40).map(|i| if i < 2 { large.clone() } else { small.clone() }).collect();
    let part = conformance::part(0, &messages).unwrap();
    let large_first = Batch::new(StreamName::from(STREAM), vec![part.clone()]).unwrap();
    transient(write(&mut sink, large_first).await);
    assert_eq!(web.seen().len(), 1, "a large one flies alone");
    let (_, small) = part.block.clone().split_at(2);
    let small = Batch::new(
        StreamName::from(STREAM),
        vec![rillway::flow::batch::Part { block: small, ..part }],
    );
    transient(write(&mut sink, small.unwrap()).await);
    let sizes: Vec<_> = web.seen().iter().skip(1).map(|seen| seen.body.len()).collect();
    assert_eq!(sizes.len(), 4);
    assert!(sizes.iter().all(|size| *size <= 10_000), "{sizes:?}");
}

/// TLS: the named authority is trusted, another is not; the client presents its certificate.
#[tokio::test]
async fn tls_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("ca.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("other.pem"), other.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let identity = || (made.cert.der().clone(), made.signing_key.serialize_der());
    let web = Web::start_tls(identity(), None, |_| Reply::Keep).await;
    let at = |web: &Web, tls: HttpTls| {
        let mut options = options(web);
        options.url = Secret::new(format!("https://localhost:{}/in", web.address.port()));
        options.tls = tls;
        options
    };
    let with = |tls| at(&web, tls);
    let trusted = HttpTls { ca: Some(path("ca.pem")), ..HttpTls::default() };
    write(&mut open(with(trusted.clone())).await, batch(0..3)).await.unwrap();
    assert_eq!(web.kept(), [0, 1, 2]);
    for tls in [HttpTls { ca: Some(path("other.pem")), ..HttpTls::default() }, HttpTls::default()] {
        let (what, _) = transient(write(&mut open(with(tls)).await, batch(3..4)).await);
        assert!(what.contains("certificate"), "{what}");
    }
    let any = HttpTls { insecure_skip_verify: true, ..HttpTls::default() };
    write(&mut open(with(any)).await, batch(3..4)).await.unwrap();
    assert_eq!(web.kept(), [0, 1, 2, 3]);
    let known = Web::start_tls(identity(), Some(made.cert.der().clone()), |_| Reply::Keep).await;
    transient(write(&mut open(at(&known, trusted.clone())).await, batch(4..5)).await);
    let shows = HttpTls { identity: Some((path("ca.pem"), path("key.pem"))), ..trusted };
    write(&mut open(at(&known, shows)).await, batch(4..5)).await.unwrap();
    assert_eq!(known.kept(), [4]);
    for (tls, says) in [
        (HttpTls { ca: Some(path("nothing.pem")), ..HttpTls::default() }, "No such file"),
        (HttpTls { ca: Some(path("key.pem")), ..HttpTls::default() }, "no certificate"),
    ] {
        match HttpSink::open(with(tls), StreamName::from(STREAM)).await {
            Err(SinkError::Fatal(what)) => assert!(what.contains(says), "{what}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened"),
        }
    }
}
