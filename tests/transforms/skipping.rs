//! One message in the way: skipped, or sent to the dead letters, by its offset, once.

use serde_json::{Value, json};

use super::*;

async fn skip(home: &Home, arguments: &[&str]) -> (i32, String) {
    let mut command = home.command(&["skip"]);
    command.args(arguments).args(["--url", &home.admin_address()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn one_message_in_the_way_is_skipped_or_set_aside() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "in-the-way").await;
            let mut messages = all(30);
            for bad in [5, 12, 20] {
                messages[bad] = message(format!("bad {bad}").as_bytes());
            }
            put(broker, &stream, &messages).await;
            let keys = "map = '{n}'\ndead_letter = { type = \"file\", dir = \"dead\" }\n";
            let sink = "{ type = \"sqlite\", path = \"x.db\", table = \"t\" }";
            let home = Home::new(&broker.uri(), &consumer("c", &stream, keys, sink));
            let mut daemon = home.start();
            let reason = daemon.until_halted("c").await;
            assert!(reason.contains("rillway skip c --offset 5"), "{reason}");

            // Only the message at which it has halted.
            for wrong in ["4", "6", "12"] {
                let (code, said) = skip(&home, &["c", "--offset", wrong]).await;
                assert_eq!(code, 69, "{said}");
                assert!(said.contains("it has halted at offset 5: only that message"), "{said}");
            }
            let (code, said) = skip(&home, &["nobody", "--offset", "5"]).await;
            assert_eq!(code, 64, "{said}");

            // It is passed, and the answer says so, whatever comes next: it halts there, as the policy is the same.
            let (code, said) = skip(&home, &["c", "--offset", "5", "--wait", "50s"]).await;
            assert_eq!(code, 0, "{said}");
            assert!(said.starts_with("c has left out the message, and goes on"), "{said}");
            daemon
                .until("c", "halted at 12", LONG, |c| {
                    c["state"] == "halted"
                        && c["reason"].as_str().is_some_and(|reason| reason.contains("--offset 12"))
                })
                .await;
            let lost = ["consumer=\"c\"", "reason=\"program\""];
            assert_eq!(daemon.metric("rillway_lost_messages_total", &lost).await, Some(1.0));
            assert!(home.log().contains("left out by order of an operator"), "{}", home.log_tail());

            // Into the dead letters, over HTTP. While they cannot be written, it is not passed, and the answer says
            // that.
            std::fs::rename(home.path("dead"), home.path("away")).unwrap();
            std::fs::write(home.path("dead"), "no folder").unwrap();
            let order = json!({"offset": 12, "dead_letter": true}).to_string();
            let path = format!("/api/v1/consumers/c/skip?stream={stream}&wait=1s");
            let answer = post(&daemon, &path, &order).await;
            assert_eq!(
                (&answer["verb"], &answer["finished"]),
                (&json!("skip"), &json!(false)),
                "{answer}"
            );
            let note = answer["note"].as_str().unwrap();
            assert!(note.contains("has not passed the message yet"), "{note}");
            std::fs::remove_file(home.path("dead")).unwrap();
            std::fs::rename(home.path("away"), home.path("dead")).unwrap();
            // It may have halted because of that; the order stands.
            post(&daemon, "/api/v1/consumers/c/restart?wait=0s", "").await;
            daemon
                .until("c", "halted at 20", LONG, |c| {
                    c["state"] == "halted"
                        && c["reason"].as_str().is_some_and(|reason| reason.contains("--offset 20"))
                })
                .await;
            assert_eq!(home.offsets("dead", &stream), [12]);

            // An order that a crash forgets: it halts there again.
            daemon.kill();
            let mut daemon = home.start();
            let reason = daemon.until_halted("c").await;
            assert!(reason.contains("--offset 20"), "{reason}");
            let (code, said) = skip(&home, &["c", "--offset", "20"]).await;
            assert_eq!(code, 0, "{said}");
            assert!(said.starts_with("c has left out the message, and goes on"), "{said}");
            daemon.until_durable("c", 29).await;
            let (code, said) = skip(&home, &["c", "--offset", "20"]).await;
            assert!(
                code == 69 && said.contains("only the message at which a consumer has halted"),
                "{said}"
            );
            daemon.terminate().await;
            let lite = rusqlite::Connection::open(home.path("x.db")).unwrap();
            let mut rows = lite.prepare("SELECT offset FROM t ORDER BY offset").unwrap();
            let rows: Vec<i64> =
                rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            assert_eq!(rows, (0..30).filter(|n| ![5, 12, 20].contains(n)).collect::<Vec<i64>>());
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

async fn post(daemon: &crate::common::daemon::Daemon, path: &str, body: &str) -> Value {
    let (address, path, body) = (daemon.admin_address(), path.to_owned(), body.to_owned());
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{error}: {answer}"))
}
