//! Who is let in, and what a caller learns who is not.

use super::*;
use crate::types::Secret;
use crate::types::bearer::BearerToken;

const TOKEN: &str = "correct-horse-battery-staple";
const COMMIT: &str = "/api/v1/consumers/away/commit";
const ELSEWHERE: &str = "0.0.0.0:9552";
const HERE: &str = "127.0.0.1:9552";

fn token(text: &str) -> BearerToken {
    BearerToken::new(Secret::new(text)).unwrap()
}

/// A door of a server that listens on this address, as far as the door knows.
async fn behind(address: &str, with: impl FnOnce(Door) -> Door) -> Server {
    let door = with(Door::at(address.parse().unwrap()));
    let scripted = Scripted { not_ready: Some("no broker".to_owned()), ..Scripted::default() };
    Server::behind(Entrance { door, tls: None }, scripted, Limits::default()).await
}

fn commits(server: &Server) -> usize {
    server.overview.commits.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_command_needs_the_token_and_reading_does_not() {
    for address in [HERE, ELSEWHERE] {
        let server = behind(address, |door| door.with_token(token(TOKEN), None, false)).await;
        let wrong = "Bearer realm=\"rillway\", error=\"invalid_token\"".to_ascii_lowercase();
        let none = "Bearer realm=\"rillway\"".to_ascii_lowercase();
        for (headers, challenge) in [
            (String::new(), none.as_str()),
            (format!("authorization: Basic {TOKEN}\r\n"), &none),
            (format!("authorization: {TOKEN}\r\n"), &none),
            (format!("x-token: {TOKEN}\r\n"), &none),
            (format!("authorization: Bearer {TOKEN}\r\n").repeat(2), &none),
            ("authorization: Bearer\r\n".to_owned(), &none),
            ("authorization: Bearer x\r\n".to_owned(), &wrong),
            (format!("authorization: Bearer {}\r\n", &TOKEN[1..]), &wrong),
            (format!("authorization: Bearer {TOKEN}x\r\n"), &wrong),
            (format!("authorization: Bearer {}\r\n", TOKEN.to_uppercase()), &wrong),
        ] {
            let got = server.ask_with("POST", COMMIT, &headers).await;
            assert_eq!(got.status, 401, "{headers}");
            assert_eq!(got.header("www-authenticate"), Some(challenge), "{headers}");
            assert!(
                got.body.contains("[admin] token") && !got.body.contains(TOKEN),
                "{}",
                got.body
            );
        }
        assert_eq!(commits(&server), 0);
        // Not in the query either: it would be in the logs of proxies.
        let path = format!("{COMMIT}?token={TOKEN}");
        assert_eq!(server.ask("POST", &path).await.status, 401);
        for headers in ["authorization: Bearer ", "AUTHORIZATION: bearer   "] {
            // Carried out; under any name of the host.
            let got = server
                .ask_at("rillway.example", "POST", COMMIT, &format!("{headers}{TOKEN}\r\n"))
                .await;
            assert_eq!(got.status, 503, "{}", got.body);
        }
        assert_eq!(commits(&server), 2);
        for path in ["/", "/metrics", "/livez", "/api/v1/consumers"] {
            assert_eq!(server.ask("GET", path).await.status, 200, "{path}");
        }
        assert!(server.ask("GET", "/readyz").await.body.contains("no broker"));
        server.stop().await;
    }
}

#[tokio::test]
async fn without_a_token_commands_are_for_this_machine_alone() {
    let server = behind(ELSEWHERE, |door| door).await;
    for headers in [String::new(), format!("authorization: Bearer {TOKEN}\r\n")] {
        let got = server.ask_with("POST", COMMIT, &headers).await;
        assert_eq!(got.status, 403);
        assert!(got.body.contains("set [admin] token"), "{}", got.body);
    }
    assert_eq!(server.ask("GET", "/metrics").await.status, 200);
    assert_eq!(commits(&server), 0);
    server.stop().await;

    for address in [HERE, "[::1]:9552", "127.8.9.10:1", "[::ffff:127.0.0.1]:1"] {
        let server = behind(address, |door| door).await;
        assert_eq!(server.ask("POST", COMMIT).await.status, 503, "{address}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_web_page_of_another_site_may_not_command() {
    let server = behind(HERE, |door| door).await;
    let here = server.address;
    let authorization = format!("authorization: Bearer {TOKEN}\r\n");
    let guarded = behind(HERE, |door| door.with_token(token(TOKEN), None, false)).await;
    for headers in [
        "origin: http://evil.example\r\n".to_owned(),
        format!("origin: http://evil.example:{}\r\n", here.port()),
        "origin: http://127.0.0.1:1\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        "origin: \r\n".to_owned(),
        format!("origin: file://{here}\r\n"),
        format!("origin: http://{here}\r\norigin: http://evil.example\r\n"),
        "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        "Sec-Fetch-Site: same-site\r\n".to_owned(),
        "Sec-Fetch-Site: none\r\n".to_owned(),
    ] {
        let got = server.ask_with("POST", COMMIT, &headers).await;
        assert_eq!(got.status, 403, "{headers}");
        assert!(got.body.contains("other sites"), "{}", got.body);
        // Not even with the token.
        let both = format!("{headers}{authorization}");
        assert_eq!(guarded.ask_with("POST", COMMIT, &both).await.status, 403, "{headers}");
        // Reading is allowed: a browser shows the page.
        assert_eq!(server.ask_with("GET", "/", &headers).await.status, 200, "{headers}");
    }
    assert_eq!((commits(&server), commits(&guarded)), (0, 0));
    let own = format!("origin: http://{here}\r\nsec-fetch-site: same-origin\r\n");
    assert_eq!(server.ask_with("POST", COMMIT, &own).await.status, 503);
    // Behind a proxy that encrypts.
    let own = format!("origin: https://x.example\r\n{authorization}");
    assert_eq!(guarded.ask_at("x.example", "POST", COMMIT, &own).await.status, 503);
    server.stop().await;
    guarded.stop().await;
}

/// A site that resolves its own name to 127.0.0.1 is of the same origin for the browser.
#[tokio::test]
async fn another_name_for_this_machine_may_not_command_without_a_token() {
    let server = behind(HERE, |door| door).await;
    for host in [
        "evil.example",
        "evil.example:9552",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "10.0.0.1:9552",
        "[::2]:9552",
        "0.0.0.0",
        "127.0.0.1/",
        "",
        "localhost\r\nhost: evil.example",
    ] {
        for origin in ["", "origin: http://evil.example\r\n"] {
            let got = server.ask_at(host, "POST", COMMIT, origin).await;
            assert!([400, 403].contains(&got.status), "{host}: {}", got.head);
        }
    }
    let absolute = format!("POST http://evil.example{COMMIT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(Reply::of(&server.raw(absolute.as_bytes()).await).status, 403);
    let no_host = format!("POST {COMMIT} HTTP/1.0\r\n\r\n");
    assert_eq!(Reply::of(&server.raw(no_host.as_bytes()).await).status, 403);
    assert_eq!(commits(&server), 0);
    for host in
        ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.1.2.3:80", "[::1]:9552"]
    {
        assert_eq!(server.ask_at(host, "POST", COMMIT, "").await.status, 503, "{host}");
    }
    server.stop().await;
}

#[tokio::test]
async fn protected_reads_tell_only_whether_all_is_well() {
    let server = behind(ELSEWHERE, |door| door.with_token(token(TOKEN), None, true)).await;
    let authorization = format!("authorization: Bearer {TOKEN}\r\n");
    for path in ["/metrics", "/api/v1/consumers", "/api/v1/watches"] {
        let got = server.ask("GET", path).await;
        assert_eq!(got.status, 401, "{path}");
        assert!(!got.body.contains("arch"), "{path}: {}", got.body);
        assert_eq!(server.ask_with("GET", path, &authorization).await.status, 200, "{path}");
        let wrong = "authorization: Bearer wrong\r\n";
        assert_eq!(server.ask_with("GET", path, wrong).await.status, 401, "{path}");
    }
    let ready = server.ask("GET", "/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "{\"ready\":false}\n"));
    let ready = server.ask_with("GET", "/readyz", &authorization).await;
    assert!(ready.status == 503 && ready.body.contains("no broker"), "{}", ready.body);
    assert_eq!(server.ask("GET", "/livez").await.body, "ok\n");
    // A probe with a token that was replaced: the daemon is healthy nevertheless.
    let wrong = server.ask_with("GET", "/livez", "authorization: Bearer x\r\n").await;
    assert_eq!((wrong.status, wrong.body.as_str()), (200, "ok\n"));
    server.stop().await;
}

#[tokio::test]
async fn a_stuck_loop_is_named_only_to_who_may_read() {
    let scripted = Scripted { stuck: Some("the loop \"secret\"".into()), ..Scripted::default() };
    let door = Door::at(HERE.parse().unwrap()).with_token(token(TOKEN), None, true);
    let server = Server::behind(Entrance { door, tls: None }, scripted, Limits::default()).await;
    let got = server.ask("GET", "/livez").await;
    assert_eq!((got.status, got.body.as_str()), (503, "a loop is stuck\n"));
    let authorization = format!("authorization: Bearer {TOKEN}\r\n");
    assert!(server.ask_with("GET", "/livez", &authorization).await.body.contains("secret"));
    server.stop().await;
}

#[tokio::test]
async fn the_tokens_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let (first, second) = ("the-first-token-1", "the-second-token-2");
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let path = file.clone();
    let server = behind(HERE, |door| door.with_token(token(first), Some(path), false)).await;
    let asked = async |text: &str| {
        let headers = format!("authorization: Bearer {text}\r\n");
        server.ask_with("POST", COMMIT, &headers).await.status
    };
    assert_eq!((asked(first).await, asked(second).await), (503, 401));
    // What is no token replaces none.
    for content in [&b""[..], b"\n", b"short\n", b"with a blank in it, but long\n", &[0xff; 32]] {
        std::fs::write(&file, content).unwrap();
        assert_eq!((asked(first).await, asked("").await), (503, 401), "{content:?}");
        assert_eq!(asked("short").await, 401);
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(asked(first).await, 503);
    std::fs::write(&file, second).unwrap();
    assert_eq!((asked(first).await, asked(second).await), (401, 503));
    server.stop().await;
}

/// Paths that mean something else to a file system, to another server, or to nobody.
#[tokio::test]
async fn odd_paths_lead_nowhere() {
    let server = behind(HERE, |door| door).await;
    let long = format!("/api/v1/consumers/{}/commit", "a".repeat(12_000));
    for (path, statuses) in [
        ("/../../etc/passwd", &[404][..]),
        ("/%2e%2e/%2e%2e/etc/passwd", &[404]),
        ("/api/v1/consumers/../../../livez", &[404]),
        ("/api/v1/consumers/..%2f..%2flivez/commit", &[404]),
        ("/api/v1/consumers/a%2fb/commit", &[404]),
        ("/api/v1/consumers/%00/commit", &[404]),
        ("/api/v1/consumers/%0d%0aset-cookie:%20a=b/commit", &[404]),
        ("/api/v1/consumers/%/commit", &[404]),
        ("/api/v1/consumers/%zz/commit", &[404]),
        ("/api/v1/consumers/%ff%fe/commit", &[400]),
        ("/api/v1//consumers/nobody/commit", &[404]),
        ("//api/v1/consumers/nobody/commit", &[404]),
        ("/api/v1/consumers/nobody/commit/", &[404]),
        ("/api/v1/consumers/nobody;/commit", &[404]),
        ("/API/v1/consumers/nobody/commit", &[404]),
        ("/api/v1/consumers/nobody/commit?x=%00&y=../..", &[400]),
        ("/api/v1/consumers/nobody/commit?stream=%00../..", &[404]),
        ("/api/v1/consumers/nobody/commit#fragment", &[404, 400]),
        (long.as_str(), &[404]),
        ("*", &[404, 400]),
        ("http://localhost/../commit", &[404]),
    ] {
        let got = server.ask("POST", path).await;
        assert!(statuses.contains(&got.status), "{path}: {}", got.head);
        // Nothing of the path may become a header.
        assert_eq!(got.header("set-cookie"), None, "{path}");
    }
    for path in [&b"/\xff\xfe"[..], b"/\x00", b"/\x7f", b"/a b"] {
        let request = [b"GET ", path, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        let got = Reply::of(&server.raw(&request).await);
        assert!([400, 404].contains(&got.status), "{path:?}: {}", got.head);
    }
    assert_eq!(server.ask("GET", "/livez").await.status, 200);
    server.stop().await;
}
