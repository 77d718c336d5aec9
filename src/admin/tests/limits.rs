//! Clients that do not play by the rules, and the end of the server.

use super::*;

const GET: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn malformed_requests_do_not_reach_a_route_and_harm_nobody() {
    let server = Server::start(Scripted::default(), Limits::default()).await;
    // Exactly as long as may be, and not at its end yet.
    let long_path = format!("{:a<HEAD_BYTES_MAX$}", "GET /");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    let table: [(&[u8], u16); 7] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400), // TLS towards a plain port.
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n", 400),
        (long_path.as_bytes(), 431),
        (many.as_bytes(), 431),
    ];
    for (request, status) in table {
        let got = Reply::of(&server.raw(request).await);
        let start = String::from_utf8_lossy(&request[..request.len().min(40)]);
        assert_eq!(got.status, status, "{start}: {}", got.head);
    }
    assert_eq!(server.ask("GET", "/livez").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn large_bodies_are_refused_and_small_ones_ignored() {
    let server = Server::start(Scripted::default(), Limits::default()).await;
    let post = |length: usize| {
        format!(
            "POST /api/v1/consumers/away/commit HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    // Announced, and never sent: nobody waits for it.
    let large = Reply::of(&server.raw(post(BODY_BYTES_MAX + 1).as_bytes()).await);
    assert_eq!(large.status, 413);
    let small = server.raw((post(4) + "abcdGET /livez HTTP/1.0\r\n\r\n").as_bytes()).await;
    assert!(small.starts_with("HTTP/1.1 503"), "{small}");
    assert!(small.contains("\r\n\r\n{\"error\":\"the broker is away\"}"), "{small}");
    assert_eq!(server.overview.commits.load(Ordering::SeqCst), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_never_finished_is_cut_off() {
    let limits = Limits { head_time: Duration::from_millis(700), ..Limits::default() };
    let server = Server::start(Scripted::default(), limits).await;
    let began = Instant::now();
    let mut slow = server.connect().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.unwrap();
    let got = read_to_end(&mut slow).await;
    assert!(!got.contains("200 OK"), "{got}");
    assert!(began.elapsed() >= limits.head_time);
    // One that sends nothing at all, and one that is idle after a request.
    assert_eq!(read_to_end(&mut server.connect().await).await, "");
    let mut idle = server.connect().await;
    idle.write_all(GET).await.unwrap();
    assert!(read_to_end(&mut idle).await.ends_with("\r\n\r\nok\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_is_used_again_but_not_for_ever() {
    let limits = Limits {
        connection_time: Duration::from_secs(5),
        head_time: Duration::from_secs(60),
        ..Limits::default()
    };
    let server = Server::start(Scripted::default(), limits).await;
    let began = Instant::now();
    let mut stream = server.connect().await;
    let mut buffer = [0; 1024];
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].ends_with(b"\r\n\r\nok\n"));
    }
    assert_eq!(read_to_end(&mut stream).await, "");
    assert!(began.elapsed() >= limits.connection_time);
    assert!(began.elapsed() < limits.head_time, "it was the idle limit that ended it");
    server.stop().await;
}

/// As many connections as there may be, and some more, of each kind that does nothing for long.
#[tokio::test]
async fn idle_or_slow_clients_do_not_block_others() {
    let scripted = Scripted { commit_never_ends: true, ..Scripted::default() };
    let server = Server::start(scripted, Limits::default()).await;
    let places = Limits::default().connections;
    let requests: [(&str, &[u8]); 5] = [
        ("silent", b""),
        ("idle after an answer", GET),
        ("in the midst of a head", b"GET /metrics HTTP/1.1\r\nhost:"),
        ("not reading its answers", &b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500)),
        (
            "waiting for a commit",
            b"POST /api/v1/consumers/x/commit HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ),
    ];
    for (what, request) in requests {
        let mut held = Vec::new();
        for _ in 0..places + 6 {
            let mut stream = server.connect().await;
            stream.write_all(request).await.unwrap();
            held.push(stream);
        }
        for _ in 0..3 {
            assert_eq!(server.ask("GET", "/livez").await.status, 200, "beside those {what}");
        }
        // The first was closed for a later one: no more are open than may be.
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(
            Duration::from_secs(60),
            held.first_mut().unwrap().read_to_end(&mut rest),
        );
        assert!(closed.await.is_ok(), "{what}: the oldest is still open");
    }
    server.stop().await;
}

/// One that is being worked for is closed only after those that are waited for.
#[tokio::test]
async fn a_running_request_outlives_idle_connections() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let scripted = Scripted { commit_never_ends: true, ..Scripted::default() };
    let server = Server::start(scripted, limits).await;
    let mut busy = server.connect().await;
    busy.write_all(b"POST /api/v1/consumers/x/commit HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    while server.overview.commits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let mut idle = server.connect().await;
    for _ in 0..10 {
        assert_eq!(server.ask("GET", "/livez").await.status, 200);
    }
    let _others = (server.connect().await, server.connect().await);
    assert_eq!(server.ask("GET", "/livez").await.status, 200);
    assert_eq!(read_to_end(&mut idle).await, "");
    let waits = tokio::time::timeout(Duration::from_millis(50), busy.read(&mut [0; 1])).await;
    assert!(waits.is_err(), "it was closed: {waits:?}");
    server.stop().await;
}

#[tokio::test]
async fn shutdown_waits_for_no_idle_client_and_not_long_for_others() {
    let limits = Limits { stop_time: Duration::from_millis(300), ..Limits::default() };
    let scripted = Scripted { commit_never_ends: true, ..Scripted::default() };
    let server = Server::start(scripted, limits).await;
    let mut idle = server.connect().await;
    idle.write_all(GET).await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    let mut busy = server.connect().await;
    busy.write_all(b"POST /api/v1/consumers/x/commit HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    while server.overview.commits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let (address, began) = (server.address, Instant::now());
    server.stop().await;
    let took = began.elapsed();
    assert!(took >= limits.stop_time && took < Duration::from_secs(30), "{took:?}");
    read_to_end(&mut idle).await;
    assert_eq!(read_to_end(&mut busy).await, "");
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn an_address_in_use_is_named_with_what_to_do() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let text = bind(address).await.unwrap_err().to_string();
    assert!(text.contains(&address.to_string()) && text.contains("[admin] listen"), "{text}");
    let elsewhere = bind("192.0.2.1:0".parse().unwrap()).await;
    assert!(matches!(elsewhere, Err(ListenError::NotHere(_))), "{elsewhere:?}");
}

#[test]
fn the_probe_waits_no_longer_than_its_limit() {
    // A listener that accepts (in its backlog) and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let limit = Duration::from_millis(200);
    let began = Instant::now();
    let error = Client::new(address).call("GET", "/livez", "", limit).unwrap_err().to_string();
    let took = began.elapsed();
    assert!(took >= limit && took < Duration::from_secs(30), "{took:?}");
    assert!(error.contains(&address.to_string()) && error.contains("in time"), "{error}");
}
