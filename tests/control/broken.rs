//! Configurations that cannot be used: each is refused with the file, the line, the key and what to do, and
//! changes nothing.

use serde_json::{Value, json};

use super::{LONG, broker_lines, filer, post, told};
use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// What is done to the good file, and what is to be said about it.
struct Broken {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    /// Path of the key; empty if the whole file is wrong.
    key: &'static str,
    /// Beginning of the line that is to be named; `None` if the key is not in the file.
    line: Option<&'static str>,
    /// What to do.
    remedy: &'static str,
}

const TABLE: [Broken; 15] = [
    Broken {
        what: "a syntax error",
        from: "[log]",
        to: "[log",
        key: "",
        line: Some("[log"),
        remedy: "not valid TOML",
    },
    Broken {
        what: "a text without quotes",
        from: "level = \"debug\"",
        to: "level = debug",
        key: "",
        line: Some("level"),
        remedy: "put a text in quotes",
    },
    Broken {
        what: "a key twice",
        from: "level = \"debug\"",
        to: "level = \"debug\"\nlevel = \"info\"",
        key: "",
        line: Some("level = \"info\""),
        remedy: "remove one of them",
    },
    Broken {
        what: "a misspelt key",
        from: "memory = \"8MiB\"",
        to: "memmory = \"8MiB\"",
        key: "consumer[0].memmory",
        line: Some("memmory"),
        remedy: "did you mean `memory`",
    },
    Broken {
        what: "a value out of range",
        from: "memory = \"8MiB\"",
        to: "memory = \"8KiB\"",
        key: "consumer[0].memory",
        line: Some("memory"),
        remedy: "at least 1MiB",
    },
    Broken {
        what: "a value of another kind",
        from: "memory = \"8MiB\"",
        to: "memory = true",
        key: "consumer[0].memory",
        line: Some("memory"),
        remedy: "expected a whole number of bytes",
    },
    Broken {
        what: "a sink that does not exist",
        from: "type = \"file\"",
        to: "type = \"fiel\"",
        key: "consumer[0].sink.type",
        line: Some("sink"),
        remedy: "did you mean \"file\"?",
    },
    Broken {
        what: "a missing key",
        from: "stream = ",
        to: "#stream = ",
        key: "consumer[0]",
        line: Some("[[consumer]]"),
        remedy: "the key `stream` is missing",
    },
    Broken {
        what: "two of one name",
        from: "name = \"b\"",
        to: "name = \"a\"",
        key: "consumer[1].name",
        line: Some("name = \"a\""),
        remedy: "choose another name",
    },
    Broken {
        what: "two with one destination",
        from: "dir = \"b\"",
        to: "dir = \"a\"",
        key: "consumer[1].sink.dir",
        line: Some("sink"),
        remedy: "give one of them another `dir`",
    },
    Broken {
        what: "a secret that cannot be read",
        from: "heartbeat",
        to: "password = { file = \"nowhere\" }\nheartbeat",
        key: "broker.password",
        line: Some("password"),
        remedy: "cannot read the secret from",
    },
    Broken {
        what: "no consumer at all",
        from: "[[consumer]]",
        to: "[[comsumer]]",
        key: "comsumer",
        line: Some("[[comsumer]]"),
        remedy: "did you mean `consumer`",
    },
    Broken {
        what: "another address of the admin server",
        from: "listen = \"127.0.0.1:",
        to: "listen = \"127.0.0.2:",
        key: "admin.listen",
        line: Some("listen"),
        remedy: "restart rillway to change it, or restore the value that is in use (\"127.0.0.1:",
    },
    Broken {
        what: "another folder of state",
        from: "state_dir = \"state\"",
        to: "state_dir = \"other\"",
        key: "state_dir",
        line: Some("state_dir"),
        remedy: "restart rillway to change it",
    },
    Broken {
        what: "another format of the log",
        from: "[log]",
        to: "[log]\nformat = \"json\"",
        key: "log.format",
        line: Some("format"),
        remedy: "restart rillway to change it",
    },
];

async fn refused() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "broken").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let memory = "memory = \"8MiB\"";
    let both = [filer("a", &stream, "a", memory), filer("b", &stream, "b", "")].concat();
    let home = Home::new(&broker.uri(), &both);
    let path = home.path("rillway.toml");
    let url = format!("http://{}", home.admin_address());
    let good = std::fs::read_to_string(&path).unwrap();
    let mut daemon = home.start();
    for name in ["a", "b"] {
        daemon.until_durable(name, 99).await;
    }
    let success = "rillway_config_reload_success";
    let time = "rillway_config_last_reload_timestamp_seconds";
    assert_eq!(daemon.metric(success, &[]).await, Some(1.0));
    let loaded_at = daemon.metric(time, &[]).await;
    let mut failed = 0.0;
    for Broken { what, from, to, key, line, remedy } in TABLE {
        assert!(good.contains(from), "{what}");
        // Besides, a change that could be made: nothing of the file is applied.
        let text = good.replacen(from, to, 1) + &filer("more", &stream, "more", "");
        std::fs::write(&path, &text).unwrap();
        let number = line.map(|line| 1 + text.lines().position(|l| l.starts_with(line)).unwrap());
        // The second of two lines that begin alike.
        let number = match key {
            "consumer[1].name" | "consumer[1].sink.dir" => {
                let begins = |(_, l): &(usize, &str)| l.starts_with(line.unwrap());
                text.lines().enumerate().filter(begins).nth(1).map(|(at, _)| at + 1)
            }
            _ => number,
        };

        let (status, answer) = post(&daemon, "reload").await;
        failed += 1.0;
        assert_eq!(status, 422, "{what}: {answer}");
        let problem = answer["problems"].as_array().unwrap().iter().find(|p| p["key"] == key);
        let problem = problem.unwrap_or_else(|| panic!("{what}: {answer}"));
        assert_eq!(problem["file"], path.display().to_string(), "{what}");
        assert_eq!(problem["line"], json!(number), "{what}: {answer}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(remedy), "{what}: {message}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(&path.display().to_string()) && error.contains(remedy), "{error}");

        let (code, said) = told(&home, &["reload", "--url", &url]).await;
        failed += 1.0;
        assert_eq!(code, Some(78), "{what}: {said}");
        assert!(said.contains(remedy), "{what}: {said}");
        assert!(number.is_none_or(|number| said.contains(&format!("line {number}"))), "{said}");

        assert_eq!(daemon.metric(success, &[]).await, Some(0.0), "{what}");
        assert_eq!(daemon.metric(time, &[]).await, loaded_at, "{what}");
        let count = daemon.metric("rillway_config_reloads_total", &["failed"]).await;
        assert_eq!(count, Some(failed), "{what}");
        let (_, config) = daemon.http("GET", "/api/v1/config").await.unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["sha256"], rillway::config::sha256(good.as_bytes()), "{what}");
        assert_eq!(config["last_reload"]["result"], "failed", "{what}");
        assert!(config["last_reload"]["error"].as_str().unwrap().contains(remedy), "{what}");
        assert!(daemon.consumer("more").await.is_none(), "{what}: half of it was applied");
    }
    let log = home.log();
    for Broken { what, remedy, .. } in TABLE {
        let is_told = |line: &str| {
            line.contains("ERROR")
                && line.contains("not reloaded")
                && line.replace('\\', "").contains(&remedy.replace('\\', ""))
        };
        assert!(log.lines().any(is_told), "{what} is not in the log");
    }
    for name in ["a", "b"] {
        let consumer = daemon.consumer(name).await.unwrap();
        assert_eq!((&consumer["restarts"], &consumer["ready"]), (&json!(0), &json!(true)));
    }
    streams::publish(broker, &stream, (100..200).map(body)).await;
    for name in ["a", "b"] {
        daemon.until_durable(name, 199).await;
    }
    // A file that is not there, and then a good one.
    std::fs::remove_file(&path).unwrap();
    let (status, answer) = post(&daemon, "reload").await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("cannot read the configuration file"));
    home.configure(&broker_lines(&broker.uri()), &both);
    let (status, answer) = post(&daemon, "reload").await;
    assert_eq!((status, &answer["result"]), (200, &json!("unchanged")), "{answer}");
    assert_eq!(daemon.metric(success, &[]).await, Some(1.0));
    assert!(daemon.metric(time, &[]).await > loaded_at);
    daemon.until("a", "it runs", LONG, |c| c["ready"] == true).await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn broken_configurations_are_told_and_change_nothing() {
    or_skip!(refused().await);
}
