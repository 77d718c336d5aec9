//! Consumers with programs, a filter and bad messages: what should be there is what the consumer makes, in each
//! sink.

use std::time::Duration;

use super::{assert_same, consumer, differences, report};
use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const TOTAL: u64 = 600;

/// Of ten messages one is no JSON, one makes `map` fail, and three are not wanted.
fn body(n: u64) -> String {
    match n % 10 {
        3 => format!("no JSON {n}"),
        7 => format!("{{\"n\":{n},\"kind\":\"a\",\"v\":\"text\"}}"),
        0 | 4 | 8 => format!("{{\"n\":{n},\"kind\":\"b\",\"v\":1}}"),
        _ => format!("{{\"n\":{n},\"kind\":\"a\",\"v\":{n}}}"),
    }
}

const PROGRAMS: &str = "where = '.kind == \"a\"'\n\
    map = '{id: .n, double: (.v | if type == \"number\" then . * 2 else error(\"no number\") end)}'\n";

/// In the sinks of these names; in all, if there are none.
async fn in_sinks(names: &[&str], policy: &str) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let (schema, url) = (postgres.schema().await, postgres.url());
    let stream = streams::create(broker, "verified-programs").await;
    streams::publish(broker, &stream, (0..TOTAL).map(body)).await;
    let rows = "columns = { id = { from = \"/id\", type = \"integer\" }, double = { from = \"/double\", type = \"integer\" } }";
    let keyed = format!("mode = \"upsert\", key = [\"id\"], {rows}");
    let all = [
        ("file", "type = \"file\", dir = \"file\"".to_owned()),
        ("raw", "type = \"file\", dir = \"raw\", format = \"raw\"".to_owned()),
        ("lite", format!("type = \"sqlite\", path = \"data.db\", table = \"t\", {rows}")),
        (
            "lite_keyed",
            format!("type = \"sqlite\", path = \"data.db\", table = \"keyed\", {keyed}"),
        ),
        (
            "pg",
            format!(
                "type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"t\", {rows}"
            ),
        ),
        (
            "pg_keyed",
            format!(
                "type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"keyed\", {keyed}"
            ),
        ),
        ("table", format!("type = \"object\", url = \"table\", {rows}")),
        (
            "copy",
            format!(
                "type = \"stream\", stream = \"{stream}-copy\", create = true, annotate = true"
            ),
        ),
        ("bare", format!("type = \"stream\", stream = \"{stream}-bare\", create = true")),
    ];
    let is_wanted = |name: &str| names.is_empty() || names.contains(&name);
    let sinks: Vec<_> = all.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    let of = |policy: &dyn Fn(&str) -> String, programs: &str| -> String {
        let one = |(name, sink): &(&str, String)| {
            consumer(name, &stream, sink) + programs + &policy(name)
        };
        sinks.iter().map(one).collect()
    };
    let policy = |name: &str| policy.replace("NAME", name);
    let home = Home::new(&broker.uri(), &of(&policy, PROGRAMS));
    let mut daemon = home.start();
    for (name, _) in &sinks {
        daemon
            .until(name, "it has read everything", Duration::from_secs(60), |c| {
                assert_ne!(c["state"], "halted", "{name}: {c}");
                c["received_offset"].as_u64().is_some_and(|offset| offset + 1 >= TOTAL)
            })
            .await;
    }
    daemon.terminate().await;
    for (name, _) in &sinks {
        let (found, code) = report(&home, &[name]);
        assert_same(name, &found, code);
        // What stands behind the last message of a target is not in its position.
        let upto = found["to"].as_u64().unwrap() + 1;
        assert!(upto + 3 > TOTAL, "{name}: {found:#}");
        let of = |digits: &[u64]| (0..upto).filter(|n| digits.contains(&(n % 10))).count();
        let bad = if policy(name).contains("dead") { "dead_letters" } else { "left_out" };
        assert_eq!(found[bad]["count"], of(&[3, 7]), "{name}: {found:#}");
        assert_eq!(found["filtered"], of(&[0, 4, 8]), "{name}: {found:#}");
        assert_eq!(found["same"], of(&[1, 2, 5, 6, 9]), "{name}: {found:#}");
    }
    // Another program would have made others.
    let other = PROGRAMS.replace(". * 2", ". * 3");
    home.configure(&format!("uri = \"{}\"", broker.uri()), &of(&policy, &other));
    for (name, _) in &sinks {
        let (found, code) = report(&home, &[name]);
        assert_eq!(code, 65, "{name}: {found:#}");
        assert_eq!(found["same"], 0, "{name}: {} {found:#}", differences(&found));
        assert!(found["altered"]["count"].as_u64() >= Some(299), "{name}: {found:#}");
    }
    Ok(())
}

#[tokio::test]
async fn what_programs_make_is_expected_and_what_they_refuse_is_left_out() {
    or_skip!(in_sinks(&[], "on_bad_message = \"skip\"\n").await);
}

#[tokio::test]
async fn what_programs_refuse_is_looked_up_among_the_dead_letters() {
    or_skip!(
        in_sinks(
            &["file", "lite_keyed", "bare"],
            "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"dead-NAME\" }\n"
        )
        .await
    );
}
