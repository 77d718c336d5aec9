//! Does `rillway publish` publish exactly its input, and report so? On 3.10 too, where the official
//! client needs help to connect.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

fn run(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

async fn publishes(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::unique("publish");
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"file\", dir = \"out\" }}\n"
        ),
    );
    let publish = |more: &[&str]| {
        let mut command = home.command(&["publish", &stream]);
        command.args(more);
        command
    };
    let missing = run(publish(&["--generate", "1"]), "");
    assert_eq!(missing.status.code(), Some(69));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.contains(&stream) && said.contains("--create"), "{said}");

    let generated = run(publish(&["--create", "--generate", "5000", "--size", "200"]), "");
    assert!(generated.status.success(), "{generated:?}");
    assert!(String::from_utf8_lossy(&generated.stdout).contains("5000 confirmed"), "{generated:?}");
    let lines = run(publish(&["--lines"]), "one\ntwo\n\nfour");
    assert!(lines.status.success(), "{lines:?}");
    let wrong = run(publish(&["--ndjson"]), "{\"a\":1}\nnot json\n");
    assert_eq!(wrong.status.code(), Some(64), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("line 2"), "{wrong:?}");

    let mut daemon = home.start();
    daemon.until_durable("c", 5003).await;
    daemon.terminate().await;
    let lines = home.lines("out", &stream);
    for (seq, line) in lines[..5000].iter().enumerate() {
        assert_eq!(line["body"]["seq"].as_u64(), u64::try_from(seq).ok());
    }
    // The text as it is in the file: read as JSON, 1.50 would become 1.5.
    let text = std::fs::read_to_string(&home.segments("out", &stream)[0]).unwrap();
    for line in text.lines().take(5000) {
        let (_, rest) = line.split_once("\"body\":").unwrap();
        let (body, _) = rest.rsplit_once(",\"body_encoding\"").unwrap();
        assert_eq!(body.len(), 200, "{line}");
    }
    let texts: Vec<_> = lines[5000..5004].iter().map(|line| line["body"].clone()).collect();
    assert_eq!(texts, ["one", "two", "", "four"]);
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test]
async fn what_it_is_given_on_rabbitmq_3_10() {
    or_skip!(publishes(Version::V3_10).await);
}

#[tokio::test]
async fn what_it_is_given_on_rabbitmq_4_0() {
    or_skip!(publishes(Version::V4_0).await);
}

#[tokio::test]
async fn what_it_is_given_on_rabbitmq_4_3() {
    or_skip!(publishes(Version::V4_3).await);
}
