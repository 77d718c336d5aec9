//! `rillway run --watch-config`: is a changed file noticed, however it was changed?

use std::os::unix::fs::symlink;
use std::process::Stdio;

use serde_json::Value;

use super::{LONG, filer};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

async fn until_it_has(daemon: &Daemon, names: &[&str]) {
    eventually(&format!("it has {names:?}"), LONG, || async {
        let (_, body) = daemon.http("GET", "/api/v1/consumers").await?;
        let all: Value = serde_json::from_str(&body).unwrap();
        let all = all["consumers"].as_array().unwrap();
        let mut shown: Vec<_> = all.iter().map(|c| c["name"].as_str().unwrap()).collect();
        shown.sort_unstable();
        (shown == names).then_some(())
    })
    .await;
}

async fn by_any_change() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "watched-file").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let home = Home::new(&broker.uri(), &filer("a", &stream, "a", ""));
    let path = home.path("rillway.toml");
    let first = std::fs::read_to_string(&path).unwrap();
    let with = |name: &str| first.clone() + &filer(name, &stream, name, "");
    // As Kubernetes mounts a ConfigMap: the file is a link into a folder that is a link itself.
    let release = |nth: u32, text: &str| {
        let folder = home.path(format!("..release-{nth}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("rillway.toml"), text).unwrap();
        symlink(format!("..release-{nth}"), home.path("..data-new")).unwrap();
        std::fs::rename(home.path("..data-new"), home.path("..data")).unwrap();
    };
    let command = home.command(&["run", "--watch-config"]);
    let mut daemon = home.spawn(command, Stdio::null());
    daemon.until_durable("a", 99).await;

    // In place, and by a rename.
    std::fs::write(&path, with("b")).unwrap();
    until_it_has(&daemon, &["a", "b"]).await;
    std::fs::write(home.path("new"), with("c")).unwrap();
    std::fs::rename(home.path("new"), &path).unwrap();
    until_it_has(&daemon, &["a", "c"]).await;

    // A broken one is told once, and the next good one is taken.
    std::fs::write(&path, "nonsense").unwrap();
    eventually("it is told", LONG, || async {
        let failed = daemon.metric("rillway_config_reload_success", &[]).await?;
        (failed == 0.0).then_some(())
    })
    .await;
    // A file that is away for a moment is no change.
    std::fs::remove_file(&path).unwrap();
    release(1, &with("d"));
    symlink("..data/rillway.toml", &path).unwrap();
    until_it_has(&daemon, &["a", "d"]).await;
    release(2, &with("e"));
    until_it_has(&daemon, &["a", "e"]).await;
    assert_eq!(daemon.metric("rillway_config_reload_success", &[]).await, Some(1.0));
    let failed = daemon.metric("rillway_config_reloads_total", &["failed"]).await;
    assert_eq!(failed, Some(1.0), "once for one content");
    assert_eq!(daemon.consumer("a").await.unwrap()["restarts"], 0);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_changed_file_is_noticed() {
    or_skip!(by_any_change().await);
}
