//! A halted consumer, and one of several daemons: repaired, and moved, without a restart.

use serde_json::{Value, json};

use super::{LONG, SMALL, broker_lines, filer, post, told};
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

async fn repaired() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "repaired").await;
    streams::publish(broker, &stream, (0..50).map(body)).await;
    streams::publish(broker, &stream, ["not JSON".to_owned()]).await;
    streams::publish(broker, &stream, (50..100).map(body)).await;
    let rows = |rest: &str| {
        format!(
            "[[consumer]]\nname = \"rows\"\nstream = \"{stream}\"\n{SMALL}\n{rest}\n\
             sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"rows\", columns = {{ i = {{ from = \"/i\", type = \"integer\" }} }} }}\n"
        )
    };
    let beside = filer("beside", &stream, "beside", "");
    let home = Home::new(&broker.uri(), &[rows(""), beside.clone()].concat());
    let mut daemon = home.start();
    let reason = daemon.until_halted("rows").await;
    daemon.until_durable("beside", 100).await;

    // An order to start anew is carried out, and it halts again. The answer says so, unless it came while the
    // consumer still ran.
    let (status, answer) = post(&daemon, "consumers/rows/restart").await;
    if answer["streams"][0]["state"] == "halted" {
        assert_eq!((status, &answer["finished"]), (202, &json!(false)), "{answer}");
        assert_eq!(answer["streams"][0]["reason"], reason, "{answer}");
    } else {
        assert_eq!((status, &answer["finished"]), (200, &json!(true)), "{answer}");
    }
    daemon.until_halted("rows").await;
    let (code, said) = told(&home, &["restart", "rows"]).await;
    let halted = said.contains("restart is not finished") && said.contains("is halted");
    let runs = said.starts_with("rows was restarted, and runs");
    assert!(code == Some(69) && halted || code == Some(0) && runs, "{said}");
    daemon.until_halted("rows").await;
    // Resuming is no repair, and says so too.
    let (status, answer) = post(&daemon, "consumers/rows/resume").await;
    assert_eq!((status, &answer["streams"][0]["state"]), (202, &json!("halted")), "{answer}");
    // A reload that does not change it does not touch it.
    let (_, answer) = post(&daemon, "reload").await;
    assert_eq!(answer["result"], "unchanged");
    assert_eq!(daemon.consumer("rows").await.unwrap()["state"], "halted");

    // An edited file and a reload: it goes on.
    let text = [rows("on_bad_message = \"skip\""), beside].concat();
    home.configure(&broker_lines(&broker.uri()), &text);
    let (code, said) = told(&home, &["reload"]).await;
    assert_eq!((code, said.trim_end()), (Some(0), "reloaded: changed rows; unchanged: 1"));
    daemon.until_durable("rows", 100).await;
    assert_eq!(daemon.consumer("beside").await.unwrap()["restarts"], 0);
    daemon.terminate().await;
    let database = rusqlite::Connection::open(home.path("rows.db")).unwrap();
    let sum: (i64, i64) = database
        .query_row("SELECT count(*), sum(i) FROM rows", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(sum, (100, 99 * 100 / 2));
    Ok(())
}

#[tokio::test]
async fn a_halted_consumer_is_repaired_by_an_edited_file() {
    or_skip!(repaired().await);
}

/// Two daemons share a single active consumer: a pause of the active one gives it to the other, in order.
async fn handed_over() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "handed-over").await;
    let shared = tempfile::tempdir().unwrap();
    let dir = shared.path().join("files");
    let consumer = filer("one", &stream, dir.to_str().unwrap(), "single_active = true");
    let homes = [(); 2].map(|()| Home::new(&broker.uri(), &consumer));
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut first = homes[0].start();
    let active = |c: &Value| c["state"] == "running" && c["durable_offset"].is_u64();
    first.until("one", "it is active", LONG, active).await;
    let mut second = homes[1].start();
    second.until("one", "it stands by", LONG, |c| c["state"] == "passive").await;

    let (status, answer) = post(&first, "consumers/one/pause").await;
    assert_eq!((status, &answer["finished"]), (200, &json!(true)), "{answer}");
    let stored = answer["streams"][0]["stored_offset"].as_u64().unwrap();
    let taken = second.until("one", "it takes over", LONG, active).await;
    assert_eq!(taken["restarts"], 0, "in order");
    let moved = |c: &Value| c["durable_offset"].as_u64() > Some(stored);
    second.until("one", "it goes on where the other one stopped", LONG, moved).await;
    assert_eq!(first.consumer("one").await.unwrap()["state"], "paused");

    // Resumed, it stands by; and the other way round.
    let (status, answer) = post(&first, "consumers/one/resume").await;
    assert_eq!((status, &answer["streams"][0]["state"]), (200, &json!("passive")), "{answer}");
    assert_eq!(post(&second, "consumers/one/pause").await.0, 200);
    first.until("one", "it is active again", LONG, active).await;
    let total = load.stop().await;
    first.until_durable("one", total - 1).await;
    first.terminate().await;
    second.terminate().await;
    let files = Home::new(&broker.uri(), "");
    std::os::unix::fs::symlink(&dir, files.path("files")).unwrap();
    assert_exact("two daemons", &files.lines("files", &stream), total);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_single_active_consumer_is_handed_over_in_order() {
    or_skip!(handed_over().await);
}
