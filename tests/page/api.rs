//! The API against its description, by a fuzzer: every answer has to be one that the description allows, and
//! no request may make the daemon fail.

use std::path::Path;
use std::process::Command;

use super::TOKEN;
use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, python, streams};

async fn by_a_fuzzer() -> Result<(), Unavailable> {
    let python = python::of("schemathesis")?;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "api").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let consumer = |name: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
        )
    };
    let home = Home::new(&broker.uri(), &(consumer("a") + &consumer("b")));
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[admin]\n", &format!("[admin]\ntoken = \"{TOKEN}\"\n")))
        .unwrap();
    let mut daemon = home.start();
    daemon.until_durable("b", 9).await;
    let url = format!("http://{}/api/v1/openapi.json", daemon.admin_address());
    let mut command = Command::new(python.parent().unwrap().join("schemathesis"));
    // Draining would end the daemon that is being tested.
    command.args([
        "--config-file",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/schemathesis.toml"),
    ]);
    command.arg("run").arg(url);
    command.args(["--exclude-path", "/api/v1/drain", "--no-color", "--generation-deterministic"]);
    command.args(["-H", &format!("Authorization: Bearer {TOKEN}")]);
    command.arg(format!("--max-examples={}", env_or("RILLWAY_API_EXAMPLES", 20)));
    command.current_dir(home.path(Path::new("")));
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ran.status.success(), "{}\n{}\n{}", said[0], said[1], home.log_tail());
    daemon.until_durable("a", 9).await;
    daemon.terminate().await;
    assert!(!home.log().contains("panicked"), "{}", home.log_tail());
    Ok(())
}

#[tokio::test]
async fn the_api_is_as_it_is_described() {
    or_skip!(by_a_fuzzer().await);
}
