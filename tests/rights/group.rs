//! May a member of the service's group read what Rillway writes, and nobody else? As the unit of `deploy/systemd`
//! sets it: a folder of mode 0750 and a umask of 0027. While it runs, after a crash, and after a normal end.

use std::process::Output;

use super::*;
use crate::common::rstream::set_up_by_script;

/// A member of the group (NOBODY's), and one who is not.
const ANALYST: (u32, u32) = (54_322, NOBODY);
const STRANGER: (u32, u32) = (54_323, 54_323);

const DATABASE: &str = "data/analytics.db";

/// The daemon with the unit's umask.
fn as_the_unit_does(program: &Program, home: &Home) -> Command {
    let run = program.command(home, &["run"]);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0027 && exec \"$@\"", "sh"]).arg(&program.path);
    command.args(run.get_args()).current_dir(home.path("")).uid(NOBODY).gid(NOBODY);
    command
}

/// What SQLite's own program answers this user.
fn asked(home: &Home, (user, group): (u32, u32), database: &str, sql: &str) -> Output {
    let mut sqlite3 = Command::new("sqlite3");
    sqlite3.args(["-bail", database, sql]).current_dir(home.path("")).uid(user).gid(group);
    sqlite3.output().unwrap()
}

fn count(home: &Home, database: &str) -> Result<u64, String> {
    let output = asked(home, ANALYST, database, "SELECT count(*) FROM messages");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

async fn readers() -> Result<(), Unavailable> {
    let program = Program::for_everybody()?;
    set_up_by_script("sqlite3")?;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "rights-group").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let sink = "{ type = \"sqlite\", path = \"data/analytics.db\", table = \"messages\" }";
    let home = Home::new(&broker.uri(), &consumer("analytics", &stream, sink));
    let data = closed(&home, "data");
    std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(&data, 0o750);
    set_mode(&closed(&home, "state"), 0o777);
    let spawn = || home.spawn(as_the_unit_does(&program, &home), std::process::Stdio::null());

    let mut daemon = spawn();
    daemon.until_durable("analytics", 9).await;
    assert_eq!(count(&home, DATABASE), Ok(10), "while it runs");
    let written = asked(&home, ANALYST, DATABASE, "DELETE FROM messages");
    let why = String::from_utf8(written.stderr).unwrap();
    assert!(why.contains("readonly database"), "a reader changes nothing: {why}");
    let stranger = asked(&home, STRANGER, DATABASE, "SELECT 1 FROM messages");
    assert!(!stranger.status.success(), "who is not in the group reads nothing");

    daemon.kill();
    assert_eq!(count(&home, DATABASE), Ok(10), "after a crash");

    // A normal end removes the log and its index. Who may not make them anew has to say that there are none.
    let mut daemon = spawn();
    streams::publish(broker, &stream, (10..20).map(body)).await;
    daemon.until_durable("analytics", 19).await;
    daemon.terminate().await;
    let refused = count(&home, DATABASE).unwrap_err();
    assert!(refused.contains("readonly database"), "{refused}");
    assert_eq!(count(&home, "file:data/analytics.db?immutable=1"), Ok(20), "after a normal end");

    // No reader left anything behind that would stop the daemon.
    let mut daemon = spawn();
    streams::publish(broker, &stream, (20..30).map(body)).await;
    daemon.until_durable("analytics", 29).await;
    assert_eq!(count(&home, DATABASE), Ok(30));
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn an_analyst_in_the_group_reads_the_database() {
    or_skip!(readers().await);
}
