//! The status page in a real Chromium, and `rillway status` on a real terminal: thirty consumers, of which one
//! has halted, one lags and one stands by.
//!
//! `UPDATE_SCREENSHOTS=1 cargo test --test all page::` writes the pictures of docs/images. With a larger number, that
//! many seconds of load come first, for the charts.

mod api;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, python, streams};

const TOKEN: &str = "the-token-of-the-pages-buttons";

/// The folder for pictures: that of the documentation, if they are to be updated.
fn pictures(home: &Home) -> PathBuf {
    match std::env::var_os("UPDATE_SCREENSHOTS") {
        Some(_) => Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images"),
        None => home.path(""),
    }
}

/// Publishes more and less for as long as the pictures are to show.
async fn load(events: &str) {
    let seconds =
        std::env::var("UPDATE_SCREENSHOTS").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(seconds) = seconds.filter(|seconds| *seconds > 1) else { return };
    let broker = Broker::shared(Version::V4_3).await.unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    for nth in (0_u32..).take_while(|_| Instant::now() < end) {
        let count =
            60.0 + 50.0 * (f64::from(nth) / 20.0).sin() + 15.0 * (f64::from(nth) / 3.0).sin();
        streams::publish(broker, events, (0..count.max(1.0) as u64).map(body)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Thirty consumers and the daemon that has the active instance of one.
struct Scene {
    home: Home,
    daemon: Option<Daemon>,
    other: Option<Daemon>,
    events: String,
    odd: String,
    _other_home: Home,
    _slow: Web,
    pace: AbortHandle,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.pace.abort();
    }
}

fn consumer(name: &str, stream: &str, sink: &str, more: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ {sink} }}\n{more}\n")
}

impl Scene {
    async fn set(label: &str) -> Result<Scene, Unavailable> {
        let broker = Broker::shared(Version::V4_3).await?;
        let events = streams::create(broker, &format!("{label}-events")).await;
        let odd = streams::create(broker, &format!("{label}-odd")).await;
        streams::publish(broker, &events, (0..1000).map(body)).await;
        streams::publish(broker, &odd, ["{\"i\":\"no number\"}"]).await;
        let shared = consumer(
            "passive",
            &events,
            "type = \"null\"",
            &format!("reference = \"{label}-shared\"\nsingle_active = true"),
        );
        let other_home = Home::new(&broker.uri(), &shared);
        let mut other = other_home.start();
        other.until_durable("passive", 999).await;

        let mut all = shared;
        for nth in 1..=26 {
            let stream = if nth == 26 { &odd } else { &events };
            all += &consumer(&format!("consumer-{nth:02}"), stream, "type = \"null\"", "");
        }
        let (parts, partitions) = streams::create_super(broker, &format!("{label}-parts"), 2).await;
        streams::publish(broker, &partitions[1], (0..20).map(body)).await;
        all += &consumer("consumer-27", &parts, "type = \"null\"", "")
            .replace("\nstream =", "\nsuper_stream =");
        // A service that takes a message now and then.
        let gate = Arc::new(Semaphore::new(0));
        let slow = {
            let gate = Arc::clone(&gate);
            Web::start(move |_| Reply::When(Arc::clone(&gate), Box::new(Reply::Keep))).await
        };
        let pace = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                gate.add_permits(1);
            }
        });
        let sink =
            format!("type = \"http\", url = \"{}\", max_records = 1, in_flight = 1", slow.url());
        all += &consumer("lagging", &events, &sink, "batch = { max_messages = 1 }");
        let table = "type = \"sqlite\", path = \"rows.db\", columns = { i = { from = \"/i\", type = \"integer\" } }";
        all += &consumer("halted", &odd, table, "");
        let home = Home::new(&broker.uri(), &all);
        let path = home.path("rillway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("[admin]\n", &format!("[admin]\ntoken = \"{TOKEN}\"\n"));
        std::fs::write(&path, text).unwrap();
        let mut daemon = home.start();
        daemon.until_halted("halted").await;
        let is = |state: &'static str| move |consumer: &Value| consumer["state"] == state;
        for nth in 1..=27 {
            let name = format!("consumer-{nth:02}");
            daemon.until(&name, "it runs", Duration::from_secs(60), is("running")).await;
        }
        daemon.until("passive", "it stands by", Duration::from_secs(60), is("passive")).await;
        let lags = |consumer: &Value| {
            consumer["state"] == "running" && consumer["lag_seconds"].as_f64() >= Some(60.0)
        };
        // Its messages are as old as that by then.
        daemon.until("lagging", "it lags by a minute", Duration::from_secs(120), lags).await;
        Ok(Scene {
            home,
            daemon: Some(daemon),
            other: Some(other),
            events,
            odd,
            _other_home: other_home,
            _slow: slow,
            pace: pace.abort_handle(),
        })
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    async fn end(mut self) {
        for daemon in [self.daemon.take(), self.other.take()].into_iter().flatten() {
            daemon.terminate().await;
        }
    }
}

/// Where the browser is, if this machine has one.
fn chromium() -> Result<PathBuf, Unavailable> {
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = || std::env::split_paths(&path);
    let found =
        names.iter().find_map(|name| places().map(|dir| dir.join(name)).find(|p| p.is_file()));
    found.ok_or_else(|| Unavailable("there is no Chromium".to_owned()))
}

/// What the page is made from: errors, rates and the last hour, of consumers that work and of one that does not.
async fn figures(daemon: &Daemon) {
    let halted = daemon.consumer("halted").await.unwrap();
    assert!(
        halted["last_error"].is_string() && halted["last_error"] == halted["reason"],
        "{halted}"
    );
    let ages =
        ["state_age_seconds", "last_error_age_seconds"].map(|key| halted[key].as_f64().unwrap());
    assert!(ages[0] >= 10.0 && ages[1] >= 10.0, "since it halted: {halted}");
    let works = daemon.consumer("consumer-01").await.unwrap();
    assert_eq!(
        (&works["last_error"], &works["last_error_age_seconds"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(works["received_messages_per_second"], 0.0, "{works}");
    let (_, text) = daemon.http("GET", "/api/v1/history").await.unwrap();
    let history: Value = serde_json::from_str(&text).unwrap();
    let all = history["consumers"].as_array().unwrap();
    assert_eq!(all.len(), 31, "30 consumers, of which one has two partitions");
    let lagging = all.iter().find(|one| one["name"] == "lagging").unwrap();
    let lags = lagging["lag_seconds"].as_array().unwrap();
    // One at the start, and then one for every half a minute.
    assert!((2..=12).contains(&lags.len()), "{lagging}");
    assert!(lags.last().unwrap().as_f64() >= Some(20.0), "{lagging}");
}

async fn in_a_browser() -> Result<(), Unavailable> {
    let python = python::of("browser")?;
    let chromium = chromium()?;
    let scene = Scene::set("page").await?;
    figures(scene.daemon()).await;
    load(&scene.events).await;
    let url = format!("http://{}/", scene.daemon().admin_address());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/browser.py");
    let folder = pictures(&scene.home);
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(python);
    command.arg(script).arg(chromium).arg(url).arg(TOKEN).arg(&folder);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ran.status.success(), "{}\n{}\n{}", said[0], said[1], scene.home.log_tail());
    println!("{}", said[0].trim_end());
    let pictures =
        ["desktop-light", "desktop-dark", "phone-light", "phone-dark", "move-phone-dark"];
    for picture in pictures {
        let bytes = std::fs::metadata(folder.join(format!("status-{picture}.png"))).unwrap().len();
        assert!((2_000..400_000).contains(&bytes), "{picture}: {bytes} bytes");
    }
    scene.end().await;
    Ok(())
}

#[tokio::test]
async fn the_page_in_a_browser() {
    or_skip!(in_a_browser().await);
}
