//! What each route answers.

use super::*;

async fn server() -> Server {
    Server::start(Scripted::default(), Limits::default()).await
}

#[tokio::test]
async fn get_routes_when_all_is_well() {
    let server = server().await;
    let json = "application/json";
    let table = [
        ("/", "text/html; charset=utf-8", "</html>"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "rillway_probe_total 3"),
        ("/livez", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", json, "\"ready\":true"),
        ("/readyz?verbose=1", json, "\"ready\":true"),
        ("/api/v1/consumers", json, "\"durable_offset\":11"),
        ("/api/v1/status", json, "\"verdict\":\"All is well: 1 consumer works"),
        ("/api/v1/history", json, "\"lag_messages\":[3.0,null,9.0]"),
    ];
    for (path, kind, part) in table {
        let got = server.ask("GET", path).await;
        assert_eq!((got.status, got.header("content-type")), (200, Some(kind)), "{path}");
        assert!(got.body.contains(part), "{path}: {}", got.body);
        assert_eq!(got.header("cache-control"), Some("no-store"), "{path}");

        let head = server.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), got.header("content-length"), "{path}");
        assert_eq!(head.header("content-type"), Some(kind), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_as_json() {
    let server = server().await;
    let got = server.ask("GET", "/api/v1/consumers").await.json();
    let consumers = got["consumers"].as_array().unwrap();
    assert_eq!(consumers.len(), 1);
    let expected = serde_json::json!({
        "name": NAME, "stream": "events", "super_stream": null, "reference": "archiver",
        "sink": "file", "guarantee": "exactly-once", "state": "running",
        "state_age_seconds": 4000.0, "ready": true, "reason": null,
        "received_messages_per_second": 12.5, "received_bytes_per_second": 1250.0,
        "last_error": "it was <b>away</b>", "last_error_age_seconds": 60.0,
        "ready_age_seconds": 4000.0, "halted_offset": null, "stream_seen_age_seconds": 0.5,
        "received_offset": 12, "durable_offset": 11, "stored_offset": 0,
        "stream_first_offset": 0, "stream_last_offset": 20, "lag_messages": 9,
        "lag_seconds": 1.5, "headroom_messages": null, "restarts": 2,
        "memory_bound_bytes": 33_554_432, "buffered_bytes": 100,
    });
    assert_eq!(consumers[0], expected);
    server.stop().await;
}

#[tokio::test]
async fn not_ready_and_not_live_say_why() {
    let scripted = Scripted {
        not_ready: Some("the stream was deleted".to_owned()),
        stuck: Some("the loop \"archiver\" made no turn for 31.0 s".to_owned()),
        ..Scripted::default()
    };
    let server = Server::start(scripted, Limits::default()).await;
    let ready = server.ask("GET", "/readyz").await;
    assert_eq!(ready.status, 503);
    let expected = serde_json::json!({ "ready": false, "consumers": [{
        "name": NAME, "stream": "events", "state": "halted", "ready": false,
        "ready_age_seconds": 4000.0, "reason": "the stream was deleted",
    }]});
    assert_eq!(ready.json(), expected);
    // For a rolling update, one that waits for an operator does not count; the rest of the answer is the same.
    let without = server.ask("GET", "/readyz?exclude=paused,halted").await;
    assert_eq!((without.status, &without.json()["ready"]), (200, &true.into()));
    assert_eq!(without.json()["consumers"], expected["consumers"]);
    assert_eq!(server.ask("GET", "/readyz?exclude=backoff").await.status, 503);
    let misspelt = server.ask("GET", "/readyz?exclude=halt").await;
    assert_eq!(misspelt.status, 400);
    assert!(misspelt.body.contains("the states are starting, connecting, "), "{}", misspelt.body);
    let live = server.ask("GET", "/livez").await;
    assert_eq!(live.status, 503);
    assert_eq!(live.body, "the loop \"archiver\" made no turn for 31.0 s\n");
    server.stop().await;
}

#[tokio::test]
async fn commit_answers() {
    let server = server().await;
    let encoded = "arch%3Ci%3Ever%20%26%20%22co%22";
    let table = [
        (
            encoded,
            200,
            "{\"name\":\"arch<i>ver & \\\"co\\\"\",\"stored\":[{\"stream\":\"events\",\"offset\":11}]}\n",
        ),
        (
            "empty",
            409,
            "{\"error\":\"consumer \\\"empty\\\" has nothing durable yet, so there is nothing to store\"}\n",
        ),
        ("away", 503, "{\"error\":\"the broker is away\"}\n"),
        ("nobody", 404, "{\"error\":\"no consumer is named \\\"nobody\\\"\"}\n"),
    ];
    for (name, status, body) in table {
        let got = server.ask("POST", &format!("/api/v1/consumers/{name}/commit")).await;
        assert_eq!((got.status, got.body.as_str()), (status, body), "{name}");
    }
    let broken = server.ask("POST", "/api/v1/consumers/%ff/commit").await;
    assert_eq!(broken.status, 400);
    assert_eq!(server.overview.commits.load(Ordering::SeqCst), table.len());
    server.stop().await;
}

#[tokio::test]
async fn other_methods_and_paths() {
    let server = server().await;
    let commit = "/api/v1/consumers/a/commit";
    let table = [
        ("POST", "/metrics", 405, Some("get, head")),
        ("DELETE", "/", 405, Some("get, head")),
        ("PUT", "/api/v1/consumers", 405, Some("get, head")),
        ("GET", commit, 405, Some("post")),
        ("HEAD", commit, 405, Some("post")),
        ("OPTIONS", commit, 405, Some("post")),
        ("GET", "/nothing", 404, None),
        ("GET", "/metrics/", 404, None),
        ("GET", "//metrics", 404, None),
        ("POST", "/api/v1/consumers//commit", 404, None),
        ("POST", "/api/v1/consumers/a/b/commit", 404, None),
        ("POST", "/api/v1/consumers/commit", 404, None),
        ("GET", "/../etc/passwd", 404, None),
        ("GET", "/api/v1/consumers/a/pause", 405, Some("post")),
        ("PUT", "/api/v1/consumers/a/restart", 405, Some("post")),
        ("POST", "/api/v1/consumers//pause", 404, None),
        ("POST", "/api/v1/consumers/a/stop", 404, None),
        ("POST", "/api/v1/log-level", 405, Some("get, head, put")),
        ("POST", "/api/v1/config", 405, Some("get, head")),
        ("GET", "/api/v1/reload", 405, Some("post")),
        ("GET", "/api/v1/drain", 405, Some("post")),
    ];
    for (method, path, status, allow) in table {
        let got = server.ask(method, path).await;
        assert_eq!((got.status, got.header("allow")), (status, allow), "{method} {path}");
    }
    let routes = server.ask("GET", "/nothing").await.json();
    assert_eq!(routes["routes"].as_array().map(Vec::len), Some(20));
    assert_eq!(server.overview.commits.load(Ordering::SeqCst), 0);
    server.stop().await;
}

#[tokio::test]
async fn the_probe_asks_the_server() {
    let scripted = Scripted { not_ready: Some("no broker".to_owned()), ..Scripted::default() };
    let server = Server::start(scripted, Limits::default()).await;
    let unspecified = SocketAddr::new("0.0.0.0".parse().unwrap(), server.address.port());
    let asked = tokio::task::spawn_blocking(move || {
        ["/livez", "/readyz", "/nothing"].map(|path| Client::new(unspecified).get(path).unwrap())
    });
    let [live, ready, nothing] = asked.await.unwrap();
    assert_eq!(live, (200, "ok\n".to_owned()));
    assert_eq!(ready.0, 503);
    assert!(ready.1.contains("no broker"));
    assert_eq!(nothing.0, 404);
    server.stop().await;
}

#[test]
fn the_probe_takes_no_path_that_would_break_the_request() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    for path in ["livez", "", "/a b", "/a\r\nx: y"] {
        assert!(matches!(Client::new(nobody).get(path), Err(ProbeError::Path(_))), "{path:?}");
    }
}

#[tokio::test]
async fn the_description_has_every_route_and_no_other() {
    let server = server().await;
    let described = server.ask("GET", "/api/v1/openapi.json").await.json();
    let mut all: Vec<String> = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys();
        all.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    all.sort();
    let mut routes: Vec<_> = super::super::routes::ROUTES.iter().map(ToString::to_string).collect();
    routes.sort();
    assert_eq!(all, routes);
    server.stop().await;
}
