//! Traces: does a real collector get every operation with what it is about, and does one that is away, or hangs,
//! change nothing for consumers?

mod collector;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, KeyPair};

use self::collector::{Collector, Span};
use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

const MESSAGES: u64 = 100;

/// One consumer that makes each batch durable at once.
fn consumer(stream: &str) -> String {
    format!(
        "[[consumer]]\nname = \"rows\"\nstream = \"{stream}\"\nreference = \"archive\"\n\
         commit = {{ every = \"100ms\" }}\nsink = {{ type = \"sqlite\", path = \"rows.db\" }}\n"
    )
}

fn traces(endpoint: &str) -> String {
    format!(
        "[traces]\nendpoint = \"{endpoint}\"\nservice_name = \"orders\"\ninterval = \"100ms\"\ntimeout = \"300s\"\n\
         headers = {{ api-key = \"hunter2\" }}\nresource = {{ \"deployment.environment.name\" = \"test\" }}\n"
    )
}

async fn every_operation_arrives() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let collector = Collector::start()?;
    let stream = streams::create(broker, "otel").await;
    streams::publish(broker, &stream, (0..MESSAGES).map(body)).await;
    let tables = format!("{}{}", traces(&collector.endpoint()), consumer(&stream));
    let home = Home::new(&broker.uri(), &tables);
    let mut daemon = home.start();
    daemon.until_durable("rows", MESSAGES - 1).await;
    let stored = |c: &serde_json::Value| c["stored_offset"] == MESSAGES - 1;
    daemon.until("rows", "its offset is stored", LONG, stored).await;
    let run = |arguments: &[&str]| {
        let output = home.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["reload"]);
    run(&["seek", "rows", "--to", "offset:40"]);
    // The replay's own traces arrive over TLS. Of whoever cannot be trusted, it is told which key is about that.
    let replay = |endpoint: &str, ca: &CertifiedKey<KeyPair>, into: &str| {
        std::fs::write(home.path("ca.pem"), ca.cert.pem()).unwrap();
        let range = ["replay", "rows", "--from", "offset:10", "--to", "offset:19"];
        let mut command = home.command(&range);
        command.args(["--quiet", "--sink", into]);
        command
            .env("RILLWAY__TRACES__ENDPOINT", endpoint)
            .env("RILLWAY__TRACES__TLS__CA", "ca.pem");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let certified = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (own, other) = (certified(), certified());
    let secured = collector.behind_tls(&own).await;
    let said = replay(&secured, &own, "{ type = \"file\", dir = \"again\" }");
    assert!(!said.contains("cannot be sent"), "{said}");
    let said = replay(&secured, &other, "{ type = \"null\" }");
    assert!(said.contains("TLS handshake") && said.contains("traces.tls.ca"), "{said}");
    daemon.until_durable("rows", MESSAGES - 1).await;
    let sent = eventually("spans are counted as sent", LONG, || async {
        daemon.metric("rillway_trace_spans_total", &["sent"]).await.filter(|sent| *sent > 0.0)
    })
    .await;
    for lost in ["refused", "failed", "no_room"] {
        assert_eq!(daemon.metric("rillway_trace_spans_total", &[lost]).await, Some(0.0), "{lost}");
    }
    daemon.terminate().await;

    // The last ones are sent at the end of the daemon.
    let spans = eventually("the last drain has arrived", LONG, || async {
        let spans = collector.spans();
        (spans.iter().filter(|span| span.name == "drain").count() >= 2).then_some(spans)
    })
    .await;
    assert!(spans.len() as f64 >= sent, "{} of {sent}", spans.len());
    let of = |name: &str| {
        let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert!(
            !found.is_empty(),
            "no {name} in {:?}",
            spans.iter().map(|s| &s.name).collect::<Vec<_>>()
        );
        found
    };
    for span in &spans {
        assert!(span.has("service.name", "orders"), "{}", span.text);
        assert!(span.has("deployment.environment.name", "test"), "{}", span.text);
        assert!(
            !span.text.contains("hunter2") && !span.text.contains("guest:guest"),
            "{}",
            span.text
        );
        if span.name != "reload" {
            // Those of the replay go on behind the name.
            let begins = |key: &str, with: &str| {
                span.attributes.get(key).is_some_and(|value| value.starts_with(with))
            };
            assert!(begins("consumer", "rows") && begins("reference", "archive"), "{}", span.text);
            assert!(span.has("stream", &stream), "{}", span.text);
        }
    }
    let connects = of("connect");
    assert!(connects.iter().any(|span| span.has("purpose", "read")), "{connects:?}");
    for span in of("subscribe") {
        let parent = connects.iter().find(|connect| connect.id == span.parent);
        assert!(parent.is_some_and(|connect| connect.trace == span.trace), "{}", span.text);
    }
    for span in of("open_sink") {
        assert!(span.has("sink", "sqlite") || span.has("sink", "file"), "{}", span.text);
    }
    // All messages before the seek, those behind it again, and those of the replay; never one span for each.
    let writes = of("write");
    let records = |reference: &str| {
        let of = writes.iter().filter(|span| span.has("reference", reference));
        of.map(|span| span.number("records")).sum::<u64>()
    };
    let own = records("archive");
    assert_eq!(own, MESSAGES + MESSAGES - 40, "{writes:?}");
    let of_replay = writes.iter().filter(|span| !span.has("reference", "archive"));
    assert_eq!(of_replay.map(|span| span.number("first_offset")).min(), Some(10), "{writes:?}");
    assert!((writes.len() as u64) < own / 2, "{} writes", writes.len());
    for span in &writes {
        // The replay's is flushed by what ends the range.
        let is_done = span.has("result", "durable") || span.has("sink", "file");
        assert!(is_done && span.number("bytes") > 0, "{}", span.text);
        let (first, last) = (span.number("first_offset"), span.number("last_offset"));
        assert_eq!(last - first + 1, span.number("records"), "{}", span.text);
    }
    let held = |span: &&Span| span.has("held_offset", "99") && span.has("offset", "99");
    assert!(of("store_offset").iter().any(held), "{:?}", of("store_offset"));
    assert!(of("drain").iter().all(|span| span.has("result", "drained")));
    assert!(of("seek")[0].has("to", "offset 40"), "{}", of("seek")[0].text);
    let replay = of("replay")[0];
    assert_eq!((replay.number("first_offset"), replay.number("last_offset")), (10, 19));
    assert!(of("reload").iter().any(|span| span.has("result", "unchanged")));
    assert!(!home.log().contains("cannot be sent"), "{}", home.log_tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_every_operation_and_no_message() {
    or_skip!(every_operation_arrives().await);
}

async fn nothing_waits_for(endpoint: &str, is_told: bool) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "otel-away").await;
    let home =
        Home::new(&broker.uri(), &format!("{}queue = 4\n{}", traces(endpoint), consumer(&stream)));
    let mut daemon = home.start();
    for round in 0..5 {
        streams::publish(broker, &stream, (round * 10..round * 10 + 10).map(body)).await;
        daemon.until_durable("rows", round * 10 + 9).await;
    }
    // More than the queue and a request hold.
    eventually("spans have no room", LONG, || async {
        daemon.metric("rillway_trace_spans_total", &["no_room"]).await.filter(|n| *n > 0.0)
    })
    .await;
    let began = Instant::now();
    daemon.terminate().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let log = home.log();
    let told = log.lines().filter(|line| line.contains("spans of traces cannot be sent"));
    assert_eq!(told.count(), usize::from(is_told), "{log}");
    if is_told {
        assert!(log.contains("Does it run, and is traces.endpoint right?"), "{log}");
    }
    assert!(!log.contains("hunter2"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_once_and_delays_nothing() {
    // Nobody listens at this port, and no other test takes it.
    or_skip!(nothing_waits_for("http://127.0.0.1:1", true).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_delays_nothing() {
    // Connections are made by the kernel, and nobody takes them.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hanging.local_addr().unwrap());
    or_skip!(nothing_waits_for(&endpoint, false).await);
}
