//! What the commands answer, and what reaches the daemon.

use super::*;

#[async_trait]
impl Control for Scripted {
    async fn change(
        &self,
        verb: Verb,
        target: Target<'_>,
        wait: Duration,
    ) -> Result<Changed, ControlError> {
        self.note(format!("{verb} {} {:?} {wait:?}", target.consumer, target.stream));
        let consumer = target.consumer.to_owned();
        match (target.consumer, target.stream) {
            ("nobody", _) => Err(ControlError::Unknown(consumer)),
            ("ending", _) => Err(ControlError::Ending),
            (_, Some("nowhere")) => Err(ControlError::UnknownStream {
                consumer,
                stream: "nowhere".to_owned(),
                known: vec!["s-0".into(), "s-1".into()],
            }),
            (name, _) => Ok(Changed {
                consumer: name.into(),
                verb,
                finished: name != "slow",
                note: None,
                streams: vec![StreamState {
                    stream: "s-0".into(),
                    state: State::Paused,
                    ready: false,
                    reason: Some("paused".to_owned()),
                    durable_offset: Some(Offset(5)),
                    stored_offset: None,
                }],
            }),
        }
    }

    async fn skip(&self, order: SkipOrder<'_>, wait: Duration) -> Result<Changed, ControlError> {
        let Target { consumer, stream } = order.target;
        let (offset, letter) = (order.offset, order.to_dead_letters);
        self.note(format!("skip {consumer} {stream:?} {offset} {letter} {wait:?}"));
        match offset.0 {
            9 => Err(ControlError::NotSkipped("it has halted at offset 7".to_owned())),
            _ => self.change(Verb::Skip, order.target, wait).await,
        }
    }

    async fn seek(&self, target: Target<'_>, seek: Seek) -> Result<Sought, SeekError> {
        let Seek { to, dry_run, may_skip, alone, wait } = seek;
        let (consumer, stream) = (target.consumer, target.stream);
        self.note(format!(
            "seek {consumer} {stream:?} {to:?} {dry_run} {may_skip} {alone} {wait:?}"
        ));
        match consumer {
            "nobody" => Err(ControlError::Unknown(consumer.to_owned()).into()),
            "ending" => Err(ControlError::Ending.into()),
            "beyond" => Err(SeekError::Refused("beyond the end".to_owned())),
            "broken" => Err(SeekError::Failed("no broker".to_owned())),
            name => Ok(Sought {
                consumer: name.into(),
                dry_run,
                finished: name != "slow",
                moves: vec![serde_json::json!({ "to_offset": 5 })],
            }),
        }
    }

    fn drain(&self) -> Draining {
        self.note("drain".to_owned());
        Draining { draining: true, grace_seconds: 10.0 }
    }

    fn log_filter(&self) -> String {
        "info".to_owned()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        self.note(format!("log {filter}"));
        if filter == "loud" { Err("\"loud\" is not a level".to_owned()) } else { Ok(()) }
    }

    async fn reload(&self, wait: Duration) -> Result<Reloaded, NotReloaded> {
        self.note(format!("reload {wait:?}"));
        match wait.as_secs() {
            1 => Err(NotReloaded::Refused {
                text: "bad configuration in f, line 3: log: no".to_owned(),
                problems: vec![ProblemView {
                    file: Some("f".to_owned()),
                    line: Some(3),
                    key: "log".to_owned(),
                    consumer: None,
                    variable: None,
                    message: "no".to_owned(),
                }],
            }),
            2 => Err(NotReloaded::Ending),
            3 => Err(NotReloaded::Failed("a disk hangs".to_owned())),
            seconds => Ok(Reloaded {
                result: ConfigResult::Applied,
                file: "f".to_owned(),
                sha256: "00".to_owned(),
                added: vec!["a".into()],
                changed: Vec::new(),
                removed: Vec::new(),
                unchanged: 4,
                watches_changed: false,
                log_filter: None,
                finished: seconds != 0,
            }),
        }
    }

    fn configuration(&self) -> ConfigurationView {
        ConfigurationView {
            file: "f".to_owned(),
            sha256: "00".to_owned(),
            loaded_at: "2026-01-01T00:00:00Z".to_owned(),
            consumers: 1,
            last_reload: None,
        }
    }
}

impl Scripted {
    fn note(&self, order: String) {
        self.orders.lock().unwrap().push(order);
    }
}

async fn server() -> Server {
    Server::start(Scripted::default(), Limits::default()).await
}

#[tokio::test]
async fn orders_for_a_consumer() {
    let server = server().await;
    // (path below the consumers, status, part of the body, what reached the daemon)
    let table = [
        ("a/pause", 200, "\"finished\":true", "pause a None 30s"),
        ("a/resume?wait=0s", 200, "\"verb\":\"resume\"", "resume a None 0ns"),
        ("slow/restart?wait=1500ms", 202, "\"finished\":false", "restart slow None 1.5s"),
        (
            "a%2Fb/pause?stream=s%2D0&wait=60",
            200,
            "\"consumer\":\"a/b\"",
            "pause a/b Some(\"s-0\") 60s",
        ),
        ("nobody/pause", 404, "no consumer is named", "pause nobody None 30s"),
        (
            "a/pause?stream=nowhere",
            404,
            "it reads \\\"s-0\\\", \\\"s-1\\\"",
            "pause a Some(\"nowhere\") 30s",
        ),
        ("ending/resume", 409, "shutting down", "resume ending None 30s"),
        ("a/pause?wait=61s", 400, "not a time to wait", ""),
        ("a/pause?wait=soon", 400, "not a time to wait", ""),
        ("a/pause?wait=-1s", 400, "not a time to wait", ""),
        ("a/pause?partition=x", 400, "unknown key \\\"partition\\\"", ""),
        ("a/pause?stream=%ff", 400, "not UTF-8", ""),
        ("%ff/pause", 400, "not UTF-8", ""),
        ("nobody/commit?stream=x&wait=1s", 404, "no consumer is named", ""),
        ("nobody/commit?x=y", 400, "unknown key", ""),
    ];
    for (path, status, part, order) in table {
        let got = server.ask("POST", &format!("/api/v1/consumers/{path}")).await;
        assert_eq!(got.status, status, "{path}: {}", got.body);
        assert!(got.body.contains(part), "{path}: {}", got.body);
        let orders = std::mem::take(&mut *server.overview.orders.lock().unwrap());
        assert_eq!(orders.join(";"), order, "{path}");
    }
    let answer = server.ask("POST", "/api/v1/consumers/a/pause").await.json();
    let expected = serde_json::json!({
        "consumer": "a", "verb": "pause", "finished": true,
        "streams": [{ "stream": "s-0", "state": "paused", "ready": false, "reason": "paused",
            "durable_offset": 5, "stored_offset": null }],
    });
    assert_eq!(answer, expected);
    server.stop().await;
}

#[tokio::test]
async fn positions_that_are_moved() {
    let server = server().await;
    let first = r#"{"to":"first"}"#;
    // (consumer and query, body, status, part of the answer, what reached the daemon)
    for (path, body, status, part, order) in [
        ("a/seek", first, 200, "\"to_offset\":5", "seek a None First false false false 30s"),
        (
            "a/seek?wait=1s",
            r#"{"to":{"offset":0},"stream":"s-1","dry_run":true}"#,
            200,
            "\"dry_run\":true",
            "seek a Some(\"s-1\") Offset(Offset(0)) true false false 1s",
        ),
        (
            "a/seek",
            r#"{"to":"first","may_skip":true,"alone":true}"#,
            200,
            "",
            "seek a None First false true true 30s",
        ),
        ("a/seek?stream=s-1", first, 200, "", "seek a Some(\"s-1\") First false false false 30s"),
        (
            "slow/seek?wait=0s",
            first,
            202,
            "\"finished\":false",
            "seek slow None First false false false 0ns",
        ),
        (
            "nobody/seek",
            first,
            404,
            "no consumer is named",
            "seek nobody None First false false false 30s",
        ),
        (
            "ending/seek",
            first,
            409,
            "shutting down",
            "seek ending None First false false false 30s",
        ),
        (
            "beyond/seek",
            first,
            409,
            "beyond the end",
            "seek beyond None First false false false 30s",
        ),
        ("broken/seek", first, 503, "no broker", "seek broken None First false false false 30s"),
        ("a/seek", "", 400, "no request to move a position", ""),
        ("a/seek", r#"{"to":"there"}"#, 400, "expected", ""),
        ("a/seek?stream=s", r#"{"to":"first","stream":"t"}"#, 400, "different streams", ""),
        ("a/seek?x=y", first, 400, "unknown key", ""),
    ] {
        let head = format!(
            "POST /api/v1/consumers/{path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        let got = Reply::of(&server.raw((head + body).as_bytes()).await);
        assert_eq!(got.status, status, "{path} {body}: {}", got.body);
        assert!(got.body.contains(part), "{path} {body}: {}", got.body);
        let orders = std::mem::take(&mut *server.overview.orders.lock().unwrap());
        assert_eq!(orders.join(";"), order, "{path} {body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn orders_for_the_daemon() {
    let server = server().await;
    let table = [
        ("reload?wait=5s", 200, "\"added\":[\"a\"]"),
        ("reload?wait=0s", 202, "\"finished\":false"),
        ("reload?wait=1s", 422, "\"problems\":[{\"file\":\"f\",\"line\":3,\"key\":\"log\""),
        ("reload?wait=2s", 409, "shutting down"),
        ("reload?wait=3s", 503, "a disk hangs"),
        ("reload?stream=s", 400, "unknown key"),
        ("drain", 202, "{\"draining\":true,\"grace_seconds\":10.0}"),
    ];
    for (path, status, part) in table {
        let got = server.ask("POST", &format!("/api/v1/{path}")).await;
        assert_eq!(got.status, status, "{path}: {}", got.body);
        assert!(got.body.contains(part), "{path}: {}", got.body);
    }
    let config = server.ask("GET", "/api/v1/config").await.json();
    assert_eq!((config["sha256"].as_str(), config["consumers"].as_u64()), (Some("00"), Some(1)));
    server.stop().await;
}

#[tokio::test]
async fn the_filter_of_the_log() {
    let server = server().await;
    let shown = server.ask("GET", "/api/v1/log-level").await;
    assert_eq!((shown.status, shown.body.as_str()), (200, "{\"filter\":\"info\"}\n"));
    let put = async |body: &str| {
        let head = format!(
            "PUT /api/v1/log-level HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        let got = Reply::of(&server.raw((head + body).as_bytes()).await);
        (got.status, got.body)
    };
    assert_eq!(put("info,rillway::broker=debug\n").await.0, 200);
    let (status, body) = put("loud").await;
    assert_eq!((status, body.contains("not a level")), (400, true), "{body}");
    let orders = server.overview.orders.lock().unwrap().join(";");
    assert_eq!(orders, "log info,rillway::broker=debug;log loud");
    server.stop().await;
}

#[tokio::test]
async fn no_web_page_gives_an_order() {
    let server = server().await;
    for (method, path) in [
        ("POST", "/api/v1/consumers/a/pause"),
        ("POST", "/api/v1/reload"),
        ("POST", "/api/v1/drain"),
        ("PUT", "/api/v1/log-level"),
    ] {
        let got = server.ask_with(method, path, "origin: http://evil.example\r\n").await;
        assert_eq!(got.status, 403, "{path}");
    }
    assert_eq!(server.overview.orders.lock().unwrap().len(), 0);
    server.stop().await;
}
